"""Calls of tools as Meta's code writes them back into a conversation.

    built in        brave_search.call(query="…")     code_interpreter: the code itself
    json            {"type": "function", "name": "f", "parameters": {"a": 1}}
    function_tag    <function=f>{"a": 1}</function>
    python_list     [f(a=1)]

Several calls follow each other with nothing between. Text inside `call(query="…")` and inside a
Python list stands between quotation marks as it is, even if it holds some: such a call cannot be
read back, and is written so all the same.

Source: ToolUtils.encode_tool_call in meta-llama/llama-models, models/llama3/tool_utils.py.
"""

from __future__ import annotations

from typing import Any

from llama_ref.chat.piece import BUILTIN_TOOLS
from llama_ref.chat.tool_call import ToolCall
from llama_ref.errors import BadRequest, shown
from llama_ref.json_values import dumps

FORMATS = ("json", "function_tag", "python_list")


def call_text(call: ToolCall, tool_prompt_format: str, place: str) -> str:
    """Return a call as text.

    Raises
    ------
    BadRequest
        If a call of a built-in tool lacks its one argument, or that is no text.

    Examples
    --------
    >>> call = ToolCall("f", {"a": [1, None], "b": {"c": "x"}})
    >>> for form in FORMATS:
    ...     print(call_text(call, form, "call"))
    {"type": "function", "name": "f", "parameters": {"a": [1, null], "b": {"c": "x"}}}
    <function=f>{"a": [1, null], "b": {"c": "x"}}</function>
    [f(a=[1, None], b={c="x"})]
    """
    name, arguments = call.name, call.arguments
    if name in BUILTIN_TOOLS:
        key = "code" if name == "code_interpreter" else "query"
        value = arguments.get(key)
        if not isinstance(value, str):
            expected = f"text in {key!r}, as in any call of {name}"
            raise BadRequest(f"{place}.function.arguments", expected=expected, found=shown(value))
        return value if key == "code" else f'{name}.call(query="{value}")'
    if tool_prompt_format == "json":
        whole = {"type": "function", "name": name, "parameters": arguments}
        return dumps(whole, ascii_only=True)
    if tool_prompt_format == "function_tag":
        return f"<function={name}>{dumps(arguments, ascii_only=True)}</function>"
    return f"[{name}({_pairs(arguments)})]"


def _pairs(arguments: dict[str, Any]) -> str:
    return ", ".join(f"{key}={_python(value)}" for key, value in arguments.items())


def _python(value: Any) -> str:
    """Return a value in the notation of Meta's code, which is nearly Python's."""
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, list):
        return f"[{', '.join(map(_python, value))}]"
    return f"{{{_pairs(value)}}}" if isinstance(value, dict) else str(value)
