r"""Byte-pair encoding, step by step: the readable twin of the engine that the tokenizer runs.

A text becomes ids in three moves:

1. split    the text is cut into pieces: words, runs of up to three digits, signs, blanks
2. look up  a piece whose bytes are in the vocabulary is one token, and that is that
3. merge    else it starts as single bytes; of all neighbours whose union is in the vocabulary the
            pair of lowest rank becomes one, again and again, until no pair is left

Move 2 is no shortcut: 588 tokens of Llama 3 cannot be built by merges from their bytes (" Việt" is
one), so a port that skips it gets other ids. The ids are those of tiktoken for every text; a test
compares them. What this is not: fast. It takes some microseconds per byte, in proportion to
n log n for a piece of n bytes.

Source: Sennrich et al. 2016, arXiv:1508.07909; the rule in meta-llama/llama-models,
models/llama3/tokenizer.py; a twin beside its engine is an idea of tiktoken's `_educational.py`.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterator, Mapping
from itertools import chain, pairwise
from typing import NamedTuple

from llama_ref.errors import BadRequest
from llama_ref.text import kinds, utf8

SPLIT_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""The rule as Meta writes it: seven alternatives, of which the first that fits is taken."""

CONTRACTION = re.compile(r"(?P<contraction>'(?:s|t|re|ve|m|ll|d))", re.IGNORECASE)
"""The first alternative, the only one that names letters; it is tried on the text itself."""

# The other six, over the kinds of characters (see text.py) in place of the characters.
RULES = re.compile(
    r"""
      (?P<word>      [^RLN]?L+       )  # [^\r\n\p{L}\p{N}]?\p{L}+   letters and one thing before
    | (?P<digits>    N{1,3}          )  # \p{N}{1,3}                 up to three digits
    | (?P<signs>     B?P+R*          )  #  ?[^\s\p{L}\p{N}]+[\r\n]*  signs and the line ends after
    | (?P<line_ends> [BSR]*R+        )  # \s*[\r\n]+                 blanks up to the last line end
    | (?P<gap>       [BSR]+(?![LNP]) )  # \s+(?!\S)                  blanks, but for the last one
    | (?P<blanks>    [BSR]+          )  # \s+                        the one blank that remains
    """,
    re.VERBOSE,
)


class Piece(NamedTuple):
    """A stretch of text that is encoded on its own, and the alternative that cut it."""

    text: str
    rule: str


class Merge(NamedTuple):
    """Two neighbouring parts, bytes [start, middle) and [middle, end) of a piece, become one."""

    start: int
    middle: int
    end: int
    rank: int


def split(text: str) -> list[Piece]:
    """Cut a text into the pieces within which bytes may merge.

    Parameters
    ----------
    text : str

    Returns
    -------
    list of Piece
        Their texts, joined, are the text.

    Examples
    --------
    >>> [piece.text for piece in split("He'll pay $12345, now!")]
    ['He', "'ll", ' pay', ' $', '123', '45', ',', ' now', '!']
    >>> split("  two")
    [Piece(text=' ', rule='gap'), Piece(text=' two', rule='word')]
    """
    text_kinds = kinds(text)
    pieces, start = [], 0
    while start < len(text):
        match = CONTRACTION.match(text, start) or RULES.match(text_kinds, start)
        assert match and match.lastgroup, "every kind of character begins one of the rules"
        pieces.append(Piece(text[start : match.end()], match.lastgroup))
        start = match.end()
    return pieces


def merges(piece: bytes, ranks: Mapping[bytes, int]) -> Iterator[Merge]:
    """Yield the merges that build the tokens of a piece from its bytes, in their order.

    A heap holds every pair that could merge, the lowest rank first and the leftmost among equals.
    A pair one of whose halves has since grown is out of date, and passed over.

    Parameters
    ----------
    piece : bytes
    ranks : mapping of bytes to int
        The vocabulary: the bytes of each token and its rank, which is also its id.

    Yields
    ------
    Merge

    Examples
    --------
    >>> ranks = {b"a": 0, b"b": 1, b"c": 2, b"bc": 3, b"abc": 4}
    >>> list(merges(b"abc", ranks))
    [Merge(start=1, middle=2, end=3, rank=3), Merge(start=0, middle=1, end=3, rank=4)]
    """
    n = len(piece)
    end_of = list(range(1, n + 1))  # the part that starts at byte i ends here
    start_before = list(range(-1, n))  # and this is where the part on its left starts
    is_start = [True] * n + [False]
    candidates: list[tuple[int, int, int, int]] = []

    def offer(start: int) -> None:
        """Add the pair of the part at `start` and its right neighbour, if it may merge."""
        middle = end_of[start]
        if middle < n:
            rank = ranks.get(piece[start : end_of[middle]])
            if rank is not None:
                heapq.heappush(candidates, (rank, start, middle, end_of[middle]))

    for start in range(n - 1):
        offer(start)
    while candidates:
        rank, start, middle, end = heapq.heappop(candidates)
        if not (is_start[start] and end_of[start] == middle and end_of[middle] == end):
            continue
        is_start[middle] = False
        end_of[start] = end
        start_before[end] = start
        yield Merge(start, middle, end, rank)
        offer(start)
        if start > 0:
            offer(start_before[start])


def states(piece: bytes, ranks: Mapping[bytes, int]) -> Iterator[list[bytes]]:
    """Yield the parts of a piece before the first merge and after each one: a film of it.

    Examples
    --------
    >>> for parts in states(b"abc", {b"a": 0, b"b": 1, b"c": 2, b"bc": 3, b"abc": 4}):
    ...     print(parts)
    [b'a', b'b', b'c']
    [b'a', b'bc']
    [b'abc']
    """
    bounds = list(range(len(piece) + 1))
    yield _parts(piece, bounds)
    for merge in merges(piece, ranks):
        bounds.remove(merge.middle)
        yield _parts(piece, bounds)


def merged(piece: bytes, ranks: Mapping[bytes, int]) -> list[bytes]:
    """Return the parts of a piece when no neighbours can merge any more."""
    middles = {merge.middle for merge in merges(piece, ranks)}
    return _parts(piece, [bound for bound in range(len(piece) + 1) if bound not in middles])


def _parts(piece: bytes, bounds: list[int]) -> list[bytes]:
    return [piece[start:end] for start, end in pairwise(bounds)]


def encode_piece(piece: bytes, ranks: Mapping[bytes, int]) -> list[int]:
    """Return the ids of one piece: looked up whole, or merged from its bytes.

    Raises
    ------
    BadRequest
        If a byte of the piece is no token, which cannot be with a vocabulary read from a file.
    """
    if piece in ranks:
        return [ranks[piece]]
    parts = merged(piece, ranks)
    for part in parts:
        if part not in ranks:
            raise BadRequest("ranks", expected="all 256 bytes", found=f"no token for {part!r}")
    return [ranks[part] for part in parts]


def encode(text: str, ranks: Mapping[bytes, int]) -> list[int]:
    """Return the ids of a text: those of its pieces, one after the other.

    Special tokens in the text are text, and it is not cut at 25,000 characters: this is what
    `Tokenizer.encode(text, exact=True)` returns.

    Parameters
    ----------
    text : str
    ranks : mapping of bytes to int
        The vocabulary; `tokenizer.ranks` of a Llama 3 tokenizer.

    Raises
    ------
    BadRequest
        If the text holds half a surrogate pair.

    Examples
    --------
    >>> ranks = {bytes([b]): b for b in range(256)} | {b"in": 256, b" th": 257, b" the": 258}
    >>> encode("in the", ranks)
    [256, 258]
    """
    utf8(text)
    pieces = [encode_piece(piece.text.encode(), ranks) for piece in split(text)]
    return list(chain.from_iterable(pieces))
