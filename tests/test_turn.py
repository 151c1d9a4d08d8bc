"""A turn of a conversation: tool choices, forms of response, and text read as a message."""

import json

import jsonschema
import pytest

import llama_ref as lr
from llama_ref import chat
from llama_ref.cli.demo_checkpoint import write_demo
from llama_ref.errors import BadRequest
from llama_ref.sampling import SamplingParams
from llama_ref.turn import message_of, prepare_turn

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": CITY}}
TIME = {"type": "function", "function": {"name": "get_time", "parameters": CITY}}
TOOLS = [WEATHER, TIME]
NAMED = {"type": "function", "function": {"name": "get_time"}}
ASK = [{"role": "user", "content": "What is the weather in Paris?"}]
CALL = '{"name": "get_weather", "parameters": {"city": "Paris"}}'
HOT = SamplingParams(temperature=1.5, seed=1, max_tokens=300)


@pytest.fixture(scope="module")
def llm(tmp_path_factory):
    """The demonstration model: random weights, bytes for tokens, all special tokens."""
    folder = tmp_path_factory.mktemp("turn") / "demo"
    write_demo(folder)
    return lr.LLM(folder)


def calls_of(message):
    return [
        (call["function"]["name"], json.loads(call["function"]["arguments"]))
        for call in message.get("tool_calls", ())
    ]


def test_the_prompt_is_that_of_chat(llm):
    """Tools and dates go into the prompt as `chat.encode` writes them."""
    turn = prepare_turn(llm, ASK, tools=TOOLS, date="1 Jan 2025")
    assert turn.request.prompt_ids == chat.encode(llm.tokenizer, ASK, TOOLS, date="1 Jan 2025")


@pytest.mark.parametrize(
    ("options", "calls", "reason"),
    [
        ({}, 0, "stop"),
        ({"tools": TOOLS}, 2, "tool_calls"),
        ({"tools": TOOLS, "tool_choice": "auto"}, 2, "tool_calls"),
        ({"tools": TOOLS, "tool_choice": "required"}, 2, "tool_calls"),
        ({"tools": TOOLS, "parallel_tool_calls": False}, 1, "tool_calls"),
        ({"tools": TOOLS, "tool_choice": "none"}, 0, "stop"),
        ({"tools": [TIME]}, 0, "stop"),
        ({"tools": TOOLS, "tool_choice": NAMED}, 2, "stop"),
    ],
)
def test_what_counts_as_a_call_and_how_the_turn_ends(llm, options, calls, reason):
    """The same text is calls or content, as tools and tool_choice say; a named choice "stop"s."""
    text = CALL + CALL
    turn = prepare_turn(llm, ASK, **options)
    message, ended = turn.message(text, "stop")
    assert calls_of(message) == [("get_weather", {"city": "Paris"})] * calls
    assert message["content"] == (None if calls else text)
    assert ended == reason
    assert turn.message(text, "length")[1] == "length"  # a cut text stays a cut text


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_a_streamed_turn_is_the_whole_turn(llm, size):
    """Whatever pieces the text comes in, the message is the same but for the ids of its calls."""
    turn = prepare_turn(llm, ASK, tools=TOOLS)
    for text in (CALL, f" {CALL}; {CALL}", "Hello {there", f"<|python_tag|>{CALL}<|eom_id|>"):
        reader, events = turn.reader(), []
        for at in range(0, len(text), size):
            events += reader.push(text[at : at + size])
        rest, reason = reader.finish("stop")
        message, whole = message_of([*events, *rest]), turn.message(text, "stop")
        assert (calls_of(message), message["content"]) == (
            calls_of(whole[0]),
            whole[0]["content"],
        )
        assert reason == whole[1]


def test_ids_of_calls_are_unique(llm):
    """Two calls never share an id."""
    message, _ = prepare_turn(llm, ASK, tools=TOOLS).message(CALL + CALL, "stop")
    first, second = (call["id"] for call in message["tool_calls"])
    assert first.startswith("call_")
    assert first != second


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"tools": []}, "tools"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"tool_choice": NAMED}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": "any"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "function"}}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": NAMED}, "tool_choice"),
        ({"response_format": {"type": "yaml"}}, "response_format"),
        ({"tools": TOOLS, "response_format": {"type": "json_object"}}, "response_format"),
        ({"builtin_tools": ["calculator"]}, "builtin_tools"),
    ],
)
def test_what_is_not_possible_is_refused(llm, options, says):
    """Each contradiction is named before anything runs."""
    with pytest.raises(BadRequest, match=says):
        prepare_turn(llm, ASK, **options)


def test_response_format_is_beside_tools_that_are_not_to_be_called(llm):
    """With tool_choice "none" the answer may have a form."""
    form = {"type": "json_object"}
    turn = prepare_turn(llm, ASK, tools=TOOLS, tool_choice="none", response_format=form)
    assert turn.request.grammar is not None


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("parallel", [True, False])
def test_required_calls_are_calls_with_arguments_that_fit(llm, seed, parallel):
    """However hot a random model is sampled, what it writes is calls of the tools there are."""
    params = SamplingParams(temperature=1.5, seed=seed, max_tokens=400)
    options = {"tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": parallel}
    (output,) = llm.chat(ASK, params, **options)[0].outputs
    if output.finish_reason == "length":
        return  # cut: said so, and not called a call
    assert output.finish_reason == "tool_calls"
    called = calls_of(output.message)
    assert called if parallel else len(called) == 1
    for name, arguments in called:
        assert name in ("get_weather", "get_time")
        jsonschema.validate(arguments, CITY)


@pytest.mark.parametrize("seed", range(4))
def test_a_named_choice_is_one_call_of_that_tool(llm, seed):
    """The text is one call of the tool that was named, and the turn ends with "stop"."""
    params = SamplingParams(temperature=1.5, seed=seed, max_tokens=400)
    (output,) = llm.chat(ASK, params, tools=TOOLS, tool_choice=NAMED)[0].outputs
    if output.finish_reason == "length":
        return
    ((name, arguments),) = calls_of(output.message)
    assert (name, output.finish_reason) == ("get_time", "stop")
    jsonschema.validate(arguments, CITY)


def test_a_round_trip_of_tools(llm):
    """The message of a call can be sent back, with the result of the tool behind it."""
    options = {"tools": TOOLS, "date": "1 Jan 2025"}
    message, _ = prepare_turn(llm, ASK, **options).message(CALL, "stop")
    result = {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "25 C"}
    turn = prepare_turn(llm, [*ASK, message, result], **options)
    text = llm.tokenizer.decode(turn.request.prompt_ids)
    assert f"<|end_header_id|>\n\n{CALL}<|eot_id|>" in text
    assert 'ipython<|end_header_id|>\n\n"25 C"<|eot_id|>' in text


def test_conversations_are_answered_in_their_order(llm):
    """Several conversations at once give what each gives alone."""
    params = SamplingParams(temperature=0, max_tokens=8)
    many = [ASK, [{"role": "user", "content": "Hello"}]]
    together = llm.chat(many, params, date="1 Jan 2025")
    for conversation, output in zip(many, together, strict=True):
        (alone,) = llm.chat(conversation, params, date="1 Jan 2025")
        assert output.outputs[0].message == alone.outputs[0].message
