"""What the system is told about a mapped file while headers are read, and after."""

import sys
from pathlib import Path

import numpy as np
import pytest

from llama_ref.checkpoint.pth import open_pth
from llama_ref.checkpoint.readahead import let_go, scattered_reads
from llama_ref.mapped import map_bytes
from tests.checkpoint.pth_files import write_pth


def reads_ahead(path):
    """Whether the kernel reads ahead in this process's map of a file: flag rr says it does not."""
    lines = Path("/proc/self/smaps").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.endswith(str(path)))
    flags = next(line for line in lines[start:] if line.startswith("VmFlags:"))
    return " rr" not in flags


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what it was advised")
def test_nothing_is_read_ahead_while_headers_are_read(tmp_path):
    """Inside the block the system reads single pages; after it, also on an error, as usual."""
    path = tmp_path / "x.bin"
    path.write_bytes(bytes(2**20))
    raw = map_bytes(path)
    view = np.ndarray((8, 8), np.float32, buffer=raw[64:])
    assert reads_ahead(path)
    with scattered_reads(view):
        assert not reads_ahead(path)
    assert reads_ahead(path)
    with pytest.raises(ZeroDivisionError), scattered_reads(raw):
        1 / 0  # noqa: B018
    assert reads_ahead(path)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what it was advised")
def test_an_opened_file_is_read_ahead_again(tmp_path):
    """Weights are read from end to end, so opening leaves the file as it found it."""
    path = write_pth(tmp_path / "x.pth", {"w": np.zeros(2**16, np.float32)})
    tensors = open_pth(path)
    assert reads_ahead(path)
    assert not tensors["w"].any()


def resident(path):
    """Return how many kB of a mapped file are counted as this process's memory."""
    lines = Path("/proc/self/smaps").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.endswith(str(path)))
    return int(next(line for line in lines[start:] if line.startswith("Rss:")).split()[1])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what is resident")
def test_pages_that_were_read_are_given_back(tmp_path):
    """After let_go no page of the file counts as memory, and its bytes are still there."""
    path = tmp_path / "x.bin"
    path.write_bytes(bytes(range(256)) * 2**12)
    view = map_bytes(path)[2**19 :].reshape(-1, 256)
    assert view.sum(axis=0)[3] == 3 * len(view)
    assert resident(path) >= 2**9
    let_go(view)
    assert resident(path) == 0
    assert view[5, 7] == 7


def test_arrays_in_memory_are_left_alone():
    """An array that no file is behind needs no advice, and keeps its numbers."""
    in_memory = np.ones(3)
    with scattered_reads(in_memory, np.zeros((4, 4))[1:, 2:]):
        pass
    let_go(in_memory)
    assert in_memory.tolist() == [1, 1, 1]
