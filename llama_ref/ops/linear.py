"""A linear map without bias: every output is the dot product of a token with one row of the weight.

    y[t, f] = sum_d x[t, d] * weight[f, d]             weight is stored [out, in], as torch does

Here the time goes: all but a few percent of a forward pass is this one function, and the
weights outweigh everything else in memory. A matrix already in the dtype of the arithmetic goes to
BLAS as it is, straight from the mapped file. Any other is widened a block of rows at a time into
a small buffer, one for each thread, so a bfloat16 checkpoint is never held in float32.

Source: F.linear in torch; ColumnParallelLinear in meta-llama/llama-models, models/llama3/model.py.
"""

from __future__ import annotations

import numpy as np

from llama_ref.errors import BadRequest
from llama_ref.numerics import Matrix, round_to, rows_of, wide_dtype, widen
from llama_ref.threads import in_all_threads

BLOCK_ELEMENTS = 2**20
"""Weights widened at a time: 4 MiB of float32, small enough to stay in a shared cache."""

FEW_ROWS = 32
"""Up to here W @ x.T is faster than x @ W.T, since BLAS blocks along the longer side.

It is faster again in blocks of `BLOCK_ROWS` rows of W: BLAS copies W into an order of its own
before it multiplies, and of a block the copy is still in the cache when it is used (W of 8192 x
2048, two cores: 8 rows of x took 6.8 ms whole and 4.8 in blocks, 16 rows 8.6 and 5.5).
"""

BLOCK_ROWS = 1024
"""Rows of W multiplied at a time with few rows of x."""

WIDE_ROWS = 256
"""Rows widened at a time, at the least, for many rows of x: BLAS copies x for each block anew."""


def linear(x_TD: np.ndarray, weight_FD: np.ndarray | Matrix) -> np.ndarray:
    """Multiply every token by a weight matrix stored [out, in].

    Parameters
    ----------
    x_TD : ndarray of shape (T, D), floating
        Activations; their dtype is the precision.
    weight_FD : ndarray or Matrix of shape (F, D), floating
        Of any storage dtype. What is stored wider than `x_TD` is rounded to its dtype, as peers
        do on loading; what is stored narrower is widened exactly.

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
    if (
        isinstance(weight_FD, np.ndarray)
        and weight_FD.dtype == wide_dtype(x_TD.dtype) == x_TD.dtype
    ):
        return _product(x_TD, weight_FD)

    y_TF = np.empty((x_TD.shape[0], weight_FD.shape[0]), x_TD.dtype)
    if y_TF.size:  # no token, as in all chunks of a prompt but the last: no weight is read
        _widened_product(widen(x_TD), weight_FD, out=y_TF)
    return y_TF


def _product(x_TD: np.ndarray, weight_FD: np.ndarray) -> np.ndarray:
    """Return x W^T in the order of operands that BLAS runs fastest for this many tokens."""
    T = x_TD.shape[0]
    if T == 1:
        return (weight_FD @ x_TD[0])[None]
    if T > FEW_ROWS:
        return x_TD @ weight_FD.T
    F = weight_FD.shape[0]
    y_FT = np.empty((F, T), x_TD.dtype)
    for lo in range(0, F, BLOCK_ROWS):
        np.matmul(weight_FD[lo : lo + BLOCK_ROWS], x_TD.T, out=y_FT[lo : lo + BLOCK_ROWS])
    return np.ascontiguousarray(y_FT.T)


def _widened_product(x_TD: np.ndarray, weight_FD: np.ndarray | Matrix, out: np.ndarray) -> None:
    """Fill `out` with x W^T, rounded to its dtype; each thread widens and multiplies its blocks."""
    T, (F, D) = x_TD.shape[0], weight_FD.shape
    n_rows = min(F, max(BLOCK_ELEMENTS // D, WIDE_ROWS if T > FEW_ROWS else 1))
    starts = iter(range(0, F, n_rows))  # shared: whoever is free takes the next

    def work() -> None:
        buffer_RD = np.empty((n_rows, D), x_TD.dtype)
        for lo in starts:
            hi = min(lo + n_rows, F)
            block_RD = _widened(rows_of(weight_FD, lo, hi), out.dtype, buffer_RD[: hi - lo])
            out[:, lo:hi] = round_to(_product(x_TD, block_RD), out.dtype)

    in_all_threads(work, at_most=-(-F // n_rows))


def _widened(rows_RD: np.ndarray, dtype: np.dtype, buffer_RD: np.ndarray) -> np.ndarray:
    """Return rows as `dtype` holds them, in the buffer if that is not what they are."""
    if dtype != buffer_RD.dtype:
        rows_RD = round_to(rows_RD, dtype)
    if rows_RD.dtype == buffer_RD.dtype:
        return rows_RD
    np.copyto(buffer_RD, rows_RD, casting="same_kind")
    return buffer_RD
