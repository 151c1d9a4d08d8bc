"""Several sequences end to end: which tokens one forward pass takes, and where each stands.

    sequences   [a0 a1 a2]  [b0]  [c0 c1]         three requests, each with its own cache
    packed       a0 a1 a2    b0    c0 c1          T = 6 rows, lengths 3 1 2
    positions     0  1  2     7     4  5          b and c continue what their caches hold

Everything a caller can get wrong about ids, positions and caches is refused here, before any
arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llama_ref.cache import KVCache
from llama_ref.config import Config
from llama_ref.errors import BadRequest, LimitExceeded, is_whole, shown
from llama_ref.ops.embed import check_ids

Ids = Sequence[int] | np.ndarray


@dataclass(frozen=True)
class Packed:
    """The tokens of one forward pass.

    Attributes
    ----------
    ids_T, position_T : ndarray of shape (T,), int64
    lengths : list of int
        How many of the T tokens belong to each sequence.
    caches : list of KVCache
        One per sequence.
    """

    ids_T: np.ndarray
    position_T: np.ndarray
    lengths: list[int]
    caches: list[KVCache]

    def split(self, packed: np.ndarray) -> list[np.ndarray]:
        """Cut an array whose first axis is that of the tokens into those of the sequences."""
        return np.split(packed, np.cumsum(self.lengths)[:-1])

    def advance(self) -> None:
        """Count the tokens into their caches: the pass is done."""
        for cache, position_T in zip(self.caches, self.split(self.position_T), strict=True):
            cache.advance(position_T)

    def last_rows(self, last: int | None) -> tuple[np.ndarray, list[int]]:
        """Return which of the T rows are the `last` of their sequence, and how many of each.

        Examples
        --------
        >>> packed = Packed(np.zeros(5, int), np.zeros(5, int), [3, 2], [])
        >>> packed.last_rows(1)
        (array([2, 4]), [1, 1])
        """
        if last is not None and not is_whole(last, 0):
            raise BadRequest("last", expected="None, 0 or a positive integer", found=shown(last))
        kept = [n if last is None else min(last, n) for n in self.lengths]
        ends = np.cumsum(self.lengths)
        rows = [np.arange(end - n, end) for end, n in zip(ends, kept, strict=True)]
        return np.concatenate(rows), kept


def is_batch(ids: Ids | Sequence[Ids]) -> bool:
    """Tell a list of sequences from one sequence of ids."""
    return (
        isinstance(ids, Sequence)
        and not isinstance(ids, str)
        and len(ids) > 0
        and all(isinstance(item, Sequence | np.ndarray) for item in ids)
    )


def pack(
    config: Config,
    owner: object,
    ids: Sequence[Ids],
    caches: Sequence[KVCache],
    positions: Sequence[Ids] | None,
) -> Packed:
    """Check and lay end to end the new tokens of several sequences.

    Parameters
    ----------
    config : Config
    owner : object
        The model that every cache must have been made for.
    ids : sequence of one-dimensional sequences of int
    caches : sequence of KVCache
        One per sequence; each gets room for its new tokens here.
    positions : like `ids`, optional
        RoPE positions; by default each sequence continues its cache.

    Raises
    ------
    BadRequest, LimitExceeded
        See `Model.forward`.
    """
    if len(ids) == 0:
        raise BadRequest("sequences", expected="one or more", found="none")
    if not isinstance(caches, Sequence):
        raise BadRequest("caches", expected="a list, one per sequence", found=shown(caches))
    n_distinct = len({id(cache) for cache in caches})
    if not len(ids) == len(caches) == n_distinct:
        raise BadRequest(
            "caches", expected=f"one of its own for each of {len(ids)} sequences", found=n_distinct
        )
    arrays = [as_ids(sequence) for sequence in ids]
    given = [None] * len(ids) if positions is None else [as_ids(p, "positions") for p in positions]
    if len(given) != len(ids):
        raise BadRequest("positions", expected=f"{len(ids)} sequences", found=len(given))
    for ids_T, cache in zip(arrays, caches, strict=True):
        check_ids(ids_T, config.vocab_size)
        if not isinstance(cache, KVCache) or cache.owner is not owner:
            raise BadRequest(
                "KVCache",
                expected="one made by this model's new_cache()",
                found="a cache of another model" if isinstance(cache, KVCache) else shown(cache),
            )
        cache.make_room(len(ids_T))
    places = [
        _positions(ids_T, cache, position_T, config.context_length)
        for ids_T, cache, position_T in zip(arrays, caches, given, strict=True)
    ]
    return Packed(
        np.concatenate(arrays), np.concatenate(places), [len(a) for a in arrays], list(caches)
    )


def as_ids(sequence: Ids, what: str = "token ids") -> np.ndarray:
    """Return one sequence as a one-dimensional array of int64, or raise `BadRequest`."""
    if isinstance(sequence, str | bytes) or not isinstance(sequence, Sequence | np.ndarray):
        raise BadRequest(what, expected="a sequence of integers", found=shown(sequence))
    if not isinstance(sequence, np.ndarray):
        for t, item in enumerate(sequence):
            if not is_whole(item, -(2**63), 2**63 - 1):
                raise BadRequest(f"{what}[{t}]", expected="a 64-bit integer", found=shown(item))
        sequence = np.array(sequence, dtype=np.int64)
    if sequence.ndim != 1 or sequence.dtype.kind not in "iu":
        raise BadRequest(
            what,
            expected="a one-dimensional sequence of integers",
            found=f"{sequence.ndim} dimensions of {sequence.dtype}",
        )
    if len(sequence) == 0:
        raise BadRequest(what, expected="at least one", found="none")
    return sequence.astype(np.int64)


def _positions(
    ids_T: np.ndarray, cache: KVCache, position_T: np.ndarray | None, context_length: int
) -> np.ndarray:
    """Return the RoPE positions of new tokens, checked against the cache and the context."""
    first = cache.next_position
    if position_T is None:
        position_T = np.arange(first, first + len(ids_T))
    elif len(position_T) != len(ids_T):
        raise BadRequest(
            "positions", expected=f"{len(ids_T)}, one per token", found=len(position_T)
        )
    elif position_T[0] < first or (np.diff(position_T) <= 0).any():
        raise BadRequest(
            "positions",
            expected=f"strictly increasing from {first} or later",
            found=shown(position_T.tolist()),
        )
    if position_T[-1] >= context_length:
        raise LimitExceeded(
            "position",
            expected=f"below the context length {context_length}",
            found=int(position_T[-1]),
        )
    return position_T
