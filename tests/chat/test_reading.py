"""Ids to a message: what ends it, what is a call, and that it can be sent back."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_ref import chat
from llama_ref.chat.meta_reading import first_call
from llama_ref.chat.tool_call import ToolCall
from llama_ref.errors import BadRequest
from tests.chat.test_injection import FRAGMENTS

USER = {"role": "user", "content": "hi"}


def read(tokenizer, text, **options):
    ids = tokenizer.encode(text, allowed_special="all")
    return chat.decode(tokenizer, ids, dialect="meta", **options)


def test_what_ends_a_message(demo_tokenizer):
    """The last id says why a message ended; without one it is what the caller knows."""
    for end, reason in (
        ("<|eot_id|>", "end_of_turn"),
        ("<|eom_id|>", "end_of_message"),
        ("<|end_of_text|>", "end_of_turn"),
        ("", "out_of_tokens"),
    ):
        message = read(demo_tokenizer, f"Hello{end}")
        assert message == {"role": "assistant", "content": "Hello", "stop_reason": reason}
    assert read(demo_tokenizer, "x", stop_reason="end_of_turn")["stop_reason"] == "end_of_turn"


def test_a_text_that_spells_an_end_has_none(demo_tokenizer):
    """What is a control token is a matter of ids: letters that look like one are content."""
    ids = demo_tokenizer.encode("Bye<|eot_id|>")
    message = chat.decode(demo_tokenizer, ids, dialect="meta")
    assert (message["content"], message["stop_reason"]) == ("Bye<|eot_id|>", "out_of_tokens")
    tag = demo_tokenizer.encode("<|python_tag|>print(1)")
    assert "tool_calls" not in chat.decode(demo_tokenizer, tag, dialect="meta")


def test_no_ids(demo_tokenizer):
    """Nothing generated is an empty message."""
    assert chat.decode(demo_tokenizer, [], dialect="meta")["content"] == ""


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ('<function=f>{"a": {"b": [1]}}</function>', ("f", {"a": {"b": [1]}})),
        ('Sure: <function=f>{"a": "it\'s"}</function> Done.', ("f", {"a": "it's"})),
        ("<function=f>{'a': 1}", ("f", {"a": 1})),
        ("<function=f>{a: 1}</function>", None),
        ("<function=f g>{}</function>", None),
        ('{"type": "function", "name": "f", "parameters": {}}', ("f", {})),
        ('{"type": "function", "name": "f"}', None),
        ('{"name": "f", "parameters": "x"}', None),
        ('{"name": "f", "parameters": {"a": NaN}}', None),
        ('{"name": "f g", "parameters": {}}', None),
        ('{"name": "f", "parameters": {}} and more', None),
        (
            '{"name": "wolfram_alpha", "parameters": {"q": 5, "x": 1}}',
            ("wolfram_alpha", {"query": "5"}),
        ),
        ('{"name": "brave_search", "parameters": {}}', None),
        (
            '{"name": "code_interpreter", "parameters": {"c": "x"}}',
            ("code_interpreter", {"code": "x"}),
        ),
        ('First brave_search.call(query="a b") then', ("brave_search", {"query": "a b"})),
        ('x.call(query="")', ("x", {"query": ""})),
        ("x.call(code='1')", None),
        ("Hello", None),
        ("[1, 2]", None),
        ("[", None),
        ("{" * 100_000, None),
        ("<function=" * 100_000, None),
        ('x.call(query="' * 50_000, None),
    ],
)
def test_what_meta_takes_for_a_call(text, call):
    """One call of the first form that fits; text that only looks like one is content."""
    assert first_call(text, has_python_tag=False) == (call and ToolCall(*call))


def test_what_follows_the_python_tag_is_code():
    """Behind the tag, whatever is no other call is code, and it is never run."""
    code = "import os\nos.abort()"
    assert first_call(code, has_python_tag=True) == ToolCall("code_interpreter", {"code": code})


@settings(max_examples=200, deadline=None)
@given(
    parts=st.lists(
        st.sampled_from(
            [*FRAGMENTS, "<function=f>", "</function>", '{"name": "f", "parameters": {}}', "["]
        )
        | st.sampled_from(['brave_search.call(query="', '")', "f(a=1)", "]", "{'a': 1}"])
        | st.text(max_size=5),
        max_size=6,
    ),
    dialect=st.sampled_from(["hf", "meta"]),
)
def test_any_answer_can_be_read_and_sent_back(parts, dialect, demo_tokenizer):
    """Whatever a model writes becomes a message that is part of a correct conversation."""
    ids = demo_tokenizer.encode("".join(parts), allowed_special="all")
    message = chat.decode(demo_tokenizer, ids, dialect=dialect)
    for call in message.get("tool_calls", []):
        assert isinstance(json.loads(call["function"]["arguments"]), dict)
    one = message | {"tool_calls": message.get("tool_calls", [])[:1]}
    assert chat.render([USER, one], dialect=dialect)


@pytest.mark.parametrize("end", ["<|eot_id|>", "<|eom_id|>"])
@pytest.mark.parametrize("text", ["Good day.", "", '{"foo": 1}', "line\n\nline "])
def test_reading_undoes_writing(text, end, demo_tokenizer):
    """Law: an answer in Meta's format, read and written again, has the ids it had."""
    head = chat.encode(demo_tokenizer, [USER], dialect="meta")
    generated = demo_tokenizer.encode(text + end, allowed_special="all")
    message = chat.decode(demo_tokenizer, generated, dialect="meta")
    messages = [USER, message]
    again = chat.encode(demo_tokenizer, messages, dialect="meta", add_generation_prompt=False)
    assert again == head + generated


@pytest.mark.parametrize(
    ("ids", "options", "thing"),
    [
        ([1], {"dialect": "x"}, "dialect"),
        ([1], {"stop_reason": "stop"}, "stop_reason"),
        ([1, 512], {}, "ids[1]"),
        ([1.0], {}, "ids[0]"),
        ("abc", {}, "ids"),
    ],
)
def test_arguments_out_of_range(ids, options, thing, demo_tokenizer):
    """An id or an option that is not possible is refused by its name."""
    with pytest.raises(BadRequest) as caught:
        chat.decode(demo_tokenizer, ids, **options)
    assert caught.value.thing == thing
