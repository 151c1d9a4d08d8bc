"""Threads over blocks: the same bits however many there are, BLAS given back, errors passed on."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from llama_ref.numerics import BFLOAT16
from llama_ref.ops import linear as linear_file
from llama_ref.ops.linear import MANY_TOKENS, linear
from llama_ref.threads import in_all_threads, single_threaded_blas, thread_count


def blas_threads():
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


@pytest.mark.parametrize("stored", [BFLOAT16, np.float32])
@pytest.mark.parametrize("n_tokens", [1, 3, MANY_TOKENS + 1])
def test_bits_do_not_depend_on_the_number_of_threads(n_tokens, stored, monkeypatch):
    """A matrix gives the same bits with one thread, two and three."""
    monkeypatch.setattr(linear_file, "BLOCK_ELEMENTS", 2000)
    monkeypatch.setattr(linear_file, "WORTH_A_THREAD", 0)
    rng = np.random.default_rng(0)
    x_TD = rng.standard_normal((n_tokens, 100), np.float32)
    weight_FD = rng.standard_normal((900, 100), np.float32).astype(stored)
    results = []
    for n in (1, 2, 3):
        with threadpool_limits(n, user_api="blas"):
            with single_threaded_blas():  # as in a pass
                results.append(linear(x_TD, weight_FD).tobytes())
            assert blas_threads() == {n}
    assert results[0] == results[1] == results[2]


def test_work_runs_in_as_many_threads_as_blas_has():
    """Each thread runs the work once, BLAS is held to one meanwhile, and has them back after."""
    with threadpool_limits(3, user_api="blas"):
        assert thread_count() == 3
        meeting, seen = threading.Barrier(3, timeout=20), []

        def work():
            meeting.wait()  # all three are here at once
            seen.append((threading.get_ident(), blas_threads(), thread_count()))

        in_all_threads(work, at_most=99)
        assert len({ident for ident, *_ in seen}) == 3
        assert all(here == ({1}, 3) for _, *here in seen for here in [tuple(here)])
        assert blas_threads() == {3}
        ran = []
        in_all_threads(lambda: ran.append(1), at_most=1)
        assert ran == [1]


def test_the_last_to_leave_gives_the_threads_back():
    """Holders may overlap in any order."""
    with threadpool_limits(2, user_api="blas"):
        first, second = single_threaded_blas(), single_threaded_blas()
        assert first.__enter__() == second.__enter__() == 2
        first.__exit__(None, None, None)
        assert blas_threads() == {1}
        second.__exit__(None, None, None)
        assert blas_threads() == {2}


@pytest.mark.parametrize("here", [True, False])
def test_an_error_in_any_thread_is_raised_when_all_are_done(here):
    """Whichever thread fails, the caller hears of it, and BLAS has its threads back."""
    with threadpool_limits(2, user_api="blas"):
        meeting = threading.Barrier(2, timeout=20)
        caller = threading.get_ident()

        def work():
            meeting.wait()
            if (threading.get_ident() == caller) == here:
                raise KeyboardInterrupt if here else ZeroDivisionError

        with pytest.raises(KeyboardInterrupt if here else ZeroDivisionError):
            in_all_threads(work, at_most=2)
        assert blas_threads() == {2}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_child_forked_during_a_pass_computes_on_its_own():
    """What the parent's threads held is not held in the child, which multiplies and ends."""
    code = """
import os, sys
import numpy as np
from llama_ref.ops.linear import linear
from llama_ref.threads import _State, blas_has_threads, single_threaded_blas, thread_count
n, x, w = thread_count(), np.ones((8, 512), np.float32), np.ones((4096, 512), np.float32)
with single_threaded_blas():
    linear(x, w)
    _State.lock.acquire()
    child = os.fork()
    if not child:
        good = blas_has_threads() and thread_count() == n and (linear(x, w) == 512).all()
        os._exit(0 if good else 1)
    _State.lock.release()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=60)


def test_any_thread_may_hold_blas_to_one():
    """After the main thread has set the threads, another one holds and gives back as it would."""
    with threadpool_limits(2, user_api="blas"):
        with single_threaded_blas():
            assert blas_threads() == {1}
        seen = []

        def aside():
            with single_threaded_blas():
                seen.append(blas_threads())
            seen.append(blas_threads())

        thread = threading.Thread(target=aside)
        thread.start()
        thread.join()
        assert seen == [{1}, {2}]
        with single_threaded_blas():
            assert blas_threads() == {1}
    with threadpool_limits(3, user_api="blas"):  # and who sets them here is still obeyed
        assert blas_threads() == {3}
