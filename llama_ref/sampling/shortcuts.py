"""Shortcuts: what float32 settles for certain, float64 need not be asked.

Over 128,256 tokens most of the time of a choice goes into exponentials w = exp(z - max z) and into
sums of them. Float32 does both several times as fast. Its sum S, and each part of it, is off by

    sum of  w (|z - max z| + 6) 2^-24   <=   S (ln V + 6) 2^-24

since the mean of |z - max z| is the entropy less ln S, and so at most ln V. An answer that is the
same at both ends of that margin is the answer of float64. Where it is not, these functions return
None, and the definition decides.
"""

from __future__ import annotations

import math

import numpy as np

MANY = 4096
"""Of fewer tokens the definition is as fast."""
BLOCK = 1024
"""Weights whose sum is taken at once."""


class Weights:
    """The weights of a vocabulary in float32.

    Parameters
    ----------
    logits_V : ndarray of shape (V,), float64
        One finite at least; minus infinity where removed.

    Attributes
    ----------
    rows : ndarray, float32
        In rows of `BLOCK`, the last filled up with zeros.
    sums : ndarray, float64
        Of each row.
    margin : float
        By how much any part of their sum is off at most.
    """

    def __init__(self, logits_V: np.ndarray):
        V = len(logits_V)
        padded_V = np.zeros(-(-V // BLOCK) * BLOCK, np.float32)
        with np.errstate(over="ignore", under="ignore"):
            np.subtract(logits_V, logits_V.max(), out=padded_V[:V], casting="same_kind")
            np.exp(padded_V[:V], out=padded_V[:V])
        self.rows = padded_V.reshape(-1, BLOCK)
        self.sums = self.rows.sum(axis=1, dtype=np.float64)
        self.total = float(self.sums.sum())
        self.margin = self.total * (math.log(V) + 6) * 2**-24


def drawn(logits_V: np.ndarray, u: float) -> int | None:
    """Return the id that a uniform number falls on, as `pipeline.drawn`; None if it is not certain.

    Examples
    --------
    >>> drawn(np.log([0.25, 0.25, 0.5]), 0.3), drawn(np.log([0.25, 0.25, 0.5]), 0.25)
    (1, None)
    """
    weights = Weights(logits_V)
    before = np.concatenate([[0.0], np.cumsum(weights.sums)])
    # Both the sum up to a token and u times the sum of all are off by the margin.
    ends = u * weights.total + 2 * weights.margin * np.array([-1, 1])
    block, other = np.searchsorted(before, ends, side="right") - 1
    if block != other or not 0 <= block < len(weights.rows):
        return None
    within = before[block] + np.cumsum(weights.rows[block], dtype=np.float64)
    low, high = np.searchsorted(within, ends, side="right")
    return int(block * BLOCK + low) if low == high < BLOCK else None


def nucleus_size(logits_V: np.ndarray, top_p: float) -> tuple[int, float] | None:
    """Return how many tokens are in the nucleus, and the lowest of their logits, or None.

    A token with less than (1 - p) / V of the mass is never in it: all such tokens together have
    less than 1 - p, so those before them reach p. Only the others are sorted.

    Parameters
    ----------
    logits_V : ndarray of shape (V,), float64
    top_p : float
        Below 1.

    Examples
    --------
    >>> size, lowest = nucleus_size(np.log([0.25, 0.2, 0.45, 0.1]), 0.6)
    >>> size, round(lowest, 2)
    (2, -1.39)
    """
    weights = Weights(logits_V)
    highest = float(logits_V.max())
    least = (1 - top_p) * (weights.total - weights.margin) / len(logits_V)
    if least <= 0:
        return None
    falling = -np.sort(-logits_V[logits_V >= highest + math.log(least)])
    with np.errstate(under="ignore"):
        before = np.concatenate([[0.0], np.cumsum(np.exp(falling - highest))])
    ends = top_p * weights.total + 2 * weights.margin * np.array([-1, 1])
    low, high = np.searchsorted(before, ends)
    return (int(low), float(falling[low - 1])) if 0 < low == high < len(before) else None
