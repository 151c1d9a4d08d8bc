"""All ranks of a model in one process, each a thread: what a tensor-parallel backend computes.

The parts of the sums and their rounding are no machine's secret: `trace_ranks` hands out both what
the ranks have alike and what each has for itself.

    L00.attn_out  =  L00.attn_out.rank0  +  L00.attn_out.rank1  +  …
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np

from llama_ref.model import Model
from llama_ref.packing import Ids
from llama_ref.parallel import Group, check_split, share
from llama_ref.trace import SUMMED

OWN = ("q", "k", "v", "q_rope", "k_rope", "scores", "probs", "ctx", "gate", "up", "act")
"""Taps of which a rank has its own heads or channels."""
PATIENCE = 600
"""Seconds that a rank waits for another before it gives up."""

Result = TypeVar("Result")


class Meeting:
    """Where the ranks of one process, each a thread, hand each other their parts."""

    def __init__(self, size: int):
        self.size = size
        self._slots: list[np.ndarray | None] = [None] * size
        self._barrier = threading.Barrier(size, timeout=PATIENCE)

    def exchange(self, rank: int, part: np.ndarray) -> list[np.ndarray]:
        """Return what all ranks brought."""
        self._slots[rank] = part
        self._barrier.wait()  # all are here
        parts = [np.array(slot) for slot in self._slots]
        self._barrier.wait()  # all have seen
        return parts

    def leave(self) -> None:
        """Have the others stop waiting: this rank will not come."""
        self._barrier.abort()


class ThreadGroup:
    """A rank that is a thread of this process."""

    def __init__(self, rank: int, meeting: Meeting):
        self.rank, self.size, self._meeting = rank, meeting.size, meeting

    def gather(self, part: np.ndarray) -> list[np.ndarray]:
        """Return the parts of all ranks in their order."""
        return self._meeting.exchange(self.rank, part)


def run_ranks(model: Model, size: int, work: Callable[[Model, int], Result]) -> list[Result]:
    """Run all ranks of a model in this process; return what `work` returned in each.

    Parameters
    ----------
    model : Model
        All of it.
    size : int
        How many ranks.
    work : function of (Model, int)
        Called in a thread for each rank, with its part of the model and its number. All ranks have
        to run the same passes.

    Raises
    ------
    BadRequest
        If the model cannot be cut into so many parts.
    Exception
        What a rank raised; the others are stopped.
    """
    meeting = Meeting(size)
    check_split(model.config, size)
    results: dict[int, Result] = {}
    errors: list[BaseException] = []

    def run(rank: int) -> None:
        try:
            results[rank] = work(share(model, ThreadGroup(rank, meeting)), rank)
        except BaseException as error:
            errors.append(error)
            meeting.leave()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in sorted(errors, key=lambda e: isinstance(e, threading.BrokenBarrierError)):
        raise error
    return [results[rank] for rank in range(size)]


def trace_ranks(
    model: Model, ids: Ids, size: int, positions: Ids | None = None
) -> dict[str, np.ndarray]:
    """Return every intermediate of a model that is cut over ranks.

    Parameters
    ----------
    model : Model
        All of it.
    ids : one-dimensional sequence of int
    size : int
        How many ranks.
    positions : one-dimensional sequence of int, optional
        By default 0, 1, and so on.

    Returns
    -------
    dict of str to ndarray
        What all ranks have alike under the usual names: `L00.attn_out`, the sum, and so on. What
        each has for itself with its number behind: `L00.q.rank0` of shape (T, N / size, H), the
        parts of sums `L00.attn_out.rank1`, the columns of `logits.rank1`.
    """

    def work(own: Model, rank: int) -> dict[str, np.ndarray]:
        seen: dict[str, np.ndarray] = {}

        def tap(name: str, array: np.ndarray) -> None:
            seen[name] = np.array(array)

        with _parts_seen(own, seen):
            own.forward(ids, own.new_cache(len(ids)), positions=positions, tap=tap)
        return seen

    by_rank = run_ranks(model, size, work)
    taps: dict[str, np.ndarray] = {}
    for name, array in by_rank[0].items():
        each = [seen[name] for seen in by_rank]
        if name.endswith(".part"):
            taps |= {name.replace(".part", f".rank{r}"): part for r, part in enumerate(each)}
        elif name.rpartition(".")[2] in OWN:
            taps |= {f"{name}.rank{r}": part for r, part in enumerate(each)}
        else:
            taps[name] = array
    return taps


class _Noting:
    """A group that notes what its rank hands in, under one name after the other."""

    def __init__(self, group: Group, names: list[str], seen: dict[str, np.ndarray]):
        self.rank, self.size = group.rank, group.size
        self._group, self._names, self._seen = group, iter(names), seen

    def gather(self, part: np.ndarray) -> list[np.ndarray]:
        """Note this rank's part; return those of all."""
        self._seen[next(self._names)] = np.array(part)
        return self._group.gather(part)


@contextmanager
def _parts_seen(own: Model, seen: dict[str, np.ndarray]) -> Iterator[None]:
    """Note each part of a sum, and of the logits, as this rank hands it in."""
    n_layers, group = own.config.n_layers, own.group
    assert group is not None
    names = [f"L{i:02d}.{tap}.part" for i in range(n_layers) for tap in SUMMED] + ["logits.part"]
    own.group = _Noting(group, names, seen)
    try:
        yield
    finally:
        own.group = group
