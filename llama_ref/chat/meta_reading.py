"""What Meta's code takes for a call of a tool, in a text that the model wrote.

In this order, and only the first call counts:

    <function=f>{"a": 1}</function>         anywhere in the text
    {"name": "f", "parameters": {"a": 1}}   the whole text
    [f(a=1), …]                             the whole text
    f.call(query="…")                       anywhere in the text
    <|python_tag|> in front                 all that follows is code

A call of a built-in tool in one of the first three forms keeps its first argument alone, as `query`
(of `code_interpreter`, as `code`).

Where Meta's code fails on what a model may well write, the text is content here: JSON with a name
and no parameters, arguments that are no object, a name that no tool can have. Apostrophes become
quotation marks only in arguments that are not JSON as they are.

Source: ToolUtils in meta-llama/llama-models, models/llama3/tool_utils.py.
"""

from __future__ import annotations

import re
from typing import Any

from llama_ref.chat.piece import BUILTIN_TOOLS
from llama_ref.chat.tool_call import TOOL_NAME, ToolCall
from llama_ref.errors import LlamaRefError
from llama_ref.json_values import dumps
from llama_ref.strict_json import parse_json

# Names are bounded so that a text of nothing but beginnings takes no quadratic time.
_FUNCTION_TAG = re.compile(r"<function=([A-Za-z0-9_-]{1,64})>(?=\{)")
_BUILTIN = re.compile(r'\b([A-Za-z0-9_]{1,64})\.call\(query="([^"]*)"\)')


def first_call(text: str, has_python_tag: bool) -> ToolCall | None:
    """Return the call that a text is, or None.

    Parameters
    ----------
    text : str
        Without control tokens.
    has_python_tag : bool
        Whether `<|python_tag|>` stood in front of it.

    Examples
    --------
    >>> first_call('Well: <function=f>{"a": 1}</function>', False)
    ToolCall(name='f', arguments={'a': 1}, id=None)
    """
    call = _tagged(text) or _json(text) or _python_list(text)
    if call and call.name in BUILTIN_TOOLS:
        return _with_one_argument(call)
    if call:
        return call
    if found := _BUILTIN.search(text):
        return ToolCall(found[1], {"query": found[2]})
    return ToolCall("code_interpreter", {"code": text}) if has_python_tag else None


def _with_one_argument(call: ToolCall) -> ToolCall | None:
    """Return a call of a built-in tool with its first argument alone, under the name it has."""
    for value in call.arguments.values():
        key = "code" if call.name == "code_interpreter" else "query"
        return ToolCall(call.name, {key: value if isinstance(value, str) else dumps(value)})
    return None


def _tagged(text: str) -> ToolCall | None:
    found = _FUNCTION_TAG.search(text)
    if not found:
        return None
    end = text.find("</function>", found.end())
    written = text[found.end() : end if end >= 0 else len(text)].strip()
    for candidate in (written, written.replace("'", '"')):
        arguments = _object(candidate)
        if arguments is not None:
            return ToolCall(found[1], arguments)
    return None


def _json(text: str) -> ToolCall | None:
    whole = _object(text) or {}
    name, arguments = whole.get("name"), whole.get("parameters")
    if isinstance(name, str) and TOOL_NAME.fullmatch(name) and isinstance(arguments, dict):
        return ToolCall(name, arguments)
    return None


def _python_list(text: str) -> ToolCall | None:
    if not text.startswith("["):
        return None
    from llama_ref.tools import parse_tool_calls  # noqa: PLC0415 (few texts come this far)

    calls = parse_tool_calls(text).calls
    return ToolCall(calls[0].name, calls[0].arguments) if calls else None


def _object(text: str) -> dict[str, Any] | None:
    """Return a text's JSON object, or None for anything else."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        value = parse_json(text.encode(), file="the model's text")
    except (LlamaRefError, UnicodeEncodeError):
        return None
    return value if isinstance(value, dict) else None
