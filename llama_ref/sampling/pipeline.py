"""Logits through the steps of a profile, and on to one token.

    logits -> shaping -> greedy?  argmax, the lowest id of equal ones
                      -> choosing -> exp -> draw(u(seed, step))

All of it in float64. No step may leave nothing: peers then answer token 0, or an arbitrary one;
here it is an error that names the step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from llama_ref.errors import BadRequest, NonFiniteError
from llama_ref.sampling import shortcuts
from llama_ref.sampling.params import SamplingParams
from llama_ref.sampling.profiles import PROFILES, Ids, Situation, Step
from llama_ref.sampling.stream import draw, uniform


def processed_logits(
    logits_V: np.ndarray,
    params: SamplingParams,
    prompt_ids: Ids = (),
    output_ids: Ids = (),
    *,
    stop_ids: Iterable[int] = (),
    allowed_V: np.ndarray | None = None,
) -> np.ndarray:
    """Apply all steps of `params.profile`, in its order.

    Parameters
    ----------
    logits_V : ndarray of shape (V,), floating
    params : SamplingParams
    prompt_ids, output_ids : sequence of int
        The history that penalties, bad words and `min_tokens` look at.
    stop_ids : iterable of int
        Removed, with `params.stop_token_ids`, while there are fewer than `min_tokens` tokens.
    allowed_V : ndarray of shape (V,), bool, optional
        What a grammar allows.

    Returns
    -------
    ndarray of shape (V,), float64
        Minus infinity where removed. At temperature 0, what the highest is taken of.

    Raises
    ------
    NonFiniteError
        If a logit is NaN or plus infinity, or nothing finite is left; it names the step.
    BadRequest
        If an id or `allowed_V` does not fit the vocabulary.

    Examples
    --------
    >>> params = SamplingParams(temperature=0.5, top_k=2)
    >>> processed_logits(np.array([1.0, 2.0, 3.0]), params)
    array([-inf,   4.,   6.])
    """
    situation = situation_of(logits_V, params, prompt_ids, output_ids, stop_ids, allowed_V)
    after_V = checked_logits(logits_V)
    for _, after_V in applied_steps(after_V, situation):  # noqa: B007, B020  the last one counts
        pass
    return after_V


def sample(
    logits_V: np.ndarray,
    params: SamplingParams,
    *,
    step: int,
    seed: int,
    prompt_ids: Ids = (),
    output_ids: Ids = (),
    stop_ids: Iterable[int] = (),
    allowed_V: np.ndarray | None = None,
) -> int:
    """Choose one token id.

    Parameters
    ----------
    logits_V : ndarray of shape (V,), floating
    params : SamplingParams
        Its `seed` and `n` are not looked at: whoever runs the request has settled them.
    step : int
        How many tokens of this text were drawn before.
    seed : int
        Of this text: choice i of n has `params.seed + i`. Unused at temperature 0.
    prompt_ids, output_ids, stop_ids, allowed_V
        As for `processed_logits`.

    Raises
    ------
    NonFiniteError, BadRequest
        As `processed_logits`.

    Examples
    --------
    >>> logits_V = np.log([0.1, 0.2, 0.7])
    >>> sample(logits_V, SamplingParams(temperature=0), step=0, seed=0)
    2
    >>> [sample(logits_V, SamplingParams(), step=step, seed=7) for step in range(6)]
    [2, 0, 0, 2, 0, 2]
    """
    logits_V = processed_logits(
        logits_V, params, prompt_ids, output_ids, stop_ids=stop_ids, allowed_V=allowed_V
    )
    if params.temperature == 0:
        return int(logits_V.argmax())
    return drawn(logits_V, uniform(seed, step))


def drawn(logits_V: np.ndarray, u: float) -> int:
    """Return the id that a uniform number falls on: `draw` from softmax, in the order of ids.

    What is removed has no weight, so it is left out; and the weights are not divided by their sum,
    which another implementation might add up in another order.
    """
    possible_V = logits_V > -np.inf
    if np.count_nonzero(possible_V) > shortcuts.MANY:
        certain = shortcuts.drawn(logits_V, u)
        if certain is not None:
            return certain
    possible = np.flatnonzero(possible_V)
    z = logits_V[possible]
    with np.errstate(over="ignore", under="ignore"):
        weights = z - z.max()
        np.exp(weights, out=weights)
    return int(possible[draw(weights, u)])


def applied_steps(logits_V: np.ndarray, situation: Situation) -> Iterator[tuple[Step, np.ndarray]]:
    """Apply the steps one by one; yield each that does anything, with the logits after it."""
    profile = PROFILES[situation.params.profile]
    for step in profile.shaping if situation.params.temperature == 0 else profile.steps:
        if step.is_on(situation):
            logits_V = step.apply(logits_V, situation)
            if not np.isfinite(logits_V.max()):
                raise NonFiniteError(
                    f"logits after {step.name}",
                    expected="at least one finite",
                    found="none",
                    next_step="the parameters together forbid every token here: loosen one",
                )
            yield step, logits_V


def checked_logits(logits_V: np.ndarray) -> np.ndarray:
    """Return the logits in float64; raise `NonFiniteError` if they are no distribution."""
    logits_V = logits_V.astype(np.float64)
    if not np.isfinite(logits_V.max()):  # NaN if one is
        raise NonFiniteError(
            "logits", expected="numbers, at least one finite", found="NaN, infinity, or none"
        )
    return logits_V


def situation_of(
    logits_V: np.ndarray,
    params: SamplingParams,
    prompt_ids: Ids,
    output_ids: Ids,
    stop_ids: Iterable[int],
    allowed_V: np.ndarray | None,
) -> Situation:
    """Gather what the steps look at."""
    if logits_V.ndim != 1 or not logits_V.size:
        raise BadRequest("logits", expected="shape (V,)", found=str(logits_V.shape))
    if allowed_V is not None and (allowed_V.shape != logits_V.shape or allowed_V.dtype != bool):
        raise BadRequest(
            "allowed_V",
            expected=f"bool of shape {logits_V.shape}",
            found=f"{allowed_V.dtype} of shape {allowed_V.shape}",
        )
    return Situation(params, prompt_ids, output_ids, stop_ids, allowed_V)
