"""FP8 as Meta's own files have it: parts with scales of their own, or an error that says what."""

import json
from dataclasses import replace

import numpy as np
import pytest

import llama_ref as lr
from llama_ref.checkpoint.meta_fp8 import ScaledShards
from llama_ref.dynamic_quantisation import rounded_to_fp8
from llama_ref.errors import BadFile, BadRequest
from llama_ref.holding import DequantisedRows
from llama_ref.loading import open_checkpoint
from llama_ref.names import expected_shapes
from llama_ref.numerics import BFLOAT16, FLOAT8
from llama_ref.ops.linear import linear
from llama_ref.ranks import trace_ranks
from tests.checkpoint.pth_files import write_pth
from tests.models import TINY, largest_difference
from weights_tools.meta_folder import to_meta_params

SIZES = {"d_model": 64, "n_heads": 8, "n_kv_heads": 4, "head_dim": 8, "d_ff": 128, "n_layers": 4}
CONFIG = replace(TINY, **SIZES, vocab_size=96)
BY_COLUMNS = ("wo.weight", "w2.weight")
MATRICES = [f"layers.{i}.feed_forward.{w}.weight" for i in (1, 2) for w in ("w1", "w3", "w2")]
IDS = [1, 2, 3, 4]


def axis_of(name, array):
    """Along which axis Meta cuts a tensor; None where every rank has a copy."""
    if array.ndim == 1:
        return None
    return 1 if name.endswith(BY_COLUMNS) else 0


def key_of(name, rank):
    """What the scales of a rank's part are called."""
    _, layer, _, matrix, _ = name.split(".")
    return f"{layer}_feed_forward.{matrix}_{rank}"


def released(n):
    """Return what n ranks hold: their tensors, and their scales, as the release quantised them."""
    generator = np.random.default_rng(3)
    shards, scales = [{} for _ in range(n)], [{} for _ in range(n)]
    for name, shape in expected_shapes(CONFIG, "meta").items():
        whole = (generator.standard_normal(shape) / 8).astype(BFLOAT16)
        axis = axis_of(name, whole)
        parts = [whole] * n if axis is None else np.split(whole, n, axis)
        for rank, part in enumerate(parts):
            if name not in MATRICES:
                shards[rank][name] = part
                continue
            scale = np.abs(part.astype(np.float32)).max(axis=1) / np.float32(448)
            scales[rank][key_of(name, rank)] = scale
            shards[rank][name] = (part.astype(np.float32) / scale[:, None]).astype(FLOAT8)
    return shards, scales


def written(folder, shards, scales=()):
    """Write a folder as Meta's downloads are."""
    folder.mkdir(exist_ok=True)
    (folder / "params.json").write_text(json.dumps(to_meta_params(CONFIG)))
    for rank, shard in enumerate(shards):
        write_pth(folder / f"consolidated.{rank:02d}.pth", shard)
    for rank, part in enumerate(scales):
        write_pth(folder / f"fp8_scales_{rank}.pt", part)
    return folder


def widened(shards, scales):
    """The same shards with q * scale in the place of what is quantised."""
    return [
        {
            name: part
            if name not in MATRICES
            else part.astype(np.float32) * scale[key_of(name, rank)][:, None]
            for name, part in shard.items()
        }
        for rank, (shard, scale) in enumerate(zip(shards, scales, strict=True))
    ]


@pytest.mark.parametrize("n", [1, 2, 4])
def test_a_part_has_the_scales_of_its_rank(n, tmp_path):
    """Every matrix is q * scale, part by part, in float32; all other tensors are in 16 bits."""
    shards, scales = released(n)
    checkpoint, config = open_checkpoint(written(tmp_path, shards, scales))
    assert config.n_layers == 4
    assert set(checkpoint) == set(shards[0])
    for name, tensor in checkpoint.items():
        parts = [shard[name] for shard in widened(shards, scales)]
        axis = axis_of(name, parts[0])
        expected = parts[0] if axis is None else np.concatenate(parts, axis)
        assert tensor.dtype == expected.dtype == (np.float32 if name in MATRICES else BFLOAT16)
        assert tensor.shape == expected.shape
        assert np.asarray(tensor).tobytes() == expected.tobytes()
        if name in MATRICES:
            assert tensor.stored_as == "float8_e4m3fn"
            n_scales = expected.shape[0] * (n if axis == 1 else 1)
            assert tensor.nbytes == expected.size + 4 * n_scales
            assert len(checkpoint.files[name]) == 2 * n


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_is_that_of_the_numbers_it_stands_for(dtype, tmp_path):
    """The logits of the widened shards; streamed, held and over ranks the same model."""
    shards, scales = released(2)
    fp8 = written(tmp_path / "fp8", shards, scales)
    logits = lr.load(fp8, dtype=dtype).logits(IDS)
    held = lr.load(fp8, dtype=dtype, widen=True).logits(IDS)
    assert np.array_equal(held, logits)
    streamed = lr.load(fp8, dtype=dtype, mmap=False)
    assert np.array_equal(streamed.logits(IDS), logits)
    wide = written(tmp_path / "wide", widened(shards, scales))
    if dtype == "float32":
        assert np.array_equal(lr.load(wide).logits(IDS), logits)
    parts = trace_ranks(lr.load(fp8, dtype=dtype), IDS, 2)["logits"]
    assert largest_difference(parts, logits) <= (1e-5 if dtype == "float32" else 0.1)


def test_rows_are_not_rounded_to_the_dtype_of_activations(tmp_path):
    """In bfloat16 a product is that with q * scale in float32, as of a matrix in one part."""
    w_down_DF = lr.load(written(tmp_path, *released(2))).weights.layers[1].w_down_DF
    x_TF = np.random.default_rng(6).standard_normal((3, 128)).astype(BFLOAT16)
    expected = linear(x_TF, DequantisedRows(np.asarray(w_down_DF)))
    assert np.array_equal(linear(x_TF, w_down_DF), expected)
    assert not np.array_equal(linear(x_TF, np.asarray(w_down_DF)), expected)


def test_each_rank_rounds_the_activations_it_holds(tmp_path):
    """A token has a scale for each rank before w2, and one before w1 and w3."""
    shards, scales = released(2)
    folder = written(tmp_path, shards, scales)
    layer = lr.load(folder, quantised_activations=True).weights.layers[1]
    plain = lr.load(folder).weights.layers[1]
    generator = np.random.default_rng(5)
    x_TD, x_TF = (generator.standard_normal((3, n)).astype(np.float32) for n in (64, 128))
    x_TF[:, 64:] *= 50  # the other rank's outliers change nothing of the first rank's scales
    slices = [rounded_to_fp8(part) for part in np.split(x_TF, 2, axis=1)]
    expected = linear(np.concatenate(slices, axis=1), plain.w_down_DF)
    assert isinstance(layer.w_down_DF, ScaledShards)
    assert np.array_equal(linear(x_TF, layer.w_down_DF), expected)
    assert not np.array_equal(linear(rounded_to_fp8(x_TF), plain.w_down_DF), expected)
    expected = linear(rounded_to_fp8(x_TD), plain.w_gate_FD)
    assert np.array_equal(linear(x_TD, layer.w_gate_FD), expected)
    with pytest.raises(BadRequest, match="quantised activations"):
        trace_ranks(lr.load(folder, quantised_activations=True), IDS, 2)


# What does not fit together.

UP, UP_SCALE = "layers.1.feed_forward.w3.weight", "1_feed_forward.w3_1"


def scale_changed(change):
    def changed(shards, scales):
        scales[1][UP_SCALE] = change(scales[1][UP_SCALE].copy())

    return changed


def one_is(value):
    def changed(scale):
        scale[3] = value
        return scale

    return scale_changed(changed)


def no_scales(shards, scales):
    scales.clear()


def one_file_less(shards, scales):
    scales.pop()


def one_file_more(shards, scales):
    scales.append(scales[1])


def no_key(shards, scales):
    del scales[1][UP_SCALE]


def key_of_another_rank(shards, scales):
    scales[0][UP_SCALE] = scales[1].pop(UP_SCALE)


def the_same_key_twice(shards, scales):
    scales[0][UP_SCALE] = scales[1][UP_SCALE]


def key_of_the_first_layer(shards, scales):
    scales[0]["0_feed_forward.w1_0"] = np.ones(64, np.float32)


def key_of_attention(shards, scales):
    scales[0]["1_attention.wq_0"] = np.ones(32, np.float32)


def key_of_a_tensor(shards, scales):
    scales[0]["norm.weight"] = np.ones(64, np.float32)


def in_16_bits(shards, scales):
    for shard in shards:
        shard[UP] = shard[UP].astype(BFLOAT16)


def nothing_in_float8(shards, scales):
    for shard in shards:
        shard |= {name: shard[name].astype(BFLOAT16) for name in MATRICES}


def no_matrix(*shape):
    def changed(shards, scales):
        for shard in shards:
            shard[UP] = np.ones(shape, FLOAT8)

    return changed


def in_float8(name):
    def changed(shards, scales):
        for shard in shards:
            shard[name] = shard[name].astype(FLOAT8)

    return changed


BAD = {
    "no file of scales": (no_scales, r"1_feed_forward\.w1_0 of .*in fp8_scales_0\.pt, found no"),
    "a file too few": (one_file_less, r"fp8_scales_1\.pt'?: .*found no such file"),
    "a file too many": (one_file_more, r"fp8_scales_2\.pt'?: .*found one more"),
    "no key": (no_key, r"1_feed_forward\.w3_1 of .*in fp8_scales_1\.pt, found no such tensor"),
    "another rank's key": (key_of_another_rank, r"w3_1 of .*found in 'fp8_scales_0\.pt'"),
    "a key twice": (the_same_key_twice, r"1_feed_forward\.w3_1'?: expected once"),
    "a key of the first layer": (key_of_the_first_layer, r"0_feed_forward\.w1_0'?: .*scale of"),
    "a key of attention": (key_of_attention, r"1_attention\.wq_0'?: .*scale of"),
    "a key of a tensor": (key_of_a_tensor, r"norm\.weight'?: expected once"),
    "a column": (
        scale_changed(lambda scale: scale[:, None]),
        r"w3_1.*found float32 of .*\(64, 1\)",
    ),
    "one for all": (scale_changed(lambda scale: scale[:1]), r"w3_1.*found float32 of shape \(1,\)"),
    "16 bits": (scale_changed(lambda s: s.astype(np.float16)), r"w3_1.*expected float32 .*float16"),
    "NaN": (one_is(np.nan), r"w3_1.*positive"),
    "infinite": (one_is(np.inf), r"w3_1.*positive"),
    "zero": (one_is(0), r"w3_1.*positive"),
    "negative": (one_is(-1), r"w3_1.*positive"),
    "a matrix in 16 bits": (
        in_16_bits,
        r"1\.feed_forward\.w3\.weight'?: expected a matrix in float8",
    ),
    "a scalar": (no_matrix(), r"w3\.weight'?: expected a matrix in float8.* of shape \(\)"),
    "a vector": (no_matrix(64), r"w3\.weight'?: expected a matrix in float8.* of shape \(64,\)"),
    "scales of nothing": (
        nothing_in_float8,
        r"1\.feed_forward\.w1\.weight'?: expected a matrix in float8",
    ),
    **{
        f"{name} in float8": (in_float8(name), f"{name}'?: expected 16 bits")
        for name in (
            *("layers.0.feed_forward.w1.weight", "layers.3.feed_forward.w2.weight"),
            *("layers.1.attention.wq.weight", "tok_embeddings.weight", "output.weight"),
            *("norm.weight", "layers.2.ffn_norm.weight"),
        )
    },
}


@pytest.mark.parametrize(("change", "says"), BAD.values(), ids=BAD)
def test_what_does_not_fit_together_is_refused(change, says, tmp_path):
    """A scale too few or too many, a number that is none, another dtype: an error that names it."""
    shards, scales = released(2)
    change(shards, scales)
    with pytest.raises(BadFile, match=says):
        lr.load(written(tmp_path, shards, scales))


@pytest.mark.parametrize("name", ["fp8_scales_00.pt", "fp8_scales_x.pt", "fp8_scales_.pt"])
def test_a_file_of_scales_of_another_name_is_refused(name, tmp_path):
    """Ranks are written without a zero before them; what else looks like scales is no rank's."""
    folder = written(tmp_path, *released(2))
    (folder / "fp8_scales_0.pt").rename(folder / name)
    with pytest.raises(BadFile, match=r"fp8_scales_.*expected fp8_scales_0\.pt to 1, one for"):
        lr.load(folder)


def test_a_damaged_file_of_scales_is_named(tmp_path):
    """The message begins with the path of the file that is wrong."""
    folder = written(tmp_path, *released(2))
    (folder / "fp8_scales_1.pt").write_bytes(b"PK\x03\x04")
    with pytest.raises(BadFile, match=r"fp8_scales_1\.pt: not a file written"):
        lr.load(folder)
