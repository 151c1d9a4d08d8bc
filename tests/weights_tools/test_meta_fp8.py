"""The FP8 release in Meta's layout: every file quantises what it holds."""

import json
from dataclasses import replace

import numpy as np
import pytest

from llama_ref.__main__ import main as llama_ref
from llama_ref.checkpoint import open_meta, synthetic, write_hf
from llama_ref.config import to_hf_dict
from llama_ref.dynamic_quantisation import fp8_per_token
from llama_ref.numerics import BFLOAT16
from tests.models import TINY
from weights_tools.__main__ import main

SIZES = {"d_model": 64, "n_heads": 8, "n_kv_heads": 4, "head_dim": 8, "d_ff": 128, "n_layers": 4}
CONFIG = replace(TINY, **SIZES, vocab_size=96)


def write_whole(folder, config):
    tensors = ((name, array.astype(BFLOAT16)) for name, array in synthetic.checkpoint(config))
    write_hf(folder, to_hf_dict(config), tensors)
    return str(folder)


@pytest.fixture
def folders(tmp_path):
    """Return a folder in two shards, in 16 bits and as the FP8 release is."""
    whole, plain, fp8 = write_whole(tmp_path / "whole", CONFIG), tmp_path / "2", tmp_path / "fp8"
    assert main(["convert", whole, str(plain), "--format", "meta", "--shards", "2"]) == 0
    assert main(["quantise", whole, str(fp8), "--to", "fp8-meta", "--shards", "2"]) == 0
    return plain, fp8


def test_each_part_is_quantised_by_itself(folders):
    """Numbers and scales of a part are those of the part alone; the rest is as it was."""
    plain, fp8 = (open_meta(folder) for folder in folders)
    n_scales = 0
    for name, tensor in plain.items():
        if not name.startswith(("layers.1.feed_forward", "layers.2.feed_forward")):
            assert np.asarray(fp8[name]).tobytes() == np.asarray(tensor).tobytes()
            continue
        _, layer, _, matrix, _ = name.split(".")
        for rank, part in enumerate(tensor.parts):
            q, scale = fp8_per_token(part, upper_bound=None)
            key = f"{layer}_feed_forward.{matrix}_{rank}"
            assert fp8[name].parts[rank].tobytes() == q.tobytes()
            assert fp8[key].tobytes() == scale.tobytes()
            assert fp8[key].shape == scale.shape[:1]
            assert fp8.files[key] == (f"fp8_scales_{rank}.pt",)
            n_scales += 1
    assert n_scales == 12
    assert len(fp8) == len(plain) + n_scales


def test_inspect_counts_the_files_of_scales(folders, capsys):
    """Each matrix in float8 lies in all four files, its bytes are those of numbers and scales."""
    capsys.readouterr()
    assert llama_ref(["inspect", str(folders[1]), "--json", "--check"]) == 0
    report = json.loads(capsys.readouterr().out)
    names = ["consolidated.00.pth", "consolidated.01.pth", "fp8_scales_0.pt", "fp8_scales_1.pt"]
    assert [file["name"] for file in report["files"]] == names
    assert report["totals"]["float8_e4m3fn"] == {
        "tensors": 6,
        "bytes": 6 * 64 * 128 + 4 * 2 * (128 + 128 + 2 * 64),
    }
    down = next(t for t in report["tensors"] if t["name"] == "layers.2.feed_forward.w2.weight")
    assert (down["shape"], down["files"]) == ([64, 128], names)


def test_a_model_without_a_layer_in_between_is_refused(tmp_path, capsys):
    """Of two layers none would be in FP8: an error, and nothing is written."""
    whole = write_whole(tmp_path / "whole", replace(CONFIG, n_layers=2))
    assert main(["quantise", whole, str(tmp_path / "out"), "--to", "fp8-meta"]) == 2
    assert "layers in FP8: expected all but the first and the last" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_scales_are_a_checkpoint_that_is_not_written_over(folders, capsys):
    """A folder with files of scales alone is refused as one to write to."""
    for name in ("consolidated.00.pth", "consolidated.01.pth", "params.json"):
        (folders[1] / name).unlink()
    assert main(["convert", str(folders[0]), str(folders[1])]) == 2
    assert "fp8_scales_0.pt" in capsys.readouterr().err
