"""A Google-style docstring in its sections: what the function does, its arguments, what it returns.

    | Get the weather.            the description, up to the first section
    |
    | Args:                       one entry a name; lines that stand deeper belong to the entry
    |     city: Where.
    |     unit (str): Which,      a type in parentheses is passed over
    |         of two.
    |
    | Returns:
    |     What it is like.

A section begins wherever its word stands: `Args:` in the middle of a sentence cuts the sentence.
The released function that this follows does so, and a schema that differs is another prompt.

Source: parse_google_format_docstring of utils/chat_template_utils.py in huggingface/transformers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

ANY_SECTION = re.compile(r"Args:|Returns:|Raises:")
ARGS_HEAD = re.compile(r"\n\s*Args:\n")
ARGS_END = re.compile(r"Returns:|Raises:")
RETURNS_HEAD = re.compile(r"\n\s*Returns:\n\s*")
RETURNS_END = re.compile(r"Raises:")
ENTRY = re.compile(r"([ \t]*)(\w+)(?:[ \t]*\([^()\n]*\))?:")


class Sections(NamedTuple):
    """The sections of a docstring.

    Attributes
    ----------
    description : str
    arguments : dict of str to str
        In one line each.
    returns : str or None
    """

    description: str
    arguments: dict[str, str]
    returns: str | None


def sections(doc: str) -> Sections:
    r"""Return the sections of a docstring without its common indentation.

    Examples
    --------
    >>> sections("Add.\n\nArgs:\n    a: One,\n        or none.\n    b: Another.")
    Sections(description='Add.', arguments={'a': 'One, or none.', 'b': 'Another.'}, returns=None)
    """
    first = ANY_SECTION.search(doc)
    description = doc[: first.start()] if first else doc
    head = ARGS_HEAD.search(doc)
    arguments = dict(_entries(_until(doc, head.end(), ARGS_END))) if head else {}
    head = RETURNS_HEAD.search(doc)
    returns = _until(doc, head.end(), RETURNS_END).strip() if head else None
    return Sections(description.strip(), arguments, returns)


def _until(doc: str, start: int, end: re.Pattern[str]) -> str:
    found = end.search(doc, start)
    return doc[start : found.start()] if found else doc[start:]


def _entries(block: str) -> Iterator[tuple[str, str]]:
    """Yield name and text of each entry; a line that stands deeper goes on with its entry."""
    name, indent, lines = None, "", list[str]()
    for line in block.split("\n"):
        if not line.strip():
            continue
        entry = ENTRY.match(line)
        is_deeper = name is not None and line.startswith((indent + " ", indent + "\t"))
        if entry and not is_deeper:
            if name is not None:
                yield name, _in_one_line(lines)
            indent, name, lines = entry.group(1), entry.group(2), [line[entry.end() :]]
        elif name is not None:
            lines.append(line)
    if name is not None:
        yield name, _in_one_line(lines)


def _in_one_line(lines: list[str]) -> str:
    return " ".join(line.strip() for line in lines if line.strip())
