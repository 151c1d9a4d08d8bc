"""What it costs before the first token: importing, and opening a checkpoint.

Each is measured in fresh processes, since a module is imported and a file mapped for the first time
only once. Opening reads headers; if memory grew with the size of the files, this would show it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import NamedTuple

from llama_ref.bench.race import ISOLATED
from llama_ref.errors import BadRequest, shown

IMPORT = """
import time, numpy
start = time.perf_counter()
import llama_ref as lr
lr.load, lr.generate
print(time.perf_counter() - start, 0)
"""
OPEN = """
import resource, sys, time
import llama_ref as lr
from llama_ref.loading import open_checkpoint
from llama_ref.weights import assemble
import safetensors
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
checkpoint, config = open_checkpoint(sys.argv[1])
weights = assemble(checkpoint, config)
seconds = time.perf_counter() - start
print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
KIB = 1 if sys.platform == "darwin" else 1024  # macOS counts ru_maxrss in bytes


class Startup(NamedTuple):
    """Medians over fresh processes.

    Attributes
    ----------
    import_seconds : float
        `import llama_ref` and its first use, after NumPy is there.
    open_seconds : float
        From a folder to weights with every role filled; the tokenizer is not counted.
    open_bytes : int
        Growth of the peak of resident memory meanwhile.
    """

    import_seconds: float
    open_seconds: float
    open_bytes: int


def measure_startup(folder: Path, rounds: int) -> Startup:
    """Measure import and opening, each in `rounds` fresh processes."""
    imports = [_run(IMPORT)[0] for _ in range(rounds)]
    opens = [_run(OPEN, str(folder)) for _ in range(rounds)]
    return Startup(
        median(imports),
        median(seconds for seconds, _ in opens),
        int(median(kib for _, kib in opens) * KIB),
    )


def _run(code: str, *arguments: str) -> tuple[float, float]:
    done = subprocess.run(
        [*ISOLATED, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        last_words = done.stderr.strip().splitlines()[-1:]
        raise BadRequest("startup", expected="a process that runs", found=shown(last_words))
    seconds, kib = done.stdout.split()
    return float(seconds), float(kib)
