"""The prompt of a conversation as ids: special pieces by their name, all others as plain text.

    special              its id
    template, content    "hf": all text between two control tokens in one; "meta": each piece alone

Which of the two it is changes the ids only now and then, where a content begins or ends with a line
end; both are as the peer does it, and the ids equal those of transformers and of Meta's code.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, chain, groupby
from typing import TYPE_CHECKING, Any, NamedTuple, Unpack

from llama_ref.chat.prompt import PromptOptions, joined, pieces
from llama_ref.errors import BadRequest, Unsupported
from llama_ref.tokenizer.requests import any_of

if TYPE_CHECKING:
    from llama_ref.tokenizer import Tokenizer


def encode(
    tokenizer: Tokenizer,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Any] | None = None,
    *,
    allow_special_in_content: bool = False,
    **options: Unpack[PromptOptions],
) -> list[int]:
    """Return the prompt of a conversation as ids.

    Parameters and errors beside these are those of `pieces`.

    Parameters
    ----------
    tokenizer : Tokenizer
        One with the special tokens of Llama 3.
    allow_special_in_content : bool
        Let names of special tokens inside messages become their ids, as every peer does that
        renders a text and encodes it. Whoever can write into a message can then end it and speak
        as somebody else.

    Raises
    ------
    Unsupported
        If the tokenizer lacks a control token of the format.
    LimitExceeded
        If the text between two control tokens is longer than 8 MiB.
    """
    parts = pieces(messages, tools, **options)
    control = control_ids(tokenizer, {piece.text for piece in parts if piece.kind == "special"})
    is_hf = options.get("dialect", "hf") == "hf"
    if allow_special_in_content and is_hf:
        return tokenizer.encode(joined(parts), allowed_special="all", exact=True)
    ids: list[int] = []
    for is_special, run in groupby(parts, lambda piece: piece.kind == "special"):
        if is_special:
            ids += [control[piece.text] for piece in run]
        elif is_hf:
            ids += _plain_ids(tokenizer, joined(run))
        else:
            allowed = "all" if allow_special_in_content else ()
            for piece in run:
                ids += tokenizer.encode(piece.text, allowed_special=allowed)
    return ids


class PromptToken(NamedTuple):
    """A token of a prompt, and where it comes from.

    Attributes
    ----------
    id : int
    kind : {"special", "template", "content"}
        Of the piece it begins in; a token may reach into the next one.
    role : str or None
        Whose message it stands in; None for what precedes all messages.
    """

    id: int
    kind: str
    role: str | None


def prompt_tokens(
    tokenizer: Tokenizer,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Any] | None = None,
    **options: Unpack[PromptOptions],
) -> list[PromptToken]:
    """Return the prompt of a conversation token by token; parameters and errors are of `encode`."""
    parts = pieces(messages, tools, **options)
    ends = list(accumulate(len(piece.text.encode()) for piece in parts))
    listed, at = [], 0
    for token_id in encode(tokenizer, messages, tools, **options):
        piece = parts[bisect_right(ends, at)]
        listed.append(PromptToken(token_id, piece.kind, piece.role))
        at += len(tokenizer.token_bytes(token_id))
    return listed


def _plain_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return the ids of a text in which nothing is special.

    Names of special tokens are cut out and encoded as any letters, and what stands around them
    too: so transformers does it under `sanitize_control_tokens`. Nothing merges across their ends.
    """
    parts = any_of(frozenset(tokenizer.special_tokens)).split(text)
    ids_of = {part: tokenizer.encode(part, exact=True) for part in set(parts)}
    return list(chain.from_iterable(ids_of[part] for part in parts))


def control_ids(tokenizer: Tokenizer, names: Iterable[str]) -> dict[str, int]:
    """Return the ids of control tokens by their names.

    Raises
    ------
    Unsupported
        If the tokenizer lacks one: all of them before Llama 3, those of tools in Llama 3.0.
    """
    try:
        return {name: tokenizer.special_id(name) for name in names}
    except BadRequest as error:
        raise Unsupported(
            "chat",
            expected="a tokenizer with the special tokens of Llama 3",
            found=f"one without {error.found}",
            next_step="this checkpoint was not made for such chats; plain text can be generated",
        ) from None
