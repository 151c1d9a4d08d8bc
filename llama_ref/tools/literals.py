r"""A list of calls as Python writes it, `[f(a='x', b=[1, None]), g()]`, read and never run.

    calls     [ call , … ]            call      name ( key = value , … )
    value     number · string · True False None · true false null · [ … ] · ( … ) · { key : value }

A reader that goes once from left to right. Everything else that Python allows, names, operators,
f-strings, arguments without a name, is not a value here. Of a key written twice the last counts.
"""

from __future__ import annotations

import re
from typing import Any

MAX_DEPTH = 64
MAX_DIGITS = 40

SPACE = re.compile(r"\s*")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.])", re.ASCII)
QUOTE = re.compile(r"'''|\"\"\"|'|\"")
WORD = re.compile(r"\w+")
ESCAPE = re.compile(r"x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{1,3}|.", re.DOTALL)
WORDS = {"True": True, "true": True, "False": False, "false": False, "None": None, "null": None}
ESCAPES = dict(zip("\\'\"abfnrtv\n", ["\\", "'", '"', *"\a\b\f\n\r\t\v", ""], strict=True))

Call = tuple[str, dict[str, Any]]


class NotALiteral(Exception):
    """The text is something else."""


def read_calls(text: str) -> list[Call]:
    r"""Return the calls of a whole text.

    Raises
    ------
    NotALiteral
        If the text is anything but such a list.

    Examples
    --------
    >>> read_calls("[f(a='it\\'s', b=[1, None]), g()]")
    [('f', {'a': "it's", 'b': [1, None]}), ('g', {})]
    """
    reader = _Reader(text)
    reader.expect("[")
    calls = reader.separated("]", reader.call)
    reader.skip()
    if reader.at != len(text):
        raise NotALiteral
    return calls


class _Reader:
    """A place in a text; each method reads one thing there and moves on."""

    def __init__(self, text: str):
        self.text, self.at, self.depth = text, 0, 0

    def skip(self) -> None:
        self.at = SPACE.match(self.text, self.at).end()  # type: ignore[union-attr]

    def next_is(self, sign: str) -> bool:
        self.skip()
        return self.text.startswith(sign, self.at)

    def expect(self, sign: str) -> None:
        if not self.next_is(sign):
            raise NotALiteral
        self.at += len(sign)

    def match(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self.text, self.at)
        if not found:
            raise NotALiteral
        self.at = found.end()
        return found.group()

    def separated(self, end: str, item: Any) -> list[Any]:
        """Read items with commas between them, and perhaps one behind the last, up to `end`."""
        items = []
        while not self.next_is(end):
            items.append(item())
            if not self.next_is(","):
                break
            self.expect(",")
        self.expect(end)
        return items

    def call(self) -> Call:
        self.skip()
        name = self.match(NAME)
        self.expect("(")
        return name, self.mapping(self.separated(")", self.argument))

    def argument(self) -> tuple[str, Any]:
        self.skip()
        key = self.match(NAME)
        self.expect("=")
        return key, self.value()

    def mapping(self, items: list[tuple[Any, Any]]) -> dict[str, Any]:
        if not all(isinstance(key, str) for key, _ in items):
            raise NotALiteral
        return dict(items)

    def value(self) -> Any:
        self.skip()
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise NotALiteral
        first = self.text[self.at : self.at + 1]
        if first in ("'", '"'):
            value: Any = self.string()
        elif first in ("[", "("):
            value = self.sequence(first)
        elif first == "{":
            self.expect("{")
            value = self.mapping(self.separated("}", self.pair))
        elif first.isdigit() or first in ("+", "-", "."):
            value = self.number()
        else:
            value = self.word()
        self.depth -= 1
        return value

    def sequence(self, opening: str) -> Any:
        """Read a list or a tuple; parentheses around one value without a comma are nothing."""
        self.expect(opening)
        values = self.separated("]" if opening == "[" else ")", self.value)
        if opening == "(" and len(values) == 1 and not self._ended_with_comma():
            return values[0]
        return values

    def _ended_with_comma(self) -> bool:
        at = self.at - 2  # looked back at in place: a copy for every parenthesis adds up
        while self.text[at].isspace():
            at -= 1
        return self.text[at] == ","

    def pair(self) -> tuple[Any, Any]:
        key = self.value()
        self.expect(":")
        if isinstance(key, list | dict):
            raise NotALiteral
        return key, self.value()

    def word(self) -> Any:
        word = self.match(WORD)
        if word not in WORDS:
            raise NotALiteral
        return WORDS[word]

    def number(self) -> int | float:
        digits = self.match(NUMBER)
        unsigned = digits.lstrip("+-")
        if len(digits) > MAX_DIGITS or (
            unsigned[0] == "0" and unsigned.isdigit() and unsigned.strip("0")
        ):
            raise NotALiteral  # Python has no integer 007
        value = float(digits)
        return int(digits) if unsigned.isdigit() else value

    def string(self) -> str:
        """Read string literals; several in a row are one."""
        parts: list[str] = []
        while True:
            self.skip()
            if self.text[self.at : self.at + 1] not in ("'", '"'):
                return "".join(parts)
            parts.append(self.one_string(self.match(QUOTE)))

    def one_string(self, quote: str) -> str:
        if len(quote) == 1 and self.text.startswith(quote, self.at):  # '' is empty, ''' is not
            self.at += 1
            return ""
        stop = re.compile(re.escape(quote) + r"|\\" + ("|\n" if len(quote) == 1 else ""))
        parts: list[str] = []
        while found := stop.search(self.text, self.at):
            parts.append(self.text[self.at : found.start()])
            self.at = found.end()
            if found.group() == quote:
                return "".join(parts)
            if found.group() == "\n":
                break
            parts.append(self.escape())
        raise NotALiteral

    def escape(self) -> str:
        code = self.match(ESCAPE)
        if code in ESCAPES:
            return ESCAPES[code]
        if code[0] in "01234567":
            return chr(int(code, 8))
        if code[0] in "xuU" and len(code) > 1:
            value = int(code[1:], 16)
            if value > 0x10FFFF:
                raise NotALiteral
            return chr(value)
        if code in ("x", "u", "U", "N"):
            raise NotALiteral
        return "\\" + code  # as Python keeps an escape it does not know
