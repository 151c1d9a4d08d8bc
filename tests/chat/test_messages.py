"""What is a conversation and what is none: every error names its place."""

import json
import math

import pytest

from llama_ref.chat import Message, ToolCall, check_messages, render
from llama_ref.chat.content import MAX_CONTENT, MAX_PARTS, MAX_TOOL_RESULT
from llama_ref.chat.conversation import MAX_MESSAGES, MAX_TOTAL
from llama_ref.chat.tool_call import MAX_CALLS
from llama_ref.errors import BadRequest, LimitExceeded
from llama_ref.json_values import MAX_DEPTH

USER = {"role": "user", "content": "hi"}


def call(arguments=None, name="f", **more):
    return {"type": "function", "function": {"name": name, "arguments": arguments}, **more}


def calling(*calls, content=None):
    return {"role": "assistant", "content": content, "tool_calls": list(calls)}


def nested(levels):
    value = "end"
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("message", "thing"),
    [
        ("hi", "messages[1]"),
        (None, "messages[1]"),
        ({"content": "hi"}, "messages[1].role"),
        ({"role": None, "content": "hi"}, "messages[1].role"),
        ({"role": ["user"], "content": "hi"}, "messages[1].role"),
        ({"role": "System", "content": "hi"}, "messages[1].role"),
        ({"role": "developer", "content": "hi"}, "messages[1].role"),
        ({"role": "user<|end_header_id|>", "content": "hi"}, "messages[1].role"),
        ({"role": "user"}, "messages[1].content"),
        ({"role": "user", "content": None}, "messages[1].content"),
        ({"role": "user", "content": 5}, "messages[1].content"),
        ({"role": "user", "content": {"type": "text", "text": "hi"}}, "messages[1].content"),
        ({"role": "user", "content": ["hi"]}, "messages[1].content[0].type"),
        ({"role": "user", "content": [{"text": "hi"}]}, "messages[1].content[0].type"),
        ({"role": "user", "content": [{"type": "text"}]}, "messages[1].content[0].text"),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
            "messages[1].content[0].type",
        ),
        ({"role": "user", "content": "a\ud800"}, "messages[1].content, text[1]"),
        ({"role": "assistant", "content": None}, "messages[1].content"),
        (
            {"role": "user", "content": "hi", "chat_template": "{{ x }}"},
            "messages[1].chat_template",
        ),
        ({"role": "user", "content": "hi", "tool_calls": [call()]}, "messages[1].tool_calls"),
        ({"role": "user", "content": "hi", "name": 5}, "messages[1].name"),
        ({"role": "assistant", "content": "hi", "context": "x"}, "messages[1].context"),
        ({"role": "assistant", "content": "hi", "stop_reason": "x"}, "messages[1].stop_reason"),
        ({"role": "tool"}, "messages[1].content"),
        ({"role": "tool", "content": None}, "messages[1].content"),
        ({"role": "tool", "content": True}, "messages[1].content"),
        ({"role": "tool", "content": b"\x00\xff"}, "messages[1].content"),
        ({"role": "tool", "content": math.nan}, "messages[1].content"),
        ({"role": "tool", "content": {1: 2}}, "messages[1].content"),
        ({"role": "tool", "content": {"a": {"\udfff": 2}}}, "messages[1].content, text[0]"),
        ({"role": "tool", "content": "x", "tool_call_id": 1}, "messages[1].tool_call_id"),
        ({"role": "assistant", "tool_calls": "f()"}, "messages[1].tool_calls"),
        (calling("f()"), "messages[1].tool_calls[0]"),
        (calling({"name": "f", "arguments": {}}), "messages[1].tool_calls[0]"),
        (calling({**call(), "type": "code"}), "messages[1].tool_calls[0].type"),
        (calling(call(id=7)), "messages[1].tool_calls[0].id"),
        (calling(call(name="f<|eom_id|>")), "messages[1].tool_calls[0].function.name"),
        (calling(call(name='f", "x')), "messages[1].tool_calls[0].function.name"),
        (calling(call(name="f\n")), "messages[1].tool_calls[0].function.name"),
        (calling(call(name="f" * 65)), "messages[1].tool_calls[0].function.name"),
        (calling(call("[1]")), "messages[1].tool_calls[0].function.arguments"),
        (calling(call("null")), "messages[1].tool_calls[0].function.arguments"),
        (calling(call('{"a": NaN}')), "messages[1].tool_calls[0].function.arguments"),
        (calling(call([1])), "messages[1].tool_calls[0].function.arguments"),
        (calling(call({"a": {1, 2}})), "messages[1].tool_calls[0].function.arguments"),
    ],
)
def test_what_is_no_message(message, thing):
    """A message that no correct conversation holds is refused, and the error names the place."""
    with pytest.raises(BadRequest) as caught:
        check_messages([USER, message])
    assert caught.value.thing == thing


@pytest.mark.parametrize("messages", [None, "hi", b"hi", USER, 5, {"a": USER}, iter([USER]), []])
def test_what_is_no_conversation(messages):
    """A conversation is a list with at least one message."""
    with pytest.raises(BadRequest, match=r"^messages: expected"):
        check_messages(messages)


@pytest.mark.parametrize(
    ("message", "thing"),
    [
        ({"role": "user", "content": "x" * (MAX_CONTENT + 1)}, "messages[1].content"),
        ({"role": "tool", "content": "x" * 10_000_000}, "messages[1].content"),
        ({"role": "tool", "content": ["x" * MAX_TOOL_RESULT, 1]}, "messages[1].content"),
        ({"role": "tool", "content": nested(MAX_DEPTH + 1)}, "messages[1].content"),
        ({"role": "tool", "content": nested(100_000)}, "messages[1].content"),
        ({"role": "tool", "content": 10**40}, "messages[1].content"),
        (
            {"role": "user", "content": [{"type": "text", "text": ""}] * (MAX_PARTS + 1)},
            "messages[1].content",
        ),
        ({"role": "user", "content": "x", "name": "x" * 257}, "messages[1].name"),
        (calling(*[call()] * (MAX_CALLS + 1)), "messages[1].tool_calls"),
        (calling(call("[" * 100_000)), "messages[1].tool_calls[0].function.arguments"),
        (calling(call(f'{{"a": {10**40}}}')), "messages[1].tool_calls[0].function.arguments"),
    ],
)
def test_limits_of_a_message(message, thing):
    """What is larger than a stated limit is refused, and the message states it."""
    with pytest.raises(LimitExceeded, match=r"at most [0-9]") as caught:
        check_messages([USER, message])
    assert caught.value.thing == thing


def test_limits_of_a_conversation():
    """Number and size of all messages are limited, and the limits themselves are allowed."""
    assert len(check_messages([USER] * MAX_MESSAGES)) == MAX_MESSAGES
    with pytest.raises(LimitExceeded, match="at most 10,000 messages, found 100,000"):
        check_messages([USER] * 100_000)
    half = {"role": "user", "content": "x" * (MAX_TOTAL // 2)}
    assert len(check_messages([half, half])) == 2
    with pytest.raises(LimitExceeded, match="8,388,608 characters in all"):
        check_messages([half, half, USER])


def test_shared_parts_are_counted_as_often_as_they_are_written():
    """A value of 40 lists that stand for 2^40 is refused before it is written."""
    value = ["x"]
    for _ in range(40):
        value = [value, value]
    with pytest.raises(LimitExceeded, match="200,000 values"):
        check_messages([{"role": "tool", "content": value}])


def test_messages_of_the_openai_client_pass_as_they_are():
    """Empty fields that a client sends back mean nothing; an id and a name are not written."""
    answer = {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "annotations": [],
        "function_call": None,
        "tool_calls": [call('{"a": 1}', id="call_1")],
    }
    result = {"role": "tool", "content": "25", "tool_call_id": "call_1", "name": "f"}
    assert check_messages([USER, answer, result]) == [
        Message("user", "hi"),
        Message("assistant", "", (ToolCall("f", {"a": 1}, "call_1"),)),
        Message("tool", "25", tool_call_id="call_1"),
    ]


@pytest.mark.parametrize("arguments", [None, "", " ", "{", '{"a": 1', "f(a=1)", {}, "{}"])
def test_arguments_that_are_not_json_are_none(arguments):
    """Text that is not JSON stands for no arguments, as in vLLM; a model may have written it."""
    (message,) = check_messages([calling(call(arguments))])
    assert message.tool_calls == (ToolCall("f", {}),)


def test_parts_are_joined_by_line_ends():
    """Text in parts is one text, for a tool as for a user."""
    parts = [{"type": "text", "text": "a "}, {"type": "text", "text": "b"}]
    for role in ("system", "user", "assistant", "tool", "ipython"):
        assert check_messages([{"role": role, "content": parts}])[0].content == "a \nb"


@pytest.mark.parametrize(
    "content", [[], [1], [{"type": "text"}], [{"type": "text", "text": "x", "n": 1}], {}, 0, -1.5]
)
def test_a_result_of_a_tool_is_any_json(content):
    """What is no list of text parts is a value, and written as JSON."""
    (message,) = check_messages([{"role": "tool", "content": content}])
    assert message.content == content
    text = render([{"role": "tool", "content": content}], add_generation_prompt=False)
    assert text.endswith(f"\n\n{json.dumps(content)}<|eot_id|>")


@pytest.mark.parametrize(
    "roles",
    [
        ["system", "system", "user"],
        ["user", "system", "user"],
        ["assistant", "user"],
        ["user", "user"],
        ["tool", "user"],
        ["system"],
    ],
)
@pytest.mark.parametrize("dialect", ["hf", "meta"])
def test_any_order_of_roles_is_written(roles, dialect):
    """As in the templates and in Meta's code, messages need not alternate, nor a call precede."""
    text = render([{"role": role, "content": "x"} for role in roles], dialect=dialect)
    heads = [head.partition("<|end")[0] for head in text.split("<|start_header_id|>")[1:]]
    expected = ["ipython" if role == "tool" else role for role in roles]
    if dialect == "hf" and roles[0] != "system":
        expected.insert(0, "system")
    assert heads == [*expected, "assistant"]


def test_messages_are_not_changed():
    """What the caller handed in stays as it is, and the result shares nothing with it."""
    arguments = {"a": [1, {"b": 2}]}
    message = calling(call(arguments))
    before = json.dumps(message)
    (checked,) = check_messages([message])
    checked.tool_calls[0].arguments["a"][1]["b"] = 3
    assert json.dumps(message) == before


def called(*ids):
    calls = [{"id": i, "function": {"name": "f", "arguments": "{}"}} for i in ids]
    return {"role": "assistant", "tool_calls": calls}


def result(call_id=None):
    return {"role": "tool", "content": "1"} | ({"tool_call_id": call_id} if call_id else {})


@pytest.mark.parametrize(
    ("messages", "place"),
    [
        ([called("a", "a")], "messages[0].tool_calls[1].id"),
        ([called("a"), result("a"), called("a")], "messages[2].tool_calls[0].id"),
        ([called("a"), result("b")], "messages[1].tool_call_id"),
        ([called("a"), result("a"), result("a")], "messages[2].tool_call_id"),
    ],
)
def test_ids_that_do_not_fit_are_refused(messages, place):
    """Two calls of one id, a result of no call, two results of one: each is named."""
    with pytest.raises(BadRequest) as caught:
        check_messages(messages)
    assert caught.value.thing == place


@pytest.mark.parametrize(
    "messages",
    [
        [called("a", "b"), result("b"), result("a")],
        [called(None), result()],
        [called("a"), result()],
        [called(None), result("x")],
        [result("x")],
    ],
)
def test_ids_that_are_missing_are_no_matter(messages):
    """As in vLLM, neither a call nor a result needs one."""
    assert len(check_messages(messages)) == len(messages)
