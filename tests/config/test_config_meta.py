"""params.json: the published files, what they leave out, and bad ones (table B4, row 74)."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_ref.config import Config, parse_meta_params
from llama_ref.config.meta import feed_forward_width
from llama_ref.config.presets import preset
from llama_ref.errors import BadConfig, LlamaRefError, Unsupported
from tests.config.published_configs import without

LLAMA_31_8B = {
    "dim": 4096,
    "ffn_dim_multiplier": 1.3,
    "multiple_of": 1024,
    "n_heads": 32,
    "n_kv_heads": 8,
    "n_layers": 32,
    "norm_eps": 1e-05,
    "rope_theta": 500000.0,
    "use_scaled_rope": True,
    "vocab_size": 128256,
}
LLAMA_31_70B = LLAMA_31_8B | {"dim": 8192, "multiple_of": 4096, "n_heads": 64, "n_layers": 80}
LLAMA_31_405B = LLAMA_31_70B | {
    "dim": 16384,
    "ffn_dim_multiplier": 1.2,
    "n_heads": 128,
    "n_layers": 126,
}
LLAMA_32_1B = LLAMA_31_8B | {
    "dim": 2048,
    "ffn_dim_multiplier": 1.5,
    "multiple_of": 256,
    "n_layers": 16,
}
LLAMA_32_3B = LLAMA_32_1B | {
    "dim": 3072,
    "ffn_dim_multiplier": 1.0,
    "n_heads": 24,
    "n_layers": 28,
}
PUBLISHED = {
    "llama-3-8b": without(LLAMA_31_8B, "use_scaled_rope"),
    "llama-3-70b": LLAMA_31_70B | {"use_scaled_rope": False},
    "llama-3.1-8b": LLAMA_31_8B,
    "llama-3.1-70b": LLAMA_31_70B,
    "llama-3.1-405b": LLAMA_31_405B,
    "llama-3.2-1b": LLAMA_32_1B,
    "llama-3.2-3b": LLAMA_32_3B,
    "llama-3.3-70b": LLAMA_31_70B,
    "llama-guard-3-8b": LLAMA_31_8B,
}
GUARD_3_1B_INT4 = without(LLAMA_32_1B, "ffn_dim_multiplier", "multiple_of", "rope_theta") | {
    "n_layers": 12,
    "hidden_dim": 6400,
    "rope_freq_base": 500000.0,
}
LLAMA_2_7B = {
    "dim": 4096,
    "multiple_of": 256,
    "n_heads": 32,
    "n_layers": 32,
    "norm_eps": 1e-05,
    "vocab_size": -1,
}


def parse(stated, *, tied_embeddings=False):
    return parse_meta_params(stated, file="here/params.json", tied_embeddings=tied_embeddings)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_file_states_its_preset(name):
    """What Meta's file says, and what it leaves out, make the blueprint of config.json."""
    published = preset(name)
    config = parse(PUBLISHED[name], tied_embeddings=published.tied_embeddings)
    assert set(published.eos_ids) <= set(config.eos_ids)
    assert config.bos_id == published.bos_id
    assert {**vars(config), "eos_ids": 0, "name": 0} == {**vars(published), "eos_ids": 0, "name": 0}


# (dim, multiple_of, ffn_dim_multiplier) -> the width of the published matrices
WIDTHS = [
    ("3.1 8B", 4096, 1024, 1.3, 14336),
    ("3.1 70B", 8192, 4096, 1.3, 28672),
    ("3.1 405B", 16384, 4096, 1.2, 53248),
    ("3.2 1B", 2048, 256, 1.5, 8192),
    ("3.2 3B", 3072, 256, 1.0, 8192),
    ("2 7B", 4096, 256, 1.0, 11008),
    ("2 13B", 5120, 256, 1.0, 13824),
    ("stories260k", 64, 4, 1.0, 172),
]


@pytest.mark.parametrize(
    ("d_model", "multiple_of", "multiplier", "width"),
    [row[1:] for row in WIDTHS],
    ids=[row[0] for row in WIDTHS],
)
def test_the_feed_forward_width_is_the_published_one(d_model, multiple_of, multiplier, width):
    """Meta's formula, with its two roundings down before the one up, gives the stored shapes."""
    assert feed_forward_width(d_model, multiple_of, multiplier) == width


def test_the_scaling_factor_comes_from_the_published_shape():
    """The file says only that RoPE is scaled: 3.1 and its 16-device cut have 8, 3.2 has 32."""
    assert parse(LLAMA_31_405B | {"n_kv_heads": 16}).rope_scaling.factor == 8.0
    assert parse(LLAMA_31_405B | {"n_kv_heads": 16}).is_mp16
    assert parse(LLAMA_32_1B, tied_embeddings=True).rope_scaling.factor == 32.0
    assert parse(LLAMA_32_3B, tied_embeddings=False).rope_scaling.factor == 32.0


def test_a_stated_scaling_factor_wins():
    """A key rope_scaling_factor, which anybody may add, is believed."""
    for factor in (4.0, 32):
        config = parse(LLAMA_31_8B | {"rope_scaling_factor": factor, "n_layers": 3})
        assert config.rope_scaling.factor == factor
        assert config.context_length == 131_072


@pytest.mark.parametrize(
    ("stated", "reason"),
    [
        (LLAMA_31_8B | {"n_layers": 3}, "no model is published"),
        (LLAMA_31_8B | {"rope_theta": 1e6}, "no model is published"),
        (GUARD_3_1B_INT4, "no model is published"),
        (LLAMA_32_1B, "llama-3.2-1b has 32 and llama-guard-3-1b has 8"),
    ],
    ids=["other depth", "other base", "Guard 3 1B INT4", "untied 1B"],
)
def test_an_unknown_scaling_factor_is_asked_for(stated, reason):
    """Where the factor cannot be known it is not 8 by default: the error says which key to add."""
    with pytest.raises(BadConfig) as caught:
        parse(stated)
    assert caught.value.thing == "rope_scaling_factor"
    assert reason in str(caught.value)
    assert str(caught.value).endswith("add it: 8 for Llama 3.1 and 3.3, 32 for Llama 3.2 1B and 3B")


def test_the_pruned_guard_is_read_by_its_own_keys():
    """Llama Guard 3 1B INT4 states hidden_dim and rope_freq_base: 0.86 billion parameters."""
    stated = GUARD_3_1B_INT4 | {"rope_scaling_factor": 32.0}
    config = parse(stated, tied_embeddings=True)
    assert (config.d_ff, config.rope_theta) == (6400, 500_000.0)
    assert round(config.n_params / 1e9, 2) == 0.86
    assert parse(stated | {"rope_theta": 500000, "multiple_of": 256, "ffn_dim_multiplier": 1.172})


def test_llama_2_needs_two_keys_its_file_lacks():
    """B4-74, B4-55: vocab_size -1 and no base are refused in turn, each saying what to write."""
    with pytest.raises(BadConfig, match=r"vocab_size: .*found -1; .*32000 for Llama 2"):
        parse(LLAMA_2_7B)
    with pytest.raises(BadConfig, match=r"rope_theta: .*10000\.0 for Llama 1 and 2"):
        parse(LLAMA_2_7B | {"vocab_size": 32000})
    config = parse(LLAMA_2_7B | {"vocab_size": 32000, "rope_theta": 1e4, "max_seq_len": 4096})
    assert config.n_params == 6_738_415_616
    assert (config.n_kv_heads, config.context_length, config.rope_scaling) == (32, 4096, None)
    assert (config.bos_id, config.eos_ids) == (None, ())


def test_null_heads_and_multiplier_mean_absent():
    """n_kv_heads and ffn_dim_multiplier may be null, as in Meta's own defaults."""
    stated = {"vocab_size": 32000, "rope_theta": 1e4}
    absent = parse(LLAMA_2_7B | stated)
    assert parse(LLAMA_2_7B | stated | {"n_kv_heads": None, "ffn_dim_multiplier": None}) == absent


def rows(key, values, thing=None):
    return [pytest.param({key: v}, thing or key, id=f"B4-74 {key} {v!r:.30}") for v in values]


NOT_WHOLE = [0, -1, 4.0, "4", True, None, 2**63, [4]]
NOT_REAL = [0, -1e-5, math.nan, math.inf, "1e-5", True, None]

BAD = [
    *[row for key in ("dim", "n_layers", "n_heads", "vocab_size") for row in rows(key, NOT_WHOLE)],
    *rows("multiple_of", NOT_WHOLE),
    *rows("n_heads", [5], "dim"),
    *rows("n_layers", [10**9]),
    *rows("n_kv_heads", [0, 3, 64, 8.0, "8", True]),
    *rows("ffn_dim_multiplier", [0, -1.3, 1e30, "1.3", True, math.nan, 1e-9, 0.0]),
    *rows("norm_eps", NOT_REAL),
    *rows("rope_theta", NOT_REAL),
    *rows("use_scaled_rope", ["false", "true", 1, 0, None]),
    *rows("rope_scaling_factor", [0, 0.5, -8, "8", None, True, math.inf]),
    *rows("max_seq_len", [0, -1, 10**15, 128.5, "8192"]),
    *rows("hidden_dim", [0, 14337, 14336.0, "14336", None]),
    *rows("rope_freq_base", [10000.0, None]),
]


@pytest.mark.parametrize(("change", "thing"), BAD)
def test_a_bad_value_is_refused_by_file_and_key(change, thing):
    """The error is ours, and its sentence begins with the file and the key."""
    with pytest.raises(LlamaRefError) as caught:
        parse(LLAMA_31_8B | change)
    assert str(caught.value).startswith(f"here/params.json: {thing}: expected ")


@pytest.mark.parametrize(
    "key", ["dim", "multiple_of", "n_heads", "n_layers", "norm_eps", "rope_theta", "vocab_size"]
)
def test_a_missing_key_is_named(key):
    """B4-54: a number that the file must state has no default."""
    with pytest.raises(BadConfig, match=f"^here/params.json: {key}: .*found no such key"):
        parse(without(LLAMA_31_8B, key))


def test_a_missing_multiplier_means_one():
    """Without ffn_dim_multiplier the width is 8/3 of the model's, up to a multiple."""
    stated = without(LLAMA_31_8B, "ffn_dim_multiplier") | {"rope_scaling_factor": 8.0}
    assert parse(stated).d_ff == 11 * 1024


def test_a_factor_without_scaling_is_a_contradiction():
    """rope_scaling_factor beside use_scaled_rope false says two things at once."""
    with pytest.raises(BadConfig, match=r"rope_scaling_factor: expected no such key"):
        parse(LLAMA_31_8B | {"use_scaled_rope": False, "rope_scaling_factor": 8.0})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("moe_args", {"num_experts": 16}),
        ("vision_chunk_size", 448),
        ("head_dim", 128),
        ("wrap", None),
    ],
)
def test_an_unknown_key_is_refused_by_name(key, value):
    """B4-74: sections for experts, LoRA, quantisation and vision change the numbers."""
    with pytest.raises(Unsupported, match=f"^here/params.json: key '{key}'"):
        parse(LLAMA_31_8B | {key: value})


@pytest.mark.parametrize("document", [[], None, "x", 3], ids=str)
def test_a_document_that_is_no_object_is_refused(document):
    """B4-73: a list or null is not a blueprint."""
    with pytest.raises(BadConfig, match=r"whole document: expected a JSON object"):
        parse(document)


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=5,
)
OTHER_KEYS = ["hidden_dim", "rope_freq_base", "rope_scaling_factor", "max_seq_len"]


@given(st.sampled_from([*LLAMA_31_8B, *OTHER_KEYS]), ANY_JSON)
def test_law_any_value_is_read_or_refused(key, value):
    """Whatever stands under a known key, the outcome is a config or an error of ours."""
    try:
        assert isinstance(parse(LLAMA_31_8B | {key: value}), Config)
    except LlamaRefError as error:
        assert str(error).startswith("here/params.json: ")
