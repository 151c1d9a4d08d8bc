"""Reading a checkpoint that is not in memory: a pass within a budget, against plain reading.

One pass uses each byte of the matrices once, so it cannot take less time than reading them does.
Both are timed cold: before each turn the system is told to forget the files. Each turn runs in a
process of its own, whose peak of resident memory is noted.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

from llama_ref.bench.race import run_apart
from llama_ref.bench.startup import KIB
from llama_ref.checkpoint.synthetic import token_ids
from llama_ref.errors import Unsupported
from llama_ref.loading import load, open_checkpoint

BLOCK = 2**20


class Streaming(NamedTuple):
    """Medians over the rounds.

    Attributes
    ----------
    bytes_per_second : float
        Of the matrices of one pass over a prompt, the multiplying included.
    ratio_to_plain : float
        To the bytes per second of reading the same files from end to end in the same round.
    peak_bytes : int
        Of resident memory, the largest of all rounds.
    """

    bytes_per_second: float
    ratio_to_plain: float
    peak_bytes: int


def measure_streaming(folder: Path, memory: str, *, n_prompt: int, rounds: int) -> Streaming:
    """Measure passes with that much memory for the weights, and plain reading, turn by turn.

    Raises
    ------
    Unsupported
        If the system cannot be told to forget a file.
    BadRequest
        If a pass does not run.
    """
    if not hasattr(os, "posix_fadvise"):
        raise Unsupported("--stream", expected="a system that forgets a file when told to")
    checkpoint, _ = open_checkpoint(folder)
    names = {name for files in checkpoint.files.values() for name in files}
    paths = sorted(checkpoint.folder / name for name in names)
    del checkpoint  # a mapped page is not forgotten
    speeds, ratios, peaks = [], [], []
    for _ in range(rounds):
        _forget(paths)
        plain = _read(paths)
        _forget(paths)
        n_bytes, seconds, peak = run_apart("streaming", [str(folder), memory, n_prompt])
        speeds.append(n_bytes / seconds)
        ratios.append(speeds[-1] / plain)
        peaks.append(peak)
    return Streaming(median(speeds), median(ratios), max(peaks))


def _forget(paths: list[Path]) -> None:
    """Have the system drop what it holds of the files."""
    for path in paths:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _read(paths: list[Path]) -> float:
    """Return the bytes per second of reading all of the files, as `dd bs=1M` does."""
    start, n_bytes, buffer = time.perf_counter(), 0, bytearray(BLOCK)
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while n := file.readinto(buffer):
                n_bytes += n
    return n_bytes / (time.perf_counter() - start)


def _main(folder: str, memory: str, n_prompt: int) -> None:
    import resource  # noqa: PLC0415 - not everywhere

    model = load(folder, memory=memory, tokenizer=False)
    ids, cache = token_ids(n_prompt, model.config.vocab_size), model.new_cache(n_prompt)
    start = time.perf_counter()
    model.forward(ids, cache, last=1)
    seconds = time.perf_counter() - start
    n_bytes = model.config.n_matrix_params * model.weights.w_head_VD.dtype.itemsize
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB
    print(json.dumps([n_bytes, seconds, peak]))


if __name__ == "__main__":
    _main(*json.loads(sys.argv[1]))
