r"""Text as the split rule of Llama 3 sees it: UTF-8 bytes, and a kind for every character.

The rule is a regular expression over four classes: letters `\p{L}`, numbers `\p{N}`, white space
`\s` and the line ends `\r \n`. Here each character becomes one capital, so that a whole text
becomes a string of kinds, over which the rule needs no Unicode at all:

    L letter   N number   R line end   B the plain blank   S other white space   P anything else

Which characters are letters depends on the edition of Unicode. The engine (tiktoken, and the
`tokenizers` library too) holds Unicode 16; Python holds 14 in version 3.11 and a newer one each
year. `ADDED` and `LATER` make up the difference, so that a text has the same kinds everywhere.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterator

from llama_ref.errors import BadRequest

ADDED_LETTERS = """
1C89-1C8A A7CB-A7CD A7DA-A7DC 105C0-105F3 10D4A-10D65 10D6F-10D85 10EC2-10EC4 1123F-11240
11380-11389 1138B 1138E 11390-113B5 113B7 113D1 113D3 11BC0-11BE0 11F02 11F04-11F10
11F12-11F33 1342F 13441-13446 13460-143FA 16100-1611D 16D40-16D6C 18CFF 1B132 1B155
1DF25-1DF2A 1E030-1E06D 1E4D0-1E4EB 1E5D0-1E5ED 1E5F0 2B739 2EBF0-2EE5D 31350-323AF
"""
ADDED_NUMBERS = """
10D40-10D49 116D0-116E3 11BF0-11BF9 11F50-11F59 16130-16139 16D70-16D79 1CCF0-1CCF9
1D2C0-1D2D3 1E4F0-1E4F9 1E5F1-1E5FA
"""
"""Code points that became letters or numbers in Unicode 15 to 16: Python 3.11 lacks them."""

LATER = """
558 58B-58C 88F C5C CDC 208F 209D-209F A7CE-A7CF A7D2 A7D4 A7DD A7E2 A7F1 AB6C-AB6D
107BB-107BF 10940-10959 10EC5-10EC7 10ED9-10EEE 11B0A 11DB0-11DDB 11DE0-11DE9 11DF1 1246F
12475-1247F 12550-12686 16EA0-16EB8 16EBB-16ED3 16FF2-16FF6 187F8-187FF 18CD6-18CDA
18D09-18D20 18D80-18DF2 18E00-19191 191A0-191D2 1B123-1B128 1B168 1D6A6 1DF1F-1DF24
1DF2B-1DF81 1DF90-1DF96 1DFCD-1DFFF 1E6C0-1E6DE 1E6E0-1E6E2 1E6E4-1E6E5 1E6E7-1E6ED
1E6F0-1E6F4 1E6FE-1E6FF 2B73A-2B73F 2B81E 2CEA2-2CEAD 323B0-33479 3D000-3FC3F
"""
"""Letters and numbers of Unicode 17 and 18, which the engine takes for signs."""


def _code_points(table: str) -> Iterator[int]:
    """Read "1C89-1C8A 1138B" as three code points."""
    for entry in table.split():
        low, _, high = entry.partition("-")
        yield from range(int(low, 16), int(high or low, 16) + 1)


class _KindOfCodePoint(dict[int, str]):
    """A table for `str.translate` that fills itself, one entry per distinct character."""

    def __missing__(self, code_point: int) -> str:
        character, category = chr(code_point), unicodedata.category(chr(code_point))[0]
        # Python counts the four information separators among the blanks, the engine does not.
        if character.isspace() and not 0x1C <= code_point <= 0x1F:
            self[code_point] = "S"
        else:
            self[code_point] = category if category in "LN" else "P"
        return self[code_point]


@functools.cache
def _kind_table() -> _KindOfCodePoint:
    return _KindOfCodePoint(
        dict.fromkeys(_code_points(ADDED_LETTERS), "L")
        | dict.fromkeys(_code_points(ADDED_NUMBERS), "N")
        | dict.fromkeys(_code_points(LATER), "P")
        | {ord("\r"): "R", ord("\n"): "R", ord(" "): "B"}
    )


def kinds(text: str) -> str:
    r"""Return one capital per character: the text with everything but its kinds forgotten.

    Examples
    --------
    >>> kinds("Don't pay ½!\n🦙")
    'LLLPLBLLLBNPRP'
    """
    return text.translate(_kind_table())


def utf8(text: str) -> bytes:
    r"""Return the UTF-8 bytes of a text, refusing one that has none.

    Raises
    ------
    BadRequest
        If it is no `str`, or holds half a surrogate pair: the message names its index. (Others
        put U+FFFD or "?" in its place, and the model reads something else than was written.)

    Examples
    --------
    >>> utf8("é")
    b'\xc3\xa9'
    """
    if not isinstance(text, str):
        raise BadRequest("text", expected="a str", found=type(text).__name__)
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadRequest(
            f"text[{error.start}]",
            expected="a Unicode character",
            found=f"the lone surrogate U+{ord(text[error.start]):04X}",
            next_step="decode the source with the right encoding first",
        ) from None
