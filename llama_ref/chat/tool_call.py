"""An assistant's calls of tools, in the form of the OpenAI API, checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llama_ref.chat.content import MAX_CONTENT, characters, check_limit, check_word
from llama_ref.errors import BadRequest, shown
from llama_ref.json_values import checked_value, loads_object

TOOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
MAX_CALLS = 128


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool, as the assistant made it.

    Attributes
    ----------
    name : str
    arguments : dict
    id : str or None
        Not part of any prompt.
    """

    name: str
    arguments: dict[str, Any]
    id: str | None = None


def checked_calls(calls: object, place: str) -> tuple[ToolCall, ...]:
    """Return the calls of an assistant."""
    if not isinstance(calls, list | tuple):
        raise BadRequest(place, expected="a list of calls", found=shown(calls))
    check_limit(place, len(calls), MAX_CALLS, "calls")
    return tuple(_call(call, f"{place}[{index}]") for index, call in enumerate(calls))


def _call(call: object, place: str) -> ToolCall:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(call, Mapping) or not isinstance(function, Mapping):
        expected = '{"type": "function", "function": {"name": …, "arguments": …}}'
        raise BadRequest(place, expected=expected, found=shown(call))
    if call.get("type", "function") != "function":
        raise BadRequest(f"{place}.type", expected="'function'", found=shown(call["type"]))
    name, call_id = function.get("name"), call.get("id")
    if not isinstance(name, str) or not TOOL_NAME.fullmatch(name):
        expected = "1 to 64 of the characters A-Z a-z 0-9 _ -"
        raise BadRequest(f"{place}.function.name", expected=expected, found=shown(name))
    if call_id is not None:
        check_word(call_id, f"{place}.id")
    arguments, within = function.get("arguments"), f"{place}.function.arguments"
    if isinstance(arguments, str):
        check_limit(within, len(arguments), MAX_CONTENT, "characters")
        arguments = loads_object(arguments, within)
    arguments = checked_value({} if arguments is None else arguments, within)
    if not isinstance(arguments, dict):
        raise BadRequest(within, expected="a JSON object", found=shown(arguments))
    check_limit(within, characters(arguments), MAX_CONTENT, "characters")
    return ToolCall(name, arguments, call_id)
