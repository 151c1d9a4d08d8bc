"""What a longer context costs: time of a token, and memory of a prompt.

    attention      reads all keys and values so far: time in proportion to the context
    the rest       does not know of it: always the same
    memory         keys, values and activations: in proportion to the tokens, never their square

One pass of a prompt, then some tokens after it, for each length in a process of its own, whose peak
of resident memory is noted. Time inside attention is taken apart from the rest.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from llama_ref import layer
from llama_ref.bench.race import run_apart
from llama_ref.bench.startup import KIB
from llama_ref.checkpoint.synthetic import token_ids
from llama_ref.loading import load

STEPS = 5


class Context(NamedTuple):
    """The cost at one length.

    Attributes
    ----------
    n_tokens : int
        Of the prompt, all in one pass.
    attention_seconds, other_seconds : float
        Of one token after it, medians.
    prompt_seconds : float
        Of the whole prompt.
    prompt_bytes : int
        By which the peak of resident memory grew during the prompt.
    """

    n_tokens: int
    attention_seconds: float
    other_seconds: float
    prompt_seconds: float
    prompt_bytes: int


def measure_context(folder: Path, lengths: Sequence[int], *, threads: int) -> list[Context]:
    """Measure each length in turn.

    Raises
    ------
    BadRequest
        If a pass does not run.
    """
    each = [run_apart("context", [str(folder), n], threads=threads) for n in lengths]
    return [Context(*row) for row in each]


def _main(folder: str, n_tokens: int) -> None:
    import resource  # noqa: PLC0415 - not everywhere

    model = load(folder, tokenizer=False)
    cache = model.new_cache(n_tokens + STEPS + 1)
    model.forward([1], cache)  # all weights are in memory
    inside, attend = [0.0], layer.packed_attention  # type: ignore[attr-defined]

    def timed(*args: Any, **options: Any) -> Any:
        start = time.perf_counter()
        result = attend(*args, **options)
        inside[0] += time.perf_counter() - start
        return result

    layer.packed_attention = timed  # type: ignore[attr-defined]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    model.forward(token_ids(n_tokens, model.config.vocab_size), cache, last=1)
    prompt_seconds = time.perf_counter() - start
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    attention, other = [], []
    for _ in range(STEPS):
        inside[0], start = 0.0, time.perf_counter()
        model.forward([1], cache, last=0)
        attention.append(inside[0])
        other.append(time.perf_counter() - start - inside[0])
    times = [median(attention), median(other)]
    print(json.dumps([n_tokens, *times, prompt_seconds, grown * KIB]))


if __name__ == "__main__":
    _main(*json.loads(sys.argv[1]))
