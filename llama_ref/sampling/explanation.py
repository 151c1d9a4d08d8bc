"""What each step did to one distribution: the ids it removed, the probabilities before and after.

    logits -> step -> step -> ... -> the token drawn

The steps are those that the sampler runs, watched from outside; nothing here is a second account
of them. Words, a table for a notebook and a figure show the same record.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from llama_ref.ops.softmax import softmax
from llama_ref.sampling.params import SamplingParams
from llama_ref.sampling.pipeline import applied_steps, checked_logits, drawn, situation_of
from llama_ref.sampling.profiles import Ids
from llama_ref.sampling.steps import top_ids
from llama_ref.sampling.stream import uniform

if TYPE_CHECKING:
    from llama_ref.tokenizer import Tokenizer

LISTED = 8
"""Removed ids that are listed one by one; more are counted."""


class StepTaken(NamedTuple):
    """One step and what it did.

    Attributes
    ----------
    name : str
        The field of `SamplingParams`.
    value : object
        What it was set to; for `allowed_V`, how many ids the grammar allows.
    formula : str
    removed_ids : ndarray of int64
        Possible before and impossible after, in order of their probability before.
    probs_before_V, probs_after_V : ndarray of shape (V,), float64
    """

    name: str
    value: object
    formula: str
    removed_ids: np.ndarray
    probs_before_V: np.ndarray
    probs_after_V: np.ndarray

    @property
    def mass_removed(self) -> float:
        """The probability, before the step, of all that it removed."""
        return float(self.probs_before_V[self.removed_ids].sum())


@dataclass(frozen=True, repr=False)
class Explanation:
    """How a distribution became a token; see `explain`.

    Attributes
    ----------
    params : SamplingParams
    model_probs_V : ndarray of shape (V,), float64
        Softmax of the logits as they came.
    probs_V : ndarray of shape (V,), float64
        What the token is drawn from; at temperature 0, what the highest is taken of.
    steps : tuple of StepTaken
        Those that did anything, in order.
    token_id : int or None
        Greedy, or drawn if a seed was given.
    u : float or None
        The uniform number it was drawn with.
    tokenizer : Tokenizer or None
        For the text of tokens.
    """

    params: SamplingParams
    model_probs_V: np.ndarray
    probs_V: np.ndarray
    steps: tuple[StepTaken, ...]
    token_id: int | None = None
    u: float | None = None
    tokenizer: Tokenizer | None = None

    def label(self, token_id: int) -> str:
        """Return an id, with its text if there is a tokenizer."""
        if self.tokenizer is None or token_id >= self.tokenizer.vocab_size:
            return str(token_id)
        return f"{token_id} {self.tokenizer.decode([token_id])!r}"

    def shown_ids(self, n: int = 10) -> list[int]:
        """Return the ids worth showing: the most probable at first, and the token chosen."""
        ids = top_ids(self.model_probs_V, n).tolist()
        if self.token_id is not None and self.token_id not in ids:
            ids[-1] = self.token_id
        return ids

    @property
    def outcome(self) -> str:
        """The last line: which token, and why."""
        if self.token_id is None:
            return f"{np.count_nonzero(self.probs_V)} tokens to draw from"
        token = f"{self.label(self.token_id)}, p = {self.probs_V[self.token_id]:.4f}"
        return f"greedy: {token}" if self.u is None else f"drawn with u = {self.u:.4f}: {token}"

    def __str__(self) -> str:
        left = np.count_nonzero(self.model_probs_V)
        lines = [f"profile {self.params.profile}, {left} possible tokens"]
        lines.append(f"  {'logits':32} {self._best(self.model_probs_V)}")
        for step in self.steps:
            lines.append(
                f"  {step.name + ' ' + str(step.value):32} {self._best(step.probs_after_V)}"
            )
            if n := len(step.removed_ids):
                listed = ", ".join(self.label(i) for i in step.removed_ids[:LISTED].tolist())
                more = f" and {n - LISTED} more" if n > LISTED else ""
                mass = f"mass {step.mass_removed:.4f}"
                lines.append(f"    removes {n} ({mass}): {listed}{more}")
        return "\n".join([*lines, f"  {self.outcome}"])

    __repr__ = __str__

    def _best(self, probs_V: np.ndarray, n: int = 3) -> str:
        """Return the most probable tokens in words."""
        ids = top_ids(probs_V, n).tolist()
        best = ", ".join(f"{self.label(i)} {probs_V[i]:.4f}" for i in ids if probs_V[i] > 0)
        return best + (", …" if np.count_nonzero(probs_V) > n else "")

    def _repr_html_(self) -> str:
        from llama_ref.sampling.explanation_views import as_html  # noqa: PLC0415  needed here alone

        return as_html(self)

    def plot(self, n: int = 10) -> Any:
        """Draw one small picture for each step: the probabilities before and after it.

        Parameters
        ----------
        n : int
            How many tokens to show, most probable first.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        Unsupported
            If matplotlib is not installed.
        """
        from llama_ref.sampling.explanation_views import as_figure  # noqa: PLC0415

        return as_figure(self, n)


def explain(
    logits_V: np.ndarray,
    params: SamplingParams,
    *,
    step: int = 0,
    seed: int | None = None,
    prompt_ids: Ids = (),
    output_ids: Ids = (),
    stop_ids: Iterable[int] = (),
    allowed_V: np.ndarray | None = None,
    tokenizer: Tokenizer | None = None,
) -> Explanation:
    """Say what each step does to these logits; parameters and errors are those of `sample`.

    Parameters
    ----------
    seed : int, optional
        Without one nothing is drawn, unless the temperature is 0.
    tokenizer : Tokenizer, optional
        Shows the text of tokens beside their ids.

    Examples
    --------
    >>> params = SamplingParams(temperature=0.5, top_k=2)
    >>> print(explain(np.log([0.5, 0.25, 0.125, 0.125]), params, seed=7))
    profile vllm, 4 possible tokens
      logits                           0 0.5000, 1 0.2500, 2 0.1250, …
      temperature 0.5                  0 0.7273, 1 0.1818, 2 0.0455, …
      top_k 2                          0 0.8000, 1 0.2000
        removes 2 (mass 0.0909): 2, 3
      drawn with u = 0.8721: 1, p = 0.2000
    """
    situation = situation_of(logits_V, params, prompt_ids, output_ids, stop_ids, allowed_V)
    logits_V = checked_logits(logits_V)
    model_probs_V = probs_V = softmax(logits_V)
    taken = []
    for applied, after_V in applied_steps(logits_V, situation):
        removed = np.flatnonzero(np.isfinite(logits_V) & ~np.isfinite(after_V))
        removed = removed[np.argsort(-probs_V[removed], kind="stable")]
        value = getattr(params, applied.name, None)
        if allowed_V is not None and applied.name == "allowed_V":
            value = f"{np.count_nonzero(allowed_V)} ids"
        before_V, probs_V, logits_V = probs_V, softmax(after_V), after_V
        taken.append(StepTaken(applied.name, value, applied.formula, removed, before_V, probs_V))
    token_id, u = None, None
    if params.temperature == 0:
        token_id = int(logits_V.argmax())
    elif seed is not None:
        u = uniform(seed, step)
        token_id = drawn(logits_V, u)
    return Explanation(params, model_probs_V, probs_V, tuple(taken), token_id, u, tokenizer)
