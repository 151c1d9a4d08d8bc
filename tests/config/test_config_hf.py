"""config.json as published, in both spellings of RoPE: every number is read exactly."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_ref.config import Config, RopeScaling, parse_hf_config, to_hf_dict
from llama_ref.config.presets import PRESETS, preset
from llama_ref.strict_json import parse_json
from tests.config.published_configs import (
    LLAMA_2_7B,
    OLD_SCALING,
    PUBLISHED,
    ROPE_5,
    TRANSFORMERS_5,
    without,
)


def parse(stated):
    return parse_hf_config(stated, file="here/config.json")


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_file_states_its_preset(name):
    """Each preset is what the model's own config.json says; base 3.0 files name one stop token."""
    config = parse(PUBLISHED[name])
    if name.startswith("llama-3-"):
        assert config.eos_ids == (128001,)
        config = parse(PUBLISHED[name] | {"eos_token_id": [128001, 128009]})
    assert config == preset(name)


def test_every_preset_but_ours_is_checked_against_a_file():
    """No published preset goes without the file it was taken from."""
    assert {*PUBLISHED, "golden-tiny"} == set(PRESETS)


def test_llama_2_is_read():
    """A Llama 2 file: 32 key/value heads, no scaling, base 10,000, the parameters as published."""
    config = parse(LLAMA_2_7B)
    assert config.n_params == 6_738_415_616
    assert (config.n_kv_heads, config.rope_theta, config.rope_scaling) == (32, 10_000.0, None)
    assert (config.bos_id, config.eos_ids, config.context_length) == (1, (2,), 4096)


def test_transformers_5_is_read():
    """B4-56: rope_parameters holds base and scaling, dtype replaces torch_dtype."""
    config = parse(TRANSFORMERS_5)
    assert config.rope_theta == 500_000.0
    assert config.rope_scaling == RopeScaling(8.0, 1.0, 4.0, 1024)
    assert config.eos_ids == (1, 2)
    plain = parse(TRANSFORMERS_5 | {"rope_parameters": {"rope_theta": 1e4, "rope_type": "default"}})
    assert (plain.rope_theta, plain.rope_scaling) == (10_000.0, None)


@pytest.mark.parametrize(
    "change",
    [
        {"rope_theta": 500000.0},
        {"rope_theta": 500000},
        {"rope_scaling": OLD_SCALING},
        {"rope_scaling": OLD_SCALING, "rope_theta": 500000.0},
        {"rope_scaling": ROPE_5},
        {"rope_parameters": None, "rope_scaling": OLD_SCALING, "rope_theta": 5e5},
        {"rope_parameters": without(ROPE_5, "rope_theta"), "rope_theta": 5e5},
        {"rope_parameters": without(ROPE_5, "rope_type") | {"type": "llama3"}},
        {"rope_parameters": ROPE_5 | {"type": "llama3"}},
    ],
    ids=str,
)
def test_spellings_that_agree_are_one_blueprint(change):
    """B4-57: however often RoPE is stated, as long as all agree, the config is the same."""
    assert parse(TRANSFORMERS_5 | change) == parse(TRANSFORMERS_5)


def test_absent_heads_and_widths_have_one_meaning():
    """Without num_key_value_heads there is one per query head; without head_dim, D / N."""
    for change in ({"num_key_value_heads": None, "head_dim": None}, {}):
        stated = without(TRANSFORMERS_5, "num_key_value_heads", "head_dim") | change
        config = parse(stated)
        assert (config.n_kv_heads, config.head_dim) == (8, 8)


def test_absent_token_ids_are_none():
    """A file without token ids leaves them to the tokenizer."""
    config = parse(without(TRANSFORMERS_5, "bos_token_id", "eos_token_id"))
    assert (config.bos_id, config.eos_ids) == (None, ())
    assert parse(TRANSFORMERS_5 | {"bos_token_id": None, "eos_token_id": None}) == config


@st.composite
def configs(draw):
    """Any valid blueprint."""
    size, real = st.integers(1, 300), st.floats(1e-20, 1e20)
    n_kv_heads, group_size = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    n_heads, vocab_size = n_kv_heads * group_size, draw(st.integers(1, 2**31))
    low, high = sorted(draw(st.lists(real, min_size=2, max_size=2, unique=True)))
    scaling = RopeScaling(draw(st.floats(1, 1e20)), low, high, draw(size))
    token = st.integers(0, vocab_size - 1)
    return Config(
        d_model=n_heads * draw(size),
        n_layers=draw(size),
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        head_dim=2 * draw(size),
        d_ff=draw(size),
        vocab_size=vocab_size,
        context_length=draw(st.integers(1, 2**31)),
        norm_eps=draw(st.floats(1e-30, 1)),
        rope_theta=draw(real),
        rope_scaling=draw(st.sampled_from([None, scaling])),
        tied_embeddings=draw(st.booleans()),
        bos_id=draw(st.none() | token),
        eos_ids=tuple(draw(st.lists(token, max_size=3))),
    )


@given(configs())
def test_law_writing_then_reading_is_the_identity(config):
    """What to_hf_dict writes, as bytes of JSON too, parses back to the same blueprint."""
    stated = to_hf_dict(config)
    assert parse(stated) == config
    assert parse(parse_json(json.dumps(stated).encode(), file="config.json")) == config


@pytest.mark.parametrize("name", ["llama-3.1-405b", "llama-3.2-1b", "llama-3.3-70b"])
def test_writing_uses_the_published_words(name):
    """What a preset writes is the published file, less what changes no number."""
    bookkeeping = {"attention_dropout", "initializer_range", "pretraining_tp", "torch_dtype"}
    bookkeeping |= {"transformers_version", "use_cache"}
    assert to_hf_dict(preset(name)) == without(PUBLISHED[name], *bookkeeping)
