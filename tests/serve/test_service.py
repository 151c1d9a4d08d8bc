"""Requests and responses without HTTP: every recorded one, and what is refused."""

import json
import random
from pathlib import Path
from types import SimpleNamespace

import pytest

import llama_ref as lr
from llama_ref.engine import Delta, Request
from llama_ref.errors import NonFiniteError
from llama_ref.sampling import SamplingParams, TokenLogprobs
from llama_ref.serve.chat_answer import ChatAnswer
from llama_ref.serve.errors import ApiError
from llama_ref.serve.service import Service
from llama_ref.turn import Turn

DATA = Path(__file__).parents[1] / "data" / "serve"
REQUESTS = [json.loads(line) for line in (DATA / "chat_requests.jsonl").read_text().splitlines()]
USER = [{"role": "user", "content": "hi"}]
WEATHER = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}},
}

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


def body_of(row):
    return {"messages": USER} | row["body"]


def accepted(service, body):
    """Return the job, or the error."""
    try:
        return service.chat(json.dumps(body).encode())
    except ApiError as error:
        return error


@pytest.fixture(scope="module")
def wide(model, llama3_ranks_file):
    """A service with the vocabulary of Llama 3, as the recorded requests suppose."""
    from llama_ref.tokenizer import load_tokenizer
    from tests.models import tiny_model

    wide = tiny_model(vocab_size=128_256, context_length=8192)
    wide.tokenizer = load_tokenizer(llama3_ranks_file)
    return Service(lr.LLM(wide), "m")


@pytest.mark.real
@pytest.mark.parametrize("row", REQUESTS, ids=[row["id"] for row in REQUESTS])
def test_recorded_requests(wide, row):
    """Each is accepted with the parameters that vLLM takes, or refused with 400 where vLLM does."""
    result = accepted(wide, body_of(row))
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


def _same(ours, theirs):
    return list(ours or ()) == theirs if isinstance(theirs, list) else ours == theirs


TEXTS = {
    "vLLM's sentence": [
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
}


@pytest.mark.parametrize(("body", "message", "param"), TEXTS["vLLM's sentence"])
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
        assert caught.value.code == "context_length_exceeded"


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


def run(service, job):
    """Run a job in the engine of the service; return its response, or its chunks."""
    for request in job.requests:
        service.llm.engine.add(request)
    chunks = []
    while service.llm.engine.has_work:
        chunks += [c for delta in service.llm.engine.step() for c in job.answer.push(delta)]
    return chunks + job.answer.finish() if job.is_stream else job.answer.result()


def joined(chunks, n):
    """Put the chunks of a chat stream together."""
    texts, reasons, logprobs = [""] * n, [None] * n, [[] for _ in range(n)]
    for chunk in chunks:
        for choice in chunk["choices"]:
            texts[choice["index"]] += choice["delta"].get("content") or ""
            reasons[choice["index"]] = reasons[choice["index"]] or choice["finish_reason"]
            listed = (choice["logprobs"] or {}).get("content", [])
            logprobs[choice["index"]] += listed
    return texts, reasons, logprobs


@pytest.mark.parametrize(
    "body",
    [
        {"max_tokens": 8, "seed": 1},
        {"max_tokens": 30, "seed": 2, "stop": ["e", "a"], "n": 3},
        {"max_tokens": 12, "seed": 3, "logprobs": True, "top_logprobs": 2, "n": 2},
        {"max_tokens": 12, "seed": 4, "logit_bias": {"265": 100}},
        {"max_tokens": 40, "seed": 5, "response_format": {"type": "json_object"}},
    ],
)
def test_a_stream_joined_is_the_response(service, body):
    """Text, reasons, logprobs and usage are the same, streamed or not."""
    n = body.get("n", 1)
    whole = run(service, accepted(service, {"messages": USER} | body))
    options = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = run(service, accepted(service, {"messages": USER} | body | options))
    texts, reasons, logprobs = joined(chunks, n)
    for choice in whole["choices"]:
        index = choice["index"]
        assert texts[index] == choice["message"]["content"]
        assert reasons[index] == choice["finish_reason"]
        wanted = (choice["logprobs"] or {}).get("content", [])
        assert [e["token"] for e in logprobs[index]] == [e["token"] for e in wanted]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == whole["usage"]
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    first = [c["choices"][0] for c in chunks[:-1]]
    for index in range(n):
        own = [choice for choice in first if choice["index"] == index]
        assert own[0]["delta"] == {"role": "assistant", "content": ""}
        assert [c["finish_reason"] is not None for c in own] == [False] * (len(own) - 1) + [True]
        for choice in own[1:-1]:
            assert choice["delta"] or choice["logprobs"]


def test_logprobs_have_true_bytes_and_a_strict_order(service):
    """Half a character has its own byte; the list is the N most probable, in falling order."""
    body = {"messages": USER, "max_tokens": 20, "seed": 7, "logprobs": True, "top_logprobs": 3}
    content = run(service, accepted(service, body))["choices"][0]["logprobs"]["content"]
    assert len(content) == 20
    for entry in content:
        values = [other["logprob"] for other in entry["top_logprobs"]]
        assert len(values) == 3
        assert values == sorted(values, reverse=True)
        assert entry["logprob"] <= values[0]
        if len(entry["bytes"]) == 1:
            assert entry["token"] == bytes(entry["bytes"]).decode(errors="replace")


def answer_of(deltas, n=1, is_stream=False, tools=None):
    request = Request([1, 2], SamplingParams(n=n, temperature=1.0), request_id="r")
    turn = Turn(request, tools)
    tokenizer = SimpleNamespace()
    answer = ChatAnswer(turn, request, tokenizer, "m", is_stream=is_stream, include_usage=True)
    return answer, [chunk for delta in deltas for chunk in answer.push(delta)]


RESPONSES = [json.loads(line) for line in (DATA / "chat_responses.jsonl").read_text().splitlines()]
OTHERWISE = {
    "resp-030": "special tokens are shown as asked, and the stop token is not",
    "resp-031": "special tokens are shown as asked, and the stop token is not",
    "resp-028": "return_token_ids is not offered",
    "resp-029": "return_token_ids is not offered",
}


def recorded(row):
    """The texts, calls and reasons of a recorded response or stream."""
    n = len(row["output_token_ids"])
    texts, calls, reasons = [""] * n, [{} for _ in range(n)], [None] * n
    if not row["stream"]:
        for choice in row["response"]["choices"]:
            message = choice["message"]
            texts[choice["index"]] = message["content"] or ""
            reasons[choice["index"]] = choice["finish_reason"]
            for at, call in enumerate(message.get("tool_calls") or ()):
                calls[choice["index"]][at] = [
                    call["function"]["name"],
                    call["function"]["arguments"],
                ]
        return texts, calls, reasons
    for event in row["events"]:
        for choice in event["choices"] if isinstance(event, dict) else ():
            delta = choice["delta"]
            texts[choice["index"]] += delta.get("content") or ""
            reasons[choice["index"]] = reasons[choice["index"]] or choice.get("finish_reason")
            for call in delta.get("tool_calls") or ():
                own = calls[choice["index"]].setdefault(call["index"], ["", ""])
                own[0] += call["function"].get("name") or ""
                own[1] += call["function"].get("arguments") or ""
    return texts, calls, reasons


def ours(wide, row):
    """What our service makes of the same ids: forced, one after the other."""
    body = {"messages": USER, "temperature": 0} | row["request"]
    if body.get("n", 1) > 1:
        body["temperature"] = 1.0
    job = accepted(wide, body | {"stream": row["stream"]})
    assert not isinstance(job, ApiError), job.message
    (request,) = job.requests
    import numpy as np

    from llama_ref.engine.sequence import Sequence

    chunks = []
    for index, ids in enumerate(row["output_token_ids"]):
        sequence = Sequence(wide.llm.model, request, index)
        for token_id in ids:
            logits_V = np.full(128_256, -50.0, np.float32)
            logits_V[token_id] = 50.0
            sequence.continuation.matcher = None
            delta = sequence.take(logits_V)
            if delta.finish_reason is None and sequence.n_pending and token_id == ids[-1]:
                delta = delta._replace(finish_reason="length")
                delta = delta._replace(text=delta.text + sequence.continuation._stops.finish())
            chunks += job.answer.push(delta)
            if delta.finish_reason:
                break
    if not row["stream"]:
        return {"response": job.answer.result(), **row, "stream": False} | {
            "response": job.answer.result()
        }
    return row | {"events": chunks + job.answer.finish()}


@pytest.mark.real
@pytest.mark.parametrize("row", RESPONSES, ids=[f"{r['id']}-{r['name']}" for r in RESPONSES])
def test_recorded_responses(wide, row):
    """The same ids give the same texts, calls and reasons as in vLLM, streamed or not."""
    if row["id"] in OTHERWISE and "return_token_ids" in row["request"]:
        assert isinstance(accepted(wide, {"messages": USER} | row["request"]), ApiError)
        return
    expected, found = recorded(row), recorded(ours(wide, row))
    assert found[0] == expected[0]
    assert found[2] == expected[2]
    for mine, theirs in zip(found[1], expected[1], strict=True):
        assert list(mine) == list(theirs)
        for at in mine:
            assert mine[at][0] == theirs[at][0]
            assert json.loads(mine[at][1]) == json.loads(theirs[at][1])


def test_what_goes_wrong_inside_is_told_without_anything_of_ours():
    """An error of the model is 500, and its message says nothing of where or how."""
    error = NonFiniteError("L07.q", expected="numbers", found="/secret/path")
    with pytest.raises(ApiError) as caught:
        answer_of([Delta("r", 0, finish_reason="error", error=error)], is_stream=True)
    assert caught.value.status == 500
    assert "secret" not in json.dumps(caught.value.body)


def test_minus_infinity_is_written_as_a_number(service):
    """A logprob of minus infinity is -9999.0: JSON has no other."""
    logprobs = (TokenLogprobs(65, float("-inf"), 9, ((66, float("-inf")),)),)
    delta = Delta("r", 0, (65,), "A\u2028\n", logprobs, "stop")
    request = Request([1], SamplingParams(logprobs=1), request_id="r")
    tokenizer = service.llm.tokenizer
    how = {"is_stream": True, "include_usage": False}
    answer = ChatAnswer(Turn(request, None), request, tokenizer, "m", **how)
    text = json.dumps(answer.push(delta), allow_nan=False)
    assert text.count("-9999.0") == 2
    assert "\n" not in text
    assert text.isascii()


def test_a_request_that_ran_out_of_time_is_cut(service):
    """A text that the server ended is one of finish_reason "length", and says why."""
    answer, _ = answer_of([Delta("r", 0, (65,), "A"), Delta("r", 0, finish_reason="abort")])
    (choice,) = answer.result()["choices"]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("length", "time_limit")


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
