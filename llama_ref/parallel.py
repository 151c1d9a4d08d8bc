"""Tensor parallelism: every layer cut over ranks, as Meta's model-parallel checkpoints are.

    rows of W_q W_k W_v, W_gate W_up, W_head        a rank has some of the heads, some of the
                                                    channels, some of the vocabulary
    columns of W_out, W_down                        what a rank computes is a part of a sum

    attn_out  =  part of rank 0  +  part of rank 1  +  …             likewise ffn_out
    logits    =  those of rank 0, those of rank 1, …  side by side

Sums are taken in the order of the ranks, each addition in the dtype of the activations: so every
rank has the same bits, and they do not depend on who was faster. They differ in the last digits
from those of one machine. How far, and what each rank's part is, an engineer of such a backend
wants to see: `trace_ranks` runs all ranks in one process, and hands out both.

Source: ColumnParallelLinear and RowParallelLinear of facebookresearch/fairscale, as used by
models/llama3/model.py in meta-llama/llama-models.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Protocol

import numpy as np

from llama_ref.checkpoint.ranges import is_mapped
from llama_ref.checkpoint.readahead import let_go
from llama_ref.checkpoint.sharded import ShardedMatrix
from llama_ref.checkpoint.stored import Tensor
from llama_ref.config import Config
from llama_ref.errors import BadRequest
from llama_ref.model import Model
from llama_ref.numerics import Matrix, rows_of
from llama_ref.packing import Ids
from llama_ref.weights import Weights, row_blocks

BY_ROWS = ("w_query_AD", "w_key_BD", "w_value_BD", "w_gate_FD", "w_up_FD")
BY_COLUMNS = ("w_out_DA", "w_down_DF")
PARTS = ("attn_out", "ffn_out")
"""Taps that are sums over ranks."""
PATIENCE = 600
"""Seconds that a rank in one process waits for another before it gives up."""


class Group(Protocol):
    """The ranks that share a model, as one of them sees it."""

    rank: int
    size: int

    def gather(self, part: np.ndarray) -> list[np.ndarray]:
        """Return the parts of all ranks, of one shape and dtype, in their order."""
        ...


class SliceOfRows:
    """Some rows of a matrix; implements `numerics.Matrix`."""

    ndim = 2

    def __init__(self, matrix: Tensor, lo: int, hi: int):
        self.matrix, self.lo = matrix, lo
        self.shape, self.dtype = (hi - lo, matrix.shape[1]), matrix.dtype
        self.is_quantised = getattr(matrix, "is_quantised", False)
        self.prepare = getattr(matrix, "prepare", None)

    def rows(self, lo: int, hi: int) -> np.ndarray:
        """Return rows lo to hi - 1 of these."""
        return rows_of(self.matrix, self.lo + lo, self.lo + hi)


class SliceOfColumns:
    """Some columns of a matrix that is computed; implements `numerics.Matrix`."""

    ndim = 2

    def __init__(self, matrix: Matrix, lo: int, hi: int):
        self.matrix, self.columns = matrix, slice(lo, hi)
        self.shape, self.dtype = (matrix.shape[0], hi - lo), matrix.dtype
        self.is_quantised = getattr(matrix, "is_quantised", False)

    def rows(self, lo: int, hi: int) -> np.ndarray:
        """Return rows lo to hi - 1, these columns alone."""
        return rows_of(self.matrix, lo, hi)[:, self.columns]


def check_split(config: Config, size: int) -> None:
    """Raise `BadRequest` unless heads, channels and vocabulary can be cut into so many parts."""
    for name in ("n_heads", "n_kv_heads", "d_ff", "vocab_size"):
        if size < 1 or getattr(config, name) % size:
            raise BadRequest(
                "number of ranks",
                expected=f"a divisor of {name} = {getattr(config, name)}",
                found=size,
            )


def share(model: Model, group: Group) -> Model:
    """Return the part of a model that one rank runs, joined with the others by its group.

    Parameters
    ----------
    model : Model
        All of it; nothing of it need have been read.
    group : Group

    Raises
    ------
    BadRequest
        If it cannot be cut into so many parts.
    """
    config, R = model.config, group.size
    check_split(config, R)
    n_heads, n_kv_heads, d_ff = config.n_heads // R, config.n_kv_heads // R, config.d_ff // R
    own = replace(config, n_heads=n_heads, n_kv_heads=n_kv_heads, d_ff=d_ff)
    weights = _share_of_weights(model.weights, group)
    return Model(own, weights, model.lineage, model.dtype, model.tokenizer, group=group)


def _share_of_weights(weights: Weights, group: Group) -> Weights:
    layers = tuple(
        replace(
            layer,
            **{name: _rows(getattr(layer, name), group) for name in BY_ROWS},  # type: ignore[arg-type]
            **{name: _columns(getattr(layer, name), group) for name in BY_COLUMNS},  # type: ignore[arg-type]
        )
        for layer in weights.layers
    )
    return replace(weights, layers=layers, w_head_VD=_rows(weights.w_head_VD, group))


def _rows(matrix: Tensor, group: Group) -> Tensor:
    """Return this rank's rows; of a file that Meta cut for as many ranks, its own file."""
    if isinstance(matrix, ShardedMatrix) and (matrix.axis, len(matrix.parts)) == (0, group.size):
        return matrix.parts[group.rank]
    n = matrix.shape[0] // group.size
    lo = group.rank * n
    return (
        matrix[lo : lo + n] if isinstance(matrix, np.ndarray) else SliceOfRows(matrix, lo, lo + n)
    )


def _columns(matrix: Tensor, group: Group) -> Tensor:
    """Return this rank's columns; those of a mapped file are copied, as its pages hold all."""
    if isinstance(matrix, ShardedMatrix) and (matrix.axis, len(matrix.parts)) == (1, group.size):
        return matrix.parts[group.rank]
    if getattr(matrix, "prepare", None):
        raise BadRequest("quantised activations", expected="one rank", found=group.size)
    n = matrix.shape[1] // group.size
    lo = group.rank * n
    if not isinstance(matrix, np.ndarray):
        return SliceOfColumns(matrix, lo, lo + n)
    own = np.empty((matrix.shape[0], n), matrix.dtype)
    for row, block in row_blocks(matrix):
        own[row : row + len(block)] = block[:, lo : lo + n]
        if is_mapped(matrix):
            let_go(matrix)
    return own


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


def run_ranks(model: Model, size: int, work: Callable[[Model, int], object]) -> list[object]:
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
    results: list[object] = [None] * size
    errors: list[BaseException | None] = [None] * size

    def run(rank: int) -> None:
        try:
            results[rank] = work(share(model, ThreadGroup(rank, meeting)), rank)
        except BaseException as error:
            errors[rank] = error
            meeting.leave()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    failed = [error for error in errors if error is not None]
    for error in sorted(failed, key=lambda e: isinstance(e, threading.BrokenBarrierError)):
        raise error
    return results


def trace_ranks(model: Model, ids: Ids, size: int) -> dict[str, np.ndarray]:
    """Return every intermediate of a model that is cut over ranks.

    Parameters
    ----------
    model : Model
        All of it.
    ids : one-dimensional sequence of int
    size : int
        How many ranks.

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
            own.forward(ids, own.new_cache(), tap=tap)
        return seen

    by_rank = run_ranks(model, size, work)
    first = by_rank[0]
    taps: dict[str, np.ndarray] = {}
    for name, array in first.items():  # type: ignore[attr-defined]
        each = [seen[name] for seen in by_rank]  # type: ignore[index]
        if name.endswith(".part"):
            taps |= {name.replace(".part", f".rank{r}"): part for r, part in enumerate(each)}
        elif name.rpartition(".")[2] in OWN:
            taps |= {f"{name}.rank{r}": part for r, part in enumerate(each)}
        else:
            taps[name] = array
    return taps


OWN = ("q", "k", "v", "q_rope", "k_rope", "scores", "probs", "ctx", "gate", "up", "act")
"""Taps of which a rank has its own heads or channels."""


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
    names = [f"L{i:02d}.{tap}.part" for i in range(n_layers) for tap in PARTS] + ["logits.part"]
    own.group = _Noting(group, names, seen)
    try:
        yield
    finally:
        own.group = group
