"""Weights larger than memory: read ahead of where a pass is, let go of behind it.

    ── let go of ──┤ in use ├── asked for ──┤── not touched yet ──►     the weights, in the order
                                                                        in which a pass uses them

A pass asks for every matrix once, some rows at a time, in order. So it is known what comes next: a
thread has the system read that while this is being multiplied with. And it is known what will not
be needed until the next pass: its pages are given back. What is in memory of a file is bounded by a
number of bytes, whatever the size of the file.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

import numpy as np

from llama_ref.checkpoint.ranges import MappedRange, Range
from llama_ref.numerics import AllRows, Matrix

STEP = 2**24
"""Bytes asked for, or let go of, at a time."""


class Stream:
    """The order in which a pass uses matrices in files, and how much of them is in memory.

    Parameters
    ----------
    n_bytes : int
        What the weights may take of memory. The matrices that come first stay, as many as fit into
        half of it; as much as an eighth is asked for ahead of where the pass is.
    source : function of ndarray to Range
        How the rows of a matrix are had: `MappedRange`, or `ReadRange` for plain reads.

    Attributes
    ----------
    n_read : int
        Bytes of rows handed out so far, in all passes.
    """

    def __init__(self, n_bytes: int, source: Callable[[np.ndarray], Range] = MappedRange):
        self.n_read = 0
        self._source, self._ahead, self._room = source, n_bytes // 8, n_bytes // 2
        self._order: list[StreamedMatrix] = []
        self._in_use: list[StreamedMatrix] = []
        self._behind: list[StreamedMatrix] = []
        self._n_parts: list[int] = []
        self._lock = Lock()
        self._reader = ThreadPoolExecutor(1, "read-ahead")

    def begin(self) -> None:
        """Begin the next matrix of the order: what is added from now on are its parts."""
        self._n_parts.append(0)

    def add(self, array_FD: np.ndarray) -> Matrix | np.ndarray:
        """Put a matrix, or the next part of one that was cut over files, into the stream."""
        source = self._source(array_FD)
        self._room -= source.n_bytes
        if self._room >= 0:
            return source.kept()
        if not self._n_parts:
            self.begin()
        self._n_parts[-1] += 1
        part = StreamedMatrix(source, self, len(self._order), len(self._n_parts) - 1)
        self._order.append(part)
        return part

    def table(self, array_VD: np.ndarray) -> Matrix:
        """Return a matrix of which single rows are wanted, in no order: the embedding."""
        return LookedUpMatrix(self._source(array_VD))

    def reading(self, place: int, start: int, stop: int) -> None:
        """Hear that bytes start to stop - 1 of the matrix at this place are about to be used."""
        with self._lock:
            self.n_read += stop - start
            current = self._order[place]
            self._use(current, begins=start == 0)
            current.let_go(start - STEP // self._n_parts[current.matrix])
            ahead = self._ahead
            for matrix in self._order[place:]:
                ahead = matrix.ask(stop, ahead, self._reader)
                stop = 0
                if ahead <= 0:
                    break

    def _use(self, current: StreamedMatrix, *, begins: bool) -> None:
        """Take note of what is in use: the parts of one matrix.

        The one before it may be in use too, by threads that are a few blocks behind; the one before
        that is not.
        """
        if self._in_use and self._in_use[0].matrix != current.matrix:
            for earlier in self._behind:
                earlier.let_go_of_all()
            self._behind, self._in_use = self._in_use, []
        if current not in self._in_use:
            self._in_use.append(current)
        elif begins:  # the next pass, with nothing in between
            current.let_go_of_all()


class StreamedMatrix(AllRows):
    """A matrix of a stream, or a part of one; implements `numerics.Matrix`.

    Its rows are asked for in order, those of all parts of a matrix by turns or one after the other.
    """

    ndim = 2

    def __init__(self, source: Range, stream: Stream, place: int, matrix: int):
        self.source, self.shape, self.dtype = source, source.shape, source.dtype
        self._stream, self._place, self.matrix = stream, place, matrix
        self._asked = self._gone = 0

    def rows(self, lo: int, hi: int) -> np.ndarray:
        """Return rows lo to hi - 1."""
        per_row = self.source.n_bytes / self.shape[0]
        self._stream.reading(self._place, int(lo * per_row), int(hi * per_row))
        return self.source.rows(lo, hi)

    def ask(self, start: int, n: int, reader: ThreadPoolExecutor) -> int:
        """Have the n bytes from `start` read ahead; return how many of them lie beyond the end."""
        stop = min(start + n, self.source.n_bytes)
        self._asked = max(self._asked, start)
        while self._asked < stop:
            end = min(self._asked + STEP, self.source.n_bytes)
            reader.submit(self.source.read_ahead, self._asked, end)
            self._asked = end
        return start + n - stop

    def let_go(self, end: int) -> None:
        """Give back all bytes before `end`, some megabytes at a time."""
        if end - self._gone >= STEP // 8:
            self.source.give_back(self._gone, end)
            self._gone = end

    def let_go_of_all(self) -> None:
        """Give back everything, what was touched again meanwhile too; the next pass begins anew."""
        self.source.give_back(0, self.source.n_bytes)
        self._gone = self._asked = 0


class LookedUpMatrix(AllRows):
    """A matrix of which a row here and there is wanted; implements `numerics.Matrix`."""

    ndim = 2

    def __init__(self, source: Range):
        self.shape, self.dtype, self._source = source.shape, source.dtype, source
        self._touched = 0

    def rows(self, lo: int, hi: int) -> np.ndarray:
        """Return a copy of rows lo to hi - 1."""
        rows = np.array(self._source.rows(lo, hi))
        self._touched += rows.nbytes + 2**16  # the system maps what lies around as well
        if self._touched > STEP:
            self._source.give_back(0, self._source.n_bytes)
            self._touched = 0
        return rows
