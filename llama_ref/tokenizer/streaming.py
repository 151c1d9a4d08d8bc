"""Text out of ids that arrive one at a time, never half a character.

A character beyond ASCII is two to four bytes in UTF-8, and a token may end between them: 1,352
tokens of Llama 3 are not UTF-8 on their own. The decoder keeps the bytes of an unfinished
character until the next token completes it, and writes U+FFFD only where no continuation can.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable


class StreamDecoder:
    """Decodes ids one by one; made by `Tokenizer.stream()`.

    Law: the texts that `push` returns, and at last `finish`, joined, are `decode(ids)`.

    Parameters
    ----------
    shown_bytes : callable of (int, bool) to (bytes, bool)
        Given an id and whether any text came before it, the bytes to show and whether any came
        now.
    """

    def __init__(self, shown_bytes: Callable[[int, bool], tuple[bytes, bool]]):
        self._shown_bytes = shown_bytes
        self._started = False
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int) -> str:
        """Return the text that is complete with this token; often, but not always, its piece.

        Raises
        ------
        BadRequest
            If the id is not in the vocabulary; the decoder is then as it was.
        """
        piece, self._started = self._shown_bytes(token_id, self._started)
        return self._utf8.decode(piece)

    def finish(self) -> str:
        """Return U+FFFD for a character that never became complete, and start anew."""
        self._started = False
        return self._utf8.decode(b"", final=True)
