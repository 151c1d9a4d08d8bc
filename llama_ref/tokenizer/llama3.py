"""The tokenizer of Llama 3: byte-pair ranks, run by tiktoken's engine.

A vocabulary is a list of byte strings, best first; the place in it is both a token's id and its
rank in merging. 256 special tokens follow. The readable account of what the engine does to a text
is `llama_ref.bpe`, which gives the same ids.

Source: meta-llama/llama-models, models/llama3/tokenizer.py.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence

from llama_ref.bpe import SPLIT_PATTERN
from llama_ref.errors import BadFile, shown
from llama_ref.tokenizer.base import Tokenizer
from llama_ref.tokenizer.cutting import check_uncut, cut
from llama_ref.tokenizer.special_tokens import (
    BEGIN_OF_TEXT,
    END_OF_TEXT,
    STOP_NAMES,
    borrowed_names,
)


class Llama3Tokenizer(Tokenizer):
    """Byte-level BPE over the ranks of Llama 3, or over fewer of the same kind.

    Parameters
    ----------
    ranks : mapping of bytes to int
        Every ordinary token and its rank, 0 to n - 1, in this order; all 256 single bytes are
        among them.
    special_names : sequence of str
        The special tokens; their ids follow the ranks.
    unreachable : collection of bytes
        Tokens that encoding never gives, because the vocabulary says that pieces are merged and
        never looked up whole.
    file : path-like, optional
        Where the ranks were read, for messages.

    Attributes
    ----------
    ranks : mapping of bytes to int
        What `llama_ref.bpe` takes.
    """

    def __init__(
        self,
        ranks: Mapping[bytes, int],
        special_names: Sequence[str],
        *,
        unreachable: Collection[bytes] = frozenset(),
        file: str | os.PathLike[str] | None = None,
    ):
        import tiktoken  # noqa: PLC0415 (whoever needs no engine should not wait for it)

        self.file = file
        self.special_tokens = {name: len(ranks) + i for i, name in enumerate(special_names)}
        for name in (BEGIN_OF_TEXT, END_OF_TEXT):
            if name not in self.special_tokens:
                raise BadFile(f"special token {shown(name)}", found="no such token", file=file)
        self.bos_id = self.special_tokens[BEGIN_OF_TEXT]
        self.eos_id = self.special_tokens[END_OF_TEXT]
        self.stop_ids = tuple(
            self.special_tokens[name] for name in STOP_NAMES if name in self.special_tokens
        )
        self._other_names = borrowed_names(self.special_tokens, len(ranks))
        self._pieces = [*ranks, *(name.encode() for name in special_names)]
        self.ranks = {token: rank for token, rank in ranks.items() if token not in unreachable}
        self._engine = tiktoken.Encoding(
            "llama3", pat_str=SPLIT_PATTERN, mergeable_ranks=self.ranks, special_tokens={}
        )

    def _encode_ordinary(self, text: str) -> list[int]:
        return self._engine.encode_ordinary(text)

    def _cut(self, text: str, exact: bool) -> Iterable[str]:
        if not exact:
            return cut(text)
        check_uncut(text)
        return [text]
