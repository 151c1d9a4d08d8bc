"""The prompt as pieces: what is a control token, what the format adds, what somebody wrote.

    special     the name of a control token; the only pieces that become one
    template    words that the format itself adds: roles, blank lines, dates, instructions
    content     words of others: messages, tool declarations, calls, results

The text of a prompt is its pieces, joined. Its ids are the pieces, encoded: so there is no way for
the two to disagree, and none for content to become a control token.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

BEGIN_OF_TEXT, END_OF_TEXT = "<|begin_of_text|>", "<|end_of_text|>"
START_HEADER, END_HEADER = "<|start_header_id|>", "<|end_header_id|>"
END_OF_TURN, END_OF_MESSAGE = "<|eot_id|>", "<|eom_id|>"
PYTHON_TAG = "<|python_tag|>"

BUILTIN_TOOLS = ("brave_search", "wolfram_alpha", "code_interpreter")
"""Tools that Llama 3.1 was trained with; it calls them without being told how."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a prompt.

    Attributes
    ----------
    text : str
        Never empty.
    kind : {"special", "template", "content"}
    role : str or None
        Whose message it stands in, as the header spells it; None for what precedes all messages.
    message : int or None
        The index of the caller's message it belongs to; None for what the format adds.
    """

    text: str
    kind: Literal["special", "template", "content"]
    role: str | None = None
    message: int | None = None


def header(role: str, message: int | None = None) -> Iterator[Piece]:
    r"""Yield the head of a message: who speaks, and a blank line.

    Examples
    --------
    >>> "".join(piece.text for piece in header("user"))
    '<|start_header_id|>user<|end_header_id|>\n\n'
    """
    yield Piece(START_HEADER, "special", role, message)
    yield Piece(role, "template", role, message)
    yield Piece(END_HEADER, "special", role, message)
    yield Piece("\n\n", "template", role, message)
