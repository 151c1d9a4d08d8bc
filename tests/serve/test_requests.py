"""Requests without HTTP: every recorded one, and what is refused before any work."""

import json
import random

import pytest

import llama_ref as lr
from llama_ref.sampling import SamplingParams
from llama_ref.serve.errors import ApiError
from llama_ref.serve.service import Service
from tests.serve.bodies import DATA, USER, WEATHER, accepted

REQUESTS = [json.loads(line) for line in (DATA / "chat_requests.jsonl").read_text().splitlines()]

STRICTER = {
    "val-012": "text is no number",
    "val-015": "true is no number",
    "val-055": "text is no number",
    "val-139": "text is no number",
    "val-056": "text is no number",
    "val-212": "a field that is not known is refused, not passed over",
    "val-203": "a message of the user says something",
    "val-207": "a part of text has text",
    "val-208": "roles are a fixed set",
}
"""Rows in which vLLM accepts what is refused here."""

SAME = ["n", "presence_penalty", "frequency_penalty", "repetition_penalty", "temperature"]
SAME += [
    "top_p",
    "min_p",
    "seed",
    "stop",
    "ignore_eos",
    "min_tokens",
    "logprobs",
    "include_stop_str_in_output",
]

SENTENCES = [
    ({"temperature": 2.5}, "temperature must be in [0, 2], got 2.5.", "temperature"),
    ({"top_p": 0}, "top_p must be in (0, 1], got 0.", "top_p"),
    ({"top_k": -2}, "top_k must be 0 (disable), or at least 1, got -2.", "top_k"),
    ({"min_p": 1.5}, "min_p must be in [0, 1], got 1.5.", "min_p"),
    ({"n": 2, "temperature": 0}, "n must be 1 when using greedy sampling, got 2.", "n"),
    (
        {"top_logprobs": 3},
        "when using `top_logprobs`, `logprobs` must be set to true.",
        "top_logprobs",
    ),
    ({"tool_choice": "auto"}, "When using `tool_choice`, `tools` must be set.", "tool_choice"),
    (
        {"stream_options": {}},
        "Stream options can only be defined when `stream=True`.",
        "stream_options",
    ),
    ({"stop": [""]}, "stop cannot contain an empty string.", "stop"),
]


@pytest.mark.real
@pytest.mark.parametrize("row", REQUESTS, ids=[row["id"] for row in REQUESTS])
def test_recorded_requests(wide_service, row):
    """Each is accepted with the parameters that vLLM takes, or refused with 400 where vLLM does."""
    result = accepted(wide_service, {"messages": USER} | row["body"])
    if row["id"] in STRICTER:
        assert row["status"] == 200
        assert isinstance(result, ApiError), STRICTER[row["id"]]
        assert result.status == 400
        return
    if row["status"] != 200:
        assert isinstance(result, ApiError)
        assert result.status == 400
        return
    assert not isinstance(result, ApiError), result.message
    params = result.requests[0].params
    for name, value in row["response"]["sampling_params"].items():
        if name in SAME and value is not None:
            assert _same(getattr(params, name), value), name
    assert result.is_stream == bool(row["body"].get("stream"))


def _same(ours, theirs):
    return list(ours or ()) == theirs if isinstance(theirs, list) else ours == theirs


@pytest.mark.parametrize(("body", "message", "param"), SENTENCES)
def test_errors_say_what_and_where(service, body, message, param):
    """The message is vLLM's, the shape OpenAI's, and `param` names the field."""
    error = accepted(service, {"messages": USER} | body)
    assert error.body["error"]["message"].startswith(message[:-1])
    assert error.body["error"]["param"] == param
    assert error.body["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "body",
    [
        {"stream": "true"},
        {"n": True},
        {"n": 0},
        {"n": 17},
        {"n": 10**6},
        {"max_tokens": 0},
        {"max_tokens": -1},
        {"max_tokens": 2**31},
        {"max_tokens": "10"},
        {"max_completion_tokens": 1.5},
        {"seed": 2**63},
        {"seed": "1"},
        {"seed": True},
        {"best_of": 2},
        {"logprobs": 5},
        {"logprobs": True, "top_logprobs": 21},
        {"logprobs": True, "top_logprobs": -1},
        {"stop": ["a", "b", "c", "d", "e"]},
        {"stop": 3},
        {"stop": "x" * 20_000},
        {"bad_words": ["x"] * 2000},
        {"bad_words": ["x" * 20_000]},
        {"stop_token_ids": [1] * 2000},
        {"allowed_token_ids": [1] * 300_000},
        {"logit_bias": {str(k): 1 for k in range(300_000)}},
        {"builtin_tools": False},
        {"logit_bias": {"999999999": 1}},
        {"logit_bias": {"01x": 1}},
        {"stop_token_ids": [10**9]},
        {"prompt_embeds": "x"},
        {"chat_template": "{{ x }}"},
        {"chat_template_kwargs": {"x": 1}},
        {"guided_regex": "a"},
        {"grammar": "a"},
        {"functions": []},
        {"audio": {}},
        {"profile": "hf"},
        {"messages": []},
        {"messages": "hi"},
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        {"tools": []},
        {"tools": [WEATHER, WEATHER]},
        {"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "other"}}},
        {"response_format": {"type": "xml"}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
        {"stream": True, "stream_options": {"include_usage": "yes"}},
        {"stream": True, "stream_options": {"x": 1}},
        {"parallel_tool_calls": 1},
        {"builtin_tools": ["calculator"]},
    ],
)
def test_impossible_requests_are_refused_before_any_work(service, body):
    """Each is an error of 400 with the shape of OpenAI's, and nothing is given to the engine."""
    error = accepted(service, {"messages": USER} | body)
    assert isinstance(error, ApiError)
    assert error.status == 400
    assert error.body["error"]["message"]
    assert not service.llm.engine.has_work


@pytest.mark.parametrize("name", ["other", "../x", "demo\n", "x" * 2**20, "DEMO"])
def test_another_model_is_not_found(service, name):
    """A name is compared, never opened; the answer quotes little of it."""
    error = accepted(service, {"messages": USER, "model": name})
    assert (error.status, error.code) == (404, "model_not_found")
    assert len(error.message) < 400


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b'"x"',
        b"null",
        b"3",
        b'{"n": NaN}',
        b'{"n": 1, "n": 2}',
        b"\xef\xbb\xbf{}",
        '{"n": 1}'.encode("utf-16"),
        b'{"n": ' + b"9" * 5000 + b"}",
        b'{"a": "\\ud800"}',
        b"\xff{}",
        b'{"a":' * 100000 + b"1" + b"}" * 100000,
        b"[" * 10**6,
        b'{"n": 1e999}',
        b"\x00",
    ],
)
def test_a_body_that_is_no_strict_json_object_is_refused(service, data):
    """What two programs could read differently, or could not read, is 400."""
    for endpoint in (service.chat, service.completions, service.tokenize, service.detokenize):
        with pytest.raises(ApiError) as caught:
            endpoint(data)
        assert caught.value.status == 400


def test_null_is_not_given(service):
    """Every field may be null, and is then as if it were not there."""
    names = ["temperature", "n", "stop", "seed", "logit_bias", "tools", "stream", "max_tokens"]
    job = accepted(service, {"messages": USER} | dict.fromkeys(names))
    assert job.requests[0].params == SamplingParams(max_tokens=None)


def test_defaults_of_the_checkpoint_come_before_openais(model):
    """A value of the request wins, then generation_config.json, then OpenAI's."""
    defaults = {"temperature": 0.6, "top_p": 0.9, "do_sample": True, "bos_token_id": 1}
    service = Service(lr.LLM(model), "demo", defaults=defaults)
    params = accepted(service, {"messages": USER, "top_p": 0.5}).requests[0].params
    assert (params.temperature, params.top_p, params.min_p) == (0.6, 0.5, 0.0)


def test_max_completion_tokens_wins(service):
    """Of the two names of a limit, the newer counts."""
    body = {"messages": USER, "max_tokens": 5, "max_completion_tokens": 7}
    assert accepted(service, body).requests[0].params.max_tokens == 7


def test_a_prompt_beyond_the_context_is_refused(service):
    """Text and ids longer than the context are 400, named as such."""
    for data in ({"prompt": [65] * 131_073}, {"prompt": "x" * 131_073}):
        with pytest.raises(ApiError, match="maximum context length") as caught:
            service.completions(json.dumps(data).encode())
        assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "prompt")


@pytest.mark.parametrize(
    "prompt", [None, "", [], [[]], [-1], [10**9], [1.5], ["a", [1]] * 40, {"a": 1}, [True], [["a"]]]
)
def test_prompts(service, prompt):
    """A prompt is text, ids, or up to 64 of either; empty text is the begin-of-text token."""
    body = json.dumps({"prompt": prompt}).encode()
    if prompt == "":
        assert service.completions(body).requests[0].prompt_ids == [256]
        return
    with pytest.raises(ApiError) as caught:
        service.completions(body)
    assert caught.value.status == 400


def test_tokenize_and_detokenize_are_each_others_inverse(service):
    """Text to ids and back; of a conversation, the ids of its prompt."""
    ids = service.tokenize(b'{"prompt": "h\\u00e9"}')
    assert ids == {"count": 4, "max_model_len": 131072, "tokens": [256, 104, 195, 169]}
    assert service.detokenize(json.dumps({"tokens": ids["tokens"][1:]}).encode()) == {
        "prompt": "hé"
    }
    body = json.dumps({"messages": USER}).encode()
    assert service.tokenize(body)["tokens"] == service.chat(body).requests[0].prompt_ids


def test_thousands_of_damaged_bodies_are_jobs_or_errors_of_400(service):
    """Any value in any field: a job, or an answer of 4xx; never another exception."""
    rng = random.Random(5)
    values = [
        None,
        True,
        0,
        -1,
        1.5,
        1e300,
        10**30,
        "",
        "x",
        "auto",
        [],
        [1],
        ["a"],
        [[]],
        {},
        {"type": "x"},
    ]
    values += [
        {"a": [None]},
        [{"type": "function"}],
        USER,
        [WEATHER],
        "\u0000",
        -0.0,
        {"1": 5},
        [None],
    ]
    names = [
        *SAME,
        "messages",
        "tools",
        "tool_choice",
        "response_format",
        "stream",
        "stream_options",
    ]
    names += [
        "top_logprobs",
        "max_tokens",
        "logit_bias",
        "model",
        "prompt",
        "echo",
        "builtin_tools",
        "bad_words",
    ]
    n_jobs = 0
    for _ in range(3000):
        body = {"messages": USER} | {
            n: rng.choice(values) for n in rng.sample(names, rng.randint(1, 3))
        }
        if rng.random() < 0.3:
            body = {"prompt": rng.choice(values)} | body
            body.pop("messages", None)
        endpoint = service.completions if "prompt" in body else service.chat
        try:
            n_jobs += bool(endpoint(json.dumps(body).encode()))
        except ApiError as error:
            assert 400 <= error.status < 500
            json.dumps(error.body, allow_nan=False)
    assert n_jobs > 50


def test_a_tiny_temperature_is_raised_without_a_warning(service):
    """Warnings are errors here, and the request is a job all the same, as in vLLM at 0.01."""
    job = accepted(service, {"messages": USER, "temperature": 0.001})
    assert job.requests[0].params.temperature == 0.01


def test_top_logprobs_may_be_an_exact_float(service):
    """2.0 is 2, as for every other integer; 2.5 is refused."""
    body = {"messages": USER, "logprobs": True}
    assert accepted(service, body | {"top_logprobs": 2.0}).requests[0].params.logprobs == 2
    assert accepted(service, body | {"top_logprobs": 2.5}).param == "top_logprobs"
