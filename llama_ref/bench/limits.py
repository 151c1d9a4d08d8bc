"""The two limits no program on this machine passes: bytes over bandwidth, flops over BLAS.

Decoding one token reads every weight once and uses it once, so memory sets its limit. A prompt uses
each weight many times, so arithmetic does:

    decoding   tokens/s  <=  bytes/s of memory / bytes of the matrices
    prompt     tokens/s  <=  flop/s of BLAS / flops per token

Both are measured by a contestant of the race, `machine`, turn by turn with the others: on a shared
machine a limit taken a minute ago is not the limit now.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from llama_ref.config import Config

SIDE = 2048
REPEATS = 4  # long enough for threads to wake and clocks to rise
PRODUCT_FLOPS = REPEATS * 2 * SIDE**3
READ_BYTES = REPEATS * 2**28


def machine(path: Path, threads: int) -> tuple[int, Callable[[], Callable[[list[int]], int]]]:
    """Return a contestant whose prompt is four matrix products, and whose token is 1 GiB read.

    Nothing tried reads memory faster than the matrix-vector product of BLAS.
    """
    a, b = np.ones((2, SIDE, SIDE), np.float32)
    memory = np.ones((READ_BYTES // REPEATS // 4 // SIDE, SIDE), np.float32)
    product, sums = np.empty_like(a), np.empty(len(memory), np.float32)

    def step(ids: list[int]) -> int:
        for _ in range(REPEATS):
            if len(ids) > 1:
                np.matmul(a, b, out=product)
            else:
                np.matmul(memory, a[0], out=sums)
        return 0

    return 2, lambda: step


def limits(config: Config, n_prompt: int, itemsize: float = 4) -> dict[str, float]:
    """Return the limits in tokens per second for each unit of the contestant `machine`.

    Parameters
    ----------
    config : Config
    n_prompt : int
        Tokens of the prompt; of the output head only the last one needs a row.
    itemsize : float
        Bytes of a stored weight on average: fewer than 2 of a quantised one. (Arithmetic in float32
        is what the prompt is measured by.)

    Returns
    -------
    dict with "prefill" and "decode"
        To be multiplied with the tokens per second of `machine`'s turns.
    """
    head = 2 * config.vocab_size * config.d_model
    prompt_flops = n_prompt * (config.flops_per_token(n_prompt // 2) - head) + head
    return {
        "prefill": PRODUCT_FLOPS / prompt_flops,
        "decode": READ_BYTES / (itemsize * config.n_matrix_params),
    }
