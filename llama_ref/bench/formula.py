"""Computing weights: elements per second on one core, and how near that is to what NumPy can do.

Two limits. NumPy does one operation at a time on a whole block, and an element takes 17: 12 for its
hash, 5 to become a number. So no more elements are computed than a seventeenth of what the simplest
of these operations, `x ^= y` on a block of that size, gets through. And each element is 4 bytes to
write: where they are not used up while they lie in a cache, memory sets a limit too.

    elements/s  <=  x ^= y on blocks, numbers/s / 17
    elements/s  <=  bytes/s that this core writes / 4
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

import numpy as np

from llama_ref.checkpoint import synthetic
from llama_ref.checkpoint.counter_hash import BLOCK
from llama_ref.ops.linear import BLOCK_ELEMENTS

OPERATIONS = 17
REPEATS = 16  # some 50 ms, long enough for any clock
COLUMNS = 4096
N_ROWS = BLOCK_ELEMENTS // COLUMNS
"""What `linear` asks for at a time, of a matrix 4096 wide."""


class Formula(NamedTuple):
    """Medians over the rounds; one thread.

    Attributes
    ----------
    elements_per_second : float
        Of a matrix, some rows at a time.
    fraction_of_limit : float
        Of the nearer limit, measured turn by turn with it.
    """

    elements_per_second: float
    fraction_of_limit: float


def measure_formula(rounds: int) -> Formula:
    """Measure how fast rows of a matrix are computed, in seconds of this core's own time."""
    x, y = np.ones((2, BLOCK), np.uint32)
    written = np.empty(N_ROWS * COLUMNS, np.float32)

    def compute() -> None:
        synthetic.tensor("lm_head.weight", (128_256, COLUMNS), 0, 0, N_ROWS)

    def operate() -> None:
        for _ in range(0, OPERATIONS * written.size, BLOCK):
            np.bitwise_xor(x, y, out=x)

    def write() -> None:
        written.fill(0)

    turns = [(_rate(compute), _rate(operate), _rate(write)) for _ in range(rounds + 1)][1:]
    return Formula(
        median(ours for ours, *_ in turns), median(ours / min(limits) for ours, *limits in turns)
    )


def _rate(work: Callable[[], None]) -> float:
    """Return elements per second; what other processes take of the core is not counted."""
    start = time.thread_time()
    for _ in range(REPEATS):
        work()
    return REPEATS * N_ROWS * COLUMNS / (time.thread_time() - start)
