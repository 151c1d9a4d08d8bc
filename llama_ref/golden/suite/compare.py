"""The one rule by which a result meets a golden one: its dtype, then its shape, then its values.

    16 bits          one element in a hundred, or a single one, may round the other way, by at most
                     two steps (a result that is rounded twice can be two steps away)
    32 and 64 bits   eight units of the last place of the largest result, since the order in which
                     sums are taken is free

Two kinds of case are stricter, and say so. In `exact` ones there is nothing to round, or one
rounding of which the input is given: every element is equal. In `each` ones the elements differ so
much in size that the largest says nothing of the others (RoPE frequencies span six decades): 32
units of the last place of each element itself, which is what theta^(-2p/H) by exponential and
logarithm (6) or by repeated products (19) needs in float32.
"""

from __future__ import annotations

import numpy as np

from llama_ref.numerics import ulp_distance

STEPS_OF_16_BITS = 2
UNITS_OF_LARGEST = 8
UNITS_OF_EACH = 32
TOLERANCES = ("largest", "each", "exact")


def disagreement(found: np.ndarray, expected: np.ndarray, tolerance: str = "largest") -> str:
    """Say how a result fails to meet a golden one.

    Parameters
    ----------
    found, expected : ndarray
        The golden one is finite.
    tolerance : {"largest", "each", "exact"}
        Which values meet it; see above.

    Returns
    -------
    str
        What is wrong, for a message; empty if nothing is.

    Examples
    --------
    >>> disagreement(np.float32([1, 2.5]), np.float32([1, 2]))
    'off by 0.5 at (1,): 2.5 where 2 is right, give or take 1.91e-06'
    >>> disagreement(np.float64([1, 2]), np.float32([1, 2]))
    'float64 where float32 is right'
    >>> disagreement(np.float32([1, 2]), np.float32([1, 2]))
    ''
    """
    if found.dtype != expected.dtype:
        return f"{found.dtype} where {expected.dtype} is right"
    if found.shape != expected.shape:
        return f"of shape {found.shape} where {expected.shape} is right"
    if found.size == 0:
        return ""
    bad = ~np.isfinite(found)
    if bad.any():
        return f"{bad.sum()} of {bad.size} are not finite, the first at {_index(bad)}"
    if found.dtype.itemsize == 2 and tolerance != "exact":
        return _too_many_steps(found, expected)
    return _too_far(found.astype(np.float64), expected, tolerance)


def _too_many_steps(found: np.ndarray, expected: np.ndarray) -> str:
    steps = ulp_distance(found, expected)
    unequal, allowed = np.count_nonzero(steps), max(1, found.size // 100)
    if unequal <= allowed and steps.max() <= STEPS_OF_16_BITS:
        return ""
    return (
        f"{unequal} of {found.size} differ, by up to {steps.max()} steps of {found.dtype} "
        f"at {_index(steps)}: {_pair(found, expected, _index(steps))}; "
        f"{allowed} may, by {STEPS_OF_16_BITS}"
    )


def _too_far(found: np.ndarray, expected: np.ndarray, tolerance: str) -> str:
    """Compare numbers that are widened to float64, in units of the golden's own dtype."""
    truth = expected.astype(np.float64)
    eps = 0.0 if expected.dtype.itemsize == 2 else float(np.finfo(expected.dtype).eps)
    allowed = {
        "exact": np.zeros_like(truth),
        "each": UNITS_OF_EACH * eps * np.abs(truth),
        "largest": np.full_like(truth, UNITS_OF_LARGEST * eps * np.abs(truth).max()),
    }[tolerance]
    error = np.abs(found - truth)
    excess = error - allowed
    if (excess <= 0).all():
        return ""
    at = _index(excess)
    margin = f"give or take {allowed[at]:.3g}" if allowed[at] else "exactly"
    return f"off by {error[at]:.3g} at {at}: {_pair(found, truth, at)}, {margin}"


def _index(measure: np.ndarray) -> tuple[int, ...]:
    """Return where a measure is largest."""
    return tuple(int(i) for i in np.unravel_index(measure.argmax(), measure.shape))


def _pair(found: np.ndarray, expected: np.ndarray, at: tuple[int, ...]) -> str:
    return f"{float(found[at]):.9g} where {float(expected[at]):.9g} is right"
