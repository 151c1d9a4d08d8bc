"""A matrix in a file as a range of bytes: through a map, or by plain reads.

    through a map     rows are views; what they touch stays in memory until it is given back
    by plain reads    rows are copies, and each reading makes sure that the file is what it was

No program survives that a mapped file is made shorter, and one written to in place changes the
numbers without a word. So where others may write to the files, or the system maps none, plain reads
are the way, at the price of a copy.
"""

from __future__ import annotations

import contextlib
import mmap
import os

import numpy as np
from numpy.lib.array_utils import byte_bounds

from llama_ref.errors import BadFile
from llama_ref.files import open_regular
from llama_ref.mapped import map_behind, read_range


class Range:
    """Where in a mapped file a matrix lies.

    Parameters
    ----------
    array_FD : ndarray of shape (F, D)
        A view of a mapped file.

    Attributes
    ----------
    shape, dtype
        Of the matrix.
    n_bytes : int
        From its first to its last.
    """

    def __init__(self, array_FD: np.ndarray):
        mapped = map_behind(array_FD)
        assert mapped is not None  # `is_mapped` was asked
        self.shape, self.dtype, self._strides = array_FD.shape, array_FD.dtype, array_FD.strides
        self._path, self._identity = mapped.path, mapped.identity
        first, end = byte_bounds(array_FD)
        self._first = first - np.frombuffer(mapped, np.uint8).ctypes.data
        self.n_bytes = end - first

    def rows(self, lo: int, hi: int) -> np.ndarray:
        """Return rows lo to hi - 1."""
        raise NotImplementedError

    def kept(self) -> np.ndarray:
        """Return the whole matrix, to stay in memory once it is read."""
        return self.rows(0, self.shape[0])

    def read_ahead(self, start: int, end: int) -> None:
        """Have the system read bytes start to end - 1 of the matrix, where it takes such advice."""
        if hasattr(os, "posix_fadvise"):
            with contextlib.suppress(OSError, BadFile):  # whoever needs the bytes will hear of it
                file = open_regular(self._path)
                try:
                    advice = os.POSIX_FADV_WILLNEED
                    os.posix_fadvise(file, self._first + start, end - start, advice)
                finally:
                    os.close(file)

    def give_back(self, start: int, end: int) -> None:
        """Give back the memory that bytes start to end - 1 take."""


class MappedRange(Range):
    """Rows as views of the mapped file."""

    def __init__(self, array_FD: np.ndarray):
        super().__init__(array_FD)
        self._array_FD = array_FD

    def rows(self, lo: int, hi: int) -> np.ndarray:
        """Return rows lo to hi - 1, a view."""
        return self._array_FD[lo:hi]

    def give_back(self, start: int, end: int) -> None:
        """Give back the pages of bytes start to end - 1; touching them reads them again."""
        mapped = map_behind(self._array_FD)
        if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
            first = (self._first + start) // mmap.PAGESIZE * mmap.PAGESIZE
            mapped.madvise(mmap.MADV_DONTNEED, first, self._first + end - first)


class ReadRange(Range):
    """Rows as copies, each read from a file that is still what it was."""

    def rows(self, lo: int, hi: int) -> np.ndarray:
        """Read rows lo to hi - 1.

        Raises
        ------
        BadFile
            If the file has changed since it was opened, or cannot be read.
        """
        shape = (hi - lo, *self.shape[1:])
        steps = [(n - 1) * step for n, step in zip(shape, self._strides, strict=True)]
        n_bytes = sum(steps) + self.dtype.itemsize if hi > lo else 0
        start = self._first + lo * self._strides[0]
        raw = read_range(self._path, start, n_bytes, self._identity)
        return np.ndarray(shape, self.dtype, raw, strides=self._strides)


def is_mapped(array: object) -> bool:
    """Whether something is an array that lies in a mapped file."""
    return isinstance(array, np.ndarray) and map_behind(array) is not None
