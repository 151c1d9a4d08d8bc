"""Reading a few bytes here and there in a large mapped file, without reading what lies between.

When a program touches a page of a mapped file, the system reads some 30 pages around it, since most
programs go on where they are. Right for weights; but an archive has a header before every tensor,
and the 18,000 headers of a 405B checkpoint would read 2 GB to get at 2 MB.

And letting go of what was read: pages of a mapped file count as a program's memory until the
system wants them back.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from llama_ref.mapped import map_behind


@contextmanager
def scattered_reads(*arrays: np.ndarray) -> Iterator[None]:
    """Keep the system from reading ahead in the files that these arrays are views of.

    Parameters
    ----------
    *arrays : ndarray
        Views of mapped files; an array in memory is left alone. Where the system takes no such
        advice, nothing changes but the time.
    """
    maps = [found for array in arrays if (found := map_behind(array)) is not None]
    _advise(maps, "MADV_RANDOM")
    try:
        yield
    finally:
        _advise(maps, "MADV_NORMAL")


def let_go(*arrays: np.ndarray) -> None:
    """Give back the memory that pages of mapped files take; touching them reads them again.

    Parameters
    ----------
    *arrays : ndarray
        Views of files mapped for reading; all pages of each file go. An array in memory is left
        alone, and so is everything where the system takes no such advice.
    """
    maps = [found for array in arrays if (found := map_behind(array)) is not None]
    _advise(maps, "MADV_DONTNEED")


def _advise(maps: Sequence[mmap.mmap], advice: str) -> None:
    """Give the advice where the system knows it."""
    for mapped in maps:
        if hasattr(mmap, advice):
            mapped.madvise(getattr(mmap, advice))
