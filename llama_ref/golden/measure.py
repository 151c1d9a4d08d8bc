"""How far an array is from a reference, by five measures in each band of positions.

    whole     root mean square over all of it            a bug everywhere
    token     the same of the worst token                a bug in one row
    head      of the worst head                          a bug in one head
    channel   of the worst channel of the last axis      a bug in one pair of RoPE, one column
    largest   the largest single error                   a bug in one element

All are relative to the root mean square of the reference in that band, so that a token whose
reference happens to be small is not excused. Errors of RoPE grow with the position; that is what
bands are for.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

BAND_STARTS = (0, 8, 64, 512, 4096, 32768)
"""First position of each band; the last one is open."""

MEASURES = ("whole", "token", "head", "channel", "largest")
WHOLE, TOKEN, HEAD, CHANNEL, LARGEST = range(len(MEASURES))


def band_of(position_T: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return the band of each position.

    Examples
    --------
    >>> band_of([0, 7, 8, 131071]).tolist()
    [0, 0, 1, 5]
    """
    return np.searchsorted(BAND_STARTS, np.asarray(position_T), side="right") - 1


def rows_first(axes: str, array: np.ndarray) -> np.ndarray:
    """Return an array with its tokens as the first axis, and heads (or one) as the second.

    Parameters
    ----------
    axes : str
        As in `trace.layout`: `T D`, `T N H`, `N T S`.
    array : ndarray
    """
    match axes.split():
        case ["T", _]:
            return array[:, None]
        case ["T", _, _]:
            return array
        case _:
            return array.transpose(1, 0, 2)


def has_heads(axes: str) -> bool:
    """Tell whether one of the axes counts heads."""
    return len(axes.split()) == 3


def has_channels(axes: str) -> bool:
    """Tell whether the last axis is one of channels: that of scores counts positions."""
    return not axes.startswith("N")


def measure(error: np.ndarray, reference: np.ndarray, axes: str, band_T: np.ndarray) -> np.ndarray:
    """Measure an error in every band of positions.

    Parameters
    ----------
    error, reference : ndarray of one shape
        In our axes; of scores only the visible triangle may be other than zero.
    axes : str
    band_T : ndarray of shape (T,), int
        From `band_of`.

    Returns
    -------
    ndarray of shape (bands, measures), float64
        NaN where a band has no token, or a tap no heads or channels. Infinity where the error is
        not a number.
    """
    found = np.full((len(BAND_STARTS), len(MEASURES)), np.nan)
    error_TNH, reference_TNH = (rows_first(axes, x) for x in (error, reference))
    with np.errstate(all="ignore"):
        square_TNH = np.square(error_TNH)
    for band in np.unique(band_T):
        rows = band_T == band
        scale = _mean_square(reference_TNH[rows])
        found[band] = _measures(square_TNH[rows], scale, axes)
    return found


def profile(
    error: np.ndarray, reference: np.ndarray, axes: str, band_T: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return relative errors by token and head, by channel, and by head; see `measure`.

    Returns
    -------
    by_token : ndarray of shape (T, N)
        Of a tap without heads, (T, 1).
    by_channel : ndarray
        One for each entry of the last axis.
    by_head : ndarray of shape (N,)
    """
    error_TNH, reference_TNH = (rows_first(axes, x) for x in (error, reference))
    with np.errstate(all="ignore"):
        square_TNH = np.square(error_TNH)
        scale_T = np.ones(len(band_T))
        for band in np.unique(band_T):
            scale_T[band_T == band] = _mean_square(reference_TNH[band_T == band]) or 1.0
        relative_TNH = square_TNH / scale_T[:, None, None]
        by_token_TN = np.sqrt(relative_TNH.mean(axis=2))
        by_channel = np.sqrt(relative_TNH.mean(axis=(0, 1)))
    return by_token_TN, by_channel, np.sqrt(relative_TNH.mean(axis=(0, 2)))


def _measures(square_RNH: np.ndarray, scale: float, axes: str) -> np.ndarray:
    """Return the five measures of the rows of one band."""
    found = np.full(len(MEASURES), np.nan)
    with np.errstate(all="ignore"):
        by_token_R = square_RNH.mean(axis=(1, 2))
        found[WHOLE], found[TOKEN] = by_token_R.mean(), by_token_R.max()
        known = [WHOLE, TOKEN, LARGEST]
        if has_heads(axes):
            found[HEAD] = square_RNH.mean(axis=(0, 2)).max()
            known.append(HEAD)
        if has_channels(axes):
            found[CHANNEL] = square_RNH.mean(axis=(0, 1)).max()
            known.append(CHANNEL)
        found[LARGEST] = square_RNH.max()
        relative = np.sqrt(found[known] / scale) if scale else np.where(found[known], np.inf, 0)
    found[known] = np.where(np.isnan(relative), np.inf, relative)
    return found


def _mean_square(array: np.ndarray) -> float:
    return float(np.mean(np.square(array)))
