"""The two limits no program on this machine passes: bytes over bandwidth, flops over BLAS.

Decoding one token reads every weight once and uses it once, so memory sets its limit. A prompt uses
each weight many times, so arithmetic does. Both are measured here, with the threads at hand:

    tokens/s decoding  <=  bandwidth / bytes of the matrices
    tokens/s prompt    <=  BLAS flop/s / flops per token
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

READ_BYTES = 2**30
SIDE = 2048


class Limits(NamedTuple):
    """What the machine can do.

    Attributes
    ----------
    bytes_per_second : float
        Reading memory, all threads together.
    flops_per_second : float
        float32 matrix products of BLAS, all threads together.
    """

    bytes_per_second: float
    flops_per_second: float


def measure_limits(rounds: int = 5) -> Limits:
    """Measure both limits, the best of several rounds each."""
    n_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = np.ones(READ_BYTES // 4, np.float32)
    parts = np.array_split(memory, n_threads or 1)
    a, b = np.ones((2, SIDE, SIDE), np.float32)
    with ThreadPoolExecutor(n_threads) as pool:
        reading = min(_seconds(lambda: list(pool.map(np.max, parts))) for _ in range(rounds))
    multiplying = min(_seconds(lambda: a @ b) for _ in range(rounds))
    return Limits(memory.nbytes / reading, 2 * SIDE**3 / multiplying)


def _seconds(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
