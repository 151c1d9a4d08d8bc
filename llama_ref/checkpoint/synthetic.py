"""Weights from a formula ("synth-1"): any element of any tensor, from its name and its index.

    mix(x):       x ^= x >> 16;  x *= 0x7feb352d;  x ^= x >> 15;  x *= 0x846ca68b;  x ^= x >> 16
    fnv1a(name):  h = 0x811c9dc5;  for each byte b:  h = (h ^ b) * 0x01000193
    k0 = mix(fnv1a(name) ^ mix(seed));   k1 = mix(k0 + 0x9e3779b9)
    h(i) = mix(mix(i + k0) ^ k1)             all in unsigned 32-bit integers that wrap

    matrix element  = ((h >> 25) - (h & 127)) * 2^-e,   e = round(log2(52.25 sqrt(fan_in) / gain))
    norm gain       = (96 + (h & 63)) / 128

i counts row by row through the shape that Hugging Face files have, [out, in]. Any language, on any
device, computes the same weights from these lines alone; each is exact in bfloat16 and float16, so
two implementations never differ by their weights. The integers lie in -127 … 127 with standard
deviation 52.25. The gains keep attention scores spread alike through 126 layers: small uniform
dummies or unit norms would hide most bugs.

Source: mix is "lowbias32" of https://github.com/skeeto/hash-prospector; fnv1a is the
32-bit FNV-1a of http://www.isthe.com/chongo/tech/comp/fnv/.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from llama_ref.config import Config
from llama_ref.errors import BadRequest, LimitExceeded, Unsupported, shown
from llama_ref.names import expected_shapes

GAINS = {
    "q_proj": 2.0,
    "k_proj": 1.2,
    "v_proj": 1.0,
    "o_proj": 0.5,
    "gate_proj": 1.5,
    "up_proj": 1.0,
    "down_proj": 0.5,
    "lm_head": 2.0,
}
EMBEDDING_EXPONENT = 12  # so small that the eps of the first norm shows
MATRIX_DEVIATION = 52.25
N_HASHES = 2**32
BLOCK = 65_536  # hashes at a time: their temporaries stay in the cache


def tensor(
    name: str, shape: tuple[int, ...], seed: int = 0, lo: int = 0, hi: int | None = None
) -> np.ndarray:
    """Compute rows lo to hi - 1 of a tensor; no other row is computed.

    Parameters
    ----------
    name : str
        The Hugging Face name. It chooses the values, and by its last words their scale.
    shape : tuple of int
        Shape of the whole tensor: [out, in] for a matrix, [D] for the gain of a norm.
    seed : int
        0 to 2^32 - 1.
    lo, hi : int
        Rows wanted, counted along the first axis; all by default.

    Returns
    -------
    ndarray of shape (hi - lo, *shape[1:]), float32

    Raises
    ------
    Unsupported
        If the formula has no scale for a tensor of that name and number of axes.
    BadRequest
        If the shape, the seed or the rows are out of range.
    LimitExceeded
        If the tensor has more than 2^32 elements, more than the hash can count.

    Examples
    --------
    >>> tensor("model.norm.weight", (4,), seed=1).tolist()
    [1.0859375, 1.03125, 1.1328125, 1.0]
    """
    exponent = _exponent(name, shape)
    hi = shape[0] if hi is None else hi
    if not 0 <= lo <= hi <= shape[0]:
        raise BadRequest(
            f"rows of {shown(name)}", expected=f"0 <= lo <= hi <= {shape[0]}", found=(lo, hi)
        )
    values = np.empty((hi - lo, *shape[1:]), np.float32)
    for at, hashes in _hash_blocks(name, seed, lo * math.prod(shape[1:]), values.size):
        block = values.reshape(-1)[at : at + hashes.size]
        if exponent is None:
            np.divide(96 + (hashes & 63), 128, out=block)
        else:
            _to_elements(hashes, exponent, out=block)
    return values


def checkpoint(config: Config, seed: int = 0) -> Iterator[tuple[str, np.ndarray]]:
    """Compute every tensor of a model, one at a time, in the order in which the model uses them.

    Parameters
    ----------
    config : Config
        The blueprint.
    seed : int
        0 to 2^32 - 1.

    Yields
    ------
    (str, ndarray of float32)
        Hugging Face name and values. `lm_head.weight` comes only where it is not tied to the
        embedding.
    """
    for name, shape in expected_shapes(config, "hf").items():
        yield name, tensor(name, shape, seed)


def token_ids(n: int, vocab_size: int, seed: int = 0) -> np.ndarray:
    """Compute token ids: h(i) mod vocab_size under the name "tokens".

    Parameters
    ----------
    n : int
        How many.
    vocab_size : int
        Ids are below it.
    seed : int
        0 to 2^32 - 1.

    Returns
    -------
    ndarray of shape (n,), int64

    Raises
    ------
    BadRequest
        If a number is out of range.
    """
    if not (0 <= n <= N_HASHES and 1 <= vocab_size < N_HASHES):
        raise BadRequest(
            "tokens",
            expected="0 <= n <= 2^32, 1 <= vocab_size < 2^32",
            found=f"n = {n}, vocab_size = {vocab_size}",
        )
    ids = np.empty(n, np.int64)
    for at, hashes in _hash_blocks("tokens", seed, 0, n):
        ids[at : at + hashes.size] = hashes % vocab_size
    return ids


def _exponent(name: str, shape: tuple[int, ...]) -> int | None:
    """Return e of the elements 2^-e of a matrix, or None for the gain of a norm."""
    if not shape or min(shape) < 1:
        raise BadRequest(f"shape of {shown(name)}", expected="axes of 1 or more", found=shape)
    if math.prod(shape) > N_HASHES:
        raise LimitExceeded(
            f"elements of {shown(name)}", expected="at most 2^32", found=math.prod(shape)
        )
    kind = name.removesuffix(".weight").rpartition(".")[2]
    if len(shape) == 1 and kind.endswith("norm"):
        return None
    if len(shape) == 2 and kind == "embed_tokens":
        return EMBEDDING_EXPONENT
    if len(shape) == 2 and kind in GAINS:
        return round(math.log2(MATRIX_DEVIATION * math.sqrt(shape[-1]) / GAINS[kind]))
    raise Unsupported(
        f"synthetic tensor {shown(name)} of shape {shape}",
        expected=f"a matrix embed_tokens, {', '.join(GAINS)}, or the gain of a norm",
    )


def _to_elements(hashes: np.ndarray, exponent: int, out: np.ndarray) -> None:
    """Turn hashes, which are overwritten, into elements of a matrix."""
    low = hashes & 127
    hashes >>= 25
    hashes -= low  # wraps below 0, which is what an int32 reads as a negative number
    out[:] = hashes.view(np.int32)
    out *= np.float32(2.0**-exponent)


def _hash_blocks(name: str, seed: int, start: int, n: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield h(start) … h(start + n - 1) in blocks, each with how many came before it.

    The array is filled anew for each block, so the caller may compute in place: NumPy spends more
    time on fetching fresh memory for temporaries of this size than on the arithmetic.
    """
    k0, k1 = _keys(name, seed)
    counter = np.arange(min(BLOCK, n), dtype=np.uint32)
    hashes, scratch = np.empty_like(counter), np.empty_like(counter)
    for at in range(0, n, BLOCK):
        size = min(BLOCK, n - at)
        np.add(counter[:size], np.uint32((start + at + k0) % N_HASHES), out=hashes[:size])
        _mix(hashes[:size], scratch[:size])
        hashes[:size] ^= np.uint32(k1)
        _mix(hashes[:size], scratch[:size])
        yield at, hashes[:size]


def _keys(name: str, seed: int) -> tuple[int, int]:
    """Return k0 and k1, which tell tensors and seeds apart."""
    if not isinstance(seed, int) or not 0 <= seed < N_HASHES:
        raise BadRequest("seed", expected="an integer, 0 to 2^32 - 1", found=shown(seed))
    fnv = 0x811C9DC5
    for byte in name.encode():
        fnv = (fnv ^ byte) * 0x01000193 % N_HASHES
    k0 = _mix_one(fnv ^ _mix_one(seed))
    return k0, _mix_one((k0 + 0x9E3779B9) % N_HASHES)


def _mix_one(x: int) -> int:
    one = np.array([x], np.uint32)
    _mix(one, np.empty_like(one))
    return int(one[0])


def _mix(x: np.ndarray, scratch: np.ndarray) -> None:
    """Replace each integer by its hash: reversible, and each bit depends on all."""
    x ^= np.right_shift(x, 16, out=scratch)
    x *= np.uint32(0x7FEB352D)
    x ^= np.right_shift(x, 15, out=scratch)
    x *= np.uint32(0x846CA68B)
    x ^= np.right_shift(x, 16, out=scratch)
