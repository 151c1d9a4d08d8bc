"""RoPE frequencies: how fast each pair of channels turns per position, and Llama 3.1's rescaling.

    f[p] = theta^(-2p/H)                          p = 0 ... H/2 - 1, radians per position

Pair 0 turns once in 2*pi positions; with theta = 500,000 and H = 128 the last pair needs 2.6
million. Llama 3.1 was trained on 8,192 positions and stretched to 131,072 by slowing down the pairs
that had turned less than a few times in training, and only those. With wavelength w = 2*pi/f:

    w < original/high            f               turned more than `high` (4) times: kept
    w > original/low             f / factor      turned less than `low` (1) times: slowed
    between                      (1-s) f/factor + s f,    s = (original/w - low) / (high - low)

The rescaling holds at *every* position, not only beyond 8,192. The factor is 8 in Llama 3.1 and 3.3
and 32 in Llama 3.2; Meta's released code has 8 written into it.

Source: Su et al. 2021, arXiv:2104.09864; apply_scaling in meta-llama/llama-models,
models/llama3/model.py; _compute_llama3_parameters in huggingface/transformers.
"""

from __future__ import annotations

import numpy as np


def rope_frequencies(head_dim: int, *, theta: float, dtype: np.dtype) -> np.ndarray:
    """Return the angle by which each pair of channels turns per position.

    Parameters
    ----------
    head_dim : int
        H, the width of one head; even.
    theta : float
        The base: 500,000 in Llama 3, 10,000 in Llama 2.
    dtype : float32 or float64
        float32 is what both released codes compute in; float64 is closer to the mathematics,
        and differs from Meta's angle by up to 5e-3 radians at position 131,071.

    Returns
    -------
    ndarray of shape (P,), `dtype`, radians per position, P = H / 2

    Notes
    -----
    Precision: exponent and reciprocal in `dtype`; the power in float64, rounded to `dtype`, since
    NumPy's float32 power differs between processors. Bit-equal to torch for theta 10,000 and
    500,000 where H is a power of two up to 128; elsewhere the two may differ by two steps.

    Examples
    --------
    >>> rope_frequencies(8, theta=10_000.0, dtype=np.float64)
    array([1.   , 0.1  , 0.01 , 0.001])
    """
    exponent_P = np.arange(0, head_dim, 2, dtype=dtype) / np.dtype(dtype).type(head_dim)
    return 1 / np.power(theta, exponent_P, dtype=np.float64).astype(dtype)


def stretched_frequencies(
    frequency_P: np.ndarray,
    *,
    factor: float,
    low_freq_factor: float,
    high_freq_factor: float,
    original_context: int,
) -> np.ndarray:
    """Slow the slow pairs down by `factor`, as Llama 3.1 does; the fast ones are kept.

    Parameters
    ----------
    frequency_P : ndarray of shape (P,), float32 or float64
        From `rope_frequencies`.
    factor : float
        8 in Llama 3.1 and 3.3, 32 in Llama 3.2.
    low_freq_factor, high_freq_factor : float
        Turns within the original context that separate slow, blended and fast pairs: 1 and 4.
    original_context : int
        Positions the model was first trained on: 8,192.

    Returns
    -------
    ndarray of shape (P,), dtype of `frequency_P`

    Notes
    -----
    Precision: every step in the dtype of `frequency_P`, in the order of the released codes; from
    equal frequencies bit-equal to torch.

    Examples
    --------
    >>> fast_to_slow = 2 * np.pi / np.array([1000.0, 4096.0, 16384.0])     # wavelengths
    >>> stretched = stretched_frequencies(fast_to_slow, factor=8.0, low_freq_factor=1.0,
    ...                                   high_freq_factor=4.0, original_context=8192)
    >>> (stretched / fast_to_slow).round(3)
    array([1.   , 0.417, 0.125])
    """
    # torch computes number / tensor as number * (1 / tensor): two roundings, so here too.
    wavelength_P = 2 * np.pi * (1 / frequency_P)
    turns_P = original_context * (1 / wavelength_P)
    smooth_P = (turns_P - low_freq_factor) / (high_freq_factor - low_freq_factor)
    blended_P = (1 - smooth_P) * frequency_P / factor + smooth_P * frequency_P
    slow_P = wavelength_P > original_context / low_freq_factor
    fast_P = wavelength_P < original_context / high_freq_factor
    return np.where(slow_P, frequency_P / factor, np.where(fast_P, frequency_P, blended_P))
