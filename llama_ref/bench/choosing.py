"""Choosing a token: what sampling costs beside the pass of the model that gave the logits."""

from __future__ import annotations

import time
from collections.abc import Mapping
from itertools import count
from statistics import median

import numpy as np

from llama_ref.sampling import SamplingParams, sample

WAYS: Mapping[str, SamplingParams] = {
    "greedy": SamplingParams(temperature=0),
    "temperature": SamplingParams(temperature=0.7),
    "top_p": SamplingParams(temperature=0.7, top_p=0.9),
    "top_k": SamplingParams(temperature=0.7, top_k=40),
    "min_p": SamplingParams(temperature=0.7, min_p=0.05),
}
LARGE = 2**22 - 2**18
"""Numbers of an array that is barely below 32 MB, the most that the C library keeps."""
TIMES = 20
"""How often each way is timed in a round."""


def logits_as_of_a_model(vocab_size: int) -> np.ndarray:
    """Return logits, float32, of which a few stand out of a broad rest."""
    rng = np.random.default_rng(0)
    logits_V = 2.5 * rng.standard_normal(vocab_size)
    logits_V[rng.integers(0, vocab_size, 40)] += 12
    return logits_V.astype(np.float32)


def measure_choosing(vocab_size: int, rounds: int) -> dict[str, float]:
    """Return the median of the seconds that each way takes of one request.

    As behind a pass of a model: once a process has freed large arrays, the C library keeps what
    smaller ones leave, and their pages need not be asked of the system anew.
    """
    np.ones(LARGE)
    logits_V, steps = logits_as_of_a_model(vocab_size), count()
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(rounds):
        for name, params in WAYS.items():
            for step in [next(steps) for _ in range(TIMES)]:
                start = time.perf_counter()
                sample(logits_V, params, step=step, seed=0)
                seconds[name].append(time.perf_counter() - start)
    return {name: median(times) for name, times in seconds.items()}
