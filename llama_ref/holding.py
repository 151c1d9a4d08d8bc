"""How the matrices of a model are held: widened in memory, or passing through it.

    as opened      views of mapped files: in memory as long as the system has room
    `widened`      all of them copied to memory, in the dtype of the arithmetic
    `streamed`     a bounded number of bytes of them in memory at a time, in the order of a pass

Each way gives the numbers of the others, to rounding.
"""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np

from llama_ref.checkpoint.ranges import is_mapped
from llama_ref.checkpoint.stored import Tensor, changed
from llama_ref.checkpoint.streaming import Stream
from llama_ref.numerics import AllRows, wide_dtype
from llama_ref.weights import Layer, Weights


class DequantisedRows(AllRows):
    """The rows of a quantised matrix, held: `linear` does not round them to 16 bits."""

    ndim, is_quantised = 2, True

    def __init__(self, array_FD: np.ndarray):
        self._array_FD, self.shape, self.dtype = array_FD, array_FD.shape, array_FD.dtype

    def rows(self, lo: int, hi: int) -> np.ndarray:
        """Return rows lo to hi - 1, a view."""
        return self._array_FD[lo:hi]


def widened(weights: Weights, dtype: np.dtype) -> Weights:
    """Return the same weights held in memory in the dtype that arithmetic on `dtype` is done in.

    Up to four times the bytes of the files, and faster where that fits, since nothing is left to
    widen in the forward pass. Only 16-bit activations gain nothing: `linear` rounds such weights to
    their dtype in every product.
    """
    wide = wide_dtype(dtype)

    def in_memory(tensor: Tensor) -> Tensor:
        held = np.ascontiguousarray(tensor, dtype=wide)
        is_exact = dtype == wide or not getattr(tensor, "is_quantised", False)
        return held if is_exact else DequantisedRows(held)

    layers = tuple(
        Layer(**{f.name: in_memory(getattr(layer, f.name)) for f in fields(layer)})  # type: ignore[arg-type]
        for layer in weights.layers
    )
    embedding_VD = in_memory(weights.embedding_VD)
    tied = weights.w_head_VD is weights.embedding_VD
    return replace(
        weights,
        embedding_VD=embedding_VD,
        layers=layers,
        final_gain_D=np.asarray(in_memory(weights.final_gain_D)),
        w_head_VD=embedding_VD if tied else in_memory(weights.w_head_VD),
        files=(),
    )


def streamed(weights: Weights, stream: Stream, *, mapped: bool) -> Weights:
    """Return the same weights with every matrix of a file in a stream, in the order of a pass.

    Parameters
    ----------
    weights : Weights
    stream : Stream
        An empty one.
    mapped : bool
        Whether its matrices are views of mapped files; if not, no map stays open.
    """

    def ordered(tensor: Tensor) -> Tensor:
        if len(tensor.shape) == 1:
            return np.array(tensor)
        stream.begin()
        return changed(tensor, lambda array: stream.add(array) if is_mapped(array) else array)

    layers = tuple(
        Layer(**{f.name: ordered(getattr(layer, f.name)) for f in fields(layer)})  # type: ignore[arg-type]
        for layer in weights.layers
    )
    table = changed(weights.embedding_VD, lambda a: stream.table(a) if is_mapped(a) else a)
    return replace(
        weights,
        embedding_VD=table,
        layers=layers,
        final_gain_D=np.array(weights.final_gain_D),
        w_head_VD=ordered(weights.w_head_VD),
        files=weights.files if mapped else (),
        is_streamed=True,
    )


def is_ready(weights: Weights, dtype: np.dtype) -> bool:
    """Whether BLAS can multiply with all matrices as they are, and nothing need be widened."""
    ready = wide_dtype(dtype)
    tensors = [tensor for i in range(len(weights.layers)) for _, tensor in weights.named(i)]
    return dtype == ready and all(
        isinstance(tensor, np.ndarray) and tensor.dtype == ready for tensor in tensors
    )
