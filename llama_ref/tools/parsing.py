r"""Calls out of what a model wrote.

Blank space and `<|python_tag|>` in front and `<|eom_id|>` or `<|eot_id|>` behind are taken off;
then the first of these that fits the whole text decides:

    1  after <|python_tag|>  name.call(key="text", …)          a built-in tool
    2  {"name": …, "parameters": {…}}, one or more             with ; or , or blanks between
    3  [{"name": …, "parameters": {…}}, …]  or  [f(a=1), g()]  a list of either form
    4  <function=name>{…}</function>, one or more              text around them is content
    5  after <|python_tag|>  anything else                     code_interpreter, where it is enabled
    6  anything else                                           content

Half a rule does not count: one object that is no call, an argument that is no literal, a name that
no tool has, and the whole text is content, to the letter. So a text never loses anything, and
nobody's prose becomes a call by accident. `parameters` may be called `arguments`, as in other
models' formats.

This is stricter and wider than the peers, which find the first `{` anywhere, lose all calls for one
bad brace, or know one form only; the table is in `docs/tools.md`.

Source: the formats are those of meta-llama/llama-models, models/llama3_1/prompt_format.md and
models/llama3_2/text_prompt_format.md.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llama_ref.errors import BadRequest, shown
from llama_ref.tools.literals import MAX_DEPTH, MAX_DIGITS, NotALiteral, read_calls
from llama_ref.tools.signature import name_of_function

PYTHON_TAG, ENDS = "<|python_tag|>", ("<|eom_id|>", "<|eot_id|>")
FUNCTION_TAG = "<function="
SEARCH_TOOLS = ("brave_search", "wolfram_alpha")
CODE_TOOL = "code_interpreter"

BUILTIN_CALL = re.compile(r'(\w+)\.call\((\w+="[^"]*"(?:,\s*\w+="[^"]*")*)?\)')
BUILTIN_CALL_WITH_QUOTES = re.compile(r'(\w+)\.call\((\w+)="(.*)"\)', re.DOTALL)
BUILTIN_ARGUMENT = re.compile(r'(\w+)="([^"]*)"')
BETWEEN_OBJECTS = re.compile(r"\s*[;,]?\s*")
FUNCTION_HEAD = re.compile(r"<function=([A-Za-z0-9_-]{1,64})>\s*")
FUNCTION_FOOT = re.compile(r"\s*</function>")


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool, as the model made it.

    Attributes
    ----------
    name : str
    arguments : dict
    """

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ParsedCalls:
    """What a text is.

    Attributes
    ----------
    calls : tuple of ToolCall
    content : str or None
        What is not part of a call; None if that is nothing.
    """

    calls: tuple[ToolCall, ...]
    content: str | None


def parse_tool_calls(
    text: str, tools: Sequence[Any] | None = None, *, builtin_tools: Sequence[str] = ()
) -> ParsedCalls:
    r"""Return the calls in a model's text, and the rest.

    Parameters
    ----------
    text : str
        With the names of control tokens, where the tokenizer's `decode` gives them.
    tools : sequence of dict or function, optional
        Those that may be called. Without, any name is one.
    builtin_tools : sequence of str
        Which of "brave_search", "wolfram_alpha" and "code_interpreter" may be called beside them.
        With neither `tools` nor these, the first two may.

    Raises
    ------
    BadRequest
        If `text` is no text, or `tools` no list of tools. Never for what the text says.

    Examples
    --------
    >>> parse_tool_calls('{"name": "f", "parameters": {"a": 1}}')
    ParsedCalls(calls=(ToolCall(name='f', arguments={'a': 1}),), content=None)
    >>> parse_tool_calls("[f(a='it\\'s')]").calls
    (ToolCall(name='f', arguments={'a': "it's"}),)
    >>> parse_tool_calls("Let me think: f(a=1)").content
    'Let me think: f(a=1)'
    """
    if not isinstance(text, str):
        raise BadRequest("text", expected="text", found=shown(text))
    return Reading(tools, builtin_tools).whole(text)


class Reading:
    """Who may be called, and the rules.

    Parameters
    ----------
    tools, builtin_tools
        As for `parse_tool_calls`.
    """

    def __init__(self, tools: Sequence[Any] | None, builtin_tools: Sequence[str]):
        if tools is not None and not isinstance(tools, list | tuple):
            raise BadRequest("tools", expected="a list of functions or schemas", found=shown(tools))
        self.names = None if tools is None else frozenset(map(_name_in, tools))
        self.builtin = frozenset(builtin_tools)
        if tools is None and not builtin_tools:
            self.builtin = frozenset(SEARCH_TOOLS)

    def whole(self, text: str) -> ParsedCalls:
        """Return what a whole text is."""
        text = without_end(text)
        body = text.strip()
        is_tagged = body.startswith(PYTHON_TAG)
        body = body.removeprefix(PYTHON_TAG).strip()
        calls = self._builtin_call(body) if is_tagged else None
        for rule in (self._objects, self._json_list, self._python_list):
            calls = calls or rule(body)
        if calls:
            return ParsedCalls(tuple(calls), None)
        at = text.find(FUNCTION_TAG)
        if at >= 0:
            tagged = self.from_tag(text[at:])
            if tagged.calls:
                content = text[:at] + (tagged.content or "")
                return ParsedCalls(tagged.calls, content if content.strip() else None)
        if is_tagged and body and CODE_TOOL in self.builtin:
            return ParsedCalls((ToolCall(CODE_TOOL, {"code": body}),), None)
        return ParsedCalls((), text or None)

    def _builtin_call(self, body: str) -> list[ToolCall] | None:
        """Rule 1."""
        if found := BUILTIN_CALL.fullmatch(body):
            pairs = BUILTIN_ARGUMENT.findall(found.group(2) or "")
        elif found := BUILTIN_CALL_WITH_QUOTES.fullmatch(body):
            pairs = [(found.group(2), found.group(3))]
        if not found or found.group(1) not in self.builtin or len(dict(pairs)) != len(pairs):
            return None
        return [ToolCall(found.group(1), dict(pairs))] if _is_writable(dict(pairs)) else None

    def _objects(self, body: str) -> list[ToolCall] | None:
        """Rule 2."""
        calls: list[ToolCall] = []
        at = 0
        while at < len(body):
            if body[at] != "{":
                return None
            value, at = _json_value(body, at)
            call = self._from_object(value)
            if call is None:
                return None
            calls.append(call)
            at = BETWEEN_OBJECTS.match(body, at).end()  # type: ignore[union-attr]
        return calls

    def _json_list(self, body: str) -> list[ToolCall] | None:
        """Rule 3, as JSON."""
        if not body.startswith("["):
            return None
        values, at = _json_value(body, 0)
        if at != len(body) or not isinstance(values, list):
            return None
        calls = [self._from_object(value) for value in values]
        return None if None in calls else calls  # type: ignore[return-value]

    def _python_list(self, body: str) -> list[ToolCall] | None:
        """Rule 3, as Python."""
        if not body.startswith("["):
            return None
        try:
            calls = read_calls(body)
        except (NotALiteral, OverflowError, RecursionError):  # the caller may stand deep already
            return None
        fits = all(self._may_call(name) and _is_writable(values) for name, values in calls)
        return [ToolCall(name, values) for name, values in calls] if fits else None

    def from_tag(self, text: str) -> ParsedCalls:
        """Rule 4, for a text that begins with the first tag; its content to the last blank."""
        calls, content, end, at = list[ToolCall](), list[str](), 0, 0
        while at >= 0:
            content.append(text[end:at])
            head = FUNCTION_HEAD.match(text, at)
            arguments, after = _json_value(text, head.end()) if head else (None, at)
            foot = FUNCTION_FOOT.match(text, after)
            if not head or not foot or not isinstance(arguments, dict):
                return ParsedCalls((), text)
            if not self._may_call(head.group(1)):
                return ParsedCalls((), text)
            calls.append(ToolCall(head.group(1), arguments))
            end = foot.end()
            at = text.find(FUNCTION_TAG, end)
        return ParsedCalls(tuple(calls), "".join([*content, text[end:]]) or None)

    def _from_object(self, value: Any) -> ToolCall | None:
        name = value.get("name") if isinstance(value, dict) else None
        if not isinstance(name, str) or not self._may_call(name):
            return None
        arguments = value["arguments"] if "arguments" in value else value.get("parameters")
        return ToolCall(name, arguments) if isinstance(arguments, dict) else None

    def _may_call(self, name: str) -> bool:
        return self.names is None or name in self.names or name in self.builtin


def without_end(text: str) -> str:
    """Return a text without the control token that ends a message."""
    return text[: -len(ENDS[0])] if text.endswith(ENDS) else text


def _name_in(tool: Any) -> str:
    function = tool.get("function") if isinstance(tool, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    name = name_of_function(tool) if callable(tool) else name
    if not isinstance(name, str):
        raise BadRequest("tool", expected="a schema with a name, or a function", found=shown(tool))
    return name


def _json_value(text: str, at: int) -> tuple[Any, int]:
    """Return the JSON value that begins at a place, and the place behind it; (None, at) if none."""
    try:
        value, end = _DECODER.raw_decode(text, at)
    except (ValueError, RecursionError):
        return None, at
    return (value, end) if _is_writable(value) else (None, at)


def _refused(word: str) -> Any:
    raise ValueError(word)


def _bounded(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return a reader of numbers that refuses what JSON cannot write back."""

    def number(digits: str) -> Any:
        value = read(digits) if len(digits) <= MAX_DIGITS else math.inf
        return value if math.isfinite(value) else _refused(digits)

    return number


_DECODER = json.JSONDecoder(
    parse_int=_bounded(int), parse_float=_bounded(float), parse_constant=_refused
)


def _is_writable(value: Any) -> bool:
    """Whether a value can go into a response: of finite depth and numbers, and real characters."""
    try:
        _check(value, 0)
    except (ValueError, RecursionError):
        return False
    return True


def _check(value: Any, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ValueError("depth")
    if isinstance(value, str):
        value.encode()  # raises for half a surrogate pair
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("number")
    elif isinstance(value, dict | list):
        parts: Iterable[Any] = [*value, *value.values()] if isinstance(value, dict) else value
        for part in parts:
            _check(part, depth + 1)
