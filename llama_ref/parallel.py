"""Tensor parallelism: every layer cut over ranks, as Meta's model-parallel checkpoints are.

    rows of W_q W_k W_v, W_gate W_up, W_head        a rank has some of the heads, some of the
                                                    channels, some of the vocabulary
    columns of W_out, W_down                        what a rank computes is a part of a sum

    attn_out  =  part of rank 0  +  part of rank 1  +  …             likewise ffn_out
    logits    =  those of rank 0, those of rank 1, …  side by side

Sums are taken in the order of the ranks, each addition in the dtype of the activations: so every
rank has the same bits, and they do not depend on who was faster. They differ in the last digits
from those of one machine. All ranks of one process: `ranks.py`; each a process: `mpi.py`.

Source: ColumnParallelLinear and RowParallelLinear of facebookresearch/fairscale, as used by
models/llama3/model.py in meta-llama/llama-models.
"""

from __future__ import annotations

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
from llama_ref.numerics import rows_of
from llama_ref.weights import Weights, row_blocks

BY_ROWS = ("w_query_AD", "w_key_BD", "w_value_BD", "w_gate_FD", "w_up_FD")
BY_COLUMNS = ("w_out_DA", "w_down_DF")


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

    def rows(self, lo: int, hi: int) -> np.ndarray:
        """Return rows lo to hi - 1 of these."""
        return rows_of(self.matrix, self.lo + lo, self.lo + hi)


class SliceOfColumns:
    """Some columns of a matrix; implements `numerics.Matrix`."""

    ndim = 2

    def __init__(self, matrix: Tensor, lo: int, hi: int):
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
        If it cannot be cut into so many parts, its weights are streamed, or its activations are
        quantised: a scale for a token is then that of the whole, which no rank has.
    """
    config, R = model.config, group.size
    check_split(config, R)
    n_heads, n_kv_heads, d_ff = config.n_heads // R, config.n_kv_heads // R, config.d_ff // R
    own = replace(config, n_heads=n_heads, n_kv_heads=n_kv_heads, d_ff=d_ff)
    weights = _share_of_weights(model.weights, group)
    return Model(own, weights, model.lineage, model.dtype, model.tokenizer, group=group)


def _share_of_weights(weights: Weights, group: Group) -> Weights:
    if weights.is_streamed:
        raise BadRequest(
            "memory over ranks",
            expected="neither a limit nor mmap=False",
            found=f"{group.size} ranks",
        )
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
    if getattr(matrix, "rounds_activations", False):
        raise BadRequest("quantised activations", expected="one rank", found=group.size)
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
