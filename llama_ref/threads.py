"""Threads where BLAS has none to give: matrices that are widened or computed block by block.

BLAS spreads a product over its threads by itself. But a block of 16-bit weights has to be widened
before it can be multiplied with, and a block of a formula to be computed, and each NumPy call of
that runs on one thread while the others wait. So here every thread takes the next block for itself,
makes it wide and multiplies with it, and BLAS keeps to the thread that calls it. Python's lock is
no obstacle: NumPy lets go of it while it works on a large array.

As the blocks are the same however many threads share them, so is what comes out, bit for bit.

There are as many threads as BLAS has: `OPENBLAS_NUM_THREADS`, or one for each core.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController


class _State:
    """How many hold BLAS to one thread at present, and what gives it the others back."""

    lock = Lock()
    holders = 0
    n_threads = 1
    before: list[int] | None = None


def thread_count() -> int:
    """Return how many threads BLAS has, or had before it was held to one."""
    with _State.lock:
        return _State.n_threads if _State.holders else _blas_threads()


def blas_has_threads() -> bool:
    """Whether nobody holds BLAS to one thread at present."""
    return not _State.holders


@contextmanager
def single_threaded_blas() -> Iterator[int]:
    """Hold BLAS to the thread that calls it; yield the threads it had, which are the caller's now.

    May be entered several times at once: the last to leave gives the threads back. A whole pass
    enters it once, for a thread of BLAS that has nothing to do keeps a core busy for a while.
    """
    with _State.lock:
        if not _State.holders:
            counts = _blas_counts()
            _State.n_threads = _blas_threads()
            if _State.n_threads > 1:
                _tell_blas([1] * len(counts))
                _State.before = counts
        _State.holders += 1
    try:
        yield _State.n_threads
    finally:
        with _State.lock:
            _State.holders -= 1
            if not _State.holders and _State.before:
                _tell_blas(_State.before)
                _State.before = None


def in_all_threads(work: Callable[[], None], *, at_most: int) -> None:
    """Call `work` once in each thread, this one included, and wait for all.

    Parameters
    ----------
    work : function
        Takes pieces from one iterator that all share, until none is left. It runs in a copy of the
        caller's context: what NumPy is to say of overflow holds in all threads.
    at_most : int
        How many pieces there are; more threads are not woken.

    Raises
    ------
    Exception
        What `work` raised, in this thread before the others.
    """
    with single_threaded_blas() as n_threads:
        n_others = min(n_threads, at_most) - 1
        others = [_pool(n_threads).submit(copy_context().run, work) for _ in range(n_others)]
        try:
            work()
        finally:
            for other in others:
                other.cancel() or other.exception()
        for other in others:
            if not other.cancelled():
                other.result()


@cache
def _pool(n_threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n_threads - 1, "llama_ref")


@cache
def _blas() -> ThreadpoolController:
    """Return the switch of the BLAS that NumPy loaded; finding it takes milliseconds."""
    import threadpoolctl  # noqa: PLC0415 (an op that needs no threads does without)

    return threadpoolctl.ThreadpoolController().select(user_api="blas")


def _blas_counts() -> list[int]:
    return [library.num_threads for library in _blas().lib_controllers]


def _blas_threads() -> int:
    return max(_blas_counts(), default=os.cpu_count() or 1)


def _tell_blas(counts: list[int]) -> None:
    """Set how many threads each library has, from whatever thread this is.

    Newer releases of threadpoolctl let one thread set the threads of OpenBLAS, and ignore what all
    others say. Here they are held for as long as there is a holder, so nobody is to be shut out.
    """
    for library, count in zip(_blas().lib_controllers, counts, strict=True):
        let_anybody = getattr(library, "clear_controlling_thread", lambda *, force: None)
        let_anybody(force=True)
        library.set_num_threads(count)
        let_anybody(force=True)


def _begin_anew() -> None:
    """Forget what threads of the parent did: a forked child has none of them."""
    _pool.cache_clear()
    _State.lock, _State.holders = Lock(), 0
    if _State.before:
        _tell_blas(_State.before)
        _State.before = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
