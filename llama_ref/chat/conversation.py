"""Messages, checked: what a caller hands in becomes a `Message` each, or an error with its place.

    system, user    text
    assistant       text, calls of tools, or both
    tool            the result of a call: text or a JSON value; `ipython` is its name in the prompt

The form is that of the OpenAI API, since every client writes it. Text may come in parts, which are
joined by line ends. Roles are these five and no others: a role is written into a header, where a
foreign one would be a way to speak as somebody else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from llama_ref.chat.content import (
    MAX_CONTENT,
    characters,
    check_limit,
    check_word,
    result_of,
    text_of,
)
from llama_ref.chat.tool_call import ToolCall, checked_calls
from llama_ref.errors import BadRequest, shown

ROLES = ("system", "user", "assistant", "tool", "ipython")
STOP_REASONS = ("end_of_turn", "end_of_message", "out_of_tokens")

MAX_MESSAGES = 10_000
MAX_TOTAL = 8 * 2**20
"""Characters of all messages together."""

_KEYS = {
    "system": {"name"},
    "user": {"name", "context"},
    "assistant": {"name", "tool_calls", "stop_reason"},
    "tool": {"name", "tool_call_id"},
    "ipython": {"name", "tool_call_id"},
}
"""What a message may have beside its role and content. The name is not part of any prompt."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message as the dialects read it.

    Attributes
    ----------
    role : {"system", "user", "assistant", "tool"}
    content : str, or for a tool also a dict, list or number
    tool_calls : tuple of ToolCall
        Of an assistant.
    context : str or None
        Of a user: retrieved text, which only the dialect "meta" writes.
    stop_reason : {"end_of_turn", "end_of_message", "out_of_tokens"} or None
        Of an assistant: how its message ended, which only the dialect "meta" writes.
    tool_call_id : str or None
        Of a tool: which call it is the result of. Not part of any prompt.
    """

    role: str
    content: Any = ""
    tool_calls: tuple[ToolCall, ...] = ()
    context: str | None = None
    stop_reason: Literal["end_of_turn", "end_of_message", "out_of_tokens"] | None = None
    tool_call_id: str | None = None


def check_messages(messages: Sequence[Mapping[str, Any]]) -> list[Message]:
    r"""Return a conversation as messages that both dialects can read.

    Parameters
    ----------
    messages : sequence of dict
        `{"role": …, "content": …}` each. Content is text, or a list of `{"type": "text", "text":
        …}`, joined by line ends; of a tool also any JSON object, list or number. An assistant may
        have `tool_calls` in OpenAI's form, arguments as a dict or as JSON text (text that is not
        JSON stands for no arguments), and then needs no content.

    Raises
    ------
    BadRequest
        If anything else is found; the thing named is `messages[i].content` or its like.
    LimitExceeded
        Beyond 10,000 messages, 1,000 parts or 128 calls in one, 4,194,304 characters in one,
        1,048,576 in a tool's result, 8,388,608 in all.

    Examples
    --------
    >>> parts = [{"type": "text", "text": "Look:"}, {"type": "text", "text": "a llama."}]
    >>> check_messages([{"role": "user", "content": parts}])[0].content
    'Look:\na llama.'
    """
    if isinstance(messages, str | bytes | Mapping) or not isinstance(messages, Sequence):
        raise BadRequest("messages", expected="a list of messages", found=shown(messages))
    if not messages:
        raise BadRequest("messages", expected="at least one message", found="none")
    check_limit("messages", len(messages), MAX_MESSAGES, "messages")
    checked, total = [], 0
    for index, message in enumerate(messages):
        checked.append(_checked(message, f"messages[{index}]"))
        total += _size(checked[-1])
        check_limit("messages", total, MAX_TOTAL, "characters in all")
    _check_ids(checked)
    return checked


def _checked(message: object, place: str) -> Message:
    """Return one message, or the error that names what is wrong in it."""
    if not isinstance(message, Mapping):
        raise BadRequest(place, expected="a message, {role, content}", found=shown(message))
    given = {key: value for key, value in message.items() if value is not None}
    role = given.pop("role", None)
    if not isinstance(role, str) or role not in ROLES:
        raise BadRequest(f"{place}.role", expected=f"one of {', '.join(ROLES)}", found=shown(role))
    content = given.pop("content", None)
    for key, value in given.items():
        # Clients send back what they got, and with it empty fields of no meaning here.
        if key not in _KEYS[role] and value not in ([], {}, ""):
            raise BadRequest(f"{place}.{shown(key)[1:-1]}", expected=f"no such key of role {role}")
    for key in {"name", "tool_call_id"} & given.keys():
        check_word(given[key], f"{place}.{key}")
    if role in ("tool", "ipython"):
        call_id = given.get("tool_call_id")
        return Message("tool", result_of(content, f"{place}.content"), tool_call_id=call_id)
    calls = checked_calls(given.get("tool_calls", []), f"{place}.tool_calls")
    if content is None and calls:
        content = ""
    text = text_of(content, f"{place}.content", MAX_CONTENT)
    context = given.get("context")
    if context is not None:
        context = text_of(context, f"{place}.context", MAX_CONTENT)
    reason = given.get("stop_reason")
    if reason is not None and reason not in STOP_REASONS:
        expected = f"one of {', '.join(STOP_REASONS)}"
        raise BadRequest(f"{place}.stop_reason", expected=expected, found=shown(reason))
    return Message(role, text, calls, context, reason)


def _check_ids(messages: Sequence[Message]) -> None:
    """Refuse ids of calls that stand for two calls, and results of calls that were never made.

    No id is in any prompt. One that does not fit is a mistake of whoever keeps the conversation.
    Calls and results without ids are fine, as in vLLM; so are results where no call has one.
    """
    open_ids: set[str] = set()
    seen: set[str] = set()
    for index, message in enumerate(messages):
        for at, call in enumerate(message.tool_calls):
            if call.id in seen:
                place = f"messages[{index}].tool_calls[{at}].id"
                raise BadRequest(place, expected="an id of its own", found=shown(call.id))
            if call.id is not None:
                seen.add(call.id)
                open_ids.add(call.id)
        result = message.tool_call_id
        if result is not None and seen:
            if result not in open_ids:
                expected = "the id of a call before it that has no result yet"
                raise BadRequest(
                    f"messages[{index}].tool_call_id", expected=expected, found=shown(result)
                )
            open_ids.remove(result)


def _size(message: Message) -> int:
    """Return about how many characters of a prompt a message is."""
    calls = sum(characters(call.arguments) for call in message.tool_calls)
    return characters(message.content) + calls + len(message.context or "")
