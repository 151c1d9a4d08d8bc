"""Ids to text, as every tokenizer does it: the bytes of the pieces, joined, read as UTF-8.

Never the texts of the pieces, joined: a character may be cut in two by the end of a token.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import SupportsIndex

from llama_ref.tokenizer.requests import checked_ids
from llama_ref.tokenizer.streaming import StreamDecoder


class Decoder:
    """The table of pieces, and what it takes to read ids by it.

    Attributes
    ----------
    vocab_size : int
        Ids run from 0 to one less.
    special_tokens : dict of str to int
        Each special token's name, in one naming, and its id.
    """

    special_tokens: dict[str, int]

    _pieces: list[bytes]
    # Of sentencepiece alone: ids without text, and ids whose blank is dropped where a text begins.
    _never_shown: frozenset[int] = frozenset()
    _blank_first: frozenset[int] = frozenset()

    @property
    def vocab_size(self) -> int:
        """Number of ids, special ones included."""
        return len(self._pieces)

    def decode(self, ids: Iterable[SupportsIndex], *, skip_special: bool = False) -> str:
        """Return the text of ids; bytes that are not UTF-8 become U+FFFD.

        Parameters
        ----------
        ids : iterable of int
            A list, or an integer array of shape (T,).
        skip_special : bool
            Leave special tokens out. Otherwise Llama 3's are shown by name, which encodes to the
            same id under ``allowed_special``; sentencepiece never shows control pieces.

        Returns
        -------
        str

        Raises
        ------
        BadRequest
            If an id is no integer or not in the vocabulary: the message names its position.

        Notes
        -----
        Law: ``decode(encode(text)) == text`` for Llama 3, and for sentencepiece unless the text
        holds U+2581, its sign for a blank.
        """
        return self.decode_bytes(ids, skip_special=skip_special).decode("utf-8", "replace")

    def decode_bytes(self, ids: Iterable[SupportsIndex], *, skip_special: bool = False) -> bytes:
        """Return the bytes of ids, UTF-8 or not; otherwise like `decode`."""
        hidden = self._hidden(skip_special)
        checked = checked_ids(ids, self.vocab_size)
        visible = [token_id for token_id in checked if token_id not in hidden]
        pieces = [self._pieces[token_id] for token_id in visible]
        if visible and visible[0] in self._blank_first:
            pieces[0] = pieces[0][1:]
        return b"".join(pieces)

    def stream(self, *, skip_special: bool = False) -> StreamDecoder:
        """Return a decoder that takes ids one at a time and never returns half a character.

        To continue a prompt, push its ids first and drop what they return: where a text begins
        matters to sentencepiece.
        """
        hidden = self._hidden(skip_special)

        def shown_bytes(token_id: int, started: bool) -> tuple[bytes, bool]:
            (token_id,) = checked_ids([token_id], self.vocab_size)
            if token_id in hidden:
                return b"", started
            piece = self._pieces[token_id]
            return piece[1:] if token_id in self._blank_first and not started else piece, True

        return StreamDecoder(shown_bytes)

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes of one piece; of a special token, those of its name if it shows one."""
        return self._pieces[checked_ids([token_id], self.vocab_size)[0]]

    def _hidden(self, skip_special: bool) -> frozenset[int]:
        return self._never_shown.union(self.special_tokens.values() if skip_special else ())
