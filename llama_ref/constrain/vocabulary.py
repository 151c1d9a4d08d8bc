"""A tokenizer's vocabulary as the grammar engine needs it: the bytes of every token.

A grammar is about bytes, and a token is allowed if its bytes are: all of `{"na`, say. Control
tokens are no text, whatever their names look like; of them only those that end a text are ever
allowed, where the text may end. Ids of the model that its tokenizer lacks are never allowed. Where
a schema leaves only one way to go on, as in the name of a property, the ids are those that the
tokenizer would write it with: a model has never seen `city` letter by letter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llama_ref.constrain.bounds import Marks
from llama_ref.errors import BadRequest, Unsupported, shown

if TYPE_CHECKING:
    from llama_ref.tokenizer import Tokenizer


class Vocabulary:
    """Made once for a model; takes about a second for the 128,000 tokens of Llama 3.

    Parameters
    ----------
    tokenizer : Tokenizer
    vocab_size : int
        Of the model: the width of its logits.
    stop_ids : sequence of int
        What may follow a complete text.

    Raises
    ------
    Unsupported
        If llguidance is not installed.
    BadRequest
        If there is no stop id: a text could not end then.
    """

    def __init__(self, tokenizer: Tokenizer, *, vocab_size: int, stop_ids: Sequence[int]):
        llguidance = engine()
        if not stop_ids:
            raise BadRequest("stop_ids", expected="an id that ends a text", found=shown(stop_ids))
        self.vocab_size, self.stop_ids = vocab_size, frozenset(stop_ids)
        self.n_tokens = min(vocab_size, tokenizer.vocab_size)
        tokens = _Tokens(tokenizer, vocab_size, stop_ids[0])
        self.marks = Marks(tokens.tokens, vocab_size)
        self._engine = llguidance.LLTokenizer(
            llguidance.TokenizerWrapper(tokens),
            eos_token=list(stop_ids),
            slices=llguidance.LLTokenizer.json_slices(),
        )


class _Tokens:
    """What llguidance asks of a tokenizer."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, stop_id: int):
        self.eos_token_id, self.bos_token_id = stop_id, None
        special = set(tokenizer.special_tokens.values())
        n_tokens = min(vocab_size, tokenizer.vocab_size)
        self.tokens = [tokenizer.token_bytes(token_id) for token_id in range(n_tokens)]
        self.special_token_ids = [i for i in sorted(special) if i < n_tokens]
        for token_id in self.special_token_ids:  # 0xff is in no text, so no grammar allows it
            self.tokens[token_id] = b"\xff<%d>" % token_id
        self._tokenizer = tokenizer
        self._ids = {token: token_id for token_id, token in enumerate(self.tokens) if token}
        self._longest = max(map(len, self._ids))

    def __call__(self, text: str | bytes) -> list[int]:
        """Return the ids of a text, whose bytes joined are the text."""
        data = text.encode() if isinstance(text, str) else text
        ids = self._tokenizer.encode(data.decode())
        if b"".join(self.tokens[token_id] for token_id in ids) == data:
            return ids
        return self._longest_first(data)  # sentencepiece puts a blank in front of every text

    def _longest_first(self, data: bytes) -> list[int]:
        ids, at = [], 0
        while at < len(data):
            lengths = range(min(self._longest, len(data) - at), 0, -1)
            ends = (at + n for n in lengths if data[at : at + n] in self._ids)
            end = next(ends, None)
            if end is None:
                raise Unsupported("JSON mode", expected="a token for every byte", found="none")
            ids.append(self._ids[data[at:end]])
            at = end
        return ids


def engine() -> Any:
    """Return the module llguidance.

    Raises
    ------
    Unsupported
        If it is not installed.
    """
    try:
        import llguidance  # noqa: PLC0415 - an extra
    except ImportError:
        raise Unsupported(
            "JSON mode",
            expected="the package llguidance",
            next_step="pip install 'llama_ref[json]'",
        ) from None
    return llguidance
