"""A linear map without bias: every output is the dot product of a token with one row of the weight.

    y[t, f] = sum_d x[t, d] * weight[f, d]             weight is stored [out, in], as torch does

Here the time goes: all but a few percent of a forward pass is this one function, and the
weights outweigh everything else in memory. Three cases:

    one token, W in the dtype of the arithmetic     BLAS reads it, straight from the mapped file
    more tokens                                     each thread multiplies with some rows of W
    W in another dtype, or computed                 each thread widens those rows first, a few at a
                                                    time; a bfloat16 file is never held in float32

Source: F.linear in torch; ColumnParallelLinear in meta-llama/llama-models, models/llama3/model.py.
"""

from __future__ import annotations

import numpy as np

from llama_ref.errors import BadRequest
from llama_ref.numerics import Matrix, round_to, rows_of, wide_dtype, widen
from llama_ref.threads import blas_has_threads, in_all_threads

BLOCK_ELEMENTS = 2**20
"""Weights widened at a time: 4 MiB of float32, small enough to stay in a shared cache."""

BLOCK_ROWS, WIDE_ROWS = 512, 256
"""Rows of W multiplied at a time at the most; and, for many rows of x, at the least.

BLAS copies x into an order of its own for each block, so blocks must not be too small for it.
"""

MANY_TOKENS = 32
WORTH_A_THREAD = 2**23
"""Products and sums that take longer than waking a thread does."""


def linear(x_TD: np.ndarray, weight_FD: np.ndarray | Matrix) -> np.ndarray:
    """Multiply every token by a weight matrix stored [out, in].

    Parameters
    ----------
    x_TD : ndarray of shape (T, D), floating
        Activations; their dtype is the precision.
    weight_FD : ndarray or Matrix of shape (F, D), floating
        Of any storage dtype. What is stored wider than `x_TD` is rounded to its dtype, as peers
        do on loading; what is stored narrower, quantised too, is widened exactly.

    Returns
    -------
    ndarray of shape (T, F), dtype of `x_TD`, C order

    Raises
    ------
    BadRequest
        If `x_TD` or the weight is no matrix, or their last axes differ.

    Notes
    -----
    Precision: products and sums widened, in an order that BLAS chooses; one rounding at the end.

    Examples
    --------
    >>> linear(np.array([[1.0, 10.0]]), np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))
    array([[21., 43., 65.]])
    """
    if x_TD.ndim != 2 or len(weight_FD.shape) != 2 or x_TD.shape[1] != weight_FD.shape[1]:
        raise BadRequest(
            "linear shapes",
            expected="x (T, D) and weight (F, D)",
            found=f"{x_TD.shape} and {weight_FD.shape}",
        )
    terms = getattr(weight_FD, "terms", None)
    if terms:  # a matrix and what was added to it later
        first, *others = (linear(x_TD, term) for term in terms)
        return sum(others, start=first)
    T, F = x_TD.shape[0], weight_FD.shape[0]
    if T == 1 and _is_ready(weight_FD, x_TD.dtype) and blas_has_threads():
        return (weight_FD @ x_TD[0])[None]
    y_TF = np.empty((T, F), x_TD.dtype)
    if y_TF.size:  # no token, as in all chunks of a prompt but the last: no weight is read
        prepare = getattr(weight_FD, "prepare", None)
        wide_TD = prepare(widen(x_TD)) if prepare else widen(x_TD)
        _multiply(wide_TD, getattr(weight_FD, "prepared", weight_FD), out=y_TF)
    return y_TF


def _is_ready(weight_FD: np.ndarray | Matrix, dtype: np.dtype) -> bool:
    """Whether BLAS can multiply with the weight as it is."""
    is_array = isinstance(weight_FD, np.ndarray)
    return is_array and weight_FD.dtype == wide_dtype(dtype) == dtype


def _multiply(x_TD: np.ndarray, weight_FD: np.ndarray | Matrix, out: np.ndarray) -> None:
    """Fill `out` with x W^T, rounded to its dtype; each thread takes the next rows of W.

    W x^T is what is computed: BLAS is faster at it than at x W^T for up to some hundred tokens,
    and as fast beyond.
    """
    F, D = weight_FD.shape
    n_rows = _block_rows(x_TD.shape[0], F, D, _is_ready(weight_FD, out.dtype))
    starts = iter(range(0, F, n_rows))  # shared: whoever is free takes the next
    held = x_TD.dtype if getattr(weight_FD, "is_quantised", False) else out.dtype

    def work() -> None:
        buffer_RD: np.ndarray | None = None
        for lo in starts:
            hi = min(lo + n_rows, F)
            rows_RD = rows_of(weight_FD, lo, hi)
            if rows_RD.dtype != x_TD.dtype or held != x_TD.dtype:
                if buffer_RD is None:
                    buffer_RD = np.empty((n_rows, D), x_TD.dtype)
                rows_RD = _widened(rows_RD, held, buffer_RD[: hi - lo])
            out[:, lo:hi] = round_to(_product(rows_RD, x_TD), out.dtype)

    in_all_threads(work, at_most=-(-F // n_rows))


def _block_rows(T: int, F: int, D: int, is_ready: bool) -> int:
    """Return how many rows of W to multiply at a time, by the shapes alone: bits depend on it."""
    if T * F * D < WORTH_A_THREAD and F * D <= BLOCK_ELEMENTS:
        return F
    if is_ready:
        return min(BLOCK_ROWS, -(-F // 4))
    n_rows = max(BLOCK_ELEMENTS // D, WIDE_ROWS if T > MANY_TOKENS else 1)
    return min(BLOCK_ROWS, n_rows, -(-F // 4))


def _product(rows_RD: np.ndarray, x_TD: np.ndarray) -> np.ndarray:
    """Return x W^T for some rows of W: shape (T, R)."""
    return (rows_RD @ x_TD[0])[None] if len(x_TD) == 1 else (rows_RD @ x_TD.T).T


def _widened(rows_RD: np.ndarray, dtype: np.dtype, buffer_RD: np.ndarray) -> np.ndarray:
    """Return rows as `dtype` holds them, in the buffer if that is not what they are."""
    if dtype != buffer_RD.dtype:
        rows_RD = round_to(rows_RD, dtype)
    if rows_RD.dtype == buffer_RD.dtype:
        return rows_RD
    np.copyto(buffer_RD, rows_RD, casting="same_kind")
    return buffer_RD
