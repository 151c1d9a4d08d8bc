"""The blueprint: sizes against published figures, and no invalid Config can exist."""

import dataclasses
import math

import pytest

from llama_ref.config import Config, RopeScaling
from llama_ref.config.presets import PRESETS, preset
from llama_ref.errors import BadConfig, BadRequest

# name, parameters, bytes of bfloat16 keys and values per token: from Meta's model cards and the
# sizes of the published files.
PUBLISHED = [
    ("llama-3-8b", 8_030_261_248, 131_072),
    ("llama-3-70b", 70_553_706_496, 327_680),
    ("llama-3.1-8b", 8_030_261_248, 131_072),
    ("llama-3.1-70b", 70_553_706_496, 327_680),
    ("llama-3.1-405b", 405_853_388_800, 516_096),
    ("llama-3.2-1b", 1_235_814_400, 32_768),
    ("llama-3.2-3b", 3_212_749_824, 114_688),
    ("llama-3.3-70b", 70_553_706_496, 327_680),
    ("llama-guard-3-8b", 8_030_261_248, 131_072),
    ("llama-guard-3-1b", 1_498_482_688, 32_768),
]

SMALL = Config(
    d_model=12,
    n_layers=2,
    n_heads=6,
    n_kv_heads=3,
    head_dim=4,
    d_ff=20,
    vocab_size=50,
    context_length=64,
    norm_eps=1e-5,
    rope_theta=10_000.0,
    rope_scaling=None,
    tied_embeddings=False,
)


def tensor_sizes(config):
    """Return the number of elements of every tensor in a checkpoint of this shape."""
    width, kv_width = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    layer = [
        config.d_model,  # attention norm
        config.d_model * width,  # query
        config.d_model * kv_width,  # key
        config.d_model * kv_width,  # value
        width * config.d_model,  # attention output
        config.d_model,  # feed-forward norm
        config.d_model * config.d_ff,  # gate
        config.d_model * config.d_ff,  # up
        config.d_ff * config.d_model,  # down
    ]
    embedding = config.vocab_size * config.d_model
    head = [] if config.tied_embeddings else [embedding]
    return [embedding, *layer * config.n_layers, config.d_model, *head]


def test_presets_are_the_published_models_and_golden_tiny():
    """Every published text model of the Llama 3 family has a preset, and so has golden-tiny."""
    assert list(PRESETS) == [*(name for name, _, _ in PUBLISHED), "golden-tiny"]
    assert all(config.name == name for name, config in PRESETS.items())


@pytest.mark.parametrize(("name", "n_params", "kv_bytes"), PUBLISHED)
def test_a_preset_has_the_published_sizes(name, n_params, kv_bytes):
    """Parameter count and cache size per token are those of the published model."""
    assert preset(name).n_params == n_params
    assert preset(name).kv_bytes_per_token() == kv_bytes
    assert preset(name).kv_bytes_per_token(dtype_itemsize=4) == 2 * kv_bytes


@pytest.mark.parametrize(
    ("name", "change", "n_params"),
    [
        ("llama-3.2-1b", {"tied_embeddings": False}, 1_498_482_688),
        ("llama-3.2-3b", {"tied_embeddings": False}, 3_606_752_256),
        ("llama-3.1-405b", {"n_kv_heads": 16}, 410_081_247_232),
    ],
    ids=["1B untied", "3B untied", "405B MP16"],
)
def test_a_stored_variant_has_the_published_size(name, change, n_params):
    """Untying adds one matrix; the 16-device cut of 405B stores every key/value head twice."""
    assert dataclasses.replace(preset(name), **change).n_params == n_params


@pytest.mark.parametrize(("bits", "gigabytes"), [(16, 811.7), (8, 405.9), (4, 202.9)])
def test_405b_is_stored_in_the_bytes_the_model_card_says(bits, gigabytes):
    """405B takes 812, 406 and 203 GB in 16, 8 and 4 bits."""
    stored = preset("llama-3.1-405b").stored_bytes(bits)
    assert type(stored) is int
    assert round(stored / 1e9, 1) == gigabytes


def test_odd_numbers_of_small_weights_round_up_to_a_byte():
    """Seven parameters of four bits need four bytes, not three and a half."""
    config = dataclasses.replace(SMALL, d_model=6, vocab_size=51)
    assert config.stored_bytes(1) == math.ceil(config.n_params / 8)


@pytest.mark.parametrize("config", [SMALL, *PRESETS.values()], ids=lambda c: c.name or "small")
def test_sizes_are_sums_over_the_tensors(config):
    """Parameters are the elements of all tensors; FLOPs are two per weight multiplied with."""
    sizes = tensor_sizes(config)
    assert config.n_params == sum(sizes)
    gains = (2 * config.n_layers + 1) * config.d_model
    embedding = 0 if config.tied_embeddings else config.vocab_size * config.d_model
    assert config.flops_per_token() == 2 * (sum(sizes) - gains - embedding)


def test_attended_positions_cost_a_score_and_a_mix_each():
    """Per layer and query head a position costs a dot product of H and an addition of H."""
    extra = SMALL.flops_per_token(context=10) - SMALL.flops_per_token()
    assert extra == 10 * SMALL.n_layers * SMALL.n_heads * (2 * SMALL.head_dim + 2 * SMALL.head_dim)


def test_head_dim_need_not_be_the_width_over_the_heads():
    """A config whose heads together are wider than the hidden state is valid."""
    assert SMALL.n_heads * SMALL.head_dim == 2 * SMALL.d_model
    assert SMALL.group_size == 2


def test_golden_tiny_is_as_designed():
    """golden-tiny has D 256, 4 layers, N 8, K 2, F 896, V 1024 and factor 8."""
    tiny = preset("golden-tiny")
    assert (tiny.d_model, tiny.n_layers, tiny.n_heads, tiny.n_kv_heads) == (256, 4, 8, 2)
    assert (tiny.d_ff, tiny.vocab_size, tiny.rope_scaling.factor) == (896, 1024, 8.0)
    assert tiny.context_length == 131_072


@pytest.mark.parametrize("name", ["llama-4", "", None, ["llama-3-8b"]])
def test_an_unknown_preset_is_refused_with_the_list(name):
    """Asking for a preset that does not exist names those that do."""
    with pytest.raises(BadRequest, match=r"preset: expected one of llama-3-8b, .*golden-tiny"):
        preset(name)


def test_presets_cannot_be_changed():
    """The table of presets is read-only, and so is each config."""
    with pytest.raises(TypeError):
        PRESETS["mine"] = SMALL
    with pytest.raises(dataclasses.FrozenInstanceError):
        SMALL.n_layers = 3


def test_the_name_is_for_people():
    """Two configs that differ only in name are equal and hash alike; any number sets them apart."""
    named = dataclasses.replace(SMALL, name="mine")
    assert named == SMALL
    assert hash(named) == hash(SMALL)
    assert dataclasses.replace(SMALL, norm_eps=1e-6) != SMALL


def test_whole_numbers_given_for_real_ones_become_floats():
    """rope_theta = 10000 is the number 10000.0, of type float."""
    config = dataclasses.replace(SMALL, rope_theta=10_000)
    assert type(config.rope_theta) is float
    assert config == SMALL


SIZES = ["d_model", "n_layers", "n_heads", "n_kv_heads", "head_dim", "d_ff", "vocab_size"]


@pytest.mark.parametrize("field", [*SIZES, "context_length"])
@pytest.mark.parametrize(
    "value",
    [0, -1, 4.0, "4", True, None, 2**63, pytest.param(10**5000, id="5001 digits"), [4], math.nan],
)
def test_a_size_is_a_whole_number_in_range(field, value):
    """No size is zero, negative, huge, or of any type but int; True is not 1."""
    with pytest.raises(BadConfig) as caught:
        dataclasses.replace(SMALL, **{field: value})
    assert caught.value.thing == field
    assert str(caught.value).startswith(f"{field}: expected a whole number from")


@pytest.mark.parametrize("field", ["norm_eps", "rope_theta"])
@pytest.mark.parametrize(
    "value",
    [
        0,
        0.0,
        -1e-5,
        math.nan,
        math.inf,
        -math.inf,
        "1e-5",
        True,
        None,
        1e-60,
        pytest.param(10**5000, id="5001 digits"),
    ],
)
def test_a_real_number_is_positive_and_in_the_range_of_float32(field, value):
    """Neither eps nor theta is zero, negative, infinite, not a number, or text."""
    with pytest.raises(BadConfig, match=f"^{field}: expected a number from"):
        dataclasses.replace(SMALL, **{field: value})


@pytest.mark.parametrize(
    ("change", "thing"),
    [
        ({"d_model": 13}, "d_model"),
        ({"n_kv_heads": 4}, "n_kv_heads"),
        ({"n_kv_heads": 12}, "n_kv_heads"),
        ({"head_dim": 5}, "head_dim"),
        ({"n_layers": 4097}, "n_layers"),
        ({"n_heads": 2**20, "n_kv_heads": 1, "d_model": 2**20, "head_dim": 2**16}, "head_dim"),
        ({"head_dim": 2**16 + 2}, "head_dim"),
        ({"norm_eps": 1.5}, "norm_eps"),
        ({"rope_scaling": {"factor": 8.0}}, "rope_scaling"),
        ({"tied_embeddings": 1}, "tied_embeddings"),
        ({"tied_embeddings": None}, "tied_embeddings"),
        ({"bos_id": 50}, "bos_id"),
        ({"bos_id": -1}, "bos_id"),
        ({"bos_id": True}, "bos_id"),
        ({"eos_ids": (1, 50)}, "eos_ids"),
        ({"eos_ids": (1, "2")}, "eos_ids"),
        ({"eos_ids": [1]}, "eos_ids"),
        ({"eos_ids": 1}, "eos_ids"),
        ({"name": None}, "name"),
    ],
    ids=str,
)
def test_numbers_that_contradict_each_other_are_refused(change, thing):
    """An invalid blueprint cannot be made, and the error names the attribute."""
    with pytest.raises(BadConfig) as caught:
        dataclasses.replace(SMALL, **change)
    assert caught.value.thing == thing


@pytest.mark.parametrize(
    ("change", "thing"),
    [
        ({"factor": 0}, "factor"),
        ({"factor": 0.5}, "factor"),
        ({"factor": -8.0}, "factor"),
        ({"factor": "8"}, "factor"),
        ({"factor": math.nan}, "factor"),
        ({"factor": True}, "factor"),
        ({"low_freq_factor": 0}, "low_freq_factor"),
        ({"low_freq_factor": 4.0}, "low_freq_factor"),
        ({"low_freq_factor": 5.0}, "low_freq_factor"),
        ({"high_freq_factor": -4.0}, "high_freq_factor"),
        ({"high_freq_factor": math.inf}, "high_freq_factor"),
        ({"original_context": 0}, "original_context"),
        ({"original_context": 8192.0}, "original_context"),
    ],
    ids=str,
)
def test_rope_scaling_that_cannot_be_computed_is_refused(change, thing):
    """Low equal to high would divide by zero; low above high would blend backwards."""
    valid = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    with pytest.raises(BadConfig) as caught:
        RopeScaling(**({"original_context": 8192} | valid | change))
    assert caught.value.thing == thing
