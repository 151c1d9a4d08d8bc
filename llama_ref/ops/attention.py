"""Causal attention with grouped heads: G = N/K query heads share each key/value head.

    probs = softmax(query . key / sqrt(H))   over the positions a query may see: its own and earlier
    ctx   = sum of the values, weighted by probs

The T queries are the last T of the S positions, so query t sees positions 0 ... S - T + t. The
three steps stand alone (`attention_scores`, `attention_probs`, `attention_mix`), and `attention`
runs them over blocks of queries, each over whole rows of keys: memory grows with S and not with
T * S, and every rounding stays where the released codes have it. This is not flash attention, whose
running maximum rounds elsewhere. Keys and values are never repeated to N heads.

Source: Vaswani et al. 2017, arXiv:1706.03762; Ainslie et al. 2023, arXiv:2305.13245; Attention in
meta-llama/llama-models, models/llama3/model.py; eager_attention_forward in transformers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from llama_ref.errors import BadRequest, NonFiniteError
from llama_ref.numerics import round_to, widen
from llama_ref.ops.softmax import softmax
from llama_ref.threads import blas_has_threads, in_all_threads

SCORES_PER_PIECE, MANY_QUERIES = 2**22, 256
"""Scores that a thread holds at once, 16 MiB of float32; and queries, at the most."""

FEW_SCORES = 2**15
"""Up to here all heads are one piece, as no thread is worth waking."""

Scaling = Callable[[np.ndarray, int], np.ndarray]


def over_root_width(scores: np.ndarray, head_dim: int) -> np.ndarray:
    """Divide by sqrt(H), as Meta's code does; widened, then rounded to the dtype of `scores`."""
    return round_to(widen(scores) / math.sqrt(head_dim), scores.dtype)


def times_inverse_root_width(scores: np.ndarray, head_dim: int) -> np.ndarray:
    """Multiply by H^-0.5, as transformers does; widened, then rounded to the dtype of `scores`."""
    return round_to(widen(scores) * head_dim**-0.5, scores.dtype)


def attention(
    query_TNH: np.ndarray, key_SKH: np.ndarray, value_SKH: np.ndarray, *, scaling: Scaling
) -> np.ndarray:
    """Mix values by how well each query matches the keys it may see.

    Parameters
    ----------
    query_TNH : ndarray of shape (T, N, H), floating
        Rotated queries, for the last T of the S positions.
    key_SKH, value_SKH : ndarray of shape (S, K, H), dtype of `query_TNH`
        Rotated keys, and values, of all S positions. Query head n reads head n // (N/K).
    scaling : over_root_width or times_inverse_root_width
        How scores are divided by sqrt(H); the two differ by a rounding (see `lineage.py`).

    Returns
    -------
    ndarray of shape (T, N, H), dtype of `query_TNH`

    Raises
    ------
    BadRequest
        If shapes do not fit, or T > S.

    Notes
    -----
    Precision: scores are rounded after the product and again after the scaling, probabilities once
    (softmax is widened), the mixture once.
    Law: with G > 1, equal to attention over keys and values repeated G times.
    Law: what happens after a position does not change what was computed at it.

    Examples
    --------
    Equal scores average the values seen so far:

    >>> value_SKH = np.array([2.0, 4.0, 9.0]).reshape(3, 1, 1)
    >>> attention(np.zeros((3, 1, 1)), np.zeros((3, 1, 1)), value_SKH,
    ...           scaling=over_root_width).ravel()
    array([2., 3., 5.])
    """
    _check_shapes(query_TNH, key_SKH, value_SKH)
    T, N, _ = query_TNH.shape
    S = key_SKH.shape[0]
    ctx_TNH = np.empty_like(query_TNH)
    K, G = key_SKH.shape[1], N // key_SKH.shape[1]
    alone = T * N * S <= FEW_SCORES or (T == 1 and blas_has_threads())
    pieces = iter([(0, T, slice(0, K))] if alone else list(_pieces(T, S, K, G)))  # for all threads

    def work() -> None:
        for lo, hi, heads in pieces:
            seen = S - T + hi  # by the last query of the piece: no later key is read
            own = slice(heads.start * G, heads.stop * G)
            scores_KGTS = attention_scores(
                query_TNH[lo:hi, own], key_SKH[:seen, heads], scaling=scaling
            )
            probs_KGTS = attention_probs(scores_KGTS)
            ctx_TNH[lo:hi, own] = attention_mix(probs_KGTS, value_SKH[:seen, heads])

    if alone:
        work()
    else:
        in_all_threads(work, at_most=K)
    return ctx_TNH


def _pieces(T: int, S: int, K: int, G: int) -> Iterator[tuple[int, int, slice]]:
    """Yield queries lo to hi - 1 and the one key head that they are worked on with.

    The keys of one head at a time are read again and again from a cache, and not from memory.
    """
    n_queries = max(1, min(SCORES_PER_PIECE // (G * S), MANY_QUERIES))
    for k in range(K):
        for lo in range(0, T, n_queries):
            yield lo, min(lo + n_queries, T), slice(k, k + 1)


def packed_attention(
    query_TNH: np.ndarray,
    keys_and_values: Sequence[tuple[np.ndarray, np.ndarray]],
    lengths: Sequence[int],
    *,
    scaling: Scaling,
) -> np.ndarray:
    """Attend within each of several sequences whose queries are packed end to end.

    Parameters
    ----------
    query_TNH : ndarray of shape (T, N, H)
        The queries of all sequences, one sequence after the other; T is the sum of `lengths`.
    keys_and_values : sequence of (key_SKH, value_SKH)
        One pair per sequence, each with its own S.
    lengths : sequence of int
        How many of the queries belong to each sequence.
    scaling : over_root_width or times_inverse_root_width

    Returns
    -------
    ndarray of shape (T, N, H), dtype of `query_TNH`

    Notes
    -----
    Law: each sequence comes out as if it were alone.
    """
    own = np.split(query_TNH, np.cumsum(lengths)[:-1])
    return np.concatenate(
        [
            attention(own_TNH, key_SKH, value_SKH, scaling=scaling)
            for own_TNH, (key_SKH, value_SKH) in zip(own, keys_and_values, strict=True)
        ]
    )


def attention_scores(query_TNH: np.ndarray, key_SKH: np.ndarray, *, scaling: Scaling) -> np.ndarray:
    """Return how well every query matches every key, scaled, not yet masked: (K, G, T, S)."""
    T, N, H = query_TNH.shape
    S, K, _ = key_SKH.shape
    # Query head n reads key head n // G: consecutive heads are a group, stacked as rows of one
    # product per key head, so that BLAS reads each key once and nothing is repeated in memory.
    query_KGTH = widen(query_TNH).reshape(T, K, N // K, H).transpose(1, 2, 0, 3)
    key_KHS = widen(key_SKH).transpose(1, 2, 0)
    scores_KMS = query_KGTH.reshape(K, N // K * T, H) @ key_KHS
    return scaling(round_to(scores_KMS, query_TNH.dtype), H).reshape(K, N // K, T, S)


def attention_probs(scores_KGTS: np.ndarray) -> np.ndarray:
    """Return the probabilities over visible positions; the queries are the last T of S positions.

    Hidden scores are *replaced* by minus infinity. The released codes add a mask, of minus infinity
    or the lowest finite number: the same zeros. A mask of -10,000, as some ports add, is a number
    like others, which a large score outweighs.
    """
    T, S = scores_KGTS.shape[-2:]
    if T > 1:  # a single query is the last position and sees everything
        visible_TS = np.arange(S) <= np.arange(S - T, S)[:, None]
        scores_KGTS = np.where(visible_TS, scores_KGTS, scores_KGTS.dtype.type(-np.inf))
    try:
        return softmax(scores_KGTS)
    except BadRequest:
        raise NonFiniteError(
            "attention scores",
            expected="a finite one in every row, since a query sees its own position",
            found="a row of minus infinities",
        ) from None


def attention_mix(probs_KGTS: np.ndarray, value_SKH: np.ndarray) -> np.ndarray:
    """Return the values weighted by the probabilities, heads side by side again: (T, N, H)."""
    K, G, T, S = probs_KGTS.shape
    H = value_SKH.shape[-1]
    value_KSH = widen(value_SKH).transpose(1, 0, 2)
    ctx_KMH = widen(probs_KGTS).reshape(K, G * T, S) @ value_KSH
    ctx_TKGH = ctx_KMH.reshape(K, G, T, H).transpose(2, 0, 1, 3)
    return round_to(ctx_TKGH.reshape(T, K * G, H), probs_KGTS.dtype)


def _check_shapes(query_TNH: np.ndarray, key_SKH: np.ndarray, value_SKH: np.ndarray) -> None:
    match query_TNH.shape, key_SKH.shape:
        case (T, N, H), (S, K, key_width) if (
            value_SKH.shape == key_SKH.shape and key_width == H and 0 < T <= S and K and N % K == 0
        ):
            return
    raise BadRequest(
        "attention shapes",
        expected="query (T, N, H), key and value (S, K, H), K divides N, 0 < T <= S",
        found=f"{query_TNH.shape}, {key_SKH.shape}, {value_SKH.shape}",
    )
