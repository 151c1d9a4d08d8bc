"""The key/value cache: what a sequence has computed so far and never needs to compute again.

A key and a value depend on their own position and what came before it, so they hold for good. The
cache keeps them, rotated, for every layer: `key_LCKH` and `value_LCKH`, of which the first `length`
of C positions are filled.

Writing has two steps. Each layer `write`s its new keys and values behind the filled part, and only
when the whole forward pass is done does `advance` count them in. A pass that stops half-way, by an
error or by Ctrl-C, therefore leaves the cache as it was.
"""

from __future__ import annotations

import os

import numpy as np

from llama_ref.config import Config
from llama_ref.errors import BadRequest, LimitExceeded, is_whole, shown

FIRST_CAPACITY = 256
"""Positions a cache of no stated capacity begins with; it doubles from there."""


class KVCache:
    """Keys and values of one sequence, for all layers.

    Parameters
    ----------
    config : Config
        The blueprint; L, K, H and the longest context are read from it.
    dtype : dtype
        That of the activations.
    capacity : int, optional
        C, the positions to hold. One more is an error, until `reserve` is called. If None, the
        cache grows by doubling as far as the model's context length.
    owner : object, optional
        The model whose keys these are; another one refuses the cache.

    Attributes
    ----------
    length : int
        Positions filled so far.
    position_C : ndarray of shape (C,), int64
        The RoPE position of each.
    """

    def __init__(
        self,
        config: Config,
        dtype: np.dtype,
        capacity: int | None = None,
        *,
        owner: object = None,
    ):
        self.config, self.dtype, self.owner = config, np.dtype(dtype), owner
        self.grows = capacity is None
        self.length = 0
        first = min(FIRST_CAPACITY, config.context_length) if capacity is None else capacity
        self._allocate(first)

    @property
    def capacity(self) -> int:
        """C, the positions there is room for."""
        return self.position_C.shape[0]

    @property
    def next_position(self) -> int:
        """The RoPE position of a token that continues the sequence."""
        return int(self.position_C[self.length - 1]) + 1 if self.length else 0

    @property
    def nbytes(self) -> int:
        """Bytes allocated for keys and values."""
        return self.key_LCKH.nbytes + self.value_LCKH.nbytes

    def write(
        self, layer: int, key_TKH: np.ndarray, value_TKH: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Put T keys and values behind the filled part; return all S of this layer as views.

        Raises
        ------
        LimitExceeded
            If C is too small. Nothing is overwritten or dropped.
        """
        end = self.length + key_TKH.shape[0]
        if end > self.capacity:
            raise LimitExceeded(
                "KVCache",
                expected=f"at most {self.capacity} positions",
                found=end,
                next_step="call reserve(), or make the cache with a larger capacity",
            )
        self.key_LCKH[layer, self.length : end] = key_TKH
        self.value_LCKH[layer, self.length : end] = value_TKH
        return self.key_LCKH[layer, :end], self.value_LCKH[layer, :end]

    def advance(self, position_T: np.ndarray) -> None:
        """Count T written positions in, once every layer has written them."""
        end = self.length + len(position_T)
        self.position_C[self.length : end] = position_T
        self.length = end

    def make_room(self, n_tokens: int) -> None:
        """Grow for `n_tokens` more, if no capacity was stated; otherwise raise if there is no room.

        Raises
        ------
        LimitExceeded
            If a stated capacity, or the context length, would be passed.
        """
        needed = self.length + n_tokens
        limit = self.config.context_length if self.grows else self.capacity
        if needed > limit:
            raise LimitExceeded(
                "context length" if self.grows else "KVCache",
                expected=f"at most {limit} positions",
                found=f"{self.length} filled and {n_tokens} more",
                next_step=None if self.grows else "call reserve() first",
            )
        if needed > self.capacity:
            self.reserve(min(max(needed, 2 * self.capacity), limit))

    def reserve(self, capacity: int) -> None:
        """Make room for `capacity` positions in all, keeping what is filled; never shrinks."""
        if not is_whole(capacity, 0):
            raise BadRequest("reserve", expected="a number of positions", found=shown(capacity))
        if capacity <= self.capacity:
            return
        key_LSKH, value_LSKH = self.key_LCKH[:, : self.length], self.value_LCKH[:, : self.length]
        position_S = self.position_C[: self.length]
        self._allocate(capacity)
        self.key_LCKH[:, : self.length], self.value_LCKH[:, : self.length] = key_LSKH, value_LSKH
        self.position_C[: self.length] = position_S

    def truncate(self, length: int) -> None:
        """Forget all but the first `length` positions, to continue from there another way."""
        if not is_whole(length, 0, self.length):
            raise BadRequest("truncate", expected=f"0 to {self.length}", found=shown(length))
        self.length = length

    def prefix(self, length: int) -> KVCache:
        """Return a copy of the first `length` positions, which goes its own way from there.

        The keys and values of a token depend on nothing after it, so texts that begin alike share
        the cache of their beginning.
        """
        if not is_whole(length, 1, self.length):
            raise BadRequest("prefix", expected=f"1 to {self.length}", found=shown(length))
        copy = KVCache(self.config, self.dtype, length, owner=self.owner)
        copy.key_LCKH[:] = self.key_LCKH[:, :length]
        copy.value_LCKH[:] = self.value_LCKH[:, :length]
        copy.position_C[:] = self.position_C[:length]
        copy.length, copy.grows = length, True
        return copy

    def _allocate(self, capacity: int) -> None:
        shape = (self.config.n_layers, capacity, self.config.n_kv_heads, self.config.head_dim)
        if not is_whole(capacity, 1, self.config.context_length):
            raise LimitExceeded(
                "KVCache capacity",
                expected=f"1 to the context length {self.config.context_length}",
                found=shown(capacity),
            )
        n_bytes = 2 * int(np.prod(shape, dtype=object)) * self.dtype.itemsize
        if n_bytes > physical_memory():
            raise LimitExceeded(
                "KVCache",
                expected=f"at most the {physical_memory():,} bytes of this machine's memory",
                found=f"{n_bytes:,} for {capacity} positions",
                next_step="ask for a smaller capacity",
            )
        self.key_LCKH, self.value_LCKH = np.empty(shape, self.dtype), np.empty(shape, self.dtype)
        self.position_C = np.zeros(capacity, np.int64)

    def __repr__(self) -> str:
        return (
            f"<KVCache: {self.length} of {self.capacity} positions, {self.dtype}, "
            f"{self.nbytes / 1e6:.1f} MB>"
        )


def physical_memory() -> int:
    """Return the bytes of memory of this machine, or a bound no machine reaches if it won't say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 2**48
