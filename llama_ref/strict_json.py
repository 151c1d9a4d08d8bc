"""JSON that hides nothing: what the standard parser forgives is an error here.

The standard library keeps the last of two equal keys, reads NaN, turns 1e999 into infinity and
lets a page of digits through. In a checkpoint each of these means that two programs read
different numbers from one file, so each is refused, with its place.
"""

from __future__ import annotations

import json
import math
import os
from typing import Any, NoReturn

from llama_ref.errors import BadFile, LimitExceeded, shown
from llama_ref.files import read_bytes, recognise

MAX_DEPTH = 64
MAX_NUMBER_LENGTH = 40
MAX_SIGNS = 1_500_000
"""Commas, colons and opening brackets in one document. Llama 3's tokenizer.json has 1.1 million;
a file of empty lists alone would take thirty times its size in memory."""


def read_json(path: str | os.PathLike[str], *, limit: int) -> Any:
    """Read and parse a JSON file of at most `limit` bytes; see `parse_json`."""
    return parse_json(read_bytes(path, limit=limit), file=path)


def parse_json(data: bytes, *, file: str | os.PathLike[str]) -> Any:
    """Parse UTF-8 JSON, refusing what would be ambiguous or hostile.

    Parameters
    ----------
    data : bytes
        The whole document.
    file : path-like
        Its name, for messages.

    Raises
    ------
    BadFile
        Not UTF-8, a byte-order mark, not JSON, trailing text, a key written twice, NaN or an
        infinite number, a lone surrogate.
    LimitExceeded
        Nested deeper than 64, a number longer than 40 characters, or more values than fit between
        1,500,000 commas, colons and opening brackets.
    """
    # Every value but the first follows one of these; counted before anything is made of them.
    n_signs = sum(data.count(sign) for sign in (b",", b":", b"[", b"{"))
    if n_signs > MAX_SIGNS:
        raise LimitExceeded(
            "JSON values",
            expected=f"at most {MAX_SIGNS:,} commas, colons and opening brackets",
            found=f"{n_signs:,}",
            file=file,
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadFile(
            f"not UTF-8 at byte {error.start}", found=recognise(data), file=file
        ) from None
    if not text.strip():
        raise BadFile("expected JSON", found="an empty file", file=file)
    strict = _Strict(file)
    try:
        value = json.loads(
            text,
            object_pairs_hook=strict.pairs,
            parse_int=strict.integer,
            parse_float=strict.real,
            parse_constant=strict.constant,
        )
    except json.JSONDecodeError as error:
        kind = recognise(data)
        at = f"line {error.lineno}, column {error.colno}: {error.msg}"
        raise BadFile("not JSON", found=f"{kind} ({at})" if kind else at, file=file) from None
    except RecursionError:
        raise LimitExceeded(
            "JSON nesting", expected=f"at most {MAX_DEPTH} levels", file=file
        ) from None
    _check_tree(value, file)
    return value


class _Strict:
    """What the parser calls for each number, constant and object it meets."""

    def __init__(self, file: str | os.PathLike[str]):
        self.file = file

    def integer(self, digits: str) -> int:
        if digits == "-0":
            raise BadFile("JSON integer written as -0", file=self.file)
        return int(self._bounded(digits))

    def real(self, digits: str) -> float:
        value = float(self._bounded(digits))
        if math.isinf(value):
            raise BadFile(
                "JSON number beyond the range of a float64", found=shown(digits), file=self.file
            )
        return value

    def constant(self, name: str) -> NoReturn:
        raise BadFile("JSON constant that is not JSON", found=shown(name), file=self.file)

    def pairs(self, items: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(items)
        if len(result) != len(items):
            seen: set[str] = set()
            for key, _ in items:
                if key in seen:
                    raise BadFile("JSON key written twice", found=shown(key), file=self.file)
                seen.add(key)
        return result

    def _bounded(self, digits: str) -> str:
        if len(digits) > MAX_NUMBER_LENGTH:
            raise LimitExceeded(
                "JSON number",
                expected=f"at most {MAX_NUMBER_LENGTH} characters",
                found=len(digits),
                file=self.file,
            )
        return digits


def _check_tree(value: Any, file: str | os.PathLike[str]) -> None:
    """Refuse deep nesting and strings that are not Unicode text; a loop, so it cannot overflow."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(item.keys())
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
            elif isinstance(item, str) and not item.isascii():
                try:
                    item.encode("utf-8")
                except UnicodeEncodeError:
                    raise BadFile(
                        "JSON string with a lone surrogate", found=shown(item), file=file
                    ) from None
        if not below:
            return
        level = below
    raise LimitExceeded("JSON nesting", expected=f"at most {MAX_DEPTH} levels", file=file)
