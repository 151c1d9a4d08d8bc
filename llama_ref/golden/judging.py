"""Judging: an error in units of what legal rounding makes of the same tap, and the gates.

    rho = error / envelope        1  as the worst right implementation
                                  2  warned about
                                  3  wrong

The gates were set on implementations that did not make the envelope: see docs/golden/numerics.md.
Two allowances are made. A measure over few numbers scatters more than one over many, so
the envelope is widened by 2 / sqrt(n), n being the numbers that count (`counted`). And where every
legal style happens to be exact, as RoPE is at position 0, half a step of the dtype is no error: a
right port may still round there. (A look-up has no such excuse.)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from llama_ref.golden.measure import BAND_STARTS, LARGEST, MEASURES, WHOLE
from llama_ref.golden.report import FAIL, FAIL_AT, LARGEST_GATE, PASS, WARN, WARN_AT, Ratios

HALF_A_STEP = {"float16": 2.0**-12, "bfloat16": 2.0**-9}
"""Relative error of half a step of a dtype; of float32, `FINEST`."""
FINEST = 2.0**-24
SCATTER = 2.0
SOURCES = 4
"""What a token counts for where its error comes from further back."""


class Judged(NamedTuple):
    """A measured error beside its envelope.

    Attributes
    ----------
    ratios : Ratios
        The worst of each measure over the bands.
    error, envelope : float
        The root mean square in the band that decided, and that of the envelope there.
    n : int
        How many numbers count.
    """

    ratios: Ratios
    error: float
    envelope: float
    n: int


def floor_of(kind: str, precision: str) -> float:
    """Return the relative error that is none, at a kind of tap."""
    return FINEST if kind == "embed" else HALF_A_STEP.get(precision, FINEST)


def counted(reference: np.ndarray, band_T: np.ndarray, *, inherited: bool) -> np.ndarray:
    """Return how many numbers count in each band: as many as err on their own.

    Where a few are far larger than the others, as in an outlier channel, the error is theirs, and
    scatters as if there were no others: 3 (sum x^2)^2 / sum x^4 is n for normal numbers, and 3 if
    one of them is all there is. And an error that was made further back is shared by all channels
    of a token, and so is that of a norm's mean square; there a token counts as no more than
    `SOURCES` numbers.

    Parameters
    ----------
    reference : ndarray
        What was measured against, tokens on the first axis.
    band_T : ndarray of shape (T,), int
        From `band_of`.
    inherited : bool
        Whether the error is that of more than one step, or of a norm.

    Returns
    -------
    ndarray of shape (bands,)

    Examples
    --------
    >>> steady, one = [1.0, -1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 5.0]
    >>> counted(np.array([steady, one]), np.array([0, 1]), inherited=False)[:3]
    array([4., 3., 0.])
    """
    square = np.square(reference.reshape(len(reference), -1))

    def summed(x_T: np.ndarray) -> np.ndarray:
        return np.bincount(band_T, x_T, minlength=len(BAND_STARTS))

    n_tokens = summed(np.ones(len(band_T)))
    n = n_tokens * square.shape[1]
    with np.errstate(all="ignore"):
        alike = 3 * summed(square.sum(axis=1)) ** 2 / summed(np.square(square).sum(axis=1))
    n = np.fmin(n, alike)
    return np.minimum(n, SOURCES * n_tokens) if inherited else n


def judge(
    found: np.ndarray, envelope: np.ndarray, n_in_band: np.ndarray, floor: float = FINEST
) -> Judged:
    """Put an error into units of the envelope.

    Parameters
    ----------
    found, envelope : ndarray of shape (bands, measures)
        From `measure`; NaN where there is nothing to measure.
    n_in_band : ndarray of shape (bands,)
        How many numbers count in each band; see `counted`.
    floor : float
        The least that the envelope is taken for; see `floor_of`.

    Returns
    -------
    Judged
    """
    with np.errstate(all="ignore"):
        allowed = np.maximum(envelope, floor) * (1 + SCATTER / np.sqrt(n_in_band))[:, None]
        rho = found / allowed
    rho[np.isinf(envelope)] = np.nan  # legal rounding overflows: nothing can be told
    rho[np.isinf(found)] = np.inf
    seen = ~np.isnan(rho[:, WHOLE])
    if not seen.any():
        return Judged(Ratios(np.nan), np.nan, np.nan, 0)
    scaled = rho.copy()
    scaled[:, LARGEST] *= FAIL_AT / LARGEST_GATE
    scaled[~seen] = -1
    band = int(np.nanmax(scaled, axis=1).argmax())  # the one that decides
    worst = [_worst(rho[:, m]) for m in range(len(MEASURES))]
    error, legal = float(found[band, WHOLE]), float(envelope[band, WHOLE])
    return Judged(Ratios(*worst), error, legal, int(n_in_band.sum()))


def status_of(rho: float) -> str:
    """Return the status that a ratio means.

    Examples
    --------
    >>> status_of(1.2), status_of(2.5), status_of(float("inf"))
    ('pass', 'warn', 'fail')
    """
    if rho < WARN_AT or np.isnan(rho):
        return PASS
    return WARN if rho < FAIL_AT else FAIL


def _worst(ratios: np.ndarray) -> float:
    known = ratios[~np.isnan(ratios)]
    return float(known.max()) if known.size else float("nan")
