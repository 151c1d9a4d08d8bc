"""Responses without HTTP: every recorded one, streamed and whole, and what stands in them."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from llama_ref.engine import Delta, Request
from llama_ref.engine.sequence import Sequence
from llama_ref.errors import NonFiniteError
from llama_ref.sampling import SamplingParams, TokenLogprobs
from llama_ref.serve.chat_answer import ChatAnswer
from llama_ref.serve.errors import ApiError
from llama_ref.turn import Turn
from tests.serve.bodies import DATA, USER, accepted, run

RESPONSES = [json.loads(line) for line in (DATA / "chat_responses.jsonl").read_text().splitlines()]


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


def ours(service, row):
    """What our service makes of the same ids: forced, one after the other."""
    body = {"messages": USER, "temperature": float(len(row["output_token_ids"]) > 1)}
    ends = zip(row["output_token_ids"], row["engine_finish_reason"], strict=True)
    cut = [len(ids) for ids, reason in ends if reason == "length"]
    body |= {"max_tokens": max(cut)} if cut else {}
    job = accepted(service, body | row["request"] | {"stream": row["stream"]})
    assert not isinstance(job, ApiError), job.message
    chunks = []
    for index, ids in enumerate(row["output_token_ids"]):
        sequence = Sequence(service.llm.model, job.requests[0], index)
        sequence.continuation.matcher = None  # a peer's ids need not be those of our grammar
        for token_id in ids:
            logits_V = np.full(128_256, -50.0, np.float32)
            logits_V[token_id] = 50.0
            delta = sequence.take(logits_V)
            chunks += job.answer.push(delta)
            if delta.finish_reason:
                break
    if row["stream"]:
        return row | {"events": chunks + job.answer.finish()}
    return row | {"response": job.answer.result()}


@pytest.mark.real
@pytest.mark.parametrize("row", RESPONSES, ids=[f"{r['id']}-{r['name']}" for r in RESPONSES])
def test_recorded_responses(wide_service, row):
    """The same ids give the same texts, calls and reasons as in vLLM, streamed or not."""
    if "return_token_ids" in row["request"]:  # a field that is not offered
        assert accepted(wide_service, {"messages": USER} | row["request"]).status == 400
        return
    expected, found = recorded(row), recorded(ours(wide_service, row))
    assert found[0] == expected[0]
    assert found[2] == expected[2]
    for mine, theirs in zip(found[1], expected[1], strict=True):
        assert list(mine) == list(theirs)
        for at in mine:
            assert mine[at][0] == theirs[at][0]
            assert json.loads(mine[at][1]) == json.loads(theirs[at][1])


def answer_of(deltas, n=1, is_stream=False, tools=None):
    request = Request([1, 2], SamplingParams(n=n, temperature=1.0), request_id="r")
    turn = Turn(request, tools)
    tokenizer = SimpleNamespace()
    answer = ChatAnswer(turn, request, tokenizer, "m", is_stream=is_stream, include_usage=True)
    return answer, [chunk for delta in deltas for chunk in answer.push(delta)]


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
