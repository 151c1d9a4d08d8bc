"""Meta's FP8 files as torch writes them: quantised, saved and multiplied back by torch itself."""

import json
from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest
import torch

from llama_ref.checkpoint.meta import CUT_BY_COLUMNS
from llama_ref.loading import open_checkpoint
from llama_ref.names import expected_shapes
from tests.models import TINY
from weights_tools.__main__ import main
from weights_tools.meta_folder import to_meta_params

SIZES = {"d_model": 64, "n_heads": 8, "n_kv_heads": 4, "head_dim": 8, "d_ff": 128, "n_layers": 4}
CONFIG = replace(TINY, **SIZES, vocab_size=96)


def axis_of(name):
    """Along which axis the layers of fairscale cut a matrix."""
    return 1 if name.removesuffix(".weight").rpartition(".")[2] in CUT_BY_COLUMNS else 0


def in_fp8(part):
    """Restate quantize_fp8_per_row of FBGEMM: float8, and a scale for each row."""
    scale = part.float().abs().amax(dim=1) / 448.0
    return (part.float() / scale[:, None]).to(torch.float8_e4m3fn), scale


def save(folder, n):
    """Save as quantize_checkpoint.py does; return the parts of all tensors, multiplied back."""
    torch.manual_seed(0)
    shards, scales, parts_of = [OrderedDict() for _ in range(n)], [{} for _ in range(n)], {}
    for name, shape in expected_shapes(CONFIG, "meta").items():
        whole = (torch.randn(shape) / 8).to(torch.bfloat16)
        parts = [whole] * n if len(shape) == 1 else whole.chunk(n, dim=axis_of(name))
        parts_of[name] = list(parts)
        for rank, part in enumerate(parts):
            shards[rank][name] = part.contiguous()
            if name.startswith(("layers.1.feed", "layers.2.feed")):
                shards[rank][name], scale = in_fp8(part)
                parts_of[name][rank] = shards[rank][name].float() * scale[:, None]
                key = name.removeprefix("layers.").removesuffix(".weight").replace(".", "_", 1)
                scales[rank][f"{key}_{rank}"] = scale
    for rank in range(n):
        torch.save(shards[rank], folder / f"consolidated.{rank:02d}.pth")
        torch.save(scales[rank], folder / f"fp8_scales_{rank}.pt")
    (folder / "params.json").write_text(json.dumps(to_meta_params(CONFIG)))
    return parts_of


@pytest.mark.parametrize("n", [1, 2, 4])
def test_what_torch_saves_stands_for_what_torch_makes_of_it(n, tmp_path):
    """Every number is that of q.float() * scale in torch, part by part, bit for bit."""
    parts_of = save(tmp_path, n)
    checkpoint, _ = open_checkpoint(tmp_path)
    assert list(checkpoint) == list(parts_of)
    n_quantised = 0
    for name, parts in parts_of.items():
        whole = parts[0] if parts[0].dim() == 1 else torch.cat(parts, dim=axis_of(name))
        found = np.asarray(checkpoint[name])
        n_quantised += whole.dtype == torch.float32
        assert f"torch.{found.dtype.name}" == str(whole.dtype)
        assert found.shape == tuple(whole.shape)
        assert found.tobytes() == whole.view(torch.uint8).numpy().tobytes()
    assert n_quantised == 6


def test_torch_loads_what_is_written(tmp_path):
    """`weights_only=True` gives float8 and scales; of the same bf16 torch makes the same bits."""
    words = ["synthetic:golden-tiny", str(tmp_path / "fp8"), "--to", "fp8-meta", "--shards", "2"]
    assert main(["quantise", *words]) == 0
    words = ["golden-tiny", str(tmp_path / "plain"), "--format", "meta", "--shards", "2"]
    assert main(["synthetic", *words]) == 0
    for rank in range(2):
        file = f"consolidated.{rank:02d}.pth"
        plain, fp8 = (
            torch.load(tmp_path / folder / file, weights_only=True) for folder in ("plain", "fp8")
        )
        scales = torch.load(tmp_path / "fp8" / f"fp8_scales_{rank}.pt", weights_only=True)
        assert list(fp8) == list(plain)
        assert len(scales) == 6
        for key, scale in scales.items():
            layer, name = key.removesuffix(f"_{rank}").split("_", 1)
            name = f"layers.{layer}.{name}.weight"
            q, expected = in_fp8(plain.pop(name))
            assert fp8[name].dtype == torch.float8_e4m3fn
            assert torch.equal(fp8.pop(name).view(torch.uint8), q.view(torch.uint8))
            assert torch.equal(scale, expected)
        assert all(torch.equal(fp8[name], tensor) for name, tensor in plain.items())
