"""Activations in 8 bits, each token on a scale of its own, as quantised releases multiply them.

    fp8_per_token     405B FP8           x = q s,           s = min(max |x|, 1200) / 448
    int8_per_token    1B and 3B, INT4    x = (q - z) s,     s = (max x - min x) / 255

"Dynamic": the scale is that of the activation at hand, so nothing is calibrated. The product of two
quantised matrices is that of the numbers they stand for, but for the order of the sums; so it is
enough to round the activations to what their 8 bits hold, and to go on as usual.

Source: quantize_fp8_per_row in pytorch/FBGEMM, as restated in the tests of vllm-project/vllm;
per_token_dynamic_quant in pytorch/ao.
"""

from __future__ import annotations

import numpy as np

from llama_ref.numerics import FLOAT8, round_to

FP8_MAX = np.float32(448)
UPPER_BOUND = 1200.0
"""Of the largest magnitude that counts, in the FP8 release of 405B; what is larger is cut off."""
LEAST_SCALE = np.float32(1) / (FP8_MAX * np.float32(512))
INT8_MIN, INT8_MAX = -128, 127


def fp8_per_token(
    x_TD: np.ndarray, *, upper_bound: float | None = UPPER_BOUND
) -> tuple[np.ndarray, np.ndarray]:
    """Quantise each token to float8 e4m3, its largest magnitude becoming 448.

    Parameters
    ----------
    x_TD : ndarray of shape (T, D), floating
    upper_bound : float, optional
        Of the magnitude that counts as the largest; None for the rows of a weight.

    Returns
    -------
    q_TD : ndarray of shape (T, D), float8_e4m3fn
    scale_T1 : ndarray of shape (T, 1), float32
        What `q_TD` is to be multiplied with.

    Notes
    -----
    Precision: float32 throughout; one rounding, of x / s, to the nearest, ties to even.

    Examples
    --------
    >>> q, scale = fp8_per_token(np.array([[1.0, -0.3, 0.01]]))
    >>> (q.astype(np.float32) * scale).round(4)
    array([[ 1.    , -0.2857,  0.01  ]], dtype=float32)
    """
    wide_TD = x_TD.astype(np.float32, copy=False)
    largest_T1 = np.abs(wide_TD).max(axis=-1, keepdims=True)
    if upper_bound is not None:
        largest_T1 = np.minimum(largest_T1, np.float32(upper_bound))
    scale_T1 = np.maximum(largest_T1 / FP8_MAX, LEAST_SCALE)
    return np.clip(wide_TD / scale_T1, -FP8_MAX, FP8_MAX).astype(FLOAT8), scale_T1


def int8_per_token(x_TD: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Quantise each token to int8, its range from smallest to largest becoming -128 to 127.

    Parameters
    ----------
    x_TD : ndarray of shape (T, D), floating

    Returns
    -------
    q_TD : ndarray of shape (T, D), int8
    scale_T1 : ndarray of shape (T, 1), float32
    zero_T1 : ndarray of shape (T, 1), int32
        x is (q - zero) * scale; 0 is exact.

    Notes
    -----
    Precision: float32 throughout; x / s is rounded to the nearest, ties to even.

    Examples
    --------
    >>> q, scale, zero = int8_per_token(np.array([[-1.0, 0.0, 1.55]]))
    >>> q, zero
    (array([[-128,  -28,  127]], dtype=int8), array([[-28]], dtype=int32))
    """
    wide_TD = x_TD.astype(np.float32, copy=False)
    least_T1 = np.minimum(wide_TD.min(axis=-1, keepdims=True), 0)
    largest_T1 = np.maximum(wide_TD.max(axis=-1, keepdims=True), 0)
    n_steps = np.float32(INT8_MAX - INT8_MIN)
    scale_T1 = np.maximum((largest_T1 - least_T1) / n_steps, np.finfo(np.float32).eps)
    from_least_T1 = INT8_MIN + least_T1 / scale_T1
    from_largest_T1 = INT8_MAX + largest_T1 / scale_T1
    zero_T1 = np.where(
        from_least_T1 + from_largest_T1 > 0,
        INT8_MIN - least_T1 / scale_T1,
        INT8_MAX - largest_T1 / scale_T1,
    )
    zero_T1 = np.rint(np.clip(zero_T1, INT8_MIN, INT8_MAX))
    q_TD = np.clip(np.rint(wide_TD / scale_T1) + zero_T1, INT8_MIN, INT8_MAX)
    return q_TD.astype(np.int8), scale_T1, zero_T1.astype(np.int32)


def rounded_to_fp8(x_TD: np.ndarray, *, upper_bound: float = UPPER_BOUND) -> np.ndarray:
    """Return what `fp8_per_token` keeps of activations, in their own dtype."""
    q_TD, scale_T1 = fp8_per_token(x_TD, upper_bound=upper_bound)
    return round_to(q_TD.astype(np.float32) * scale_T1, x_TD.dtype)


def rounded_to_int8(x_TD: np.ndarray) -> np.ndarray:
    """Return what `int8_per_token` keeps of activations, in their own dtype."""
    q_TD, scale_T1, zero_T1 = int8_per_token(x_TD)
    return round_to((q_TD.astype(np.float32) - zero_T1) * scale_T1, x_TD.dtype)
