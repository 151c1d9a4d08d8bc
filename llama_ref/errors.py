"""Everything that can go wrong, as one tree; each error carries its evidence.

    LlamaRefError (a ValueError)
    ├── BadFile          a file is not what its name or its own header claims
    ├── BadConfig        a blueprint (config.json, params.json) is incomplete or contradicts itself
    ├── BadRequest       an argument, token id, position or text that no correct call contains
    ├── Unsupported      well formed, but outside what this library states
    ├── LimitExceeded    larger than a stated limit, which the message names
    ├── NonFiniteError   an activation stopped being a number
    └── CompareError     two things that had to agree do not

A message reads `file: thing: expected …, found …; next step`, and every part is also an attribute,
so that a program need not parse the sentence.
"""

from __future__ import annotations

import operator
import os

LONGEST_QUOTE = 200
"""Characters of foreign text that a message repeats."""


class LlamaRefError(ValueError):
    """Base of every error raised on purpose.

    Parameters
    ----------
    thing : str
        What is wrong: a tensor, a key, an argument. Foreign text in it goes through `shown`.
    expected, found : object, optional
        What a correct input has there, and what this one has. A `found` that is foreign goes
        through `shown`.
    next_step : str, optional
        What the reader can do about it.
    file : path-like, optional
        Where the thing was read.
    """

    def __init__(
        self,
        thing: str,
        *,
        expected: object = None,
        found: object = None,
        next_step: str | None = None,
        file: str | os.PathLike[str] | None = None,
    ):
        self.thing, self.expected, self.found = thing, expected, found
        self.next_step, self.file = next_step, file
        message = thing if file is None else f"{printable(os.fspath(file))}: {thing}"
        evidence = [
            f"{word} {value}"
            for word, value in (("expected", expected), ("found", found))
            if value is not None
        ]
        if evidence:
            message += ": " + ", ".join(evidence)
        if next_step:
            message += f"; {next_step}"
        super().__init__(message)


class BadFile(LlamaRefError):
    """A file is not what its name or its own header claims."""


class BadConfig(LlamaRefError):
    """A blueprint is incomplete, out of range or contradicts itself."""


class BadRequest(LlamaRefError):
    """An argument, token id, position or text that no correct call contains."""


class Unsupported(LlamaRefError):
    """Well formed, but outside what this library states."""


class LimitExceeded(LlamaRefError):
    """Larger than a stated limit."""


class NonFiniteError(LlamaRefError):
    """An activation stopped being a number."""


class CompareError(LlamaRefError):
    """Two things that had to agree do not."""


class UnknownFileWarning(UserWarning):
    """A file is well formed, but not the published one that its shape says it is."""


def is_whole(value: object, low: int, high: int | None = None) -> bool:
    """Tell whether an argument is an integer, Python's or NumPy's, from `low` to `high`.

    Examples
    --------
    >>> is_whole(3, 1), is_whole(3.0, 1), is_whole(True, 1)      # 3.0 is not 3, and True is not 1
    (True, False, False)
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        return False
    try:
        whole = operator.index(value)
    except TypeError:  # an array of more than one element
        return False
    return low <= whole and (high is None or whole <= high)


def shown(foreign: object) -> str:
    r"""Quote foreign text or values for a message: escaped, on one line, cut at 200 characters.

    Examples
    --------
    >>> shown("a\x1b[31mred")
    "'a\\x1b[31mred'"
    >>> len(shown("x" * 10_000)) <= 202
    True
    """
    if isinstance(foreign, str | bytes | bytearray):
        foreign = foreign[: LONGEST_QUOTE + 1]
    try:
        text = ascii(foreign)
    except (ValueError, RecursionError):  # an integer of thousands of digits, an endless nesting
        text = f"a {type(foreign).__name__} too long to print"
    return text if len(text) <= LONGEST_QUOTE else text[: LONGEST_QUOTE - 1] + "…"


def printable(path: str | bytes) -> str:
    """Return a path for a message: control characters and undecodable bytes escaped, not cut."""
    text = os.fsdecode(path)
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
