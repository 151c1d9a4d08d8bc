"""What a message says: text, text in parts, or the result of a tool; each within its limit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llama_ref.errors import BadRequest, LimitExceeded, shown
from llama_ref.json_values import MAX_DIGITS, checked_text, checked_value

MAX_CONTENT = 4 * 2**20
MAX_TOOL_RESULT = 2**20
"""Characters of one message, and of one result of a tool."""

MAX_PARTS = 1_000
MAX_WORD = 256
"""Characters of an id of a call, or of the name of who speaks."""


def check_limit(thing: str, found: int, most: int, unit: str) -> None:
    """Refuse more than a stated number of something."""
    if found > most:
        raise LimitExceeded(thing, expected=f"at most {most:,} {unit}", found=f"{found:,}")


def text_of(content: object, place: str, most: int) -> str:
    """Return text, or the text of parts, joined by line ends."""
    if isinstance(content, str):
        check_limit(place, len(content), most, "characters")
        return checked_text(content, place)
    if not isinstance(content, list | tuple):
        raise BadRequest(place, expected="text, or a list of text parts", found=shown(content))
    check_limit(place, len(content), MAX_PARTS, "parts")
    texts = [_part(part, f"{place}[{index}]") for index, part in enumerate(content)]
    check_limit(place, sum(map(len, texts)), most, "characters")
    return text_of("\n".join(texts), place, most)


def check_word(value: object, place: str) -> None:
    """Refuse what is no short text; it stands in no prompt."""
    if not isinstance(value, str):
        raise BadRequest(place, expected="text", found=shown(value))
    check_limit(place, len(value), MAX_WORD, "characters")


def _part(part: object, place: str) -> str:
    if not isinstance(part, Mapping) or part.get("type") != "text":
        kind = part.get("type") if isinstance(part, Mapping) else part
        raise BadRequest(
            f"{place}.type", expected="'text': this model reads no other", found=shown(kind)
        )
    text = part.get("text")
    if not isinstance(text, str):
        raise BadRequest(f"{place}.text", expected="text", found=shown(text))
    return text


def result_of(content: object, place: str) -> Any:
    """Return what a tool gave: text, or a JSON value that is no text."""
    parts = isinstance(content, list) and [part for part in content if _is_text_part(part)]
    if isinstance(content, str) or (parts and parts == content):
        return text_of(content, place, MAX_TOOL_RESULT)
    if content is None or isinstance(content, bool):
        expected = "text, or a JSON object, list or number"
        raise BadRequest(place, expected=expected, found=shown(content))
    value = checked_value(content, place)
    check_limit(place, characters(value), MAX_TOOL_RESULT, "characters")
    return value


def _is_text_part(part: object) -> bool:
    return (
        isinstance(part, Mapping) and part.get("type") == "text" and set(part) == {"type", "text"}
    )


def characters(value: Any) -> int:
    """Return about how many characters a JSON value is: exactly, for a text."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(len(key) + 4 + characters(item) for key, item in value.items())
    return sum(map(characters, value)) if isinstance(value, list) else MAX_DIGITS // 2
