r"""What a reader of JSON needs and a grammar does not say: depth, digits, escapes.

    nesting      48 levels: a message may have 64, and Python's parser gives up at some depth
    digits       40 in an integer, as in a message; 15 significant ones where there is a point,
                 since 0.99999999999999999 is below 1 in the grammar and 1.0 once it is read
    exponents    2 digits: 1e999 is read as infinity
    escapes      \u only for control characters: "\u0061" is the key "a", which may have a schema
                 of its own, but not to a grammar that compares letters

The bounds take ids away from what the grammar allows, and never the last one: what a schema demands
beyond them is written.

Source: RFC 8259, section 9, which lets a parser set such limits.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

MAX_DEPTH = 48
MAX_DIGITS = 40
MAX_SIGNIFICANT = 15
"""Decimals of so many digits stay distinct, and in order, as float64."""
MAX_BEHIND_POINT = 300
MAX_EXPONENT_DIGITS = 2

_CODES = [f"{code:04x}".encode() for code in (*range(0x20), 0x7F) if chr(code) not in "\b\t\n\f\r"]
_BEGINNINGS = frozenset(code[:n] for code in _CODES for n in range(5))
_HEX = b"0123456789abcdefABCDEF"
_ESCAPES = re.compile(rb"(?<!\\)(?:\\\\)*\\u(.{0,4})", re.DOTALL)
_NUMBER = re.compile(rb"[-+0-9.eE]*")


class Marks:
    """What the tokens of a vocabulary do to nesting, numbers and escapes; made once.

    Parameters
    ----------
    tokens : sequence of bytes
    vocab_size : int
    """

    def __init__(self, tokens: Sequence[bytes], vocab_size: int):
        self.tokens, self._size = tokens, vocab_size
        self.openers_V = self._counts([t.count(b"{") + t.count(b"[") for t in tokens])
        self.quotes_V = self._counts([t.count(b'"') for t in tokens]) > 0
        leading = [_NUMBER.match(t)[0] for t in tokens]  # type: ignore[index]
        self.digits_V = self._counts([sum(map(bytes.isdigit, _bytes(run))) for run in leading])
        self.most_openers, self.most_digits = int(self.openers_V.max()), int(self.digits_V.max())
        self._escapes: dict[bytes, np.ndarray] = {}
        for pending in (b"", b"\\"):  # the usual ones, before anybody waits for them
            self.escapes_V(pending)

    def escapes_V(self, pending: bytes) -> np.ndarray:
        """Return which tokens keep to the escapes there are, behind the beginning of one."""
        if pending not in self._escapes:
            goes_on = b"u" if pending == b"\\" else _HEX if pending else b""
            bad = [
                token_id
                for token_id, token in enumerate(self.tokens)
                if (b"\\u" in token or token[:1] in goes_on) and _is_surplus(pending + token)
            ]
            fine_V = np.ones(self._size, bool)
            fine_V[bad] = False
            self._escapes[pending] = fine_V
        return self._escapes[pending]

    def _counts(self, counts: list[int]) -> np.ndarray:
        counts_V = np.zeros(self._size, np.uint16)
        counts_V[: len(counts)] = counts
        return counts_V


class Bounds:
    """The state of one text: read byte by byte, as it is written."""

    def __init__(self) -> None:
        self._depth, self._in_string, self._escape = 0, False, b""
        self._number = b""

    def push(self, data: bytes) -> None:
        """Go on by the bytes of a token."""
        for byte in _bytes(data):
            if self._in_string:
                self._push_inside(byte)
                continue
            self._number = self._number + byte if byte in b"-+0123456789.eE" else b""
            self._in_string = byte == b'"'
            self._depth += (byte in b"{[") - (byte in b"}]")

    def keep_V(self, allowed_V: np.ndarray, marks: Marks) -> np.ndarray:
        """Return what of the allowed ids keeps to the bounds; all of it if none does."""
        kept_V = allowed_V & marks.escapes_V(self._escape)
        room = MAX_DEPTH - self._depth
        if room < marks.most_openers:
            opens_V = marks.openers_V > max(room, 0)
            kept_V &= ~(opens_V & marks.quotes_V if self._in_string else opens_V)
        if self._number and (digits := self._digits_left()) < marks.most_digits:
            kept_V &= marks.digits_V <= digits
        return kept_V if kept_V.any() else allowed_V

    def _push_inside(self, byte: bytes) -> None:
        """Go on by one byte of a string."""
        if self._escape:
            self._escape += byte
            if self._escape[1:2] != b"u" or len(self._escape) == 6:
                self._escape = b""
        elif byte == b"\\":
            self._escape = byte
        else:
            self._in_string = byte != b'"'

    def _digits_left(self) -> int:
        """Return how many digits more the number may have."""
        mantissa, is_power, power = self._number.lower().partition(b"e")
        if is_power:
            return max(0, MAX_EXPONENT_DIGITS - len(power.lstrip(b"+-")))
        whole, has_point, fraction = mantissa.lstrip(b"-").partition(b".")
        if not has_point:
            return max(0, MAX_DIGITS - len(whole))
        significant = len((whole + fraction).lstrip(b"0"))
        least = 0 if fraction else 1  # a point needs a digit
        return max(least, min(MAX_SIGNIFICANT - significant, MAX_BEHIND_POINT - len(fraction)))


def _bytes(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def _is_surplus(text: bytes) -> bool:
    """Whether a piece of a string escapes what could stand there as it is."""
    return any(found[1] not in _BEGINNINGS for found in _ESCAPES.finditer(text))
