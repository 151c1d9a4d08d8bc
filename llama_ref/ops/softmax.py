"""Softmax: scores to probabilities that are positive and sum to one.

    p[i] = exp(x[i] - max x) / sum_j exp(x[j] - max x)

Subtracting the maximum changes nothing mathematically and keeps exp from overflowing.

Source: F.softmax(scores.float(), dim=-1) in meta-llama/llama-models, models/llama3/model.py.
"""

from __future__ import annotations

import numpy as np

from llama_ref.errors import BadRequest
from llama_ref.numerics import round_to, widen


def softmax(x: np.ndarray) -> np.ndarray:
    """Exponentiate and normalise the last axis.

    Parameters
    ----------
    x : ndarray of any shape, floating
        Scores; minus infinity means "not possible" and becomes exactly 0.

    Returns
    -------
    ndarray, shape and dtype of `x`

    Raises
    ------
    BadRequest
        If a row has nothing but minus infinity: no distribution exists (naively it is NaN).

    Notes
    -----
    Precision: widened throughout, one rounding at the end.
    Law: softmax(x + c) = softmax(x).

    Examples
    --------
    >>> softmax(np.array([0.0, np.log(3.0), -np.inf])).round(6)
    array([0.25, 0.75, 0.  ])
    """
    wide = widen(x)
    highest = wide.max(axis=-1, keepdims=True)
    if np.isneginf(highest).any():
        raise BadRequest(
            "softmax", expected="a possible entry in every row", found="a row of minus infinities"
        )
    with np.errstate(over="ignore", under="ignore"):  # to minus infinity, or a probability of 0
        exp_x = wide - highest
        np.exp(exp_x, out=exp_x)
        exp_x /= exp_x.sum(axis=-1, keepdims=True)
    return round_to(exp_x, x.dtype)
