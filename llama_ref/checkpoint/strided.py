"""A tensor as a window on a storage, made into a NumPy view.

Element (i, j) of a matrix is element  offset + i * strides[0] + j * strides[1]  of its storage.
Two tensors may share a storage (tied embeddings), and a transposed matrix is the same storage with
its strides exchanged. NumPy arrays work the same way, so a view costs nothing.

The numbers come from a stranger's file. Python's integers do not overflow, so the last element is
computed exactly and must lie inside the storage; NumPy is asked only after that.
"""

from __future__ import annotations

import math
import os

import numpy as np

from llama_ref.checkpoint.torch_objects import StridedTensor
from llama_ref.errors import BadFile, LimitExceeded, shown
from llama_ref.numerics import FLOAT8, dtype_named

MAX_DIMENSIONS = 64
MAX_LENGTH = 2**31


def strided_view(
    storage: np.ndarray, tensor: StridedTensor, *, name: str, file: str | os.PathLike[str]
) -> np.ndarray:
    """Return one tensor as a read-only view of the bytes of its storage.

    Parameters
    ----------
    storage : ndarray of uint8, read-only
        Exactly the bytes of `tensor.storage`.
    tensor : StridedTensor
        What the file claims.
    name : str
        The tensor's name, for messages.
    file : path-like
        Where it was read, for messages.

    Returns
    -------
    ndarray of shape `tensor.shape`, dtype of the storage, read-only

    Raises
    ------
    BadFile
        If an element lies outside the storage, or the view has more elements than the storage.
    LimitExceeded
        More than 64 dimensions, or one longer than 2^31.
    """
    dtype = storage_dtype(tensor.storage.dtype)
    _check_lengths(tensor, name, file)
    if 0 in tensor.shape:
        empty = np.empty(tensor.shape, dtype)
        empty.flags.writeable = False
        return empty
    _check_inside(tensor, name, file)
    return np.ndarray(
        tensor.shape,
        dtype,
        buffer=storage,
        offset=tensor.offset * dtype.itemsize,
        strides=[stride * dtype.itemsize for stride in tensor.strides],
    )


def storage_dtype(name: str) -> np.dtype:
    """Return the dtype of a storage: that of activations, or one of quantised numbers."""
    quantised = {"int8": np.dtype(np.int8), "float8_e4m3fn": FLOAT8}
    return quantised[name] if name in quantised else dtype_named(name)


def _check_lengths(tensor: StridedTensor, name: str, file: str | os.PathLike[str]) -> None:
    """Refuse a shape that no array can have, even an empty one."""
    shape = tensor.shape
    n_elements = math.prod(max(length, 1) for length in shape)
    if len(shape) > MAX_DIMENSIONS or max(shape, default=0) > MAX_LENGTH or n_elements > 2**48:
        raise LimitExceeded(
            f"shape of tensor {shown(name)}",
            expected=f"at most {MAX_DIMENSIONS} dimensions, each at most {MAX_LENGTH:,}",
            found=shown(shape),
            file=file,
        )


def _check_inside(tensor: StridedTensor, name: str, file: str | os.PathLike[str]) -> None:
    """Refuse a view that leaves its storage, or that repeats elements to seem larger than it."""
    available = tensor.storage.n_elements
    steps = [(n - 1) * stride for n, stride in zip(tensor.shape, tensor.strides, strict=True)]
    last = tensor.offset + sum(steps)
    largest = max([last + 1, math.prod(tensor.shape), *tensor.strides])
    if largest > available:
        raise BadFile(
            f"tensor {shown(name)}: offset {tensor.offset}, shape {shown(tensor.shape)}, "
            f"strides {shown(tensor.strides)}",
            expected=f"a view inside its storage of {available} elements",
            file=file,
        )
