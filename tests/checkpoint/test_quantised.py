"""Quantised checkpoints: numbers as torch has them, each part where it belongs, or an error."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

import llama_ref as lr
from llama_ref.checkpoint import open_hf, open_meta, synthetic, write_hf, write_safetensors
from llama_ref.checkpoint.pth import open_pth
from llama_ref.checkpoint.ranges import MappedRange, ReadRange
from llama_ref.checkpoint.streaming import Stream
from llama_ref.config import to_hf_dict
from llama_ref.config.quantisation import SCHEME
from llama_ref.dynamic_quantisation import fp8_per_token, int8_per_token
from llama_ref.errors import BadConfig, BadFile, BadRequest, Unsupported
from llama_ref.golden import models
from llama_ref.hadamard import hadamard
from llama_ref.holding import streamed
from llama_ref.numerics import FLOAT8
from llama_ref.ranks import trace_ranks
from tests.models import TINY, largest_difference
from weights_tools.__main__ import main

SIZES = {"d_model": 64, "n_heads": 8, "n_kv_heads": 4, "head_dim": 8, "d_ff": 128, "n_layers": 4}
CONFIG = replace(TINY, **SIZES, vocab_size=96)
KINDS = ("fp8", "fp8-meta", "int4", "int4-spinquant")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("quantised")
    write_hf(root / "whole", to_hf_dict(CONFIG), synthetic.checkpoint(CONFIG))
    for kind in KINDS:
        assert main(["quantise", str(root / "whole"), str(root / kind), "--to", kind]) == 0
    return root


X = np.float32([[0.1, -0.7, 3.0, 0.02, -2.5, 0, 1e-3, 1.9], [1500, -3, 0.5, 2000, -1, 7, 0, 0.25]])
FP8_OF_TORCH = [[87, 237, 126, 68, 252, 0, 34, 121], [126, 185, 36, 126, 172, 66, 0, 28]]
FP8_SCALES_OF_TORCH = [0.0066964286379516125, 2.6785714626312256]
INT8_OF_TORCH = [
    [-7, -44, 127, -11, -128, -12, -12, 76],
    [63, -128, -128, 127, -128, -127, -128, -128],
]
INT8_SCALES_OF_TORCH = [0.021568628028035164, 7.8549017906188965]
ZEROS_OF_TORCH = [-12, -128]


def test_activations_in_8_bits_are_torchs():
    """Computed by torch 2.13 from the formulas of `tests/peers/test_fp8_torch.py`."""
    q, scale = fp8_per_token(X)
    assert q.view(np.uint8).tolist() == FP8_OF_TORCH
    assert scale[:, 0].tolist() == FP8_SCALES_OF_TORCH
    q, scale, zero = int8_per_token(X)
    assert q.tolist() == INT8_OF_TORCH
    assert scale[:, 0].tolist() == INT8_SCALES_OF_TORCH
    assert zero[:, 0].tolist() == ZEROS_OF_TORCH


@pytest.mark.parametrize("kind", KINDS)
def test_a_quantised_model_is_near_the_one_it_was_made_from(kind, folders):
    """Weights alone or activations too; and streamed it has the same bits, nothing kept."""
    whole = lr.load(folders / "whole").logits([1, 2, 3, 4])
    logits = lr.load(folders / kind).logits([1, 2, 3, 4])
    assert np.corrcoef(whole.ravel(), logits.ravel())[0, 1] > (0.998 if "fp8" in kind else 0.8)
    for source in (MappedRange, ReadRange):
        model = lr.load(folders / kind)
        stream = Stream(0, source)
        model.weights = streamed(model.weights, stream, mapped=source is MappedRange)
        assert np.array_equal(model.logits([1, 2, 3, 4]), logits)
        assert stream.n_read > 50_000
    rounded = lr.load(folders / kind, quantised_activations=True).logits([1, 2, 3, 4])
    assert not np.array_equal(rounded, logits)
    assert np.corrcoef(rounded.ravel(), logits.ravel())[0, 1] > 0.99


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_alone_are_the_whole_linear_map(kind, dtype, folders):
    """Held widened, or cut over ranks, a rotation is undone: the logits of the mapped file."""
    model, ids = lr.load(folders / kind, dtype=dtype), [1, 2, 3, 4]
    logits = model.logits(ids).astype(np.float64)
    bound = 1e-5 if dtype == "float32" else 0.1
    held = lr.load(folders / kind, dtype=dtype, widen=True)
    assert largest_difference(held.logits(ids), logits) <= bound
    if "fp8" in kind:  # no sum of terms, no rotation: not a bit differs
        assert np.array_equal(held.logits(ids), model.logits(ids))
    assert largest_difference(trace_ranks(model, ids, 2)["logits"], logits) <= bound


@pytest.mark.parametrize("kind", KINDS)
def test_a_quantised_checkpoint_is_converted_to_the_numbers_it_stands_for(kind, folders, tmp_path):
    """In float32 the logits are those of the quantised file."""
    words = ["convert", str(folders / kind), str(tmp_path / "hf"), "--format", "hf"]
    assert main([*words, "--dtype", "float32"]) == 0
    logits = lr.load(folders / kind).logits([1, 2, 3, 4])
    assert largest_difference(lr.load(tmp_path / "hf").logits([1, 2, 3, 4]), logits) <= 1e-5


@pytest.mark.parametrize("limit", [None, 0], ids=["all held", "a layer at a time"])
def test_a_golden_is_of_the_numbers_a_quantised_file_stands_for(limit, folders, monkeypatch):
    """Truth is computed with the rotation undone, whether all layers are held or one."""
    if limit is not None:
        monkeypatch.setattr(models, "HELD_BYTES", limit)
    folder = folders / "int4-spinquant"
    spec = models.spec_of(folder)
    weights = models.held(models.weights_of(spec, folder), spec.config)
    found = models.model_of(spec, weights, "float64", "meta").logits([1, 2, 3, 4])
    assert largest_difference(found, lr.load(folder).logits([1, 2, 3, 4])) <= 1e-5


def test_quantised_activations_where_there_are_none_are_refused(folders):
    """A checkpoint that is not quantised, weights held widened, several ranks: an error."""
    with pytest.raises(BadRequest, match="quantised_activations"):
        lr.load(folders / "whole", quantised_activations=True)
    with pytest.raises(BadRequest, match="quantised_activations"):
        lr.load("synthetic:golden-tiny", quantised_activations=True)
    for kind in KINDS:
        with pytest.raises(BadRequest, match="widen"):
            lr.load(folders / kind, quantised_activations=True, widen=True)
        with pytest.raises(BadRequest, match="quantised activations"):
            trace_ranks(lr.load(folders / kind, quantised_activations=True), [1, 2], 2)


def test_the_releases_are_written_in_their_layouts(folders):
    """What is in 8 and 4 bits, with which scales, and what the config says of it."""
    fp8 = open_hf(folders / "fp8")
    in_fp8 = {name for name, tensor in fp8.items() if tensor.dtype == FLOAT8}
    assert in_fp8 == {
        f"model.layers.{i}.mlp.{part}_proj.weight"
        for i in (1, 2)
        for part in ("gate", "up", "down")
    }
    assert all(fp8[f"{name}_scale"].shape == (fp8[name].shape[0], 1) for name in in_fp8)
    said = json.loads((folders / "fp8" / "config.json").read_text())["quantization_config"]
    assert said["quant_method"] == "fbgemm_fp8"
    assert said["activation_scale_ub"] == 1200.0
    int4 = open_meta(folders / "int4")
    assert int4["layers.0.attention.wq.weight"].dtype == np.int8
    assert int4["layers.0.attention.wq.scales"].shape == (64, 2)
    assert int4["output.scales"].shape == (96,)
    assert int4["norm.weight"].dtype == np.float32
    assert json.loads((folders / "int4" / "params.json").read_text())["quantization_args"] == {
        "scheme": "int4_weight_int8_dynamic_activation",
        "group_size": 32,
        "spinquant": False,
    }


def changed_fp8(folders, tmp_path, change):
    """Write the FP8 checkpoint again with a change to its tensors and its config."""
    tensors = dict(open_hf(folders / "fp8"))
    config = json.loads((folders / "fp8" / "config.json").read_text())
    change(tensors, config)
    write_safetensors(tmp_path / "model.safetensors", tensors)
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


NAME = "model.layers.1.mlp.up_proj.weight"


def without_scale(tensors, config):
    del tensors[f"{NAME}_scale"]


def flat_scale(tensors, config):
    tensors[f"{NAME}_scale"] = tensors[f"{NAME}_scale"].reshape(-1)


def scale_zero(tensors, config):
    tensors[f"{NAME}_scale"] = tensors[f"{NAME}_scale"] * np.float32(0)


def scale_nan(tensors, config):
    scale = tensors[f"{NAME}_scale"].copy()
    scale[3] = np.nan
    tensors[f"{NAME}_scale"] = scale


def stray_scale(tensors, config):
    tensors["model.norm.weight_scale"] = np.ones((64, 1), np.float32)


def in_16_bits(tensors, config):
    tensors[NAME] = tensors[NAME].astype(np.float16)


def no_matrix(tensors, config):
    tensors[NAME] = np.ones((), FLOAT8)


def not_kept(tensors, config):
    config["quantization_config"]["modules_to_not_convert"].remove("lm_head")


def no_config(tensors, config):
    del config["quantization_config"]


def other_method(tensors, config):
    config["quantization_config"]["quant_method"] = "gptq"


def other_key(tensors, config):
    config["quantization_config"]["bits"] = 8


def no_bound(tensors, config):
    config["quantization_config"]["activation_scale_ub"] = -1.0


def kept_no_list(tensors, config):
    config["quantization_config"]["modules_to_not_convert"] = "lm_head"


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (without_scale, BadFile, "up_proj.weight_scale"),
        (flat_scale, BadFile, "up_proj.weight_scale"),
        (scale_zero, BadFile, "positive"),
        (scale_nan, BadFile, "positive"),
        (stray_scale, BadFile, "norm.weight_scale"),
        (in_16_bits, BadFile, "expected a matrix in float8"),
        (no_matrix, BadFile, "expected a matrix in float8"),
        (not_kept, BadFile, "lm_head"),
        (no_config, BadFile, "weight_scale"),
        (other_method, Unsupported, "quant_method"),
        (other_key, Unsupported, "bits"),
        (no_bound, BadConfig, "activation_scale_ub"),
        (kept_no_list, BadConfig, "modules_to_not_convert"),
    ],
)
def test_what_does_not_fit_together_is_refused(change, error, says, folders, tmp_path):
    """A scale too few or too many, another dtype, another method: an error that names it."""
    with pytest.raises((error, BadFile), match=says):
        lr.load(changed_fp8(folders, tmp_path, change))


SPUN = {"scheme": SCHEME, "group_size": 32, "spinquant": True}


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ({"quantization_args": {"scheme": "int8"}}, Unsupported),
        ({"quantization_args": {"group_size": 32}}, BadConfig),
        ({"quantization_args": []}, BadConfig),
        ({"lora_args": {"rank": 16, "scale": 2.0, "alpha": 1}}, Unsupported),
        ({"lora_args": {"rank": 0, "scale": 2.0}}, BadConfig),
        ({"lora_args": {"rank": 16, "scale": "2"}}, BadConfig),
        ({"lora_args": {"rank": 16, "scale": 2.0}}, BadFile),
        ({"quantization_args": None}, BadFile),
        ({"quantization_args": SPUN, "lora_args": {"rank": 16, "scale": 2.0}}, Unsupported),
        ({"quantization_args": {"scheme": SCHEME, "group_size": 48}}, BadFile),
        ({"quantization_args": {"scheme": SCHEME, "group_size": 16}}, BadFile),
    ],
    ids=str,
)
def test_a_scheme_that_is_not_the_releases_is_refused(said, error, folders, tmp_path):
    """Another scheme, an adaptor that is not there, int8 without a scheme."""
    source = folders / "int4"
    params = json.loads((source / "params.json").read_text()) | said
    (tmp_path / "params.json").write_text(json.dumps(params))
    (tmp_path / "consolidated.00.pth").symlink_to(source / "consolidated.00.pth")
    with pytest.raises(error):
        lr.load(tmp_path)


SCALES = "layers.2.feed_forward.w1.scales"


def test_numbers_beyond_4_bits_are_refused(folders, tmp_path):
    """A number that 4 bits cannot hold is an error when its row is used, and named."""
    data = bytearray((folders / "int4" / "consolidated.00.pth").read_bytes())
    weight = np.asarray(open_meta(folders / "int4")["layers.2.feed_forward.w1.weight"])
    at = bytes(data).index(weight.tobytes())
    data[at + 5] = 9
    (tmp_path / "consolidated.00.pth").write_bytes(data)
    (tmp_path / "params.json").write_bytes((folders / "int4" / "params.json").read_bytes())
    with pytest.raises(BadFile, match=r"layers\.2\.feed_forward\.w1\.weight.*4 bits"):
        lr.load(tmp_path).logits([1])


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf])
def test_scales_of_int4_that_are_none_are_refused(folders, tmp_path, scale):
    """Nought, a negative number, or none at all scales nothing."""
    data = bytearray((folders / "int4" / "consolidated.00.pth").read_bytes())
    scales = np.asarray(open_pth(folders / "int4" / "consolidated.00.pth")[SCALES])
    at = bytes(data).index(scales.tobytes())
    data[at + 8 : at + 12] = np.float32(scale).tobytes()
    (tmp_path / "consolidated.00.pth").write_bytes(data)
    (tmp_path / "params.json").write_bytes((folders / "int4" / "params.json").read_bytes())
    with pytest.raises(BadFile, match=f"{re.escape(SCALES)}.*positive numbers"):
        lr.load(tmp_path)


def test_16_bits_that_are_said_to_be_int4_are_refused(folders, tmp_path):
    """A params.json of a quantised model beside matrices that are not."""
    assert main(["convert", str(folders / "int4"), str(tmp_path / "m"), "--format", "meta"]) == 0
    shutil.copy(folders / "int4" / "params.json", tmp_path / "m" / "params.json")
    with pytest.raises(BadFile, match=r"expected int8, as params\.json says"):
        lr.load(tmp_path / "m")


def test_rows_that_do_not_come_out_even_are_refused(tmp_path, capsys):
    """Groups of 32, and powers of two for the rotation: else nothing is written."""
    config = replace(CONFIG, d_ff=96)
    write_hf(tmp_path / "whole", to_hf_dict(config), synthetic.checkpoint(config))
    words = ["quantise", str(tmp_path / "whole"), str(tmp_path / "out"), "--to", "int4-spinquant"]
    assert main(words) == 2
    assert "power of two" in capsys.readouterr().err
    assert not (tmp_path / "out" / "params.json").exists()


def test_hadamard_by_hand():
    """One channel is spread over all; done twice it is undone; 12 channels are refused."""
    x = np.zeros((1, 16), np.float32)
    x[0, 3] = 4
    np.testing.assert_allclose(np.abs(hadamard(x)), 1, rtol=1e-6)
    np.testing.assert_allclose(hadamard(hadamard(x)), x, atol=1e-6)
    with pytest.raises(BadRequest, match="power of two"):
        hadamard(np.zeros((1, 12)))
