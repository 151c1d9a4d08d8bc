"""Embedding: each token id picks one row of a table.

    y[t] = table[ids[t]]

No scaling by sqrt(D) (that is Gemma), no position added (Llama's positions enter in `rope`).

Source: tok_embeddings in meta-llama/llama-models, models/llama3/model.py.
"""

from __future__ import annotations

import numpy as np

from llama_ref.errors import BadRequest
from llama_ref.numerics import Matrix, round_to


def embed(ids_T: np.ndarray, table_VD: np.ndarray | Matrix, *, dtype: np.dtype) -> np.ndarray:
    """Look up one row of the table per token id.

    Parameters
    ----------
    ids_T : ndarray of shape (T,), integer
        Token ids, each in 0 ... V - 1.
    table_VD : ndarray or Matrix of shape (V, D), floating
        One row per token of the vocabulary; only the rows asked for are read.
    dtype : dtype
        The dtype of the activations, which every later op keeps.

    Returns
    -------
    ndarray of shape (T, D), `dtype`

    Raises
    ------
    BadRequest
        If an id is not an integer of the vocabulary. (NumPy would take -1 for the last row.)

    Notes
    -----
    Precision: a copy; the only rounding is that of a table stored wider than `dtype`.

    Examples
    --------
    >>> embed(np.array([2, 0]), np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]), dtype=np.float32)
    array([[4., 5.],
           [0., 1.]], dtype=float32)
    """
    check_ids(ids_T, table_VD.shape[0])
    if isinstance(table_VD, np.ndarray):
        return round_to(table_VD[ids_T], dtype)
    rows = [table_VD.rows(token_id, token_id + 1) for token_id in ids_T.tolist()]
    return round_to(np.concatenate(rows), dtype)


def check_ids(ids_T: np.ndarray, vocab_size: int) -> None:
    """Raise `BadRequest`, naming the position, unless `ids_T` holds integers of the vocabulary."""
    if ids_T.ndim != 1 or ids_T.dtype.kind not in "iu":
        raise BadRequest(
            "token ids",
            expected="a one-dimensional array of integers",
            found=f"{ids_T.ndim} dimensions of {ids_T.dtype}",
        )
    outside_T = (ids_T < 0) | (ids_T >= vocab_size)
    if outside_T.any():
        t = int(outside_T.argmax())
        raise BadRequest(
            f"token id at position {t}", expected=f"0 to {vocab_size - 1}", found=int(ids_T[t])
        )
