"""Telling noise from a mistake: rounding has no shape.

A wrong formula leaves an error that follows something: the numbers themselves (a wrong factor), a
channel (a wrong gain), a token (a wrong position). Rounding too coarsely leaves one that follows
nothing. The error is regressed on the reference as a whole, by token and by channel; noise leaves
next to nothing explained, and no element far outside. Channels are brought to one size before that,
or the rounding of one that is sixteen times as large would be all there is to see.
"""

from __future__ import annotations

import numpy as np

MOST_EXPLAINED = 0.35
"""Share of the squared error that factors by token or channel may explain in noise."""
MOST_PEAKED = 12.0
"""Largest error of noise, in its root mean square."""
LARGEST = 0.5
"""Root mean square of noise, in that of the numbers: what is as large as they are is garbage."""
MOST_UNEVEN = 16.0
"""Noise of the worst token in that of the median, each in the numbers of its token."""


def size_of(error: np.ndarray) -> float:
    """Return the root mean square of an error."""
    return float(np.sqrt(np.mean(np.square(error))))


def explained_by_factors(error: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """Return the share of an error that one factor explains: for all, by token, by channel.

    What chance explains, one part in the numbers that share a factor, is taken off.

    Examples
    --------
    >>> x = np.random.default_rng(0).standard_normal((50, 60))
    >>> {name: round(share, 2) for name, share in explained_by_factors(0.1 * x, x).items()}
    {'all': 1.0, 'token': 1.0, 'channel': 1.0}
    """
    e, r = (x.reshape(len(x), -1) for x in (error, reference))
    total = float(np.sum(e * e)) or 1.0
    shares = {}
    for name, axis in (("all", None), ("token", 1), ("channel", 0)):
        cross, square = np.sum(e * r, axis=axis), np.sum(r * r, axis=axis)
        gained = float(np.sum(cross**2 / np.where(square, square, 1)))
        n_factors = np.size(cross)
        chance = n_factors / e.size
        shares[name] = (gained / total - chance) / max(1 - chance, 1e-9)
    return shares


def is_noise(error: np.ndarray, reference: np.ndarray) -> bool:
    """Tell whether an error follows nothing: as rounding does, in every token and much the same."""
    if not np.isfinite(error).all() or error.size < 64:
        return False
    with np.errstate(all="ignore"):  # squares of garbage overflow, and are no noise
        channel_size = np.sqrt(
            np.mean(np.square(reference.reshape(-1, reference.shape[-1])), axis=0)
        )
        channel_size = np.where(channel_size > 0, channel_size, 1)
        error, reference = error / channel_size, reference / channel_size
        size_T = np.sqrt(_by_token(error) / np.maximum(_by_token(reference), 1e-300))
        return (
            size_of(error) <= LARGEST * size_of(reference)
            and size_T.max() <= MOST_UNEVEN * np.median(size_T)
            and np.abs(error).max() <= MOST_PEAKED * size_of(error)
            and max(explained_by_factors(error, reference).values()) <= MOST_EXPLAINED
        )


def _by_token(array: np.ndarray) -> np.ndarray:
    """Return mean squares along the first axis."""
    return np.mean(np.square(array.reshape(len(array), -1)), axis=1)
