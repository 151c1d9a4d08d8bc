"""Tokenizers in the manner of Llama 2: a sentencepiece model, run by its own engine.

Two habits set them apart from Llama 3's. A blank is written "▁" (U+2581) and belongs to the word
after it; to make the first word of a text look like any other, a blank is put in front of the
text before it is encoded, and the first blank is dropped again when it is decoded. And what no
piece covers is written in 256 byte pieces, `<0x00>` to `<0xFF>`.

Control pieces (`<s>`, `</s>`) have no text. Decoders that strip their names off the decoded text
with `str.strip("<s>")` eat every letter s at its ends; here a control id never becomes text.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

from llama_ref.errors import BadFile, LimitExceeded, Unsupported, shown
from llama_ref.text import utf8
from llama_ref.tokenizer.base import Tokenizer

BLANK = "▁"
UNKNOWN = " ⁇ "
"""What the engine shows for the piece `<unk>`."""

PROBE = "a  ﬁ①"
"""Two blanks, a ligature, a circled digit: what a model that rewrites text would change."""

MAX_PIECES = 2**18
"""Llama 2 has 32,000."""

# Numbers in sentencepiece_model.proto: of the parts of a model, of fields in each, of values.
PIECE, TRAINER, NORMALIZER = 1, 2, 3
TEXT, SCORE, KIND = 1, 2, 3
MODEL_TYPE, REWRITING_TABLE = 3, 2
BPE, NORMAL = 2, 1
# Kinds of protobuf fields, besides 0, a plain integer; 3 and 4 only bracket others.
BYTES, FIXED_SIZES = 2, {1: 8, 3: 0, 4: 0, 5: 4}


class Piece(NamedTuple):
    """An entry of a model: how it is written, how soon it is merged, and its kind by number."""

    text: str
    score: float
    kind: int


class SentencePieceTokenizer(Tokenizer):
    """Encodes with sentencepiece; decodes by the table of its pieces, as sentencepiece does.

    Parameters
    ----------
    data : bytes
        The whole model file.
    file : path-like
        Its name, for messages.

    Raises
    ------
    BadFile
        If the engine cannot read it.
    Unsupported
        If it is not byte-pair encoding, rewrites text (NFKC, merged blanks, a table of its own),
        or cannot write every byte.
    LimitExceeded
        If it has more than 262,144 pieces.

    Attributes
    ----------
    adds_blank : bool
        Whether a blank is put in front of a text.
    unknown_id : int
        What stands for text that no piece covers.

    Notes
    -----
    Differs from: sentencepiece, where bytes that are not UTF-8 become one U+FFFD each; here, as
    in Python and for Llama 3, one for each maximal beginning of a character.
    """

    def __init__(self, data: bytes, *, file: str | os.PathLike[str]):
        import sentencepiece  # noqa: PLC0415 (whoever needs no engine should not wait for it)

        self.file = file
        try:
            self._engine = engine = sentencepiece.SentencePieceProcessor(model_proto=data)
            n_pieces = engine.vocab_size()
            if n_pieces > MAX_PIECES:
                limit = f"at most {MAX_PIECES:,}"
                raise LimitExceeded("pieces", expected=limit, found=f"{n_pieces:,}", file=file)
            written = [engine.id_to_piece(token_id) for token_id in range(n_pieces)]
        except (RuntimeError, UnicodeDecodeError) as error:
            raise BadFile("sentencepiece model", found=shown(str(error)), file=file) from None
        self._check_is_llama_like(written)
        self._pieces = [
            self._piece_bytes(token_id, piece) for token_id, piece in enumerate(written)
        ]
        self.special_tokens = {
            piece: token_id for token_id, piece in enumerate(written) if engine.is_control(token_id)
        }
        self._never_shown = frozenset(self.special_tokens.values())
        self.adds_blank = engine.normalize("a").startswith(BLANK)
        self._blank_first = frozenset(
            token_id
            for token_id, piece in enumerate(written)
            if self.adds_blank and piece.startswith(BLANK)
        )
        self.unknown_id = engine.unk_id()
        self.bos_id = engine.bos_id() if engine.bos_id() >= 0 else None
        self.eos_id = engine.eos_id() if engine.eos_id() >= 0 else None
        self.stop_ids = () if self.eos_id is None else (self.eos_id,)
        self._check_comes_back(PROBE)

    def model(self) -> bytes:
        """Return the model as a file holds it."""
        return self._engine.serialized_model_proto()

    def pieces(self) -> list[Piece]:
        """Return all entries of the model, in the order of their ids."""
        stated: list[dict[int, Any]] = [
            dict(_fields(entry)) for entry in _values(self.model(), PIECE)
        ]
        return [
            Piece(
                entry[TEXT].decode(),
                struct.unpack("<f", entry.get(SCORE, 0).to_bytes(4, "little"))[0],
                entry.get(KIND, NORMAL),
            )
            for entry in stated
        ]

    def _check_is_llama_like(self, written: list[str]) -> None:
        """Refuse a model under which a text would not come back as it went in."""
        understood = self._engine.serialized_model_proto()
        kinds = _values(understood, TRAINER, MODEL_TYPE)
        if kinds != [BPE]:
            raise Unsupported(
                "sentencepiece model",
                expected=f"byte-pair encoding, model_type {BPE}",
                found=f"model_type {shown(kinds)}",
                file=self.file,
            )
        # A probe cannot show this: the table may rewrite one word alone.
        if any(_values(understood, NORMALIZER, REWRITING_TABLE)):
            raise Unsupported(
                "sentencepiece model",
                expected="a model that leaves text as it is, as Llama 2's does",
                found="a table by which it rewrites text",
                file=self.file,
            )
        probe = PROBE.replace(" ", BLANK)
        if self._engine.normalize(PROBE) not in (probe, BLANK + probe):
            raise Unsupported(
                "sentencepiece model",
                expected="a model that leaves text as it is, as Llama 2's does",
                found=f"{shown(PROBE)} becomes {shown(self._engine.normalize(PROBE))}",
                file=self.file,
            )
        bytes_ = [piece for i, piece in enumerate(written) if self._engine.is_byte(i)]
        if sorted(bytes_) != [f"<0x{byte:02X}>" for byte in range(256)]:
            raise Unsupported(
                "sentencepiece model",
                expected="256 byte pieces, <0x00> to <0xFF>",
                found=len(bytes_),
                file=self.file,
            )

    def _check_comes_back(self, text: str) -> None:
        """Refuse a model that cannot write a text again: one in which no piece is a blank, say."""
        returned = self.decode(self.encode(text))
        if returned != text:
            raise Unsupported(
                "sentencepiece model",
                expected="a model under which a text comes back as it was",
                found=f"{shown(text)} comes back as {shown(returned)}",
                file=self.file,
            )

    def _piece_bytes(self, token_id: int, piece: str) -> bytes:
        """Return what a piece shows in a text that has already begun."""
        if self._engine.is_control(token_id):
            return b""
        if self._engine.is_unknown(token_id):
            return UNKNOWN.encode()
        if self._engine.is_byte(token_id):
            return bytes([int(piece[1:-1], 16)])
        return piece.replace(BLANK, " ").encode()

    def _encode_ordinary(self, text: str) -> list[int]:
        return self._engine.encode(text)

    def _widths(self, text: str, ids: list[int]) -> Iterator[int]:
        """Yield the width of each piece in the text, where a blank is " " or, rarely, "▁"."""
        source, start = utf8(text), 0
        blanks_to_skip = int(self.adds_blank)
        for token_id in ids:
            end = start
            for byte in self._pieces[token_id]:
                if byte == ord(" ") and blanks_to_skip:
                    blanks_to_skip = 0
                else:
                    end += len(BLANK.encode()) if source.startswith(BLANK.encode(), end) else 1
            yield end - start
            start = end


def _values(message: bytes, *path: int) -> list[Any]:
    r"""Return every value under a path of field numbers in a protobuf message.

    Examples
    --------
    >>> _values(b"\x12\x02\x18\x02", 2, 3)
    [2]
    """
    number, *rest = path
    found = [value for n, value in _fields(message) if n == number]
    if not rest:
        return found
    return [value for part in found if isinstance(part, bytes) for value in _values(part, *rest)]


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the number and the value of each field: bytes of what has a length, else an integer."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind in FIXED_SIZES:
            end = at + FIXED_SIZES[kind]
            yield key >> 3, int.from_bytes(message[at:end], "little")
            at = end
            continue
        value, at = _varint(message, at)
        if kind == BYTES:
            yield key >> 3, message[at : at + value]
            at += value
        else:
            yield key >> 3, value


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """Return the integer that begins at a byte, seven bits in each, and where it ends."""
    value = shift = 0
    while message[at] & 128:
        value |= (message[at] & 127) << shift
        at, shift = at + 1, shift + 7
    return value | message[at] << shift, at + 1
