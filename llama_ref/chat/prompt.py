"""The prompt of a conversation: as pieces, and as text.

    messages, tools ──checked──► pieces ──joined──► text

Every argument is checked here, before the first piece is made.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict, Unpack

from llama_ref.chat.calls import FORMATS
from llama_ref.chat.conversation import Message, check_messages
from llama_ref.chat.dates import today_date
from llama_ref.chat.hf import hf_pieces
from llama_ref.chat.meta import meta_pieces
from llama_ref.chat.piece import BUILTIN_TOOLS, Piece, header
from llama_ref.errors import BadRequest, shown

DIALECTS = ("hf", "meta")
VERSIONS = ("3.1", "3.2", "3.3")


class PromptOptions(TypedDict, total=False):
    """What `pieces`, `render` and `encode` take by name; `pieces` explains it."""

    dialect: str
    version: str
    date: str | datetime.date | None
    add_generation_prompt: bool
    continue_final_message: bool
    builtin_tools: Sequence[str]
    tools_in_user_message: bool
    tool_prompt_format: str


def pieces(
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Any] | None = None,
    *,
    dialect: str = "hf",
    version: str = "3.1",
    date: str | datetime.date | None = None,
    add_generation_prompt: bool = True,
    continue_final_message: bool = False,
    builtin_tools: Sequence[str] = (),
    tools_in_user_message: bool = True,
    tool_prompt_format: str = "json",
) -> list[Piece]:
    """Return the prompt of a conversation as pieces.

    Parameters
    ----------
    messages : sequence of dict
        See `check_messages`.
    tools : sequence of dict or function, optional
        What the model may call; see `tools.check_tools`. An empty list still makes the prompt
        speak of functions.
    dialect : {"hf", "meta"}
        The published templates, or Meta's own code. "meta" writes no tools, built-in tools or
        date: say so in a message.
    version : {"3.1", "3.2", "3.3"}
        Of the template; 3.3 is 3.1. The dialect "meta" is the same in all.
    date : str or datetime.date, optional
        "Today Date". By default 26 Jul 2024, in version 3.2 the day it is.
    add_generation_prompt : bool
        Whether the head of an assistant's message ends the prompt.
    continue_final_message : bool
        Whether the last message stays open, for the model to go on inside it.
    builtin_tools : sequence of str
        Of "brave_search", "wolfram_alpha" and "code_interpreter". Not known to version 3.2.
    tools_in_user_message : bool
        Whether tools are declared in the first user message, or in the system block.
    tool_prompt_format : {"json", "function_tag", "python_list"}
        How the dialect "meta" writes calls of tools.

    Raises
    ------
    BadRequest
        If something in it is not possible, by name.
    LimitExceeded
        See `check_messages`.
    """
    checked = check_messages(messages)
    check_choice("dialect", dialect, DIALECTS)
    check_choice("version", version, VERSIONS)
    check_choice("tool_prompt_format", tool_prompt_format, FORMATS)
    builtin_tools = _checked_builtin_tools(builtin_tools)
    if continue_final_message:
        _check_open_end(checked[-1], len(checked) - 1, add_generation_prompt)
    if dialect == "meta":
        _check_absent("meta", {"tools": tools, "builtin_tools": builtin_tools, "date": date})
        result = list(meta_pieces(checked, tool_prompt_format))
    else:
        _check_absent("hf", {f"messages[{i}].context": m.context for i, m in enumerate(checked)})
        knows_builtin_tools = version != "3.2"
        result = list(
            hf_pieces(
                checked,
                _checked_tools(tools),
                today=today_date(date, version),
                builtin_tools=builtin_tools if knows_builtin_tools else (),
                tools_in_user_message=tools_in_user_message,
            )
        )
    if continue_final_message:
        return result[:-1]
    return [*result, *header("assistant")] if add_generation_prompt else result


def render(
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Any] | None = None,
    **options: Unpack[PromptOptions],
) -> str:
    r"""Return the prompt of a conversation as text.

    Parameters and errors are those of `pieces`. The text is for reading and comparing; encoding it
    is not the same as `encode`, since names of control tokens in a message look like any others.

    Examples
    --------
    >>> render([{"role": "user", "content": "Hi"}], dialect="meta", add_generation_prompt=False)
    '<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>'
    """
    return joined(pieces(messages, tools, **options))


def joined(parts: Iterable[Piece]) -> str:
    """Return the text of pieces."""
    return "".join(piece.text for piece in parts)


def check_choice(thing: str, value: object, choices: Sequence[str]) -> None:
    """Refuse what is none of the choices."""
    if not isinstance(value, str) or value not in choices:
        expected = f"one of {', '.join(choices)}"
        raise BadRequest(thing, expected=expected, found=shown(value))


def _check_absent(dialect: str, given: Mapping[str, object]) -> None:
    """Refuse what a dialect would have to leave out silently."""
    for thing, value in given.items():
        if value:
            raise BadRequest(
                thing,
                expected=f"none: the dialect {dialect!r} has no place for it",
                found=shown(value),
                next_step="write it into a message",
            )


def _checked_builtin_tools(names: Sequence[str]) -> tuple[str, ...]:
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise BadRequest("builtin_tools", expected="a list of names", found=shown(names))
    for index, name in enumerate(names):
        check_choice(f"builtin_tools[{index}]", name, BUILTIN_TOOLS)
    if len(set(names)) != len(names):
        raise BadRequest("builtin_tools", expected="each name once", found=shown(names))
    return tuple(names)


def _checked_tools(tools: Sequence[Any] | None) -> list[dict[str, Any]] | None:
    if tools is None:
        return None
    from llama_ref.tools import check_tools  # noqa: PLC0415 (a chat without tools needs none)

    return check_tools(tools)


def _check_open_end(last: Message, index: int, add_generation_prompt: bool) -> None:
    """Refuse to leave a message open that is not text, or to begin another after it."""
    if add_generation_prompt:
        raise BadRequest(
            "continue_final_message",
            expected="add_generation_prompt=False beside it",
            found="both",
            next_step="either the last message goes on, or a new one begins",
        )
    if last.role == "tool" or last.tool_calls:
        raise BadRequest(
            "continue_final_message",
            expected=f"text in messages[{index}]",
            found="the result of a tool" if last.role == "tool" else "a call of a tool",
        )
