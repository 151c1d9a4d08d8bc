"""Calls out of a text that is still being written.

What a call is, is decided by the whole text (`parsing.py`): a last word behind ten calls makes
content of all of them. So a text that may be calls is held until its end, and any other goes out as
it comes. Which of the two it is, its beginning says:

    blank space so far, or part of <|python_tag|>      not known yet: held
    <|python_tag|>    { and "    [ and a name or {     may be calls: held
    anything else                                      content, at once; held from <function= on

The pieces, joined, are what `parse_tool_calls` makes of the whole text, however it was cut.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from llama_ref.errors import BadRequest, shown
from llama_ref.tools.parsing import (
    ENDS,
    FUNCTION_TAG,
    PYTHON_TAG,
    ParsedCalls,
    Reading,
    without_end,
)

MAY_BE_CALLS = re.compile(
    r'\{\s*(?:$|")|\[\s*(?:$|\{\s*(?:$|")|[A-Za-z_][A-Za-z0-9_-]*\s*(?:$|\())'
)
OPENINGS, MARKS = (PYTHON_TAG, FUNCTION_TAG), (*ENDS, FUNCTION_TAG)
BEGINNING = 256
"""Characters after which a text that still may be calls is not looked at again before its end.
Blank pieces in front are not counted."""


class ContentDelta(NamedTuple):
    """A piece of content; never empty."""

    text: str


class CallDelta(NamedTuple):
    """A piece of a call.

    Attributes
    ----------
    index : int
        Which call.
    name : str or None
        In the first piece of each.
    arguments : str
        A piece of JSON text.
    """

    index: int  # type: ignore[assignment]  # hides a method of tuples that nobody needs
    name: str | None
    arguments: str


class ToolCallStream:
    """Reads one text piece by piece.

    Parameters
    ----------
    tools, builtin_tools
        As for `parse_tool_calls`.

    Examples
    --------
    >>> stream = ToolCallStream(None)
    >>> stream.push("Good "), stream.push("day.")
    ([ContentDelta(text='Good ')], [ContentDelta(text='day.')])
    >>> stream = ToolCallStream(None)
    >>> stream.push('{"name": "f", '), stream.push('"parameters": {}}')
    ([], [])
    >>> stream.finish()
    [CallDelta(index=0, name='f', arguments='{}')]
    """

    def __init__(self, tools: Sequence[Any] | None, *, builtin_tools: Sequence[str] = ()):
        self._reading = Reading(tools, builtin_tools)
        self._held: list[str] = []
        self._n_held = self._n_blank = 0
        self._is_content = self._from_tag = False

    def push(self, text: str) -> list[ContentDelta | CallDelta]:
        """Read the next piece; return what it makes certain.

        Raises
        ------
        BadRequest
            If it is no text.
        """
        if not isinstance(text, str):
            raise BadRequest("text", expected="text", found=shown(text))
        self._held.append(text)
        self._n_held += len(text)
        if self._from_tag or not (self._is_content or self._shows_what_it_is(text)):
            return []
        self._is_content = True
        whole = "".join(self._held)
        certain = self._n_certain(whole)
        self._held, self._n_held = [whole[certain:]], len(whole) - certain
        return [ContentDelta(whole[:certain])] if certain else []

    def finish(self) -> list[ContentDelta | CallDelta]:
        """Return what was held back, as no more text comes."""
        text, self._held = "".join(self._held), []
        if self._from_tag:
            parsed = self._reading.from_tag(without_end(text))
        elif self._is_content:
            parsed = ParsedCalls((), without_end(text) or None)
        else:
            parsed = self._reading.whole(text)
        events: list[ContentDelta | CallDelta] = []
        if parsed.content:
            events.append(ContentDelta(parsed.content))
        for index, call in enumerate(parsed.calls):
            written = json.dumps(call.arguments, ensure_ascii=False)
            events.append(CallDelta(index, call.name, written))
        return events

    def _shows_what_it_is(self, text: str) -> bool:
        """Whether what has come so far, this piece its last, can be nothing but content."""
        is_blank = not text.strip()
        if is_blank and self._n_blank == self._n_held - len(text):
            self._n_blank = self._n_held
        if is_blank or self._n_held - self._n_blank > BEGINNING + len(text):
            return False
        body = "".join(self._held).lstrip()
        is_open = any(mark.startswith(body) for mark in (*OPENINGS, *ENDS))
        return not (is_open or body.startswith(OPENINGS) or MAY_BE_CALLS.match(body))

    def _n_certain(self, whole: str) -> int:
        """Return how much of a content can go out: all but what is, or begins, a mark."""
        at = whole.find(FUNCTION_TAG)
        if at >= 0:
            self._from_tag = True
            return at
        longest = min(max(map(len, MARKS)), len(whole))
        ends = (whole[len(whole) - n :] for n in range(longest, 0, -1))
        held = next((end for end in ends if any(mark.startswith(end) for mark in MARKS)), "")
        return len(whole) - len(held)
