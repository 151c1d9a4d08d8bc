"""Judging: an error in units of what legal rounding makes of the same tap, and the gates.

    rho = error / envelope        1  as the worst right implementation
                                  2  warned about
                                  3  wrong

The gates were set on implementations that did not make the envelope; docs/numerics.md has their
figures. Two allowances are made. A measure over few numbers scatters more than one over many, so
the envelope is widened by 2 / sqrt(n). And where legal rounding happens to be exact, an error of a
float32 step is none.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from llama_ref.golden.measure import LARGEST, MEASURES, WHOLE
from llama_ref.golden.report import FAIL, PASS, WARN, Ratios

WARN_AT, FAIL_AT = 2.0, 3.0
LARGEST_GATE = 5.0
"""The largest single error scatters more than a mean does: it fails at 5 where others fail at 3."""
FLOOR = 2.0**-24
"""Relative error of half a float32 step."""
SCATTER = 2.0


class Judged(NamedTuple):
    """A measured error beside its envelope.

    Attributes
    ----------
    ratios : Ratios
        The worst of each measure over the bands.
    error, envelope : float
        The root mean square in the band that decided, and that of the envelope there.
    band : int
    """

    ratios: Ratios
    error: float
    envelope: float
    band: int


def judge(found: np.ndarray, envelope: np.ndarray, n_in_band: np.ndarray) -> Judged:
    """Put an error into units of the envelope.

    Parameters
    ----------
    found, envelope : ndarray of shape (bands, measures)
        From `measure`; NaN where there is nothing to measure.
    n_in_band : ndarray of shape (bands,)
        How many numbers each band has.

    Returns
    -------
    Judged
    """
    with np.errstate(all="ignore"):
        allowed = np.maximum(envelope, FLOOR) * (1 + SCATTER / np.sqrt(n_in_band))[:, None]
        rho = found / allowed
    rho[np.isinf(found)] = np.inf
    seen = ~np.isnan(rho[:, WHOLE])
    if not seen.any():
        return Judged(Ratios(np.nan), np.nan, np.nan, 0)
    scaled = rho.copy()
    scaled[:, LARGEST] *= FAIL_AT / LARGEST_GATE
    band = int(
        np.nanargmax(np.where(seen, np.nanmax(np.where(seen[:, None], scaled, 0), axis=1), -1))
    )
    worst = [_worst(rho[:, m]) for m in range(len(MEASURES))]
    return Judged(Ratios(*worst), float(found[band, WHOLE]), float(envelope[band, WHOLE]), band)


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
