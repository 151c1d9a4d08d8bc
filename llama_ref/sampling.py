"""From logits to one token: temperature, top-k, top-p, and a draw that any language can repeat.

    logits  ->  / temperature  ->  keep the k highest  ->  keep the nucleus of mass p  ->  draw

Each step is a function of logits that returns logits: what it removes becomes minus infinity. The
order and the edges are those of vLLM. Temperature 0 means greedy: the highest logit, and of equal
ones the lowest id.

Randomness has no state. Token number `step` (from 0) of a request is drawn with the uniform number

    u = (first 64-bit word of Philox4x64-10(key = seed, counter = step + 1) >> 11) * 2^-53

and is the first id, in the order of ids, at which the cumulative probability exceeds u times the
sum of all. So a request draws with the same numbers, however it was batched or interrupted.

Source: Holtzman et al. 2020, arXiv:1904.09751; Salmon et al. 2011, "Parallel random numbers: as
easy as 1, 2, 3"; v1/sample/ops/topk_topp_sampler.py in vllm-project/vllm.
"""

from __future__ import annotations

import math

import numpy as np

from llama_ref.errors import BadRequest, NonFiniteError, is_whole, shown
from llama_ref.ops.softmax import softmax

LOWEST_TEMPERATURE = 0.01
"""A temperature between 0 and this is raised to it, as in vLLM."""


def sample(
    logits_V: np.ndarray,
    *,
    temperature: float,
    top_k: int,
    top_p: float,
    seed: int,
    step: int,
) -> int:
    """Choose one token id.

    Parameters
    ----------
    logits_V : ndarray of shape (V,), floating
    temperature : float, at least 0
        0 is greedy, and the other parameters are then without effect.
    top_k : int
        0 or -1 switches it off.
    top_p : float in (0, 1]
        1 switches it off.
    seed : int, 0 to 2^64 - 1
    step : int
        How many tokens of this request were drawn before.

    Raises
    ------
    BadRequest
        If a parameter is out of range.
    NonFiniteError
        If no logit is finite, or one is NaN.
    """
    check_parameters(temperature, top_k, top_p, seed)
    logits_V = logits_V.astype(np.float64)
    if np.isnan(logits_V).any() or not np.isfinite(logits_V.max()):
        raise NonFiniteError("logits", expected="numbers, at least one finite", found="none or NaN")
    if temperature == 0:
        return int(logits_V.argmax())
    logits_V = with_temperature(logits_V, temperature)
    logits_V = keep_top_p(keep_top_k(logits_V, top_k), top_p)
    return draw(softmax(logits_V), uniform(seed, step))


def with_temperature(logits_V: np.ndarray, temperature: float) -> np.ndarray:
    """Divide by the temperature: below 1 sharpens, above 1 flattens.

    Examples
    --------
    >>> with_temperature(np.array([1.0, 2.0]), 0.5)
    array([2., 4.])
    """
    return logits_V / max(temperature, LOWEST_TEMPERATURE)


def keep_top_k(logits_V: np.ndarray, top_k: int) -> np.ndarray:
    """Keep the k highest logits, and all that equal the lowest of them.

    Examples
    --------
    >>> keep_top_k(np.array([1.0, 3.0, 2.0, 2.0]), 2)
    array([-inf,   3.,   2.,   2.])
    """
    if not 0 < top_k < logits_V.shape[-1]:
        return logits_V
    kth_highest = np.partition(logits_V, -top_k)[-top_k]
    return np.where(logits_V < kth_highest, -np.inf, logits_V)


def keep_top_p(logits_V: np.ndarray, top_p: float) -> np.ndarray:
    """Keep the smallest set of most probable tokens whose probabilities reach `top_p`.

    A token stays if those before it, in order of falling probability and rising id, have less than
    `top_p` between them; so one always stays.

    Examples
    --------
    >>> keep_top_p(np.log([0.5, 0.25, 0.25]), 0.6).round(2)
    array([-0.69, -1.39,  -inf])
    """
    if top_p >= 1:
        return logits_V
    probs_V = softmax(logits_V.astype(np.float64))
    order_V = np.argsort(-probs_V, kind="stable")
    before_V = np.cumsum(probs_V[order_V]) - probs_V[order_V]
    kept_V = np.full_like(logits_V, -np.inf)
    kept = order_V[before_V < top_p]
    kept_V[kept] = logits_V[kept]
    return kept_V


def draw(probs_V: np.ndarray, u: float) -> int:
    """Return the first id at which the cumulative probability exceeds `u` times the sum of all.

    Examples
    --------
    >>> [draw(np.array([0.25, 0.0, 0.75]), u) for u in (0.0, 0.2, 0.25, 0.9)]
    [0, 0, 2, 2]
    """
    cumulative_V = np.cumsum(probs_V, dtype=np.float64)
    chosen = np.searchsorted(cumulative_V, u * cumulative_V[-1], side="right")
    # The product may round up to the sum, which no cumulative probability exceeds.
    return int(min(chosen, np.flatnonzero(probs_V)[-1]))


def uniform(seed: int, step: int) -> float:
    """Return the uniform number in [0, 1) of one draw; a pure function of its arguments."""
    return np.random.Generator(np.random.Philox(key=seed, counter=step)).random()


def check_parameters(temperature: float, top_k: int, top_p: float, seed: int) -> None:
    """Raise `BadRequest` for a parameter out of range."""
    for name, value, allowed, good in (
        ("temperature", temperature, "a finite number, at least 0", _in(temperature, 0, math.inf)),
        ("top_k", top_k, "an integer, at least -1 (0 and -1: off)", is_whole(top_k, -1)),
        ("top_p", top_p, "above 0 and at most 1", _in(top_p, 0, 1) and top_p > 0),
        ("seed", seed, "an integer from 0 to 2^64 - 1", is_whole(seed, 0, 2**64 - 1)),
    ):
        if not good:
            raise BadRequest(name, expected=allowed, found=shown(value))


def _in(value: object, low: float, high: float) -> bool:
    if not isinstance(value, int | float | np.floating | np.integer) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value) and low <= float(value) <= high
    except OverflowError:  # an integer of hundreds of digits
        return False
