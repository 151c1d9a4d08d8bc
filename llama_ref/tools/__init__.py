"""Tools: a Python function as a schema a model can read, and calls out of what a model wrote.

    signature.py      a function -> its JSON schema, from annotations and docstring
    docstrings.py     the sections of a Google-style docstring
    declared.py       tools as a request declares them, checked
    literals.py       values as Python writes them, read without running anything
    parsing.py        text -> calls and content
    stream.py         the same, piece by piece

Nothing a model writes is ever run or evaluated, and nothing it writes raises an error: what is not
a call is content.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_ref.lazy import names_of

_HOMES = {
    "CallDelta": "llama_ref.tools.stream",
    "ContentDelta": "llama_ref.tools.stream",
    "ParsedCalls": "llama_ref.tools.parsing",
    "ToolCall": "llama_ref.tools.parsing",
    "ToolCallStream": "llama_ref.tools.stream",
    "check_tools": "llama_ref.tools.declared",
    "function_schema": "llama_ref.tools.signature",
    "parse_tool_calls": "llama_ref.tools.parsing",
}
__getattr__ = names_of(__name__, _HOMES)
__all__ = sorted(_HOMES)  # noqa: PLE0605


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


if TYPE_CHECKING:
    from llama_ref.tools.declared import check_tools as check_tools
    from llama_ref.tools.parsing import ParsedCalls as ParsedCalls
    from llama_ref.tools.parsing import ToolCall as ToolCall
    from llama_ref.tools.parsing import parse_tool_calls as parse_tool_calls
    from llama_ref.tools.signature import function_schema as function_schema
    from llama_ref.tools.stream import CallDelta as CallDelta
    from llama_ref.tools.stream import ContentDelta as ContentDelta
    from llama_ref.tools.stream import ToolCallStream as ToolCallStream
