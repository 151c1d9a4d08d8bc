"""The real openai client, sync and async, against a real port."""

import asyncio
import json
import time

import httpx
import jsonschema
import openai
import pytest

from llama_ref.sampling import SamplingParams
from llama_ref.serve.guard import Rules
from tests.serve.conftest import serving

USER = [{"role": "user", "content": "hi"}]
CITY = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 5}}}
CITY |= {"required": ["city"], "additionalProperties": False}
WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": CITY}}


@pytest.fixture(scope="module")
def client(served):
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def ask(client, **options):
    options = {"max_tokens": 8, "seed": 1} | options
    return client.chat.completions.create(model="demo", messages=USER, **options)


def test_the_list_of_models(client):
    """One model, by its name."""
    (model,) = client.models.list().data
    assert model.id == "demo"


def test_an_answer_is_that_of_the_engine(client, served):
    """Text, reason and usage are those of `LLM.chat` with the same parameters."""
    response = ask(client, temperature=0.7, top_p=0.9, presence_penalty=0.5, logit_bias={"65": 2})
    params = SamplingParams(
        max_tokens=8, seed=1, temperature=0.7, top_p=0.9, presence_penalty=0.5, logit_bias={65: 2.0}
    )
    import llama_ref as lr

    (output,) = lr.LLM(served.llm.model).chat(USER, params)
    assert response.choices[0].message.content == output.outputs[0].message["content"]
    assert response.choices[0].finish_reason == output.outputs[0].finish_reason
    assert response.usage.prompt_tokens == len(output.prompt_token_ids)
    assert response.usage.completion_tokens == len(output.outputs[0].token_ids)


def test_a_stream_is_the_answer_in_pieces(client):
    """The deltas join to the text that is not streamed; usage comes last."""
    whole = ask(client, max_tokens=20)
    options = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = list(ask(client, max_tokens=20, **options))
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason


def test_n_texts_and_stop_strings(client):
    """Each of n texts ends before the stop string, or at its length."""
    response = ask(client, n=4, stop=["e", "\n"], max_tokens=40, temperature=1.0)
    assert [choice.index for choice in response.choices] == [0, 1, 2, 3]
    for choice in response.choices:
        assert "e" not in choice.message.content
        assert choice.finish_reason in ("stop", "length")


def test_logprobs(client):
    """Every token has its own and the most probable ones."""
    content = ask(client, logprobs=True, top_logprobs=2).choices[0].logprobs.content
    assert len(content) == 8
    assert all(len(entry.top_logprobs) == 2 for entry in content)


def test_json_of_a_schema(client):
    """A response_format is kept, or the answer says that it was cut."""
    form = {"type": "json_schema", "json_schema": {"name": "city", "schema": CITY}}
    (choice,) = ask(client, response_format=form, max_tokens=200, temperature=1.5).choices
    assert choice.finish_reason == "stop"
    jsonschema.validate(json.loads(choice.message.content), CITY)


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_required_tool_is_called(client, is_stream):
    """The call has an id, the name and arguments that fit; the turn ends with "tool_calls"."""
    options = {"tools": [WEATHER], "tool_choice": "required", "max_tokens": 300}
    options |= {"temperature": 1.2, "parallel_tool_calls": False, "stream": is_stream}
    if is_stream:
        name = arguments = ""
        for chunk in ask(client, **options):
            reason = chunk.choices[0].finish_reason
            for call in chunk.choices[0].delta.tool_calls or ():
                name += call.function.name or ""
                arguments += call.function.arguments or ""
    else:
        (choice,) = ask(client, **options).choices
        (call,) = choice.message.tool_calls
        name, arguments, reason = call.function.name, call.function.arguments, choice.finish_reason
        assert call.id.startswith("call_")
    assert (name, reason) == ("get_weather", "tool_calls")
    jsonschema.validate(json.loads(arguments), CITY)


def test_a_conversation_with_a_tool_result(client):
    """What a client sends back after a call is a prompt like any other."""
    function = {"name": "get_weather", "arguments": '{"city": "Paris"}'}
    messages = [
        *USER,
        {
            "role": "assistant",
            "tool_calls": [{"id": "call_1", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "25 C"}]},
    ]
    response = client.chat.completions.create(
        model="demo", messages=messages, tools=[WEATHER], max_tokens=3, seed=1
    )
    assert response.choices[0].finish_reason == "length"


def test_completions(client):
    """Several prompts, text and ids; echo; a stream."""
    response = client.completions.create(
        model="demo", prompt=["Hello", "World"], max_tokens=4, n=2, seed=1, echo=True
    )
    assert [choice.index for choice in response.choices] == [0, 1, 2, 3]
    assert response.choices[2].text.startswith("World")
    ids = [256, *b"Hello"]
    one = client.completions.create(model="demo", prompt=ids, max_tokens=4, seed=1, logprobs=2)
    assert len(one.choices[0].logprobs.tokens) == 4
    stream = client.completions.create(model="demo", prompt=ids, max_tokens=4, seed=1, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == one.choices[0].text


@pytest.mark.parametrize(
    ("options", "error", "param"),
    [
        ({"model": "other"}, openai.NotFoundError, "model"),
        ({"temperature": 3}, openai.BadRequestError, "temperature"),
        ({"messages": []}, openai.BadRequestError, "messages"),
        ({"extra_body": {"top_k": -5}}, openai.BadRequestError, "top_k"),
        ({"extra_body": {"unheard_of": 1}}, openai.BadRequestError, "unheard_of"),
        ({"tool_choice": "auto"}, openai.BadRequestError, "tool_choice"),
    ],
)
def test_errors_arrive_as_the_clients_own(client, options, error, param):
    """Each mistake is the exception that the client has for it, with the field."""
    with pytest.raises(error) as caught:
        client.chat.completions.create(**{"model": "demo", "messages": USER} | options)
    assert caught.value.param == param


def test_leaving_a_stream_aborts_it(client, served):
    """A client that closes its stream frees the text and its cache within a token."""
    stream = ask(client, stream=True, max_tokens=100_000, extra_body={"ignore_eos": True})
    for _, _ in zip(range(5), stream, strict=False):
        pass
    assert served.worker.n_texts == 1
    stream.close()
    served.wait_until_idle(5)


def test_leaving_an_answer_that_is_not_streamed_aborts_it(client, served):
    """A client that gives up waiting frees its text too."""
    with pytest.raises(openai.APITimeoutError):
        ask(client, max_tokens=100_000, extra_body={"ignore_eos": True}, timeout=0.3)
    served.wait_until_idle(5)


def test_many_at_once_are_each_as_if_alone(served, client):
    """Sixteen async streams side by side give the texts that each gives alone."""
    alone = [ask(client, max_tokens=12, seed=k, temperature=1.0) for k in range(16)]

    async def together():
        options = {"base_url": f"{served.url}/v1", "api_key": "none"}
        async with openai.AsyncOpenAI(**options) as many:

            async def one(k):
                stream = await ask(many, max_tokens=12, seed=k, temperature=1.0, stream=True)
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

            return await asyncio.gather(*map(one, range(16)))

    assert asyncio.run(together()) == [r.choices[0].message.content for r in alone]


def test_a_key_is_asked_for_where_there_is_one(model):
    """Without the right key every endpoint but /health is 401."""
    with serving(model, rules=Rules(api_key="right")) as served:
        for key, is_right in (
            ("wrong", False),
            ("right", True),
            ("rights", False),
            ("righ", False),
        ):
            with openai.OpenAI(base_url=f"{served.url}/v1", api_key=key, max_retries=0) as client:
                if is_right:
                    assert ask(client).choices
                else:
                    with pytest.raises(openai.AuthenticationError):
                        ask(client)
        assert httpx.get(f"{served.url}/v1/models").status_code == 401
        assert httpx.get(f"{served.url}/health").status_code == 200


def test_a_full_queue_is_said_at_once(model):
    """Who comes when all places are taken gets 429 with Retry-After, and the others go on."""
    with serving(model, max_running=1, max_waiting=1) as served:
        options = {"base_url": f"{served.url}/v1", "api_key": "none", "max_retries": 0}
        with openai.OpenAI(**options) as client:
            stream = ask(client, n=2, max_tokens=5000, stream=True, extra_body={"ignore_eos": True})
            next(iter(stream))  # one of its texts is written, the other waits
            began = time.monotonic()
            with pytest.raises(openai.RateLimitError) as caught:
                ask(client)
            assert time.monotonic() - began < 2
            assert caught.value.response.headers["retry-after"] == "5"
            stream.close()
        served.wait_until_idle()


def test_a_request_beyond_its_time_is_cut(model):
    """The answer so far arrives, with finish_reason "length"."""
    with serving(model, time_limit=0.5) as served:
        with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none") as client:
            response = ask(client, max_tokens=100_000, extra_body={"ignore_eos": True})
        assert response.choices[0].finish_reason == "length"
        assert response.choices[0].stop_reason == "time_limit"
        assert response.choices[0].message.content
        served.wait_until_idle()
