"""JSON that hides nothing: what the standard parser forgives is an error here.

The standard library keeps the last of two equal keys, reads NaN, turns 1e999 into infinity and
lets a page of digits through. In a checkpoint each of these means that two programs read
different numbers from one file, so each is refused, with its place.
"""

from __future__ import annotations

import json
import os
from typing import Any, NoReturn

from llama_ref.errors import BadFile, LimitExceeded, shown
from llama_ref.files import read_bytes, recognise

MAX_DEPTH = 64
MAX_NUMBER_LENGTH = 40


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
        Nested deeper than 64, or a number longer than 40 characters.
    """

    def refuse(what: str, found: object = None) -> NoReturn:
        raise BadFile(what, found=None if found is None else shown(found), file=file)

    def number(digits: str) -> str:
        if len(digits) > MAX_NUMBER_LENGTH:
            raise LimitExceeded(
                "JSON number",
                expected=f"at most {MAX_NUMBER_LENGTH} characters",
                found=len(digits),
                file=file,
            )
        return digits

    def integer(digits: str) -> int:
        if digits == "-0":
            refuse("JSON integer written as -0")
        return int(number(digits))

    def real(digits: str) -> float:
        value = float(number(digits))
        if value in (float("inf"), float("-inf")):
            refuse("JSON number beyond the range of a float64", digits)
        return value

    def constant(name: str) -> NoReturn:
        refuse("JSON constant that is not JSON", name)

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(items)
        if len(result) != len(items):
            seen: set[str] = set()
            for key, _ in items:
                if key in seen:
                    refuse("JSON key written twice", key)
                seen.add(key)
        return result

    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        refuse(f"not UTF-8 at byte {error.start}", recognise(data))
    if not text.strip():
        refuse("expected JSON, found an empty file")
    try:
        value = json.loads(
            text,
            object_pairs_hook=pairs,
            parse_int=integer,
            parse_float=real,
            parse_constant=constant,
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
