"""The JSON inside messages: arguments of calls and results of tools, checked and written.

Both dialects write Python's spacing, `{"a": 1, "b": [2]}`, and keep the order of the keys. They
differ in one thing: the templates leave letters as they are, Meta's code escapes all but ASCII.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from llama_ref.errors import BadRequest, LimitExceeded, shown
from llama_ref.text import utf8

MAX_DEPTH = 64
MAX_VALUES = 200_000
MAX_DIGITS = 40


def dumps(value: Any, *, ascii_only: bool = False, indent: int | None = None) -> str:
    r"""Return a value as JSON text.

    Examples
    --------
    >>> print(dumps({"city": "Zürich"}), dumps({"city": "Zürich"}, ascii_only=True))
    {"city": "Zürich"} {"city": "Z\u00fcrich"}
    """
    return json.dumps(value, ensure_ascii=ascii_only, indent=indent)


def loads_object(text: str, thing: str) -> dict[str, Any]:
    """Return the object of a call's arguments that come as text.

    Empty text, and text that is not JSON, stands for no arguments, as in vLLM: a model may have
    written it, and a conversation has to go on. JSON that is no object is the caller's mistake.

    Raises
    ------
    BadRequest
        If the text is JSON but no object.
    LimitExceeded
        If it is nested too deep for Python's parser, or holds a number of more than 40 digits.

    Examples
    --------
    >>> loads_object('{"city": "Paris"}', "arguments"), loads_object('{"city": ', "arguments")
    ({'city': 'Paris'}, {})
    """

    def whole(digits: str) -> int:
        if len(digits) > MAX_DIGITS:
            raise _too_long(thing, len(digits))
        return int(digits)

    if not text.strip():
        return {}
    try:
        value = json.loads(text, parse_int=whole)
    except LimitExceeded:
        raise
    except json.JSONDecodeError:
        return {}
    except RecursionError:
        raise _too_deep(thing) from None
    if not isinstance(value, dict):
        raise BadRequest(thing, expected="a JSON object", found=shown(text))
    return value


def checked_value(value: object, thing: str) -> Any:
    """Return a JSON value built anew from dicts, lists and scalars, or refuse what is none.

    Raises
    ------
    BadRequest
        For a key that is no text, NaN, an infinity, half a surrogate pair, or any other type.
    LimitExceeded
        Beyond 64 levels, 200,000 values, or 40 digits in an integer.

    Examples
    --------
    >>> checked_value({"a": (1, None)}, "arguments")
    {'a': [1, None]}
    """
    return _Checking(thing).value(value, 0)


class _Checking:
    """The walk through one value: `seen` counts, so that shared parts cannot multiply unseen."""

    def __init__(self, thing: str):
        self.thing, self.seen = thing, 0

    def value(self, value: object, depth: int) -> Any:
        self.seen += 1
        if self.seen > MAX_VALUES:
            expected = f"at most {MAX_VALUES:,} values"
            raise LimitExceeded(self.thing, expected=expected, found="more")
        if isinstance(value, Mapping | list | tuple):
            if depth == MAX_DEPTH:
                raise _too_deep(self.thing)
            if isinstance(value, Mapping):
                return {self.key(k): self.value(v, depth + 1) for k, v in value.items()}
            return [self.value(item, depth + 1) for item in value]
        return self.scalar(value)

    def key(self, key: object) -> str:
        if type(key) is not str:
            raise BadRequest(self.thing, expected="keys that are text", found=shown(key))
        return checked_text(key, self.thing)

    def scalar(self, value: object) -> Any:
        if value is None or type(value) is bool:
            return value
        if type(value) is str:
            return checked_text(value, self.thing)
        if type(value) is int:
            if abs(value) >= 10**MAX_DIGITS:
                raise _too_long(self.thing, "more")
            return value
        if type(value) is float and math.isfinite(value):
            return value
        found = f"{shown(value)} ({type(value).__name__})"
        raise BadRequest(self.thing, expected="a JSON value", found=found)


def checked_text(text: str, thing: str) -> str:
    """Return a text, refusing half a surrogate pair under the name of the thing it stands in."""
    try:
        utf8(text)
    except BadRequest as error:
        raise BadRequest(
            f"{thing}, {error.thing}",
            expected=error.expected,
            found=error.found,
            next_step=error.next_step,
        ) from None
    return text


def _too_deep(thing: str) -> LimitExceeded:
    return LimitExceeded(thing, expected=f"at most {MAX_DEPTH} levels", found="more")


def _too_long(thing: str, found: object) -> LimitExceeded:
    return LimitExceeded(thing, expected=f"integers of at most {MAX_DIGITS} digits", found=found)
