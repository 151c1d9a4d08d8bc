"""Bad config.json files (table B4): each is refused by file and key, with an error of ours."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_ref.config import Config, parse_hf_config
from llama_ref.errors import BadConfig, LlamaRefError, Unsupported
from tests.config.published_configs import (
    LLAMA_2_7B,
    LLAMA_31_8B_INSTRUCT,
    OLD_SCALING,
    ROPE_5,
    SCALING_8,
    TRANSFORMERS_5,
    without,
)


def parse(stated):
    return parse_hf_config(stated, file="here/config.json")


REQUIRED = [
    *("model_type", "hidden_act", "hidden_size", "intermediate_size", "num_hidden_layers"),
    *("num_attention_heads", "vocab_size", "max_position_embeddings", "rms_norm_eps"),
    "tie_word_embeddings",
]
SIZES = [
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("vocab_size", "max_position_embeddings"),
]


def rows(number, key, values, thing=None):
    """Return a bad input per value of a key; `thing` is what the error names, if not the key."""
    return [
        pytest.param({key: value}, thing or key, id=f"B4-{number} {key} {value!r:.30}")
        for value in values
    ]


def rope_rows(number, key, values, thing=None):
    """Return a bad input per value of a key inside rope_scaling."""
    return [
        pytest.param(
            {"rope_scaling": SCALING_8 | {key: value}},
            f"rope_scaling.{thing or key}",
            id=f"B4-{number} {key} {value!r:.30}",
        )
        for value in values
    ]


NOT_WHOLE = [0, -1, 4.0, "4", True, 2**63, [4], {}]
NOT_REAL = [0, 0.0, -1e-5, math.nan, math.inf, "1e-5", True, None, []]
FACTORS = ["factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"]

BAD = [
    *[row for key in SIZES for row in rows("58, 60, 61, 70", key, [*NOT_WHOLE, None])],
    *rows("58 not divisible", "num_attention_heads", [5, 24], "hidden_size"),
    *rows("58 not divisible", "hidden_size", [4100]),
    *rows("59", "num_key_value_heads", [0, -8, 3, 64, 8.0, True, "8"]),
    *rows("60", "num_hidden_layers", [10**9, 4097]),
    *rows("61", "vocab_size", [10**12]),
    *rows("62", "head_dim", [0, -2, 127, 128.0, "128", True, 2**31]),
    *rows("63", "rms_norm_eps", [*NOT_REAL, 2.0]),
    *rows("64", "rope_theta", [*NOT_REAL, -5e5, "500000.0"]),
    *rows("65", "hidden_act", ["gelu", "relu", "swiglu9", None, "SiLU"]),
    *rope_rows("66", "rope_type", ["yarn", "linear", "dynamic", "longrope", "", None, 3]),
    *[row for key in FACTORS for row in rope_rows("66", key, [0, -1.0, "8", None, True])],
    *rope_rows("66", "low_freq_factor", [4.0, 5.0]),
    *rope_rows("66", "high_freq_factor", [1.0, 0.5], "low_freq_factor"),
    *rope_rows("66", "type", ["yarn", None]),
    *rows("67", "rope_scaling", [[], "llama3", 8.0, True, [SCALING_8]]),
    *rows("68", "attention_bias", [True, None, 0]),
    *rows("68", "mlp_bias", [True, "false"]),
    *rows("68", "pretraining_tp", [2, 1.0, True]),
    *rows("68", "sliding_window", [4096]),
    *rows("68", "quantization_config", ["fbgemm_fp8", [], 8, True]),
    *rows("68", "auto_map", [{"AutoModelForCausalLM": "modeling_evil.Model"}]),
    *rows("69", "model_type", ["mistral", "llama4", "mllama", "Llama", None]),
    *rows("69", "architectures", [["MistralForCausalLM"], ["LlamaModel"], [], "LlamaForCausalLM"]),
    *rows("70", "max_position_embeddings", [10**15, 128.5]),
    *rows("71", "eos_token_id", [128256, -1, [128001, "x"], [128001, None], [[1]], 2.0, "2", {}]),
    *rows("71", "bos_token_id", [128256, -1, [1], True, 1.0, "1"]),
    *rows("74", "tie_word_embeddings", [None, 0, "false"]),
]


@pytest.mark.parametrize(("change", "thing"), BAD)
def test_a_bad_value_is_refused_by_file_and_key(change, thing):
    """The error is ours, and its sentence begins with the file and the key."""
    with pytest.raises(LlamaRefError) as caught:
        parse(LLAMA_31_8B_INSTRUCT | {"head_dim": 128} | change)
    message = str(caught.value)
    assert message.startswith(f"here/config.json: {thing}: expected ")
    assert len(message) < 500


@pytest.mark.parametrize("key", REQUIRED)
def test_a_missing_key_is_named(key):
    """B4-54: no default is filled in for a number that the file must state."""
    with pytest.raises(BadConfig, match=f"^here/config.json: {key}: .*found no such key"):
        parse(without(LLAMA_31_8B_INSTRUCT, key))


@pytest.mark.parametrize("key", FACTORS)
def test_a_missing_scaling_factor_is_named(key):
    """B4-66: the four numbers of the scaling are all required."""
    with pytest.raises(BadConfig, match=f"json: rope_scaling.{key}: .*found no such key"):
        parse(LLAMA_31_8B_INSTRUCT | {"rope_scaling": without(SCALING_8, key)})


@pytest.mark.parametrize("stated", [{}, without(SCALING_8, "rope_type")], ids=["B4-67 {}", "B4-66"])
def test_scaling_without_a_type_is_refused(stated):
    """An object that does not say which scaling it is could be any."""
    with pytest.raises(BadConfig, match=r"rope_scaling.rope_type: .*no such key"):
        parse(LLAMA_31_8B_INSTRUCT | {"rope_scaling": stated})


@pytest.mark.parametrize("stated", [LLAMA_31_8B_INSTRUCT, LLAMA_2_7B], ids=["3.1", "Llama 2"])
def test_rope_theta_is_never_a_default(stated):
    """B4-55: the first upload of Llama 2, which lacks the key, is told what to add."""
    with pytest.raises(BadConfig, match=r"rope_theta: .*no such key; .* 10000\.0: add it"):
        parse(without(stated, "rope_theta"))


@pytest.mark.parametrize(
    ("change", "thing"),
    [
        ({"rope_theta": 1e4}, "rope_parameters.rope_theta"),
        ({"rope_scaling": ROPE_5 | {"rope_theta": 1e4}}, "rope_parameters.rope_theta"),
        ({"rope_scaling": OLD_SCALING | {"factor": 32.0}}, "rope_parameters"),
        ({"rope_scaling": None}, "rope_parameters"),
        ({"rope_scaling": {"rope_type": "default"}}, "rope_parameters"),
        ({"rope_parameters": ROPE_5 | {"type": "default"}}, "rope_parameters.type"),
        ({"rope_parameters": ROPE_5 | {"rope_type": "default"}}, "rope_parameters.factor"),
    ],
    ids=["theta", "theta inside", "factor", "null", "default", "two types", "default with factor"],
)
def test_spellings_that_disagree_are_refused(change, thing):
    """B4-57: of two statements about RoPE neither wins."""
    with pytest.raises(BadConfig) as caught:
        parse(TRANSFORMERS_5 | change)
    assert caught.value.thing == thing


@pytest.mark.parametrize("key", ["factor", "rope_type", "rope_theta", "\x1b[2J"])
def test_foreign_text_in_the_scaling_is_escaped(key):
    """What stands under any key of the scaling appears in the error as printable text."""
    rope = {"rope_type": "default", "rope_theta": 500000.0, key: "\x1b[31m\u202e\n"}
    with pytest.raises(LlamaRefError) as error:
        parse(TRANSFORMERS_5 | {"rope_parameters": rope})
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    "key", ["quip_params", "num_local_experts", "quantization", "attn_scale", "\x1b[31m", "", 7]
)
def test_an_unknown_key_is_refused_by_name(key):
    """Accept nothing unexplained: a key that might change the numbers stops the reading."""
    with pytest.raises(Unsupported, match=r"^here/config.json: key .*remove it") as caught:
        parse(LLAMA_31_8B_INSTRUCT | {key: 1})
    assert ascii(key) in str(caught.value)
    assert str(caught.value).isprintable()


def test_an_unknown_key_inside_the_scaling_is_refused_by_name():
    """The same inside rope_scaling."""
    with pytest.raises(Unsupported, match=r"rope_scaling.key 'attention_factor'"):
        parse(LLAMA_31_8B_INSTRUCT | {"rope_scaling": SCALING_8 | {"attention_factor": 2.0}})


@pytest.mark.parametrize("document", [[], None, "x", 3, [LLAMA_31_8B_INSTRUCT]], ids=str)
def test_a_document_that_is_no_object_is_refused(document):
    """B4-73: a list or null is not a config."""
    with pytest.raises(BadConfig, match=r"whole document: expected a JSON object"):
        parse(document)


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=5,
)


@given(st.sampled_from([*LLAMA_31_8B_INSTRUCT, "rope_parameters", "head_dim"]), ANY_JSON)
def test_law_any_value_is_read_or_refused(key, value):
    """Whatever stands under a known key, the outcome is a config or an error of ours."""
    try:
        assert isinstance(parse(LLAMA_31_8B_INSTRUCT | {key: value}), Config)
    except LlamaRefError as error:
        assert str(error).startswith("here/config.json: ")


@given(st.sampled_from([*SCALING_8, "rope_theta", "type"]), ANY_JSON)
def test_law_any_value_inside_the_scaling_is_read_or_refused(key, value):
    """The same one level deeper."""
    try:
        changed = SCALING_8 | {key: value}
        assert isinstance(parse(LLAMA_31_8B_INSTRUCT | {"rope_scaling": changed}), Config)
    except LlamaRefError as error:
        assert str(error).startswith("here/config.json: ")
