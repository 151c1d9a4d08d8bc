"""What a parameter may be, in each profile, and what is said of one that is not.

The messages are vLLM's, so that a program which reads them finds the words it knows:

    top_p must be in (0, 1], got 1.1.

Integers that arrive as floats, 2.0, are integers; numbers that arrive as strings or booleans are
not numbers, and NaN and infinity are refused everywhere. llama.cpp does not refuse what is out of
its range but moves it to the nearest end, and in Meta's code a temperature below 0 is greedy.

Source: sampling_params.py in vllm-project/vllm.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from llama_ref.errors import BadRequest, is_whole, shown

MAX_N = 16384
HIGHEST_BIAS = 100.0
"""vLLM moves biases beyond this, up or down, to it."""


class BadParameter(BadRequest):
    """A sampling parameter is out of range; the message is in vLLM's words.

    Attributes
    ----------
    thing : str
        The field.
    expected : str
        The rule, "must be in (0, 1]".
    found : str
        The value, quoted.
    """

    def __init__(self, field: str, rule: str, value: object):
        super().__init__(field, expected=rule, found=shown(value))
        self.args = (f"{field} {rule}, got {self.found}.",)


class BadIds(BadRequest):
    """A sampling parameter names token ids that do not exist; the message is vLLM's."""

    def __init__(self, field: str, message: str, found: object = None):
        super().__init__(field, found=None if found is None else shown(found))
        self.args = (message,)


class Range(NamedTuple):
    """An interval of numbers, and the rule in words."""

    low: float
    high: float
    rule: str
    above_low: bool = False

    def __contains__(self, value: object) -> bool:
        return self.low < value <= self.high if self.above_low else self.low <= value <= self.high  # type: ignore[operator]


_NOT_NEGATIVE = Range(0, math.inf, "must be non-negative")
_UNIT = Range(0, 1, "must be in [0, 1]")
_ABOVE_ZERO_TO_ONE = Range(0, 1, "must be in (0, 1]", above_low=True)
_ANY = Range(-math.inf, math.inf, "must be a finite number")
_PENALTY = Range(-2, 2, "must be in [-2, 2]")
_ALIKE = {
    "typical_p": (_ABOVE_ZERO_TO_ONE,),
    "min_p": (_UNIT,),
    "frequency_penalty": (_PENALTY,),
    "presence_penalty": (_PENALTY,),
    "repetition_penalty": (Range(0, math.inf, "must be greater than zero", above_low=True),),
}
_LOOSE = _ALIKE | {
    "temperature": (_NOT_NEGATIVE,),
    "top_p": (_UNIT,),
    "top_k": (Range(0, math.inf, "must be 0 (disable), or at least 1"),),
}
RANGES: Mapping[str, Mapping[str, tuple[Range, ...]]] = {
    "vllm": _ALIKE
    | {
        "temperature": (_NOT_NEGATIVE, Range(0, 2, "must be in [0, 2]")),
        "top_p": (_ABOVE_ZERO_TO_ONE,),
        "top_k": (Range(-1, math.inf, "must be 0 (disable), or at least 1"),),
    },
    "hf": _LOOSE,
    "meta": _LOOSE | {"top_p": (_NOT_NEGATIVE,)},
    "llama.cpp": _LOOSE
    | {"typical_p": (_UNIT,), "frequency_penalty": (_ANY,), "presence_penalty": (_ANY,)},
}
"""The rules of each profile, in the order in which they are checked."""

CLAMPED: Mapping[str, frozenset[str]] = {
    "llama.cpp": frozenset({"temperature", "top_k", "top_p", "min_p", "typical_p"}),
    "meta": frozenset({"temperature"}),
}
"""What a peer does not refuse but moves to the nearest end of its range."""


def number(field: str, value: object) -> float:
    """Return a parameter as a finite float.

    Examples
    --------
    >>> number("temperature", 1)
    1.0
    >>> number("temperature", "0.7")
    Traceback (most recent call last):
        ...
    llama_ref.sampling.checks.BadParameter: temperature must be a number, got '0.7'.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise BadParameter(field, "must be a number", value)
    try:
        as_float = float(value)
    except OverflowError:  # an integer of hundreds of digits
        as_float = math.inf
    if not math.isfinite(as_float):
        raise BadParameter(field, "must be a finite number", value)
    return as_float


def whole(field: str, value: object, rule: str = "must be an integer") -> int:
    """Return a parameter as an integer; 2.0 is one.

    Examples
    --------
    >>> whole("top_k", 2.0)
    2
    >>> whole("top_k", 1.5)
    Traceback (most recent call last):
        ...
    llama_ref.sampling.checks.BadParameter: top_k must be an integer, got 1.5.
    """
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return int(value)
    if not is_whole(value, -(10**400), 10**400):
        raise BadParameter(field, rule, value)
    return int(value)  # type: ignore[call-overload]


def whole_or_none(field: str, value: object) -> int | None:
    """Return a parameter as an integer, or None."""
    return None if value is None else whole(field, value, "must be an integer or None")


def flag(field: str, value: object) -> bool:
    """Return a parameter as a bool; nothing but a bool is one."""
    if not isinstance(value, bool | np.bool_):
        raise BadParameter(field, "must be true or false", value)
    return bool(value)


def in_range(field: str, value: float, profile: str) -> float:
    """Return a number that the profile allows; where the peer clamps, the nearest one."""
    for allowed in RANGES[profile][field]:
        if field in CLAMPED.get(profile, ()):
            value = type(value)(min(max(value, allowed.low), allowed.high))
        if value not in allowed:
            raise BadParameter(field, allowed.rule, value)
    return value


def at_least(field: str, value: int, low: int, rule: str) -> int:
    """Return a number that is not too low."""
    if value < low:
        raise BadParameter(field, rule, value)
    return value


def ids(field: str, value: object) -> tuple[int, ...]:
    """Return a list of token ids as a tuple."""
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise BadParameter(field, "must be a list of integers", value)
    return tuple(whole(field, each, "must contain only integers") for each in value)


def texts(field: str, value: object) -> tuple[str, ...]:
    """Return a string or a list of strings, none of them empty, as a tuple."""
    if value is None:
        return ()
    if isinstance(value, str):
        value = (value,)
    if isinstance(value, bytes | Mapping) or not isinstance(value, Iterable):
        raise BadParameter(field, "must be a string or a list of strings", value)
    many = tuple(value)
    for each in many:
        if not isinstance(each, str):
            raise BadParameter(field, "must contain only strings", each)
        if not each:
            raise BadIds(field, f"{field} cannot contain an empty string.")
    return many


def bias(value: object, profile: str) -> dict[int, float]:
    """Return a logit bias with integer keys; JSON's keys are strings, and "7" is 7.

    Examples
    --------
    >>> bias({"1": 5, " 7 ": 101}, "vllm")
    {1: 5.0, 7: 100.0}
    """
    if not isinstance(value, Mapping):
        raise BadParameter("logit_bias", "must map token ids to numbers", value)
    keys = {key: _id_of(key) for key in value}
    bad = [key for key, token_id in keys.items() if token_id is None]
    if bad:
        raise BadIds(
            "logit_bias",
            "logit_bias contains key(s) that cannot be converted to integer token IDs: "
            + shown(bad),
            bad,
        )
    if len(set(keys.values())) < len(keys):
        raise BadParameter("logit_bias", "must name each token id once", list(value))
    biases = {keys[key]: number("logit_bias", each) for key, each in value.items()}
    if profile == "vllm":
        biases = {i: min(max(b, -HIGHEST_BIAS), HIGHEST_BIAS) for i, b in biases.items()}
    return biases  # type: ignore[return-value]


def in_vocabulary(field: str, token_ids: Iterable[int], vocab_size: int) -> None:
    """Raise `BadRequest` if a parameter names an id outside the vocabulary."""
    outside = [i for i in token_ids if not 0 <= i < vocab_size]
    if outside:
        message = (
            f"token_id(s) {shown(outside)} in {field} contain out-of-vocab token ids. "
            f"Vocabulary size: {vocab_size}"
        )
        raise BadIds(field, message, outside)


def _id_of(key: object) -> int | None:
    """Return a key of a logit bias as an id: an integer, or its digits with no leading zero."""
    if isinstance(key, str):
        digits = key.strip()
        plain = digits.isascii() and digits.removeprefix("-").isdigit() and len(digits) < 20
        return int(digits) if plain and str(int(digits)) == digits else None
    return int(key) if is_whole(key, -(2**63), 2**63) else None  # type: ignore[call-overload]
