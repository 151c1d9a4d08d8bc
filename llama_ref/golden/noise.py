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
MOST_LARGE = 0.5
"""Root mean square of noise, in that of the numbers: what is as large as they are is garbage."""
MOST_UNEVEN = 16.0
"""Noise of the worst token in that of the median, and of the median in that of the least, each in
the numbers of its token."""
ONE_FACTOR = 1e-3
"""Share of an error that a factor may leave and still be all there is."""
MOST_EXACT = 0.25
"""Share of the tokens that may have no error to speak of, where a step can be exact."""
FEWEST = 64
"""Of fewer numbers nothing can be told."""


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


def common_factor(error: np.ndarray, reference: np.ndarray) -> float | None:
    """Return the factor that all numbers are off by, if that is all that is wrong with them.

    Examples
    --------
    >>> x = np.random.default_rng(0).standard_normal((50, 60))
    >>> common_factor(0.5 * x - x, x), common_factor(x + 1 - x, x)
    (0.5, None)
    """
    with np.errstate(all="ignore"):  # squares of garbage overflow, and have no factor
        gained = float(np.sum(error * reference) / np.sum(reference * reference))
        left, whole = size_of(error - gained * reference), size_of(error)
    return 1 + gained if left <= ONE_FACTOR * whole < np.inf else None


def is_noise(error: np.ndarray, reference: np.ndarray, *, can_be_exact: bool = False) -> bool:
    """Tell whether an error follows nothing: as rounding does, in every token and much the same.

    Parameters
    ----------
    error, reference : ndarray
        Tokens on the first axis.
    can_be_exact : bool
        Whether the step has nothing to round at some tokens, as RoPE has at position 0.
    """
    if not np.isfinite(error).all() or error.size < FEWEST:
        return False
    with np.errstate(all="ignore"):  # squares of garbage overflow, and are no noise
        channel_size = np.sqrt(
            np.mean(np.square(reference.reshape(-1, reference.shape[-1])), axis=0)
        )
        channel_size = np.where(channel_size > 0, channel_size, 1)
        error, reference = error / channel_size, reference / channel_size
        size_T = np.sqrt(_by_token(error) / np.maximum(_by_token(reference), 1e-300))
        least, median = np.quantile(size_T, [MOST_EXACT if can_be_exact else 0, 0.5])
        return (
            size_of(error) <= MOST_LARGE * size_of(reference)
            and size_T.max() <= MOST_UNEVEN * median
            and median <= MOST_UNEVEN * least
            and np.abs(error).max() <= MOST_PEAKED * size_of(error)
            and max(explained_by_factors(error, reference).values()) <= MOST_EXPLAINED
        )


def _by_token(array: np.ndarray) -> np.ndarray:
    """Return mean squares along the first axis."""
    return np.mean(np.square(array.reshape(len(array), -1)), axis=1)
