"""The hash behind the formula weights: 32 random-looking bits for a name, a seed and an index.

    mix(x):       x ^= x >> 16;  x *= 0x7feb352d;  x ^= x >> 15;  x *= 0x846ca68b;  x ^= x >> 16
    fnv1a(name):  h = 0x811c9dc5;  for each byte b:  h = (h ^ b) * 0x01000193
    k0 = mix(fnv1a(name) ^ mix(seed));   k1 = mix(k0 + 0x9e3779b9)
    h(i) = mix(mix(i + k0) ^ k1)             all in unsigned 32-bit integers that wrap

No state is carried from one index to the next, so any stretch can be had without what precedes it.
NumPy goes over a block once for each operation, and two short cuts, both exact, leave 12 of the 18
that h(i) is written with:

    at the start     i + k0 is low + 65536 H, with one H for 65,536 in a row. So x ^ (x >> 16) is
                     low ^ (65536 H + H), and low comes from a table that is made once.
    in the middle    x ^= x >> 16 undoes itself. So the last step of the inner mix, ^ k1, and the
                     first step of the outer mix are together x ^= k1 ^ (k1 >> 16).

Source: mix is "lowbias32" of https://github.com/skeeto/hash-prospector; fnv1a is the
32-bit FNV-1a of http://www.isthe.com/chongo/tech/comp/fnv/.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from llama_ref.errors import BadRequest, is_whole, shown

N_HASHES = 2**32
BLOCK = 2**18
"""Hashes at a time: few enough for a cache, and enough that two threads seldom want Python's lock
at once. (Two threads get 1.1 times as far as one with blocks of 2^16, 1.7 times with 2^18.)
"""

FIRST_FACTOR, SECOND_FACTOR = np.uint32(0x7FEB352D), np.uint32(0x846CA68B)
LOW = np.arange(2**16, dtype=np.uint32)
LOW.flags.writeable = False


def hash_blocks(name: str, seed: int, start: int, n: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield h(start) … h(start + n - 1) in blocks, each with how many came before it.

    Parameters
    ----------
    name : str
        What the hashes are for; another name gives others.
    seed : int
        0 to 2^32 - 1.
    start, n : int
        The first index, and how many.

    Yields
    ------
    (int, ndarray of uint32)
        At most `BLOCK` hashes. The array is filled anew for each block, so the caller may compute
        in place: NumPy spends more time on fetching fresh memory than on the arithmetic.

    Raises
    ------
    BadRequest
        If the seed is out of range.

    Examples
    --------
    >>> [hex(h) for _, block in hash_blocks("lm_head.weight", 1, 0, 1) for h in block.tolist()]
    ['0x44efcd9d']
    """
    k0, k1 = keys(name, seed)
    middle = np.uint32(k1 ^ k1 >> 16)
    hashes, scratch = np.empty((2, min(BLOCK, n)), np.uint32)
    for at in range(0, n, BLOCK):
        size = min(BLOCK, n - at)
        x, y = hashes[:size], scratch[:size]
        _begin(x, start + at + k0)
        _multiply_twice(x, y)
        x ^= middle
        _multiply_twice(x, y)
        x ^= np.right_shift(x, 16, out=y)
        yield at, x


def keys(name: str, seed: int) -> tuple[int, int]:
    """Return k0 and k1, which tell names and seeds apart.

    Raises
    ------
    BadRequest
        If the seed is no integer, or outside 0 to 2^32 - 1.
    """
    if not is_whole(seed, 0, N_HASHES - 1):
        raise BadRequest("seed", expected="an integer, 0 to 2^32 - 1", found=shown(seed))
    fnv = 0x811C9DC5
    for byte in name.encode():
        fnv = (fnv ^ byte) * 0x01000193 % N_HASHES
    k0 = mix(fnv ^ mix(int(seed)))
    return k0, mix((k0 + 0x9E3779B9) % N_HASHES)


def mix(x: int) -> int:
    """Scramble 32 bits: reversible, and each bit of the result depends on all."""
    x ^= x >> 16
    x = x * 0x7FEB352D % N_HASHES
    x ^= x >> 15
    x = x * 0x846CA68B % N_HASHES
    return x ^ x >> 16


def _begin(x: np.ndarray, first: int) -> None:
    """Fill x with what first, first + 1, … are after x ^= x >> 16."""
    at = 0
    while at < x.size:
        high, low = divmod((first + at) % N_HASHES, LOW.size)
        run = x[at : at + LOW.size - low]  # up to where the upper half changes
        np.bitwise_xor(LOW[low : low + run.size], np.uint32(high << 16 | high), out=run)
        at += run.size


def _multiply_twice(x: np.ndarray, scratch: np.ndarray) -> None:
    """Do in place what stands between the first and the last step of mix."""
    x *= FIRST_FACTOR
    x ^= np.right_shift(x, 15, out=scratch)
    x *= SECOND_FACTOR
