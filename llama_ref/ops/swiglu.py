"""SwiGLU: one half of the widened vector decides, smoothly, how much of the other half passes.

    y = silu(gate) * up            silu(g) = g * sigmoid(g) = g / (1 + exp(-g))

The product is what `down_proj` (Meta: w2) brings back to the model's width. Gate is HF's
`gate_proj` and Meta's w1; up is `up_proj` and w3.

Source: Shazeer 2020, arXiv:2002.05202; FeedForward in meta-llama/llama-models,
models/llama3/model.py.
"""

from __future__ import annotations

import numpy as np

from llama_ref.errors import BadRequest
from llama_ref.numerics import round_to, widen


def swiglu(gate_TF: np.ndarray, up_TF: np.ndarray) -> np.ndarray:
    """Pass `up` through the smooth gate silu(`gate`).

    Parameters
    ----------
    gate_TF, up_TF : ndarray of shape (T, F), floating, of one dtype
        The two projections of the feed-forward network.

    Returns
    -------
    ndarray of shape (T, F), dtype of `gate_TF`

    Raises
    ------
    BadRequest
        If shape or dtype of the two differ.

    Notes
    -----
    Precision: silu widened, rounded; the product widened, rounded again, as in both released codes.
    Differs from: fused kernels, which round once.

    Examples
    --------
    >>> swiglu(np.array([[-1e9, 0.0, 1e9]]), np.array([[2.0, 2.0, 2.0]]))
    array([[-0.e+00,  0.e+00,  2.e+09]])
    """
    if up_TF.shape != gate_TF.shape or up_TF.dtype != gate_TF.dtype:
        raise BadRequest(
            "swiglu up",
            expected=f"{gate_TF.dtype} of shape {gate_TF.shape}, like gate",
            found=f"{up_TF.dtype} of shape {up_TF.shape}",
        )
    wide_TF = widen(gate_TF)
    with np.errstate(over="ignore", under="ignore"):  # exp(1e9) is inf, and g / inf is the right 0
        silu_TF = np.negative(wide_TF)
        np.exp(silu_TF, out=silu_TF)
        silu_TF += 1
        np.divide(wide_TF, silu_TF, out=silu_TF)
        silu_TF = widen(round_to(silu_TF, gate_TF.dtype))
        silu_TF *= widen(up_TF)
        return round_to(silu_TF, gate_TF.dtype)
