"""The Walsh-Hadamard transform: it spreads an outlier over all channels.

    H_1 = (1)        H_2n = 1/sqrt(2)  ( H_n   H_n )          H H = 1
                                       ( H_n  -H_n )

SpinQuant turns the hidden numbers of the feed-forward network by H before it quantises them, and
W_down by H before it is stored. H is its own inverse, so the product is what it was, and no channel
stands out. A file of that release computes nonsense without it.

Source: hadamard_utils.py in meta-llama/llama-models; Liu et al. 2024, "SpinQuant: LLM
quantization with learned rotations".
"""

from __future__ import annotations

import numpy as np

from llama_ref.errors import BadRequest
from llama_ref.numerics import round_to, widen


def hadamard(x_TF: np.ndarray) -> np.ndarray:
    """Multiply every token by the normalised Hadamard matrix, in F log F steps.

    Parameters
    ----------
    x_TF : ndarray of shape (T, F), floating
        F is a power of two.

    Returns
    -------
    ndarray of shape (T, F), dtype of `x_TF`

    Raises
    ------
    BadRequest
        If F is no power of two.

    Notes
    -----
    Precision: widened; sums and differences of neighbours, then of pairs, and so on, each
    multiplied by sqrt(1/2); one rounding at the end.

    Examples
    --------
    >>> hadamard(np.array([[8.0, 0.0, 0.0, 0.0]]))
    array([[4., 4., 4., 4.]])
    """
    T, F = x_TF.shape
    if F < 1 or F & (F - 1):
        raise BadRequest("hadamard", expected="a power of two of channels", found=F)
    wide_TF, half = widen(x_TF), 1
    scale = wide_TF.dtype.type(0.5) ** wide_TF.dtype.type(0.5)
    while half < F:
        pairs = wide_TF.reshape(T, -1, 2, half)
        first, second = pairs[:, :, 0], pairs[:, :, 1]
        wide_TF = np.stack([first + second, first - second], axis=2).reshape(T, F) * scale
        half *= 2
    return round_to(wide_TF, x_TF.dtype)
