"""Weights from a formula ("synth-1"): any element of any tensor, from its name and its index.

    h(i)            the hash of `counter_hash`, i counting row by row through the shape [out, in]
                    that Hugging Face files have
    matrix element  = ((h >> 25) - (h & 127)) * 2^-e,   e = round(log2(52.25 sqrt(fan_in) / gain))
    norm gain       = (96 + (h & 63)) / 128
    token ids       = h(i) mod V, name "tokens"

Any language, on any device, computes the same weights from these lines alone (docs/, "Synthetic
weights", has them in four); each is exact in bfloat16 and float16, so two implementations never
differ by their weights. The integers lie in -127 … 127 with standard deviation 52.25. The gains
keep attention scores spread alike through 126 layers: small uniform dummies or unit norms would
hide most bugs.

The variant "outliers" is for the range of activations, which in trained models a few channels
stretch by orders of magnitude. Elements of some channels are multiplied, still exact in 16 bits:

    norm gain       by 16 in the channels  h(2^32 - 1), h(2^32 - 2) and h(2^32 - 3)  mod D
    embedding       by 64 in the column    h(2^32 - 1)  mod D

with h of the tensor's own name. No tensor is so large that these hashes are those of an element.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from llama_ref.checkpoint.counter_hash import N_HASHES, hash_blocks
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

VARIANTS = ("plain", "outliers")
N_OUTLIER_GAINS, OUTLIER_GAIN = 3, np.float32(16)
OUTLIER_EMBEDDING = np.float32(64)


def tensor(
    name: str,
    shape: tuple[int, ...],
    seed: int = 0,
    lo: int = 0,
    hi: int | None = None,
    *,
    variant: str = "plain",
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
    variant : {"plain", "outliers"}
        Whether some channels of gains and embedding stand out.

    Returns
    -------
    ndarray of shape (hi - lo, *shape[1:]), float32

    Raises
    ------
    Unsupported
        If the formula has no scale for a tensor of that name and number of axes.
    BadRequest
        If the shape, the seed, the rows or the variant are none.
    LimitExceeded
        If the tensor has more than 2^32 elements, more than the hash can count.

    Examples
    --------
    >>> tensor("model.norm.weight", (4,), seed=1).tolist()
    [1.0859375, 1.03125, 1.1328125, 1.0]
    """
    exponent, has_outliers = _exponent(name, shape), check_variant(variant) == "outliers"
    hi = shape[0] if hi is None else hi
    if not 0 <= lo <= hi <= shape[0]:
        raise BadRequest(
            f"rows of {shown(name)}", expected=f"0 <= lo <= hi <= {shape[0]}", found=(lo, hi)
        )
    values = np.empty((hi - lo, *shape[1:]), np.float32)
    flat = values.reshape(-1)
    for at, hashes in hash_blocks(name, seed, lo * math.prod(shape[1:]), flat.size):
        block = flat[at : at + hashes.size]
        if exponent is None:
            np.divide(96 + (hashes & 63), 128, out=block)
        else:
            _to_elements(hashes, exponent, out=block)
    if has_outliers:
        channels, factor = outlier_channels(name, shape[-1], seed)
        first = lo if len(shape) == 1 else 0  # whose channels are its rows
        values[..., [c - first for c in channels if 0 <= c - first < values.shape[-1]]] *= factor
    return values


def outlier_channels(name: str, n_channels: int, seed: int) -> tuple[list[int], np.float32]:
    """Return which channels of a tensor stand out in the variant "outliers", and how far.

    Parameters
    ----------
    name : str
        The Hugging Face name.
    n_channels : int
        The last axis of the tensor.
    seed : int
        0 to 2^32 - 1.

    Returns
    -------
    (list of int, float32)
        Sorted and distinct: none for a projection, one for the embedding, up to three for a gain.

    Raises
    ------
    BadRequest
        If the seed is out of range.
    """
    kind = _kind(name)
    is_gain = kind.endswith("norm")
    n = N_OUTLIER_GAINS if is_gain else int(kind == "embed_tokens")
    blocks = hash_blocks(name, seed, N_HASHES - n, n)
    channels = {h % n_channels for _, hashes in blocks for h in hashes.tolist()}
    return sorted(channels), OUTLIER_GAIN if is_gain else OUTLIER_EMBEDDING


def checkpoint(
    config: Config, seed: int = 0, variant: str = "plain"
) -> Iterator[tuple[str, np.ndarray]]:
    """Compute every tensor of a model, one at a time, in the order in which the model uses them.

    Parameters
    ----------
    config : Config
        The blueprint.
    seed : int
        0 to 2^32 - 1.
    variant : {"plain", "outliers"}
        As of `tensor`.

    Yields
    ------
    (str, ndarray of float32)
        Hugging Face name and values. `lm_head.weight` comes only where it is not tied to the
        embedding.
    """
    for name, shape in expected_shapes(config, "hf").items():
        yield name, tensor(name, shape, seed, variant=variant)


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
    for at, hashes in hash_blocks("tokens", seed, 0, n):
        ids[at : at + hashes.size] = hashes % vocab_size
    return ids


def check_variant(variant: str) -> str:
    """Return the variant, or raise `BadRequest` with those that exist."""
    if variant not in VARIANTS:
        raise BadRequest("variant", expected=" or ".join(VARIANTS), found=shown(variant))
    return variant


def _kind(name: str) -> str:
    """Return the last word of a name, ".weight" left out."""
    return name.removesuffix(".weight").rpartition(".")[2]


def _exponent(name: str, shape: tuple[int, ...]) -> int | None:
    """Return e of the elements 2^-e of a matrix, or None for the gain of a norm."""
    if not shape or min(shape) < 1:
        raise BadRequest(f"shape of {shown(name)}", expected="axes of 1 or more", found=shape)
    if math.prod(shape) > N_HASHES:
        raise LimitExceeded(
            f"elements of {shown(name)}", expected="at most 2^32", found=math.prod(shape)
        )
    kind = _kind(name)
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
    """Turn hashes, which are overwritten, into elements of a matrix: five operations each."""
    low = np.bitwise_and(hashes, 127, out=out.view(np.uint32))  # room that is needed later anyway
    hashes >>= 25
    hashes -= low  # wraps below 0, which is what an int32 reads as a negative number
    out[:] = hashes.view(np.int32)
    out *= np.float32(2.0**-exponent)
