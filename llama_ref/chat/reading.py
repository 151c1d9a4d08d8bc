"""Ids that a model generated, as a message of the assistant.

    [the assistant's head] [<|python_tag|>] text [<|eot_id|> or <|eom_id|>]

What is a control token is decided by ids. A text that merely spells `<|eot_id|>` does not end.

Source: ChatFormat.decode_assistant_message in meta-llama/llama-models,
models/llama3/chat_format.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, SupportsIndex

from llama_ref.chat.conversation import STOP_REASONS
from llama_ref.chat.encoding import control_ids
from llama_ref.chat.meta_reading import first_call
from llama_ref.chat.piece import (
    END_OF_MESSAGE,
    END_OF_TEXT,
    END_OF_TURN,
    PYTHON_TAG,
    header,
)
from llama_ref.chat.prompt import DIALECTS, check_choice
from llama_ref.json_values import dumps
from llama_ref.tokenizer.requests import checked_ids

if TYPE_CHECKING:
    from llama_ref.tokenizer import Tokenizer

ENDS = {
    END_OF_TURN: "end_of_turn",
    END_OF_MESSAGE: "end_of_message",
    END_OF_TEXT: "end_of_turn",
}

Call = tuple[str, dict[str, Any]]
"""Name and arguments."""


def decode(
    tokenizer: Tokenizer,
    ids: Iterable[SupportsIndex],
    *,
    dialect: str = "hf",
    tools: Sequence[Any] | None = None,
    builtin_tools: Sequence[str] = (),
    stop_reason: str = "out_of_tokens",
) -> dict[str, Any]:
    """Return generated ids as a message, which can be sent back as it is.

    Parameters
    ----------
    tokenizer : Tokenizer
        One with the special tokens of Llama 3.
    ids : sequence of int
        What the model generated, with or without the token it ended with.
    dialect : {"hf", "meta"}
        Who decides what is a call of a tool: `tools.parse_tool_calls`, or the rules of Meta's code
        (`meta_reading`), which know one call and any tool.
    tools, builtin_tools : sequence
        What may be called in the dialect "hf"; see `tools.parse_tool_calls`.
    stop_reason : {"end_of_turn", "end_of_message", "out_of_tokens"}
        What is true if the ids do not say it.

    Returns
    -------
    dict
        `role`, `content`, `stop_reason`, and `tool_calls` if there are any: `call_0`, `call_1`, …,
        with arguments as JSON text. Content beside calls is None if there is none; under "meta" it
        is empty then.

    Raises
    ------
    BadRequest
        If an id or an argument is out of range. Never for what the text says.
    Unsupported
        If the tokenizer lacks a control token of the format.
    """
    check_choice("dialect", dialect, DIALECTS)
    check_choice("stop_reason", stop_reason, STOP_REASONS)
    body = checked_ids(ids, tokenizer.vocab_size)
    head = _head(tokenizer)
    has_head = body[: len(head)] == head
    if has_head:
        del body[: len(head)]
    ends = {tokenizer.special_tokens.get(name): reason for name, reason in ENDS.items()}
    has_end = bool(body) and body[-1] in ends
    if has_end:
        stop_reason = ends[body.pop()]
    if dialect == "hf":
        content, calls = _as_tools_reads(tokenizer.decode(body), tools, builtin_tools)
    else:
        has_tag = bool(body) and tokenizer.special_tokens.get(PYTHON_TAG) == body[0]
        text = tokenizer.decode(body[has_tag:])
        # Meta's code strips blanks from the whole text, control tokens and all.
        text = text if has_head or has_tag else text.lstrip(" ")
        content, calls = _as_meta_reads(text if has_end else text.rstrip(" "), has_tag)
    message = {"role": "assistant", "content": content, "stop_reason": stop_reason}
    return message | ({"tool_calls": _written(calls)} if calls else {})


def _as_tools_reads(
    text: str, tools: Sequence[Any] | None, builtin_tools: Sequence[str]
) -> tuple[str | None, list[Call]]:
    from llama_ref.tools import parse_tool_calls  # noqa: PLC0415 (imports what "meta" needs not)

    parsed = parse_tool_calls(text, tools, builtin_tools=builtin_tools)
    calls = [(call.name, call.arguments) for call in parsed.calls]
    return (parsed.content if calls else parsed.content or ""), calls


def _as_meta_reads(text: str, has_python_tag: bool) -> tuple[str, list[Call]]:
    call = first_call(text, has_python_tag)
    return ("", [(call.name, call.arguments)]) if call else (text, [])


def _head(tokenizer: Tokenizer) -> list[int]:
    """Return the ids of the assistant's head, which some callers leave in front."""
    pieces = list(header("assistant"))
    control = control_ids(tokenizer, {piece.text for piece in pieces if piece.kind == "special"})
    ids: list[int] = []
    for piece in pieces:
        is_special = piece.kind == "special"
        ids += [control[piece.text]] if is_special else tokenizer.encode(piece.text)
    return ids


def _written(calls: Sequence[Call]) -> list[dict[str, Any]]:
    """Return calls in the form of the OpenAI API."""
    return [
        {
            "id": f"call_{index}",
            "type": "function",
            "function": {"name": name, "arguments": dumps(arguments)},
        }
        for index, (name, arguments) in enumerate(calls)
    ]
