"""The record of parameters: vLLM's names, defaults, ranges and sentences, and the peers' own."""

import copy
import dataclasses
import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_ref.cli.demo_checkpoint import write_demo
from llama_ref.errors import BadRequest
from llama_ref.loading import load
from llama_ref.sampling import LowTemperatureWarning, SamplingParams, processed_logits

NUMBERS = (
    *("temperature", "top_p", "min_p", "typical_p"),
    *("frequency_penalty", "presence_penalty", "repetition_penalty"),
)
COUNTS = ("n", "top_k", "seed", "max_tokens", "min_tokens", "logprobs", "prompt_logprobs")
PROFILES = ("vllm", "hf", "llama.cpp", "meta")


def message_of(**fields):
    with pytest.raises(BadRequest) as caught:
        SamplingParams(**fields)
    assert caught.value.thing in fields
    return str(caught.value)


def test_defaults_are_those_of_vllm():
    """Everything is off, one text of 16 tokens is drawn at temperature 1, unseeded."""
    assert dataclasses.asdict(SamplingParams()) == {
        "n": 1,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "typical_p": 1.0,
        "frequency_penalty": 0.0,
        "presence_penalty": 0.0,
        "repetition_penalty": 1.0,
        "logit_bias": None,
        "allowed_token_ids": None,
        "bad_words": None,
        "seed": None,
        "max_tokens": 16,
        "min_tokens": 0,
        "stop": None,
        "stop_token_ids": None,
        "ignore_eos": False,
        "include_stop_str_in_output": False,
        "skip_special_tokens": True,
        "logprobs": None,
        "prompt_logprobs": None,
        "profile": "vllm",
    }


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"temperature": -0.1}, "temperature must be non-negative, got -0.1."),
        ({"temperature": 3}, "temperature must be in [0, 2], got 3.0."),
        ({"temperature": 2.0001}, "temperature must be in [0, 2], got 2.0001."),
        ({"top_p": 0}, "top_p must be in (0, 1], got 0.0."),
        ({"top_p": 1.01}, "top_p must be in (0, 1], got 1.01."),
        ({"top_p": -0.1}, "top_p must be in (0, 1], got -0.1."),
        ({"top_k": -2}, "top_k must be 0 (disable), or at least 1, got -2."),
        ({"min_p": -0.1}, "min_p must be in [0, 1], got -0.1."),
        ({"min_p": 1.5}, "min_p must be in [0, 1], got 1.5."),
        ({"typical_p": 0}, "typical_p must be in (0, 1], got 0.0."),
        ({"presence_penalty": -2.1}, "presence_penalty must be in [-2, 2], got -2.1."),
        ({"frequency_penalty": 2.1}, "frequency_penalty must be in [-2, 2], got 2.1."),
        ({"repetition_penalty": 0}, "repetition_penalty must be greater than zero, got 0.0."),
        ({"repetition_penalty": -1}, "repetition_penalty must be greater than zero, got -1.0."),
        ({"n": 0}, "n must be at least 1, got 0."),
        ({"n": 16385}, "n must be at most 16384, got 16385."),
        ({"n": 2, "temperature": 0}, "n must be 1 when using greedy sampling, got 2."),
        ({"max_tokens": 0}, "max_tokens must be at least 1, got 0."),
        ({"max_tokens": -1}, "max_tokens must be at least 1, got -1."),
        ({"min_tokens": -1}, "min_tokens must be greater than or equal to 0, got -1."),
        (
            {"min_tokens": 4, "max_tokens": 3},
            "min_tokens must be less than or equal to max_tokens=3, got 4.",
        ),
        ({"logprobs": -2}, "logprobs must be non-negative or -1, got -2."),
        ({"prompt_logprobs": -2}, "prompt_logprobs must be non-negative or -1, got -2."),
        ({"stop": ""}, "stop cannot contain an empty string."),
        ({"stop": ["a", ""]}, "stop cannot contain an empty string."),
        ({"stop_token_ids": [1.5]}, "stop_token_ids must contain only integers, got 1.5."),
        ({"allowed_token_ids": []}, "allowed_token_ids is not None and empty!"),
        ({"bad_words": [""]}, "bad_words cannot contain an empty string."),
        (
            {"logit_bias": {"abc": 1}},
            "logit_bias contains key(s) that cannot be converted to integer token IDs: ['abc']",
        ),
        ({"seed": 2**64}, "seed must be an integer of 64 bits, got 18446744073709551616."),
    ],
    ids=str,
)
def test_sentences_are_those_of_vllm(fields, sentence):
    """What is out of range is refused in vLLM's words, and the error names the field."""
    assert message_of(**fields) == sentence


@pytest.mark.parametrize("field", NUMBERS)
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(
    "value",
    [True, False, "0.7", None, [0.5], math.nan, math.inf, -math.inf, 10**400, np.array([0.5, 1])],
    ids=str,
)
def test_numbers_are_finite_numbers(field, profile, value):
    """No boolean, string, list, NaN, infinity or integer of 400 digits is a number, anywhere."""
    assert message_of(**{field: value}, profile=profile).startswith(f"{field} must be a")


@pytest.mark.parametrize("field", COUNTS)
@pytest.mark.parametrize("value", [True, "1", 1.5, [1], math.nan, math.inf, 1j], ids=str)
def test_counts_are_integers(field, value):
    """No boolean, string or fraction is a count."""
    assert message_of(**{field: value}).startswith(f"{field} must be an integer")


@pytest.mark.parametrize("field", ["ignore_eos", "include_stop_str_in_output"])
@pytest.mark.parametrize("value", [0, 1, "true", None], ids=str)
def test_flags_are_booleans(field, value):
    """Nothing but a boolean switches something on or off."""
    assert message_of(**{field: value}) == f"{field} must be true or false, got {value!r}."


@pytest.mark.parametrize(
    "fields",
    [
        {"stop": 5},
        {"stop": [1]},
        {"stop": {"a": 1}},
        {"stop": b"a"},
        {"stop_token_ids": "x"},
        {"stop_token_ids": 5},
        {"stop_token_ids": [True]},
        {"allowed_token_ids": {1: 2}},
        {"allowed_token_ids": ["1"]},
        {"bad_words": "x"},
        {"bad_words": [1, 2]},
        {"bad_words": [[]]},
        {"bad_words": [" "]},
        {"logit_bias": []},
        {"logit_bias": {1: None}},
        {"logit_bias": {1: "2"}},
        {"logit_bias": {1: True}},
        {"logit_bias": {1: math.nan}},
        {"logit_bias": {1: math.inf}},
        {"logit_bias": {1: -math.inf}},
        {"logit_bias": {"01": 1}},
        {"logit_bias": {"1.0": 1}},
        {"logit_bias": {"": 1}},
        {"logit_bias": {"٣": 1}},
        {"logit_bias": {"9" * 10_000: 1}},
        {"logit_bias": {1.5: 1}},
        {"logit_bias": {True: 1}},
        {"logit_bias": {None: 1}},
        {"logit_bias": {1: 1, "1": 2}},
        {"profile": "openai"},
        {"profile": None},
        {"profile": ["vllm"]},
    ],
    ids=str,
)
def test_wrong_kinds_are_refused(fields):
    """A value of another kind is refused, and the error names its field."""
    message_of(**fields)


@given(
    st.dictionaries(
        st.sampled_from([*NUMBERS, *COUNTS, "stop", "logit_bias", "bad_words", "profile"]),
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=5)
        | st.lists(st.integers() | st.text(max_size=3), max_size=3)
        | st.dictionaries(st.text(max_size=3) | st.integers(), st.integers(), max_size=3),
        max_size=3,
    )
)
@settings(max_examples=200, deadline=None)
def test_anything_at_all_is_accepted_or_refused(fields):
    """Whatever the values, there are parameters or a BadRequest, and no other error."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LowTemperatureWarning)
            SamplingParams(**fields)
    except BadRequest as error:
        assert error.thing in fields or error.thing in {"n", "min_tokens", "max_tokens"}


def test_whole_floats_are_integers():
    """2.0 is 2, also NumPy's, and the record holds Python's integers."""
    params = SamplingParams(
        top_k=2.0, n=np.int64(3), max_tokens=np.float32(5), stop_token_ids=[7.0, 7]
    )
    assert (params.top_k, params.n, params.max_tokens) == (2, 3, 5)
    assert params.stop_token_ids == (7,)
    assert {type(v) for v in (params.top_k, params.n, params.max_tokens)} == {int}
    assert type(SamplingParams(temperature=1).temperature) is float


@pytest.mark.parametrize("profile", ["hf", "llama.cpp", "meta"])
def test_top_p_zero_outside_vllm(profile):
    """top_p = 0 is refused in profile vllm alone; elsewhere it keeps one token."""
    params = SamplingParams(top_p=0, profile=profile)
    assert np.isfinite(processed_logits(np.array([1.0, 2.0, 0.0]), params)).tolist() == [0, 1, 0]


def test_llama_cpp_clamps():
    """Profile llama.cpp moves what is out of range to the nearest end, and refuses r <= 0."""
    params = SamplingParams(
        profile="llama.cpp", temperature=-1, top_k=-5, top_p=1.5, min_p=-3, typical_p=7
    )
    assert (params.temperature, params.top_k, params.top_p) == (0.0, 0, 1.0)
    assert (params.min_p, params.typical_p) == (0.0, 1.0)
    assert SamplingParams(profile="llama.cpp", frequency_penalty=5).frequency_penalty == 5
    message_of(profile="llama.cpp", repetition_penalty=0)


@pytest.mark.parametrize("profile", ["hf", "llama.cpp", "meta"])
def test_high_temperatures_outside_vllm(profile):
    """Only vLLM has an upper end, and only it refuses several greedy texts."""
    assert SamplingParams(temperature=5, profile=profile).temperature == 5
    assert SamplingParams(temperature=0, n=2, profile=profile).n == 2


@pytest.mark.parametrize(
    ("profile", "fields"),
    [
        ("hf", {"frequency_penalty": 0.5}),
        ("hf", {"presence_penalty": 0.5}),
        ("meta", {"top_k": 5}),
        ("meta", {"min_p": 0.1}),
        ("meta", {"repetition_penalty": 1.1}),
        ("meta", {"logit_bias": {1: 2.0}}),
    ],
)
def test_a_step_the_peer_has_not(profile, fields):
    """A parameter without a step in the profile is refused, not ignored."""
    (field,) = fields
    assert message_of(profile=profile, **fields).startswith(
        f"{field} is not a step of profile {profile!r}"
    )


def test_defaults_of_the_peers():
    """of_profile takes the peer's own defaults, and what is given wins."""
    llama_cpp = SamplingParams.of_profile("llama.cpp", top_k=7)
    assert (llama_cpp.temperature, llama_cpp.top_k) == (0.8, 7)
    assert (llama_cpp.top_p, llama_cpp.min_p) == (0.95, 0.05)
    meta = SamplingParams.of_profile("meta")
    assert (meta.temperature, meta.top_p, meta.profile) == (0.6, 0.9, "meta")
    assert SamplingParams.of_profile("hf").top_k == 50
    assert SamplingParams.of_profile("vllm") == SamplingParams()
    with pytest.raises(BadRequest, match="profile"):
        SamplingParams.of_profile("openai")


def test_tiny_temperatures_are_raised_with_a_warning():
    """In profile vllm 1e-300 becomes 0.01, with a warning; 0.01 and 0 pass without."""
    with pytest.warns(LowTemperatureWarning, match="raised to 0.01") as caught:
        assert SamplingParams(temperature=1e-300).temperature == 0.01
    assert caught[0].filename == __file__
    assert SamplingParams(temperature=0.01).temperature == 0.01
    assert SamplingParams(temperature=0).temperature == 0
    assert SamplingParams(temperature=1e-300, profile="hf").temperature == 1e-300


def test_greedy_parameters_read_as_in_vllm():
    """At temperature 0 profile vllm reports the filters as off."""
    params = SamplingParams(temperature=0, top_p=0.5, top_k=3, min_p=0.1, typical_p=0.5)
    assert (params.top_p, params.top_k, params.min_p, params.typical_p) == (1.0, 0, 0.0, 1.0)
    assert SamplingParams(temperature=0, top_k=3, profile="hf").top_k == 3


@pytest.mark.parametrize(
    ("seed", "kept"),
    [(None, None), (-1, None), (0, 0), (-(2**63), -(2**63)), (2**64 - 1, 2**64 - 1)],
)
def test_seeds(seed, kept):
    """A seed has 64 bits; None, and -1 as in vLLM, leave the request unseeded."""
    assert SamplingParams(seed=seed).seed == kept
    assert message_of(seed="1").startswith("seed must be")


def test_biases_are_clamped_in_vllm_alone():
    """Profile vllm moves a bias into -100 to 100 silently; the others take it as it is."""
    assert SamplingParams(logit_bias={"1": 101, " 7 ": -1e9}).logit_bias == {1: 100.0, 7: -100.0}
    assert SamplingParams(logit_bias={1: 101}, profile="hf").logit_bias == {1: 101.0}


@pytest.mark.parametrize(
    "fields",
    [
        {"logit_bias": {"8": 1}},
        {"logit_bias": {-1: 1}},
        {"logit_bias": dict.fromkeys(range(200_000), 1)},
        {"allowed_token_ids": [0, 8]},
        {"stop_token_ids": [-1]},
        {"bad_words": [[1, 8]]},
    ],
    ids=["bias", "negative", "200,000", "allowed", "stop", "bad words"],
)
def test_ids_outside_the_vocabulary(fields):
    """An id that the vocabulary has not is refused once the vocabulary is known."""
    params, (field,) = SamplingParams(**fields), fields
    with pytest.raises(BadRequest, match=r"out-of-vocab token ids\. Vocabulary size: 8$") as caught:
        params.check_vocabulary(8)
    assert caught.value.thing == field
    assert len(str(caught.value)) < 400
    SamplingParams(logit_bias={7: 1}, bad_words=["x", [7]]).check_vocabulary(8)


def test_the_record_is_its_own():
    """It is frozen, does not share the caller's lists, and can be copied and changed."""
    bias, stops = {1: 2.0}, ["a"]
    params = SamplingParams(logit_bias=bias, stop=stops, bad_words=[[1, 2], "x"])
    bias[1] = 5.0
    stops.append("b")
    assert params.logit_bias == {1: 2.0}
    assert params.stops == ("a",)
    with pytest.raises(dataclasses.FrozenInstanceError):
        params.top_p = 0.5
    assert copy.deepcopy(params) == params
    assert dataclasses.replace(params, top_k=3).bad_words == ((1, 2), "x")


def test_stop_strings_as_a_tuple():
    """One string, a list and none are a tuple of strings."""
    assert SamplingParams(stop="end").stops == ("end",)
    assert SamplingParams(stop=["a", "a"]).stops == ("a", "a")
    assert SamplingParams(stop=[]).stops == SamplingParams().stops == ()


def test_bad_words_as_ids(tmp_path):
    """A word is banned as it stands and after a space, if that is as many tokens; ids stay."""
    write_demo(tmp_path)
    tokenizer = load(tmp_path).tokenizer
    params = SamplingParams(bad_words=["a", "ab", [3, 4]])
    a, b = tokenizer.encode("a")[0], tokenizer.encode("b")[0]
    assert params.bad_word_ids(tokenizer) == ((a,), (a, b), (3, 4))  # bytes: a space is one more
    with pytest.raises(BadRequest, match="bad_words"):
        params.bad_word_ids(None)
    with pytest.raises(BadRequest, match=r"params\.bad_word_ids"):
        processed_logits(np.zeros(5), params)


@pytest.mark.real
def test_bad_words_after_a_space(llama3_ranks_file):
    """In Llama 3's vocabulary " word" is one token as "word" is, so both are banned."""
    from llama_ref.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(llama3_ranks_file)
    words = SamplingParams(bad_words=["bad", " word"]).bad_word_ids(tokenizer)
    assert [tokenizer.decode(ids) for ids in words] == ["bad", " bad", "word", " word"]
