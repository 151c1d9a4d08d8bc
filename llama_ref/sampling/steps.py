"""Each parameter as a function of logits that returns logits; what it removes becomes -inf.

    z       the logits a step is given            T  temperature
    p       softmax(z)                            r  repetition penalty
    C[i]    the sum of the p before token i, in order of falling p, and of equal p of rising id

`with_...` changes values, `without_...` and `keep_...` remove. What remains is what it was, bit for
bit, and every `keep_...` of a distribution keeps a token of the highest probability. Where two
peers draw a boundary differently there are two functions, and `profiles.py` names the one.

Logits of half of a bfloat16 model are equal to another one's, so ties matter: each function says
what it does with them, and never lets the sorting algorithm decide.

Source: v1/sample/ops in vllm-project/vllm; generation/logits_process.py in
huggingface/transformers; src/llama-sampler.cpp in ggml-org/llama.cpp; llama3/generation.py in
meta-llama/llama-models; Holtzman et al. 2020, arXiv:1904.09751; Keskar et al. 2019,
arXiv:1909.05858; Meister et al. 2023, arXiv:2202.00666; Nguyen et al. 2024, arXiv:2407.01082.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np

from llama_ref.errors import BadRequest
from llama_ref.ops.softmax import softmax
from llama_ref.sampling import shortcuts


def keep_only(logits_V: np.ndarray, ids: Iterable[int] | np.ndarray) -> np.ndarray:
    """Remove all but these ids.

    Examples
    --------
    >>> keep_only(np.array([1.0, 2.0, 3.0]), [0, 2])
    array([  1., -inf,   3.])
    """
    ids = _checked(ids, logits_V)
    kept_V = np.full_like(logits_V, -np.inf)
    kept_V[ids] = logits_V[ids]
    return kept_V


def without(logits_V: np.ndarray, ids: Iterable[int] | np.ndarray) -> np.ndarray:
    """Remove these ids.

    Examples
    --------
    >>> without(np.array([1.0, 2.0, 3.0]), [1])
    array([  1., -inf,   3.])
    """
    kept_V = logits_V.copy()
    kept_V[_checked(ids, logits_V)] = -np.inf
    return kept_V


def ends_of_bad_words(
    bad_words: Iterable[Sequence[int]], output_ids: Sequence[int] | np.ndarray
) -> list[int]:
    """Return the ids that would complete one of these sequences of ids now.

    Examples
    --------
    >>> ends_of_bad_words([(5,), (1, 2, 3), (1, 4)], [0, 1, 2])
    [5, 3]
    """
    n = len(output_ids)
    return [
        int(word[-1])
        for word in bad_words
        if len(word) - 1 <= n and list(output_ids[n - len(word) + 1 :]) == list(word[:-1])
    ]


def with_logit_bias(logits_V: np.ndarray, bias: Mapping[int, float]) -> np.ndarray:
    """Add a number to the logit of each id that has one: z + b. What is removed stays removed.

    -100 is no ban: where all others are removed, such a token is still drawn.

    Examples
    --------
    >>> with_logit_bias(np.array([1.0, 2.0]), {0: 5.0})
    array([6., 2.])
    """
    biased_V = logits_V.copy()
    biased_V[_checked(bias, logits_V)] += np.fromiter(bias.values(), np.float64, len(bias))
    return biased_V


def with_repetition_penalty(
    logits_V: np.ndarray, ids: Iterable[int] | np.ndarray, penalty: float
) -> np.ndarray:
    """Push each id of a history down, once: z / r where z > 0, else z * r.

    Examples
    --------
    >>> with_repetition_penalty(np.array([4.0, -4.0, 4.0]), [0, 1, 1], 2.0)
    array([ 2., -8.,  4.])
    """
    seen = np.unique(_checked(ids, logits_V))
    penalised_V, z = logits_V.copy(), logits_V[seen]
    with np.errstate(over="ignore"):  # a vanishing penalty: to infinity, which the pipeline reports
        penalised_V[seen] = np.where(z > 0, z / penalty, z * penalty)
    return penalised_V


def with_frequency_penalty(
    logits_V: np.ndarray, ids: Iterable[int] | np.ndarray, penalty: float
) -> np.ndarray:
    """Subtract f for each time an id occurs in a history: z - f * count.

    Examples
    --------
    >>> with_frequency_penalty(np.array([4.0, 4.0, 4.0]), [0, 1, 1], 0.5)
    array([3.5, 3. , 4. ])
    """
    seen, counts = np.unique(_checked(ids, logits_V), return_counts=True)
    penalised_V = logits_V.copy()
    penalised_V[seen] -= penalty * counts
    return penalised_V


def with_presence_penalty(
    logits_V: np.ndarray, ids: Iterable[int] | np.ndarray, penalty: float
) -> np.ndarray:
    """Subtract p from each id that occurs in a history, however often: z - p * [count > 0].

    Examples
    --------
    >>> with_presence_penalty(np.array([4.0, 4.0, 4.0]), [0, 1, 1], 0.5)
    array([3.5, 3.5, 4. ])
    """
    seen = np.unique(_checked(ids, logits_V))
    penalised_V = logits_V.copy()
    penalised_V[seen] -= penalty
    return penalised_V


def with_temperature(logits_V: np.ndarray, temperature: float) -> np.ndarray:
    """Divide by the temperature: z / T. Below 1 sharpens, above 1 flattens.

    Where the quotient would overflow, the highest logit is subtracted first, which changes no
    probability.

    Examples
    --------
    >>> with_temperature(np.array([1.0, 2.0]), 0.5)
    array([2., 4.])
    """
    with np.errstate(over="ignore"):
        scaled_V = logits_V / temperature
        if not np.isfinite(scaled_V.max()):
            scaled_V = (logits_V - logits_V.max()) / temperature
    return scaled_V


def keep_min_p(logits_V: np.ndarray, min_p: float) -> np.ndarray:
    """Keep what is at least `min_p` times as probable as the most probable: p >= m * max p.

    The comparison is of exp(z - max z) with m, both rounded to float32, so that a token stays
    which is exactly m times as probable: its logit, a logarithm, was rounded too.

    Examples
    --------
    >>> keep_min_p(np.log([0.5, 0.25, 0.05]), 0.2).round(2)
    array([-0.69, -1.39,  -inf])
    """
    highest = logits_V.max()
    with np.errstate(under="ignore", over="ignore", divide="ignore"):
        near = np.flatnonzero(logits_V >= highest + np.log(min_p) - 1)  # the rest is far below
        ratio = np.exp(logits_V[near] - highest).astype(np.float32)
    return keep_only(logits_V, near[ratio >= np.float32(min_p)])


def keep_top_k(logits_V: np.ndarray, top_k: int) -> np.ndarray:
    """Keep the k highest logits, and all that equal the lowest of them.

    Examples
    --------
    >>> keep_top_k(np.array([1.0, 3.0, 2.0, 2.0]), 2)
    array([-inf,   3.,   2.,   2.])
    """
    if top_k >= logits_V.shape[-1]:
        return logits_V
    return np.where(logits_V < _kth_highest(logits_V, top_k), -np.inf, logits_V)


def keep_top_k_exactly(logits_V: np.ndarray, top_k: int) -> np.ndarray:
    """Keep k logits and no more: the highest, and of equal ones the lowest ids.

    Examples
    --------
    >>> keep_top_k_exactly(np.array([1.0, 3.0, 2.0, 2.0]), 2)
    array([-inf,   3.,   2., -inf])
    """
    if top_k >= logits_V.shape[-1]:
        return logits_V
    return _keep_highest(logits_V, top_k, _kth_highest(logits_V, top_k))


def keep_top_p(logits_V: np.ndarray, top_p: float) -> np.ndarray:
    """Keep the nucleus: token i stays if C[i] < p, and the most probable always.

    That is the smallest set of most probable tokens whose probabilities reach `top_p`. Of equally
    probable tokens the lowest ids stay.

    Examples
    --------
    >>> keep_top_p(np.log([0.5, 0.25, 0.25]), 0.6).round(2)
    array([-0.69, -1.39,  -inf])
    """
    return _nucleus(logits_V, top_p, side="left")


def keep_top_p_and_next(logits_V: np.ndarray, top_p: float) -> np.ndarray:
    """Keep token i if C[i] <= p: Meta's nucleus, one token more where the sum is p exactly.

    Examples
    --------
    >>> half_quarter = np.log([0.5, 0.25, 0.25])
    >>> keep_top_p(half_quarter, 0.5).round(2), keep_top_p_and_next(half_quarter, 0.5).round(2)
    (array([-0.69,  -inf,  -inf]), array([-0.69, -1.39,  -inf]))
    """
    return _nucleus(logits_V, top_p, side="right")


def keep_typical(logits_V: np.ndarray, typical_p: float) -> np.ndarray:
    """Keep the tokens whose information is nearest to the entropy, until they sum to `typical_p`.

    `s[i] = |-ln p[i] - H|` with `H = -sum p ln p`. In order of rising s, the first tokens whose
    probabilities reach the mass stay, and all whose s equals that of the last of them.

    Examples
    --------
    >>> keep_typical(np.log([0.5, 0.2, 0.2, 0.1]), 0.35).round(2)       # the most probable goes
    array([ -inf, -1.61, -1.61,  -inf])
    """
    distance_V, order_V, cumulative_V = _by_typicality(logits_V)
    n_short = int((cumulative_V < typical_p).sum())
    furthest = distance_V[order_V[min(n_short, len(order_V) - 1)]]
    return np.where(distance_V > furthest, -np.inf, logits_V)


def keep_typical_exactly(logits_V: np.ndarray, typical_p: float) -> np.ndarray:
    """Keep the shortest such prefix whose sum exceeds `typical_p`, ties by rising id: llama.cpp's.

    Examples
    --------
    >>> keep_typical_exactly(np.log([0.5, 0.2, 0.2, 0.1]), 0.35).round(2)
    array([ -inf, -1.61, -1.61,  -inf])
    """
    _, order_V, cumulative_V = _by_typicality(logits_V)
    n_kept = int(np.searchsorted(cumulative_V, typical_p, side="right")) + 1
    return keep_only(logits_V, order_V[:n_kept])


def top_ids(logits_V: np.ndarray, n: int) -> np.ndarray:
    """Return the ids of the n highest logits, highest first, and of equal ones the lowest first.

    What is removed is never among them.

    Examples
    --------
    >>> top_ids(np.array([1.0, 3.0, 2.0, 3.0]), 3)
    array([1, 3, 2])
    """
    if n <= 0:
        return np.empty(0, np.int64)
    ids = np.flatnonzero(logits_V >= _kth_highest(logits_V, n))
    ids = ids[np.argsort(-logits_V[ids], kind="stable")]  # a prefix of the whole order
    return ids[:n]


def _kth_highest(logits_V: np.ndarray, k: int) -> float:
    """Return the k-th highest logit, or the lowest possible one if fewer are possible."""
    possible = logits_V[logits_V > -np.inf]  # partition is slow where most are equal
    if k >= len(possible):
        return float(possible.min())
    return float(np.partition(possible, -k)[-k])


def _nucleus(logits_V: np.ndarray, top_p: float, *, side: Literal["left", "right"]) -> np.ndarray:
    """Keep token i if C[i] < p (side "left") or C[i] <= p ("right").

    The sums are those of the sorted values, whichever ids have them; so values are sorted, not ids.
    """
    possible_V = logits_V > -np.inf
    if np.count_nonzero(possible_V) > shortcuts.MANY:
        certain = shortcuts.nucleus_size(logits_V, top_p)
        if certain is not None:
            return _keep_highest(logits_V, *certain)
    falling = np.sort(logits_V[possible_V])[::-1]
    before = np.concatenate([[0.0], np.cumsum(softmax(falling))[:-1]])
    n_kept = max(1, int(np.searchsorted(before, top_p, side=side)))
    return _keep_highest(logits_V, n_kept, float(falling[n_kept - 1]))


def _keep_highest(logits_V: np.ndarray, n: int, nth_highest: float) -> np.ndarray:
    """Keep n logits: those above the n-th highest, and of those equal to it the lowest ids."""
    ids = np.flatnonzero(logits_V >= nth_highest)
    equal = np.flatnonzero(logits_V[ids] == nth_highest)
    n_above = len(ids) - len(equal)
    return keep_only(logits_V, np.delete(ids, equal[n - n_above :]))


def _by_typicality(logits_V: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return |-ln p - H| of each id, the possible ids in its order, and their running sums."""
    possible = np.flatnonzero(logits_V > -np.inf)
    z, probs = logits_V[possible] - logits_V.max(), softmax(logits_V[possible])
    with np.errstate(under="ignore"):
        logprobs = z - np.log(np.exp(z).sum())
        distance = np.abs(-logprobs + (probs * logprobs).sum())
    order = np.argsort(distance, kind="stable")
    distance_V = np.full(len(logits_V), np.inf)
    distance_V[possible] = distance
    return distance_V, possible[order], np.cumsum(probs[order])


def _checked(ids: Iterable[int] | np.ndarray, logits_V: np.ndarray) -> np.ndarray:
    """Return ids as an array, or raise `BadRequest` if one is outside the vocabulary."""
    array = ids if isinstance(ids, np.ndarray) else np.fromiter(ids, np.int64)
    if array.size and not 0 <= array.min() <= array.max() < len(logits_V):
        found = array.min() if array.min() < 0 else array.max()
        raise BadRequest("token ids", expected=f"0 to {len(logits_V) - 1}", found=str(found))
    return array
