"""Reading one tap after another takes the memory of one, whatever the size of the dump."""

import json
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="peaks are as Linux reports them")

ROOT = Path(__file__).resolve().parents[2]
N_CASES, T, V = 10, 64, 128_256
N_BYTES = T * V * 4  # 33 MB for the logits of one case

READING = """
import resource, sys
from dataclasses import replace
from llama_ref.golden.candidate import open_candidate
from llama_ref.golden.cases import Case
from tests.models import TINY

n_cases, T, V = map(int, sys.argv[2:])
cases = [Case(f"c{i}", "", (1,) * T, tuple(range(T)), (T,)) for i in range(n_cases)]
config = replace(TINY, vocab_size=V)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = open_candidate(sys.argv[1], cases, {"main": config})
n_read = 0
for case in cases:
    n_read += found.read(case.name, "logits").array.nbytes
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(n_read, (after - before) * 1024)
"""


def sparse(path, header):
    """Write a header, and zeros behind it that take no room on the disk."""
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + N_CASES * N_BYTES)


def write_dump(folder, kind):
    """Write the logits of all cases, 328 MB of zeros, in some format."""
    path = folder / f"dump.{kind}"
    spans = {f"c{i}/logits": (i * N_BYTES, (i + 1) * N_BYTES) for i in range(N_CASES)}
    if kind == "safetensors":
        entries = {
            name: {"dtype": "F32", "shape": [T, V], "data_offsets": span}
            for name, span in spans.items()
        }
        header = json.dumps(entries).encode()
        sparse(path, struct.pack("<Q", len(header)) + header)
    elif kind == "json":
        entries = {
            name: {"file": "dump.bin", "dtype": "f32", "shape": [T, V], "offset": span[0]}
            for name, span in spans.items()
        }
        path.write_text(json.dumps(entries))
        sparse(folder / "dump.bin", b"")
    else:
        logits = np.zeros((T, V), np.float32)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name in spans:
                with archive.open(f"{name}.npy", "w") as member:
                    np.lib.format.write_array(member, logits)
    return path


@pytest.mark.parametrize("kind", ["safetensors", "npz", "json"])
def test_a_dump_of_328_mb_is_read_in_little_memory(kind, tmp_path):
    """Reading all taps of a dump adds three times the largest one at most to the peak."""
    path = write_dump(tmp_path, kind)
    result = subprocess.run(
        [sys.executable, "-c", READING, str(path), *map(str, (N_CASES, T, V))],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    n_read, peak = map(int, result.stdout.split())
    assert n_read == N_CASES * N_BYTES
    assert peak < 3 * N_BYTES
