"""Weights from a formula: the published vectors of synth-1, and what its definition implies."""

import math
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest

from llama_ref.checkpoint import synthetic
from llama_ref.checkpoint.counter_hash import BLOCK, hash_blocks
from llama_ref.errors import BadRequest, LimitExceeded, Unsupported

Q_PROJ = "model.layers.0.self_attn.q_proj.weight"

TINY = SimpleNamespace(
    d_model=24,
    n_layers=2,
    n_heads=4,
    n_kv_heads=2,
    head_dim=8,
    d_ff=40,
    vocab_size=50,
    tied_embeddings=False,
)


def mix(x):
    x ^= x >> 16
    x = x * 0x7FEB352D % 2**32
    x ^= x >> 15
    x = x * 0x846CA68B % 2**32
    return x ^ x >> 16


def published_hash(name, seed, i):
    """h(i) as the definition has it, one Python integer at a time."""
    h = 0x811C9DC5
    for byte in name.encode():
        h = (h ^ byte) * 0x01000193 % 2**32
    k0 = mix(h ^ mix(seed))
    k1 = mix((k0 + 0x9E3779B9) % 2**32)
    return mix(mix((i + k0) % 2**32) ^ k1)


def published_integer(name, seed, i):
    h = published_hash(name, seed, i)
    return (h >> 25) - (h & 127)


def integers(name, i, n, exponent):
    """Elements i … i + n - 1 of a matrix of 2^32 elements, sixteen a row, times 2^exponent."""
    lo, hi = i // 16, -(-(i + n) // 16)
    rows = synthetic.tensor(name, (2**28, 16), 1, lo, hi)
    assert rows.dtype == np.float32
    assert rows.shape == (hi - lo, 16)
    flat = rows.reshape(-1)[i - 16 * lo :][:n] * 2.0**exponent
    return flat.tolist()


@pytest.mark.parametrize(
    ("name", "i", "expected"),
    [
        ("lm_head.weight", 0, [5, -79, 90, 105, -4, -109, -11, -27]),
        ("lm_head.weight", 2101346303, [14]),
        (Q_PROJ, 0, [-46, -25, 33, 70, 6, 17, 7, -33]),
        (Q_PROJ, 2101346303, [10]),
        (Q_PROJ, 4294967295, [40]),
    ],
)
def test_published_integers(name, i, expected):
    """The integers at the published places for seed 1 are the published ones."""
    # fan_in 16 and gain 2: e = round(log2(52.25 * 4 / 2)) = round(6.71) = 7
    assert integers(name, i, len(expected), exponent=7) == expected


def test_published_norm_gains():
    """The first gains of model.norm.weight for seed 1 are the published ones."""
    gains = synthetic.tensor("model.norm.weight", (4096,), seed=1)
    assert gains.dtype == np.float32
    assert gains.shape == (4096,)
    assert gains[:4].tolist() == [1.0859375, 1.03125, 1.1328125, 1.0]
    assert (gains.min(), gains.max()) == (0.75, 159 / 128)


def test_the_definition_in_plain_integers_has_the_published_hashes():
    """The slow twin used below reproduces the published h(0), so it can stand as a witness."""
    assert published_hash("lm_head.weight", 1, 0) == 0x44EFCD9D
    assert published_hash(Q_PROJ, 1, 0) == 0x287AAE42


# e by hand from the formula: 52.25 * sqrt(fan_in) / gain, then its logarithm to base 2
EXPONENTS = {
    "model.embed_tokens.weight": (2048, 12),  # fixed
    "model.layers.3.self_attn.q_proj.weight": (2048, 10),  # 1182.3 -> 10.2
    "model.layers.3.self_attn.k_proj.weight": (2048, 11),  # 1970.5 -> 10.9
    "model.layers.3.self_attn.v_proj.weight": (2048, 11),  # 2364.6 -> 11.2
    "model.layers.3.self_attn.o_proj.weight": (2048, 12),  # 4729.2 -> 12.2
    "model.layers.3.mlp.gate_proj.weight": (2048, 11),  # 1576.4 -> 10.6
    "model.layers.3.mlp.up_proj.weight": (2048, 11),  # 2364.6 -> 11.2
    "model.layers.3.mlp.down_proj.weight": (8192, 13),  # 9458.3 -> 13.2
    "lm_head.weight": (2048, 10),  # 1182.3 -> 10.2
}


@pytest.mark.parametrize(("name", "fan_in", "e"), [(k, *v) for k, v in EXPONENTS.items()])
def test_scale_follows_the_name(name, fan_in, e):
    """Each kind of matrix has the power of two that its gain and fan-in give."""
    found = synthetic.tensor(name, (3, fan_in), seed=5)
    expected = [published_integer(name, 5, i) * 2.0**-e for i in range(3 * fan_in)]
    assert found.dtype == np.float32
    assert found.shape == (3, fan_in)
    assert found.reshape(-1).tolist() == expected


def test_rows_are_those_of_the_whole_across_blocks():
    """Rows lo to hi equal the same rows of the whole tensor, over the border of a block too."""
    name, shape = "model.layers.7.mlp.up_proj.weight", (300, 700)
    whole = synthetic.tensor(name, shape, seed=3)
    for lo, hi in [(0, 300), (0, 1), (93, 94), (90, 200), (299, 300), (17, 17)]:
        rows = synthetic.tensor(name, shape, 3, lo, hi)
        assert rows.shape == (hi - lo, 700)
        assert rows.tobytes() == whole[lo:hi].tobytes()
    assert whole[93, 435] * 2.0**10 == published_integer(name, 3, 93 * 700 + 435)
    assert whole[299, 699] * 2.0**10 == published_integer(name, 3, 300 * 700 - 1)


@pytest.mark.parametrize("n", [1, 65_535, 65_537, BLOCK, BLOCK + 1, 600_000])
@pytest.mark.parametrize("start", [0, 1, 40_000, 2**32 - 3, 2**32 - 70_000])
def test_blocks_of_hashes_are_the_definition(start, n):
    """Blocks follow each other without a gap, wrap at 2^32, and hold the hashes as defined."""
    name, position = "lm_head.weight", 0
    for at, block in hash_blocks(name, 8, start, n):
        assert at == position
        assert block.dtype == np.uint32
        assert 0 < block.size <= BLOCK
        for i in {*range(0, block.size, 65_535), block.size - 1}:
            expected = published_hash(name, 8, (start + at + i) % 2**32)
            assert block[i] == expected
        position += block.size
    assert position == n


def test_integers_have_the_stated_mean_and_deviation():
    """A million elements have mean 0 and standard deviation sqrt(2730.5), and reach both ends."""
    values = synthetic.tensor(Q_PROJ, (1024, 1024), seed=9).astype(np.float64) * 2.0**10
    assert abs(values.mean()) < 4 * math.sqrt(2730.5 / 2**20)
    assert values.std() == pytest.approx(math.sqrt(2730.5), rel=0.005)
    assert (values.min(), values.max()) == (-127, 127)


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16])
@pytest.mark.parametrize("name", ["lm_head.weight", "model.embed_tokens.weight"])
def test_matrices_are_exact_in_16_bits(name, dtype):
    """Rounding to bfloat16 or float16 changes no element, at the 405B model's width too."""
    values = synthetic.tensor(name, (64, 16384), seed=2)
    assert (values.astype(dtype).astype(np.float32) == values).all()


def test_seeds_and_names_choose_other_values():
    """Another seed, another layer or another matrix shares no more elements than chance has."""
    shape = (64, 64)
    tensors = [
        synthetic.tensor("model.layers.0.self_attn.q_proj.weight", shape, 0),
        synthetic.tensor("model.layers.0.self_attn.q_proj.weight", shape, 1),
        synthetic.tensor("model.layers.1.self_attn.q_proj.weight", shape, 0),
        synthetic.tensor("lm_head.weight", shape, 0),
    ]
    for i, one in enumerate(tensors):
        for other in tensors[:i]:
            assert np.mean(one == other) < 0.02


def test_token_ids_follow_the_definition():
    """Ids are h(i) mod V under the name "tokens", as int64, the first of a longer list the same."""
    ids = synthetic.token_ids(70_000, 128_256, seed=4)
    assert ids.dtype == np.int64
    assert ids.shape == (70_000,)
    for i in (0, 1, 2, 65_535, 65_536, 69_999):
        assert ids[i] == published_hash("tokens", 4, i) % 128_256
    assert synthetic.token_ids(5, 128_256, seed=4).tolist() == ids[:5].tolist()
    assert synthetic.token_ids(0, 7).shape == (0,)
    largest = 2**32 - 1
    expected = [published_hash("tokens", 0, i) % largest for i in range(3)]
    assert synthetic.token_ids(3, largest).tolist() == expected


EXPECTED_SHAPES = {
    "model.embed_tokens.weight": (50, 24),
    **{
        f"model.layers.{layer}.{name}.weight": shape
        for layer in (0, 1)
        for name, shape in {
            "input_layernorm": (24,),
            "self_attn.q_proj": (32, 24),
            "self_attn.k_proj": (16, 24),
            "self_attn.v_proj": (16, 24),
            "self_attn.o_proj": (24, 32),
            "post_attention_layernorm": (24,),
            "mlp.gate_proj": (40, 24),
            "mlp.up_proj": (40, 24),
            "mlp.down_proj": (24, 40),
        }.items()
    },
    "model.norm.weight": (24,),
    "lm_head.weight": (50, 24),
}


@pytest.mark.parametrize("tied", [False, True])
def test_checkpoint_has_every_tensor_in_model_order(tied):
    """A model's tensors come in the order of use, each as `tensor` computes it; a tied head not."""
    config = SimpleNamespace(**{**vars(TINY), "tied_embeddings": tied})
    found = list(synthetic.checkpoint(config, seed=6))
    expected = [
        item for item in EXPECTED_SHAPES.items() if not (tied and item[0] == "lm_head.weight")
    ]
    assert [(name, array.shape) for name, array in found] == expected
    for name, array in found:
        assert array.dtype == np.float32
        assert array.tobytes() == synthetic.tensor(name, array.shape, 6).tobytes()


def last_hashes(name, seed, n, width):
    return {published_hash(name, seed, 2**32 - 1 - j) % width for j in range(n)}


@pytest.mark.parametrize("name", ["model.norm.weight", "model.layers.3.input_layernorm.weight"])
def test_three_gains_stand_out(name):
    """Outliers are 16 times the plain gain, in the channels that the last three hashes name."""
    plain = synthetic.tensor(name, (4096,), 5)
    ratio = synthetic.tensor(name, (4096,), 5, variant="outliers") / plain
    channels = last_hashes(name, 5, 3, 4096)
    assert ratio.dtype == np.float32
    assert set(np.flatnonzero(ratio != 1)) == channels
    assert len(channels) == 3
    assert set(ratio) == {1, 16}
    assert synthetic.outlier_channels(name, 4096, 5)[0] == sorted(channels)


def test_channels_that_coincide_stand_out_once():
    """Of a width of two, three channels are no more than two, each multiplied once."""
    plain = synthetic.tensor("model.norm.weight", (2,), 5)
    ratio = synthetic.tensor("model.norm.weight", (2,), 5, variant="outliers") / plain
    assert set(ratio) <= {1, 16}
    assert 16 in ratio


def test_one_column_of_the_embedding_stands_out():
    """One column is 64 times the plain one, in any rows that are asked for; nothing else is."""
    name, shape = "model.embed_tokens.weight", (500, 256)
    plain = synthetic.tensor(name, shape, 5)
    whole = synthetic.tensor(name, shape, 5, variant="outliers")
    (column,) = last_hashes(name, 5, 1, 256)
    expected = plain.copy()
    expected[:, column] *= 64
    assert whole.tobytes() == expected.tobytes()
    rows = synthetic.tensor(name, shape, 5, 400, 407, variant="outliers")
    assert rows.tobytes() == expected[400:407].tobytes()


def test_rows_of_gains_with_outliers_are_those_of_the_whole():
    """A stretch of a gain has the outliers that lie in it, at their places."""
    whole = synthetic.tensor("model.norm.weight", (64,), 5, variant="outliers")
    for lo, hi in [(0, 64), (3, 20), (20, 64), (63, 64), (5, 5)]:
        part = synthetic.tensor("model.norm.weight", (64,), 5, lo, hi, variant="outliers")
        assert part.tobytes() == whole[lo:hi].tobytes()


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16])
@pytest.mark.parametrize(
    ("name", "shape"), [("model.norm.weight", (16384,)), ("model.embed_tokens.weight", (99, 16384))]
)
def test_outliers_are_exact_in_16_bits(name, shape, dtype):
    """Rounding an outlier to bfloat16 or float16 changes nothing."""
    values = synthetic.tensor(name, shape, 3, variant="outliers")
    assert (values.astype(dtype).astype(np.float32) == values).all()


def test_projections_have_no_outliers():
    """Every matrix but the embedding is the same in both variants."""
    for name in EXPONENTS:
        if "embed" not in name:
            plain, other = (
                synthetic.tensor(name, (8, 64), 5, variant=variant)
                for variant in synthetic.VARIANTS
            )
            assert plain.tobytes() == other.tobytes()


REFUSED = {
    "unknown name": (("model.layers.0.mlp.bias", (4, 4)), {}, Unsupported, "mlp.bias"),
    "a norm with two axes": (("model.norm.weight", (4, 4)), {}, Unsupported, r"\(4, 4\)"),
    "a matrix with one axis": ((Q_PROJ, (4,)), {}, Unsupported, r"\(4,\)"),
    "a matrix with three axes": ((Q_PROJ, (4, 4, 4)), {}, Unsupported, r"\(4, 4, 4\)"),
    "no axes": ((Q_PROJ, ()), {}, BadRequest, "axes of 1 or more"),
    "an empty axis": ((Q_PROJ, (4, 0)), {}, BadRequest, "axes of 1 or more"),
    "2^32 + 2^16 elements": ((Q_PROJ, (2**16 + 1, 2**16)), {}, LimitExceeded, r"2\^32"),
    "seed -1": ((Q_PROJ, (4, 4)), {"seed": -1}, BadRequest, "seed"),
    "seed 2^32": ((Q_PROJ, (4, 4)), {"seed": 2**32}, BadRequest, "seed"),
    "seed 1.5": ((Q_PROJ, (4, 4)), {"seed": 1.5}, BadRequest, "seed"),
    "rows below 0": ((Q_PROJ, (4, 4)), {"lo": -1}, BadRequest, "rows"),
    "rows beyond the end": ((Q_PROJ, (4, 4)), {"hi": 5}, BadRequest, "rows"),
    "rows reversed": ((Q_PROJ, (4, 4)), {"lo": 3, "hi": 2}, BadRequest, "rows"),
    "another variant": ((Q_PROJ, (4, 4)), {"variant": "wild"}, BadRequest, "plain or outliers"),
}


@pytest.mark.parametrize(
    ("arguments", "options", "error", "words"), REFUSED.values(), ids=list(REFUSED)
)
def test_what_the_formula_does_not_define_is_refused(arguments, options, error, words):
    """A name, shape, seed or row outside the definition raises an error that says which."""
    with pytest.raises(error, match=words):
        synthetic.tensor(*arguments, **options)


@pytest.mark.parametrize(("n", "vocab_size"), [(-1, 8), (4, 0), (4, 2**32), (2**32 + 1, 8)])
def test_impossible_token_lists_are_refused(n, vocab_size):
    """A negative count, an empty vocabulary, or more than the hash can count, raises BadRequest."""
    with pytest.raises(BadRequest, match="tokens"):
        synthetic.token_ids(n, vocab_size)
