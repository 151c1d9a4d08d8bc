"""The alphabet in which a tokenizer.json writes bytes: one printable character for each.

JSON holds text, and a token is bytes. GPT-2's answer, kept ever since: the 188 bytes that print
in Latin-1 stand for themselves, and the other 68 (controls, the blank, the soft hyphen) become
U+0100, U+0101, … in order. So a blank reads "Ġ" (U+0120) and a line feed "Ċ" (U+010A).

Source: openai/gpt-2, src/encoder.py.
"""

from __future__ import annotations

PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
UNPRINTABLE = [byte for byte in range(256) if byte not in PRINTABLE]

CHARACTER_OF_BYTE = {byte: chr(byte) for byte in PRINTABLE} | {
    byte: chr(0x100 + place) for place, byte in enumerate(UNPRINTABLE)
}
# Latin-1 turns code points below 256 into bytes; whatever is outside the alphabet is sent beyond.
_BYTE_OF_CHARACTER = dict.fromkeys(range(256), "\uffff") | {
    ord(character): chr(byte) for byte, character in CHARACTER_OF_BYTE.items()
}


def to_bytes(written: str) -> bytes | None:
    r"""Return the bytes that a key of a vocabulary stands for; None if it is not in the alphabet.

    Examples
    --------
    >>> to_bytes("Ġthe"), to_bytes("Ã©"), to_bytes("a b")
    (b' the', b'\xc3\xa9', None)
    """
    try:
        return written.translate(_BYTE_OF_CHARACTER).encode("latin-1")
    except UnicodeEncodeError:
        return None


def to_text(token: bytes) -> str:
    """Return how a vocabulary writes a token: the inverse of `to_bytes`.

    Examples
    --------
    >>> to_text(b" the")
    'Ġthe'
    """
    return "".join(CHARACTER_OF_BYTE[byte] for byte in token)
