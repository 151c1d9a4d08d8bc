"""The order in which each peer applies the parameters, as a table.

A profile switches the order, the rule at a boundary, the tokens that penalties look at, and the
defaults; nothing else. `shaping` also moves a greedy choice (temperature 0), `choosing` does not
and is left out there.

    vllm        temperature, min_p, top_k, top_p                    the default
    hf          temperature, top_k, top_p, min_p, typical_p         transformers
    llama.cpp   top_k, typical_p, top_p, min_p, temperature         its cuts see temperature 1
    meta        temperature, top_p                                  meta-llama/llama-models

Masks only ever remove, so where they stand among the shaping steps changes nothing; every profile
has them.

Source: the sampler docstring of v1/sample/sampler.py in vllm-project/vllm;
_get_logits_processor of generation/utils.py in huggingface/transformers; common/sampling.cpp in
ggml-org/llama.cpp; llama3/generation.py in meta-llama/llama-models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from llama_ref.errors import BadRequest, shown
from llama_ref.sampling import steps

if TYPE_CHECKING:
    from llama_ref.sampling.params import SamplingParams

Ids = Sequence[int] | np.ndarray


class Situation(NamedTuple):
    """All that a step may look at besides the logits."""

    params: SamplingParams
    prompt_ids: Ids
    output_ids: Ids
    stop_ids: Iterable[int]
    allowed_V: np.ndarray | None


class Step(NamedTuple):
    """One row of a profile.

    Attributes
    ----------
    name : str
        The field of `SamplingParams` that controls it.
    formula : str
    is_on : callable
        Tells whether it does anything in a situation.
    apply : callable
        Logits and situation to logits.
    """

    name: str
    formula: str
    is_on: Callable[[Situation], bool]
    apply: Callable[[np.ndarray, Situation], np.ndarray]


@dataclass(frozen=True)
class Profile:
    """One peer.

    Attributes
    ----------
    shaping, choosing : tuple of Step
        In order. At temperature 0 only the first are applied.
    defaults : mapping
        What the peer uses where its user says nothing, as far as that differs from vLLM.
    """

    shaping: tuple[Step, ...]
    choosing: tuple[Step, ...]
    defaults: Mapping[str, float] = field(default_factory=dict)

    @property
    def steps(self) -> tuple[Step, ...]:
        """All of them, in order."""
        return self.shaping + self.choosing

    @property
    def names(self) -> frozenset[str]:
        """The fields of `SamplingParams` that this profile knows."""
        return frozenset(step.name for step in self.steps)


def profile_named(name: object) -> Profile:
    """Return a profile, or raise `BadRequest` if there is none of that name."""
    if not isinstance(name, str) or name not in PROFILES:
        raise BadRequest("profile", expected=" or ".join(PROFILES), found=shown(name))
    return PROFILES[name]


def _all_ids(s: Situation) -> np.ndarray:
    return np.concatenate([_array(s.prompt_ids), _array(s.output_ids)])


def _output_ids(s: Situation) -> np.ndarray:
    return _array(s.output_ids)


def _last_64(s: Situation) -> np.ndarray:
    return np.concatenate([_array(s.prompt_ids[-64:]), _array(s.output_ids[-64:])])[-64:]


def _array(ids: Ids) -> np.ndarray:
    """Return a history as an array: made only for a step that looks at it."""
    array = np.asarray(ids) if len(ids) else np.empty(0, np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise BadRequest("token ids", expected="a list of integers", found=shown(ids))
    return array


GRAMMAR = Step(
    "allowed_V",
    "only what the grammar allows next",
    lambda s: s.allowed_V is not None,
    lambda z, s: np.where(s.allowed_V, z, -np.inf),  # type: ignore[arg-type]
)
ALLOWED = Step(
    "allowed_token_ids",
    "only these ids",
    lambda s: s.params.allowed_token_ids is not None,
    lambda z, s: steps.keep_only(z, s.params.allowed_token_ids or ()),
)
MIN_TOKENS = Step(
    "min_tokens",
    "no stop id while len(output) < min_tokens",
    lambda s: len(s.output_ids) < s.params.min_tokens,
    lambda z, s: steps.without(z, {*s.stop_ids, *(s.params.stop_token_ids or ())}),
)
LOGIT_BIAS = Step(
    "logit_bias",
    "z + bias",
    lambda s: bool(s.params.logit_bias),
    lambda z, s: steps.with_logit_bias(z, s.params.logit_bias or {}),
)


def _bad_words(history: Callable[[Situation], np.ndarray]) -> Step:
    return Step(
        "bad_words",
        "no id that completes a bad word",
        lambda s: bool(s.params.bad_words),
        lambda z, s: steps.without(
            z, steps.ends_of_bad_words(s.params.bad_words_as_ids, history(s).tolist())
        ),
    )


def _repetition(history: Callable[[Situation], np.ndarray]) -> Step:
    return Step(
        "repetition_penalty",
        "z / r if z > 0 else z * r, once for each id seen",
        lambda s: s.params.repetition_penalty != 1,
        lambda z, s: steps.with_repetition_penalty(z, history(s), s.params.repetition_penalty),
    )


def _frequency(history: Callable[[Situation], np.ndarray]) -> Step:
    return Step(
        "frequency_penalty",
        "z - f * count",
        lambda s: s.params.frequency_penalty != 0,
        lambda z, s: steps.with_frequency_penalty(z, history(s), s.params.frequency_penalty),
    )


def _presence(history: Callable[[Situation], np.ndarray]) -> Step:
    return Step(
        "presence_penalty",
        "z - p if seen",
        lambda s: s.params.presence_penalty != 0,
        lambda z, s: steps.with_presence_penalty(z, history(s), s.params.presence_penalty),
    )


TEMPERATURE = Step(
    "temperature",
    "z / T",
    lambda s: s.params.temperature != 1,
    lambda z, s: steps.with_temperature(z, s.params.temperature),
)
MIN_P = Step(
    "min_p",
    "keep p >= m * max p",
    lambda s: s.params.min_p > 0,
    lambda z, s: steps.keep_min_p(z, s.params.min_p),
)


def _top_k(rule: Callable[[np.ndarray, int], np.ndarray], words: str) -> Step:
    return Step(
        "top_k",
        words,
        lambda s: s.params.top_k > 0,
        lambda z, s: rule(z, s.params.top_k),
    )


def _top_p(rule: Callable[[np.ndarray, float], np.ndarray], words: str) -> Step:
    return Step(
        "top_p",
        words,
        lambda s: s.params.top_p < 1,
        lambda z, s: rule(z, s.params.top_p),
    )


def _typical(rule: Callable[[np.ndarray, float], np.ndarray], words: str) -> Step:
    return Step(
        "typical_p",
        words,
        lambda s: s.params.typical_p < 1,
        lambda z, s: rule(z, s.params.typical_p),
    )


TOP_K = _top_k(steps.keep_top_k, "keep z >= the k-th highest")
TOP_K_EXACTLY = _top_k(steps.keep_top_k_exactly, "keep k, of equal ones the lowest ids")
TOP_P = _top_p(steps.keep_top_p, "keep token i if C[i] < p")
TOP_P_AND_NEXT = _top_p(steps.keep_top_p_and_next, "keep token i if C[i] <= p")
TYPICAL = _typical(steps.keep_typical, "nearest to the entropy until their sum >= p, and ties")
TYPICAL_EXACTLY = _typical(steps.keep_typical_exactly, "nearest to the entropy until their sum > p")

PROFILES: Mapping[str, Profile] = {
    "vllm": Profile(
        shaping=(
            GRAMMAR,
            ALLOWED,
            _bad_words(_output_ids),
            MIN_TOKENS,
            LOGIT_BIAS,
            _repetition(_all_ids),
            _frequency(_output_ids),
            _presence(_output_ids),
        ),
        choosing=(TEMPERATURE, MIN_P, TOP_K, TOP_P, TYPICAL),
    ),
    "hf": Profile(
        shaping=(
            GRAMMAR,
            ALLOWED,
            LOGIT_BIAS,
            _repetition(_all_ids),
            _bad_words(_all_ids),
            MIN_TOKENS,
        ),
        choosing=(TEMPERATURE, TOP_K, TOP_P, MIN_P, TYPICAL),
        defaults={"top_k": 50},
    ),
    "llama.cpp": Profile(
        shaping=(
            GRAMMAR,
            ALLOWED,
            _bad_words(_output_ids),
            MIN_TOKENS,
            LOGIT_BIAS,
            _repetition(_last_64),
            _frequency(_last_64),
            _presence(_last_64),
        ),
        choosing=(TOP_K_EXACTLY, TYPICAL_EXACTLY, TOP_P, MIN_P, TEMPERATURE),
        defaults={"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05},
    ),
    "meta": Profile(
        shaping=(GRAMMAR, ALLOWED, _bad_words(_output_ids), MIN_TOKENS),
        choosing=(TEMPERATURE, TOP_P_AND_NEXT),
        defaults={"temperature": 0.6, "top_p": 0.9},
    ),
}
