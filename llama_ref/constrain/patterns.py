r"""A regular expression of a schema, for the engine: what fits there fits for other readers too.

JSON Schema means the expressions of ECMA-262, Python's validators run those of `re`, the engine has
those of Rust. They disagree on letters beyond ASCII, and on signs inside brackets:

    \d \w \s           ASCII in one, all of Unicode in another   the narrower one
    \D \W \S [^\d]     and their opposites                       the opposite of the wider one
    [a&&b] [[] [a--b]  sets of sets in Rust alone                letters, as in the others

Keys are different. One that does not fit a pattern falls to `additionalProperties`, so that narrow
is not safe; there the classes are those of `re`, exactly.

Source: ECMA-262, CharacterClassEscape; the documentation of Python's `re` and of Rust's `regex`.
"""

from __future__ import annotations

WIDE = {
    "d": r"\p{Nd}",
    "w": r"\p{L}\p{N}_",
    "s": r"\t-\r\x1c- \x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}"
    r"\x{205f}\x{3000}",
}
"""What `re` takes for a digit, a letter of a word, white space."""
SETS = frozenset("[&-~")


def for_engine(pattern: str, *, is_key: bool = False) -> str:
    r"""Return an expression as the engine needs it.

    Parameters
    ----------
    pattern : str
    is_key : bool
        Whether it is one of `patternProperties`.

    Examples
    --------
    >>> print(for_engine("^[a-z]+$"), for_engine(r"^\D"), for_engine(r"[^\d&&]"))
    ^[a-z]+$ ^[^\p{Nd}] [^\p{Nd}&\&]
    """
    made, at, is_inside, is_negated = [], 0, False, False
    while at < len(pattern):
        sign, pair = pattern[at], pattern[at : at + 2]
        at += 1
        if sign == "\\":
            made.append(_escape(pair, is_inside, is_negated, is_key))
            at += 1
        elif not is_inside and sign == "[":
            is_inside, is_negated = True, pair == "[^"
            made.append(pair if is_negated else sign)
            at += is_negated
        elif is_inside and sign == "]":
            is_inside = False
            made.append(sign)
        elif is_inside and sign in SETS and (sign == "[" or made[-1] == sign):
            made.append("\\" + sign)
        else:
            made.append(sign)
    return "".join(made)


def _escape(pair: str, is_inside: bool, is_negated: bool, is_key: bool) -> str:
    letter = pair[1:]
    wide = WIDE.get(letter.lower())
    if wide is None:
        return pair
    if letter.isupper():
        if is_negated and not is_key:
            return pair
        return f"[^{wide}]"
    if is_inside:
        return wide if is_key or is_negated else pair
    return f"[{wide}]" if is_key else pair
