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
from collections.abc import Iterator

from llama_ref.errors import BadFile, Unsupported, shown
from llama_ref.text import utf8
from llama_ref.tokenizer.base import Tokenizer

BLANK = "▁"
PROBE = "a  ﬁ①"
"""Two blanks, a ligature, a circled digit: what a model that rewrites text would change."""


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
        If it rewrites text (NFKC, merged blanks), or cannot write every byte.

    Notes
    -----
    Differs from: sentencepiece, where bytes that are not UTF-8 become one U+FFFD each; here, as
    in Python and for Llama 3, one for each maximal beginning of a character.
    """

    def __init__(self, data: bytes, *, file: str | os.PathLike[str]):
        import sentencepiece  # noqa: PLC0415 (whoever needs no engine should not wait for it)

        try:
            self._engine = sentencepiece.SentencePieceProcessor(model_proto=data)
        except (RuntimeError, ValueError) as error:
            raise BadFile("sentencepiece model", found=shown(str(error)), file=file) from None
        self.file = file
        self._check_is_llama_like()
        ids = range(self._engine.vocab_size())
        self._pieces = [self._piece_bytes(token_id) for token_id in ids]
        self._never_shown = frozenset(i for i in ids if self._engine.is_control(i))
        self.special_tokens = {self._engine.id_to_piece(i): i for i in sorted(self._never_shown)}
        self._adds_blank = self._engine.normalize("a").startswith(BLANK)
        if self._adds_blank:
            self._blank_first = frozenset(
                i for i in ids if self._engine.id_to_piece(i).startswith(BLANK)
            )
        self.bos_id, self.eos_id = (
            token_id if token_id >= 0 else None
            for token_id in (self._engine.bos_id(), self._engine.eos_id())
        )
        self.stop_ids = () if self.eos_id is None else (self.eos_id,)

    def _check_is_llama_like(self) -> None:
        """Refuse a model under which a text would not come back as it went in."""
        written = PROBE.replace(" ", BLANK)
        if self._engine.normalize(PROBE) not in (written, BLANK + written):
            raise Unsupported(
                "sentencepiece model",
                expected="a model that leaves text as it is, as Llama 2's does",
                found=f"{shown(PROBE)} becomes {shown(self._engine.normalize(PROBE))}",
                file=self.file,
            )
        n_bytes = sum(map(self._engine.is_byte, range(self._engine.vocab_size())))
        if n_bytes != 256:
            raise Unsupported(
                "sentencepiece model", expected="256 byte pieces", found=n_bytes, file=self.file
            )

    def _piece_bytes(self, token_id: int) -> bytes:
        """Return what a piece shows in a text that has already begun."""
        piece = self._engine.id_to_piece(token_id)
        if self._engine.is_control(token_id):
            return b""
        if self._engine.is_unknown(token_id):
            return " ⁇ ".encode()
        if self._engine.is_byte(token_id):
            return bytes([int(piece[1:-1], 16)])
        return piece.replace(BLANK, " ").encode()

    def _encode_ordinary(self, text: str) -> list[int]:
        return self._engine.encode(text)

    def _widths(self, text: str, ids: list[int]) -> Iterator[int]:
        """Yield the width of each piece in the text, where a blank is " " or, rarely, "▁"."""
        source, start = utf8(text), 0
        blanks_to_skip = int(self._adds_blank)
        for token_id in ids:
            end = start
            for byte in self._pieces[token_id]:
                if byte == ord(" ") and blanks_to_skip:
                    blanks_to_skip = 0
                else:
                    end += len(BLANK.encode()) if source.startswith(BLANK.encode(), end) else 1
            yield end - start
            start = end
