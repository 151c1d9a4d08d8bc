"""How often each token is drawn: as often as its probability says, to a chi-square test."""

import numpy as np
import pytest

from llama_ref.ops.softmax import softmax
from llama_ref.sampling import SamplingParams, processed_logits, sample

N_DRAWS = 6000
LOGITS_V = np.array([2.0, 1.5, 1.5, 0.0, -0.5, 3.0, 2.9, -9.0, 1.0, 0.9, -1.0, 2.2], np.float32)


def highest_expected(n_free):
    """Chi-square with so many degrees of freedom exceeds this once in a thousand tries.

    Wilson and Hilferty 1931; its error is below one percent from three degrees on.
    """
    spread = 2 / (9 * n_free)
    return n_free * (1 - spread + 3.09 * np.sqrt(spread)) ** 3


@pytest.mark.parametrize("along", ["steps", "seeds"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 2.0, "top_k": 5},
        {"temperature": 1.3, "top_p": 0.8, "logit_bias": {3: 2.0}},
        {"min_p": 0.1, "repetition_penalty": 1.5},
    ],
)
def test_tokens_come_as_often_as_their_probabilities_say(options, along):
    """Over the steps of one request, and over the seeds of one step."""
    params = SamplingParams(**options)
    history = {"prompt_ids": [5, 1], "output_ids": [6]}
    expected_V = softmax(processed_logits(LOGITS_V, params, **history).astype(np.float64))
    counts_V = np.zeros(len(LOGITS_V))
    for i in range(N_DRAWS):
        step, seed = (i, 7) if along == "steps" else (3, i)
        counts_V[sample(LOGITS_V, params, step=step, seed=seed, **history)] += 1
    assert counts_V[expected_V == 0].sum() == 0
    kept = expected_V * N_DRAWS >= 5  # rarer ones make the test unreliable
    expected, counts = expected_V[kept] * N_DRAWS, counts_V[kept]
    chi_square = np.sum((counts - expected) ** 2 / expected)
    assert chi_square < highest_expected(kept.sum() - 1)


def test_the_test_would_notice():
    """Draws at another temperature exceed the bound by far."""
    expected_V = softmax(LOGITS_V.astype(np.float64)) * N_DRAWS
    params = SamplingParams(temperature=1.15)
    drawn = [sample(LOGITS_V, params, step=i, seed=7) for i in range(N_DRAWS)]
    counts_V = np.bincount(drawn, minlength=len(LOGITS_V))
    chi_square = np.sum((counts_V - expected_V) ** 2 / expected_V)
    assert chi_square > 2 * highest_expected(len(LOGITS_V) - 1)
