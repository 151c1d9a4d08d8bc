r"""Where Meta's code cuts a text before its pieces are found, and where an exact caller may not go.

Meta hands the engine at most 400,000 characters at a time, and within these never more than
25,000 without a change between blank and non-blank; both once kept the engine from failing on
hostile text. Nothing merges across a cut, so such a text gets other ids than from an uncut
encoder (60,000 blanks: 471 ids in place of 470), though the same text comes back.

Blank here is `str.isspace`, as in Meta's code, and not the `\s` of the split rule.

Source: meta-llama/llama-models, models/llama3/tokenizer.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from llama_ref.errors import LimitExceeded

MAX_CHARACTERS = 400_000
MAX_RUN = 25_000
MAX_UNCUT_BLANKS = 900_000
r"""At 999,999 in a row, line ends not counted, tiktoken 0.14 fails with an error that is no
`Exception`: its rule `\s+(?!\S)` runs out of stack."""

_BLANK, _NON_BLANK = re.compile(r"\s"), re.compile(r"\S")
_RUN = re.compile(r"\s+|\S+")
_UNCUT_BLANKS = re.compile(rf"(?<![^\S\r\n])[^\S\r\n]{{{MAX_UNCUT_BLANKS + 1}}}")


def cut(text: str) -> Iterator[str]:
    """Yield the slices of a text that Meta's code encodes one by one.

    Examples
    --------
    >>> [len(part) for part in cut("word " * 100_000)]
    [400000, 100000]
    >>> [len(part) for part in cut("a" * 60_000)]
    [25000, 25000, 10000]
    """
    for start in range(0, len(text), MAX_CHARACTERS):
        yield from _cut_runs(text[start : start + MAX_CHARACTERS])


def _cut_runs(text: str) -> Iterator[str]:
    """Cut every run of blanks or of non-blanks after each 25,000 of its characters."""
    if not _may_hold_long_run(text):
        yield text
        return
    bounds = [0]
    for run in _RUN.finditer(text):
        bounds.extend(range(run.start() + MAX_RUN, run.end(), MAX_RUN))
    for start, end in pairwise([*bounds, len(text)]):
        yield text[start:end]


def _may_hold_long_run(text: str) -> bool:
    """Return False if no run is longer than 25,000, after a look at very few characters.

    A longer run would cover one of the aligned blocks of 12,500 from end to end, and an ordinary
    block shows both a blank and a non-blank within its first word.
    """
    block = MAX_RUN // 2
    return len(text) > MAX_RUN and not all(
        _BLANK.search(text, start, start + block) and _NON_BLANK.search(text, start, start + block)
        for start in range(0, len(text) - block + 1, block)
    )


def check_uncut(text: str) -> None:
    """Refuse a text that would bring the engine down when it is not cut.

    Raises
    ------
    LimitExceeded
        If the text holds more than 900,000 blanks in a row, line ends not counted.
    """
    block = MAX_UNCUT_BLANKS // 2
    if all(
        _NON_BLANK.search(text, start, start + block)
        for start in range(0, len(text) - block + 1, block)
    ):
        return  # as in `_may_hold_long_run`: no block without a word, no long run
    if run := _UNCUT_BLANKS.search(text):
        raise LimitExceeded(
            f"text[{run.start()}]",
            expected=f"at most {MAX_UNCUT_BLANKS:,} blanks in a row where exact=True",
            next_step="encode with exact=False, which cuts as Meta's code does",
        )
