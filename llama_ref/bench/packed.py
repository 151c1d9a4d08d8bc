"""Many requests packed into one pass: tokens per second of all together, against one alone.

A pass of one token reads every weight once and uses it twice. With n requests it is read once and
used 2n times: as long as reading is what takes the time, the others come for free.

    tokens/s of n  /  tokens/s of one   <=  n            while bytes to read are the limit
                                        <=  flops/s / (2 parameters) / tokens/s of one   after that

The sizes take turns in one run, as everything else here: a ratio of times seconds apart.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np

from llama_ref.bench.race import run_apart
from llama_ref.engine import Engine, Request
from llama_ref.loading import load
from llama_ref.sampling import SamplingParams

N_PROMPT = 32


class Packed(NamedTuple):
    """Medians over the rounds.

    Attributes
    ----------
    n_requests : int
    tokens_per_second : float
        Of all the requests together, sampling and the engine included.
    ratio_to_one : float
        To a request alone in the same round.
    """

    n_requests: int
    tokens_per_second: float
    ratio_to_one: float


def measure_packed(
    folder: Path, sizes: Sequence[int], *, n_decode: int, rounds: int, threads: int
) -> list[Packed]:
    """Measure in a process of its own, with that many threads; a round before the first warms up.

    Raises
    ------
    BadRequest
        If that process stops.
    """
    arguments = [str(folder), list(sizes), n_decode, rounds]
    return [Packed(*row) for row in run_apart("packed", arguments, threads=threads)]


def _speed(engine: Engine, n_requests: int, n_decode: int) -> float:
    """Return tokens per second of some requests, from the first token of the last of them on."""
    params = SamplingParams(temperature=0.6, seed=0, max_tokens=n_decode + 64, ignore_eos=True)
    vocab_size = engine.model.config.vocab_size
    prompts_NT = np.random.default_rng(0).integers(0, vocab_size, (n_requests, N_PROMPT))
    names = [engine.add(Request(prompt.tolist(), params)) for prompt in prompts_NT]
    begun: set[str] = set()
    while len(begun) < n_requests:
        begun |= {delta.request_id for delta in engine.step()}
    start = time.perf_counter()
    n_tokens = sum(len(delta.token_ids) for _ in range(n_decode) for delta in engine.step())
    seconds = time.perf_counter() - start
    for name in names:
        engine.abort(name)
    return n_tokens / seconds


def _main(folder: str, sizes: list[int], n_decode: int, rounds: int) -> None:
    engine = Engine(load(folder), max_running=max(sizes), prefix_bytes=0)
    turns = [
        [_speed(engine, n, n_decode) for n in (1, *sizes)]  # one alone is part of every round
        for _ in range(rounds + 1)
    ][1:]
    of_each = zip(*turns, strict=True)
    alone = next(of_each)
    print(
        json.dumps(
            [
                (n, median(speeds), median(s / one for s, one in zip(speeds, alone, strict=True)))
                for n, speeds in zip(sizes, of_each, strict=True)
            ]
        )
    )


if __name__ == "__main__":
    _main(*json.loads(sys.argv[1]))
