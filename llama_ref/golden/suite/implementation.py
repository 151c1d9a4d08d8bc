"""The functions that a backend offers, and how a case calls them.

Whatever holds functions by name will do: a module, a class, a mapping. Every call gets arrays of
its own, and they are looked at again afterwards: an op that writes into its arguments spoils the
cache or the residual stream of whoever calls it, and does so only sometimes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from llama_ref.errors import shown

BY_POSITION = ("head_dim",)
"""Numbers that are passed by position, as arrays are."""

HOOKS = "a backend with arrays of its own needs the functions asarray and to_numpy"


class Problem(Exception):
    """What an implementation did wrong in one call, in words; the cause is what it raised.

    It never leaves this package: a case turns it into an error or a line of a report.
    """


class Implementation:
    """Functions under test.

    Parameters
    ----------
    holder : module, object or mapping of str to function
        Holds some of the functions that `llama_ref.golden.suite` lists.
    """

    def __init__(self, holder: object):
        self._holder = holder
        self._into = self.function("asarray") or (lambda array: array)
        self._back = self.function("to_numpy") or np.asarray

    def function(self, name: str) -> Callable[..., Any] | None:
        """Return the function of that name, or None; what cannot be called is none."""
        if isinstance(self._holder, Mapping):
            found = self._holder.get(name)
        else:
            found = getattr(self._holder, name, None)
        return found if callable(found) else None

    def call(
        self, name: str, arguments: Mapping[str, Any], results: Sequence[str]
    ) -> list[np.ndarray]:
        """Call a function with arrays of its own, and return its results as arrays.

        Parameters
        ----------
        name : str
        arguments : mapping
            Arrays and numbers, in the order of the signature.
        results : sequence of str
            What is returned: one array, or a tuple of that many.

        Raises
        ------
        Problem
            If there is no such function, it raises, returns something else, or changes an argument.
        """
        function = self.function(name)
        if function is None:
            raise Problem(f"there is no function {name}")
        handed = {key: self._hand_over(key, value) for key, value in arguments.items()}
        by_position = [
            value
            for key, value in handed.items()
            if isinstance(arguments[key], np.ndarray) or key in BY_POSITION
        ]
        by_name = {
            key: value
            for key, value in handed.items()
            if not isinstance(arguments[key], np.ndarray) and key not in BY_POSITION
        }
        returned = _guarded(name, function, *by_position, **by_name)
        arrays = self._take_back(name, returned, results)
        for key, value in arguments.items():
            if isinstance(value, np.ndarray) and not _same(self._array(key, handed[key]), value):
                raise Problem(f"{name} changes its argument {key}")
        return arrays

    def _hand_over(self, key: str, value: Any) -> Any:
        """Return a copy of an array as the backend wants it, anything else as it is."""
        if not isinstance(value, np.ndarray):
            return value
        array = _guarded("asarray", self._into, value.copy())
        back = self._array(key, array)
        if not _same(back, value):
            raise Problem(
                f"{key} does not survive asarray and to_numpy: {value.dtype} of shape "
                f"{value.shape} comes back as {back.dtype} of shape {back.shape}"
            )
        return array

    def _take_back(self, name: str, returned: Any, results: Sequence[str]) -> list[np.ndarray]:
        if len(results) == 1:
            return [self._array(results[0], returned)]
        if not isinstance(returned, tuple | list) or len(returned) != len(results):
            raise Problem(f"{name} does not return a tuple ({', '.join(results)})")
        return [self._array(key, one) for key, one in zip(results, returned, strict=True)]

    def _array(self, key: str, value: Any) -> np.ndarray:
        try:
            return np.asarray(self._back(value))
        except (Exception, SystemExit) as error:
            raise Problem(f"{key} does not become an array: {_said(error)}; {HOOKS}") from error


def _guarded(name: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call foreign code; it may end the case, not the run."""
    try:
        return function(*args, **kwargs)
    except (Exception, SystemExit) as error:
        raise Problem(f"{name} raised {_said(error)}") from error


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {shown(str(error))}"


def _same(found: np.ndarray, given: np.ndarray) -> bool:
    """Compare to the bit; integers may come back in another width, since not all have 64 bits."""
    if given.dtype.kind == "i":
        return found.dtype.kind in "iu" and np.array_equal(found, given)
    return found.dtype == given.dtype and found.shape == given.shape and _equal(found, given)


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    return np.ascontiguousarray(a).tobytes() == np.ascontiguousarray(b).tobytes()
