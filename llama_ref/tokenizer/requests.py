"""What a caller may hand to a tokenizer: text, ids and names, checked before any work is done."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from os.path import commonprefix
from typing import SupportsIndex

from llama_ref.errors import BadRequest, LimitExceeded, shown
from llama_ref.text import utf8

MAX_TEXT_BYTES = 8 * 2**20
MAX_BRANCHINGS = 30
"""Groups within groups in a pattern for names; Python's compiler of patterns is recursive."""


def check_text(text: str) -> None:
    """Refuse what is not text, and text beyond 8 MiB.

    Raises
    ------
    BadRequest
        If it is no `str`, or holds half a surrogate pair.
    LimitExceeded
        If its UTF-8 is longer than 8 MiB.
    """
    size = len(text) if isinstance(text, str) else 0
    if size <= MAX_TEXT_BYTES:  # a longer one need not be encoded to know it
        size = len(utf8(text))
    if size > MAX_TEXT_BYTES:
        raise LimitExceeded(
            "text",
            expected=f"at most {MAX_TEXT_BYTES:,} bytes of UTF-8",
            found=f"at least {size:,}",
            next_step="encode it in parts",
        )


def checked_ids(ids: Iterable[SupportsIndex], vocab_size: int) -> list[int]:
    """Return ids as a list of Python integers, each of them in the vocabulary.

    Raises
    ------
    BadRequest
        If `ids` is no list or 1-D array, or holds what is no id: the message names its position.
    """
    values = ids.tolist() if hasattr(ids, "tolist") else ids
    if isinstance(values, str | bytes | bytearray) or not isinstance(values, Iterable):
        raise BadRequest("ids", expected="a list or 1-D array of ids", found=type(ids).__name__)
    checked = list(values)
    for position, value in enumerate(checked):
        token_id = value if type(value) is int else _as_int(value, position)
        if not 0 <= token_id < vocab_size:
            raise BadRequest(
                f"ids[{position}]", expected=f"0 to {vocab_size - 1}", found=shown(token_id)
            )
        checked[position] = token_id
    return checked


def _as_int(value: object, position: int) -> int:
    """Return a NumPy integer as an `int`, and refuse what is none: 1.0 and True are no ids."""
    if isinstance(value, SupportsIndex) and not isinstance(value, bool):
        try:
            return value.__index__()
        except TypeError:  # an array of more than one element
            pass
    found = f"{shown(value)} ({type(value).__name__})"
    raise BadRequest(f"ids[{position}]", expected="an integer", found=found)


@lru_cache(maxsize=16)
def any_of(names: frozenset[str]) -> re.Pattern[str]:
    r"""Return a pattern that captures any of the names, the longest where two begin alike.

    Names that begin alike share their beginning in the pattern: tried one by one, 256 names take
    seconds for each megabyte of a text that nearly holds them.

    Examples
    --------
    >>> any_of(frozenset(["<ab>", "<ac>", "<a"])).pattern
    '(<a(?:b>|c>|))'
    """
    return re.compile(f"({_one_of(sorted(names), MAX_BRANCHINGS)})")


def _one_of(names: list[str], depth: int) -> str:
    """Return a pattern for one of several different texts, the longest first."""
    shared = commonprefix(names)  # noqa: RUF071 (of characters is what is wanted)
    ends = sorted((name[len(shared) :] for name in names), key=len, reverse=True)
    if len(ends) == 1:
        return re.escape(shared)
    if depth == 0:
        alternatives = [re.escape(end) for end in ends]
    else:
        branches: dict[str, list[str]] = {}  # by their first character; last of all, no character
        for end in ends:
            branches.setdefault(end[:1], []).append(end)
        alternatives = [_one_of(branch, depth - 1) for branch in branches.values()]
    return f"{re.escape(shared)}(?:{'|'.join(alternatives)})"
