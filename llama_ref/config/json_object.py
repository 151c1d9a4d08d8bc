"""One JSON object of a checkpoint, read key by key; every refusal names its file and key.

Both published kinds of blueprint are read under the same rule: accept nothing unexplained. A key is
either used, or known to change no number, or refused by name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from llama_ref.errors import BadConfig, Unsupported, shown

T = TypeVar("T")


class JsonObject:
    """A parsed JSON object that knows its file.

    Parameters
    ----------
    data : object
        What the parser returned; anything but a dict is refused.
    file : path-like
        For messages.
    within : str, optional
        Key of the object that holds this one, for messages.

    Raises
    ------
    BadConfig
        `data` is not a JSON object.
    """

    def __init__(self, data: object, *, file: str | os.PathLike[str], within: str = ""):
        self.file, self.prefix = file, f"{within}." if within else ""
        if not isinstance(data, dict):
            thing = within or "the whole document"
            raise BadConfig(thing, expected="a JSON object", found=shown(data), file=file)
        self.data: dict[str, Any] = data

    def __contains__(self, key: str) -> bool:
        return key in self.data

    def get(self, key: str) -> Any:
        """Return a value, or None where there is none."""
        return self.data.get(key)

    def need(self, key: str, *, hint: str | None = None) -> Any:
        """Return the value of a key that must be there; `hint` tells what to do if it is not."""
        if key not in self.data:
            raise self.bad(key, expected="a value", found="no such key", next_step=hint)
        return self.data[key]

    def inner(self, key: str) -> JsonObject:
        """Return the object stored under `key`."""
        return JsonObject(self.need(key), file=self.file, within=self.prefix + key)

    def whole(self, key: str, low: int, high: int, *, hint: str | None = None) -> int:
        """Return a whole number that must be there and in range; neither True nor 4.0 is one."""
        value = self.need(key, hint=hint)
        if type(value) is not int or not low <= value <= high:
            expected = f"a whole number from {low} to {high}"
            raise self.bad(key, expected=expected, found=shown(value), next_step=hint)
        return value

    def bad(
        self, key: str, *, expected: object, found: object, next_step: str | None = None
    ) -> BadConfig:
        """Return the error that names this file and this key; the caller raises it."""
        return BadConfig(
            self.prefix + key, expected=expected, found=found, next_step=next_step, file=self.file
        )

    def unsupported(
        self, thing: str, *, expected: object, found: object, next_step: str | None = None
    ) -> Unsupported:
        """Return the error for what is well formed but not a Llama as this library states it."""
        return Unsupported(
            self.prefix + thing, expected=expected, found=found, next_step=next_step, file=self.file
        )

    def refuse_other_values(self, explained: Mapping[str, Collection[object]]) -> None:
        """Refuse a key whose value is none of those it is explained for; absent is fine."""
        for key, values in explained.items():
            found = self.get(key)
            as_explained = any(type(found) is type(v) and found == v for v in values)
            if key in self and not as_explained:
                expected = " or ".join(shown(value) for value in values)
                raise self.unsupported(key, expected=expected, found=shown(found))

    def refuse_other_keys(self, explained: Collection[str]) -> None:
        """Refuse a key that is not among those explained: it may change the numbers."""
        for key in self.data:
            if key not in explained:
                raise self.unsupported(
                    f"key {shown(key)}",
                    expected="only keys whose effect on the numbers is known",
                    found=shown(self.data[key]),
                    next_step="if it has none, remove it from the file",
                )

    def build(self, make: Callable[..., T], keys: Mapping[str, str], **fields: object) -> T:
        """Call `make`; where it refuses a field, name the file and the key it came from."""
        try:
            return make(**fields)
        except BadConfig as error:
            key = keys.get(error.thing, error.thing)
            raise self.bad(
                key, expected=error.expected, found=error.found, next_step=error.next_step
            ) from None
