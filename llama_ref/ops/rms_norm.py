"""Root-mean-square normalisation: rescale each token's vector to unit RMS, then by a learned gain.

    y[d] = gain[d] * x[d] / sqrt(mean_d(x[d]^2) + eps)

Unlike LayerNorm there is no centring and no bias.

Source: Zhang & Sennrich 2019, arXiv:1910.07467; RMSNorm in meta-llama/llama-models,
models/llama3/model.py; LlamaRMSNorm in huggingface/transformers.
"""

from __future__ import annotations

import numpy as np

from llama_ref.errors import BadRequest
from llama_ref.numerics import round_to, widen


def rms_norm(x_TD: np.ndarray, gain_D: np.ndarray, *, eps: float) -> np.ndarray:
    """Normalise every token's vector by its root mean square.

    Parameters
    ----------
    x_TD : ndarray of shape (T, D), floating
        Activations.
    gain_D : ndarray of shape (D,), floating
        Learned scale per channel.
    eps : float
        Added to the mean square *inside* the root. Llama 3.1 uses 1e-5.

    Returns
    -------
    ndarray of shape (T, D), dtype of `x_TD`

    Raises
    ------
    BadRequest
        If the last axis of `x_TD` is not that of `gain_D`.

    Notes
    -----
    Precision: the mean square and the quotient are widened; the quotient is rounded to the dtype
    of `x_TD` *before* the gain (rounded to that dtype too) multiplies it, and the product is
    rounded again, as in both released codes.
    Differs from: ONNX and litgpt, which multiply first and round once (in bfloat16 one result in
    four moves by a step); the released codes, which multiply by rsqrt where this divides by the
    root (a float32 step, which moves four bfloat16 results in a million).
    Law: rms_norm(c x) = rms_norm(x) for c > 0 and eps = 0.

    Examples
    --------
    >>> rms_norm(np.array([[3.0, 4.0]]), np.ones(2), eps=0.0).round(4)
    array([[0.8485, 1.1314]])
    """
    if gain_D.ndim != 1 or x_TD.shape[-1] != gain_D.shape[0]:
        raise BadRequest(
            "rms_norm gain", expected=f"shape ({x_TD.shape[-1]},)", found=f"shape {gain_D.shape}"
        )
    wide_TD = widen(x_TD)
    mean_square_T1 = np.mean(wide_TD * wide_TD, axis=-1, keepdims=True)
    unit_TD = round_to(wide_TD / np.sqrt(mean_square_T1 + wide_TD.dtype.type(eps)), x_TD.dtype)
    return round_to(widen(unit_TD) * widen(round_to(gain_D, x_TD.dtype)), x_TD.dtype)
