"""Random numbers without a state, and how one becomes a token.

    word(seed, step) = first 64-bit word of Philox4x64-10(key = (seed, 0), counter = step + 1)
    u(seed, step)    = (word >> 11) * 2^-53                        in [0, 1), 53 bits
    w[i]             = exp(z[i] - max z)                           z: the logits after all steps
    token            = the first id at which w[0] + ... + w[id] exceeds u * (w[0] + ... + w[V-1])

`step` counts the tokens of a text from 0, and choice i of a request draws with seed + i. Nothing
else enters: a text is drawn with the same numbers alone or in a batch, streamed or not,
interrupted and taken up again. All in float64, and the sums one term after the other.

NumPy's Philox counts up before it draws; so `Philox(key=seed, counter=step)` gives the word of
counter step + 1.

Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"; numpy.random.Philox.
"""

from __future__ import annotations

import numpy as np

from llama_ref.errors import BadRequest, is_whole, shown

SEED_MASK = 2**64 - 1


def uniform(seed: int, step: int) -> float:
    """Return the uniform number in [0, 1) of one draw; a pure function of its arguments.

    Parameters
    ----------
    seed : int
        Modulo 2^64, so that -1 and 2^64 - 1 are one seed, and so are 2^64 and 0.
    step : int, 0 to 2^64 - 2

    Examples
    --------
    >>> uniform(0, 0), uniform(7, 0), uniform(7, 1)
    (0.011546754286331562, 0.8720734548204873, 0.0828426870273763)
    """
    if not is_whole(step, 0, 2**64 - 2):
        raise BadRequest("step", expected="an integer from 0 to 2^64 - 2", found=shown(step))
    return np.random.Generator(np.random.Philox(key=seed & SEED_MASK, counter=step)).random()


def draw(probs_V: np.ndarray, u: float) -> int:
    """Return the first id at which the cumulative probability exceeds `u` times the sum of all.

    Parameters
    ----------
    probs_V : ndarray of shape (V,), floating
        At least 0, not all 0. They need not sum to one.
    u : float in [0, 1)

    Examples
    --------
    >>> [draw(np.array([0.25, 0.0, 0.75]), u) for u in (0.0, 0.2, 0.25, 0.9)]
    [0, 0, 2, 2]
    """
    cumulative_V = np.cumsum(probs_V, dtype=np.float64)
    chosen = int(np.searchsorted(cumulative_V, u * cumulative_V[-1], side="right"))
    if chosen == len(probs_V):  # the product was rounded up to the sum, which nothing exceeds
        return int(np.flatnonzero(probs_V)[-1])
    return chosen
