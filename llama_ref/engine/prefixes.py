"""Prompts that begin alike: their common keys and values are computed once.

Keys and values of a token depend on the tokens before it and on nothing after it. So whatever two
prompts have in common at their beginning, a system prompt, a conversation so far, the prompt of n
choices, gives the same cache, and a copy of it is as good as computing it again.

Caches of texts that are still being written are looked at first; those of finished ones are kept,
the least recently used thrown away, within a number of bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from llama_ref.cache import KVCache
from llama_ref.engine.sequence import Sequence, shared_length

SHORTEST = 16
"""Fewer tokens in common are not worth a copy."""


class Kept(NamedTuple):
    """The cache of a text, and the ids whose keys and values it holds."""

    ids: list[int]
    cache: KVCache


class Prefixes:
    """Caches of finished texts, up to a number of bytes.

    Parameters
    ----------
    n_bytes : int
        0 keeps none.
    """

    def __init__(self, n_bytes: int):
        self._limit, self._kept = n_bytes, list[Kept]()  # least recently used first

    @property
    def nbytes(self) -> int:
        """Bytes held at present."""
        return sum(kept.cache.nbytes for kept in self._kept)

    def keep(self, ids: list[int], cache: KVCache) -> None:
        """Keep the cache of a finished text; one that it continues is not needed any more."""
        held = ids[: cache.length]
        n_bytes = cache.nbytes // cache.capacity * len(held)
        if len(held) < SHORTEST or n_bytes > self._limit:
            return  # larger than all there is room for: the others stay
        cache = cache.prefix(len(held))  # without the room to grow
        self._kept = [k for k in self._kept if shared_length(k.ids, held) < len(k.ids)]
        self._kept.append(Kept(held, cache))
        while self.nbytes > self._limit:
            self._kept.pop(0)

    def longest(
        self, ids: list[int], running: Iterable[Sequence] = ()
    ) -> tuple[int, KVCache | None]:
        """Return the longest beginning of a prompt that is at hand: its length, and a cache.

        At least one token is left to run, since the next is chosen from its logits.
        """
        texts: list[Sequence | Kept] = [*running, *self._kept]
        best, source = SHORTEST - 1, None
        for text in texts:
            held = text.cache.length if text.cache else 0
            length = min(shared_length(text.ids, ids), held, len(ids) - 1)
            if length > best:
                best, source = length, text
        if source is None:
            return 0, None
        for place, kept in enumerate(self._kept):
            if kept is source:
                self._kept.append(self._kept.pop(place))
                break
        return best, source.cache

    def forget(self) -> None:
        """Let go of everything."""
        self._kept.clear()
