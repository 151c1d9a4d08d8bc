"""A GGUF file, llama.cpp's: one file that holds blueprint, vocabulary and weights.

Numbers stored as such are views of the mapped file. Quantised ones come in blocks of 32 or 256 with
their own scale, and are made floats some rows at a time, by the package `gguf`, whenever a product
needs them. Query and key rows are in interleaved order: whoever converts a checkpoint of Hugging
Face to GGUF has to reorder them.

`rope_freqs.weight`, where it stands, says by how much RoPE's scaling stretches each pair; from it
the blueprint has its scaling (`gguf_blueprint.py`).
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from llama_ref.checkpoint.gguf_header import Header, StoredTensor, read_gguf_header
from llama_ref.checkpoint.stored import Checkpoint, Tensor, changed
from llama_ref.errors import Unsupported, shown
from llama_ref.numerics import BFLOAT16, AllRows, check_rows, rows_of

DTYPES = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": BFLOAT16,
    "F64": np.dtype("<f8"),
}


class BlockMatrix(AllRows):
    """A matrix stored in quantised blocks; implements `numerics.Matrix`.

    Parameters
    ----------
    raw : ndarray or Matrix of shape (F, bytes of a row), uint8
    kind : str
        Which quantisation: "Q4_K", …
    n_columns : int
        Numbers of a row.
    """

    ndim, dtype, is_quantised = 2, np.dtype(np.float32), True

    def __init__(self, raw: Tensor, kind: str, n_columns: int):
        self.raw, self.kind = raw, kind
        self.shape = (raw.shape[0], n_columns)

    def rows(self, lo: int, hi: int) -> np.ndarray:
        """Return rows lo to hi - 1, made float32.

        Raises
        ------
        Unsupported
            If the package `gguf` is not installed.
        BadRequest
            Unless 0 <= lo <= hi <= the number of rows.
        """
        check_rows(lo, hi, self.shape[0])
        quants, kinds = _package()
        if lo == hi:
            return np.empty((0, self.shape[1]), np.float32)
        blocks = np.ascontiguousarray(rows_of(self.raw, lo, hi))
        with np.errstate(all="ignore"):  # a scale may be no number; a pass finds it
            return quants.dequantize(blocks, kinds[self.kind]).reshape(hi - lo, self.shape[1])

    @property
    def nbytes(self) -> int:
        """The bytes of the blocks."""
        return math.prod(self.raw.shape)

    @property
    def stored_as(self) -> str:
        """Which quantisation."""
        return self.kind

    def over(self, change: Callable[[np.ndarray], Tensor]) -> BlockMatrix:
        """Return the same matrix over blocks that are had in another way."""
        return BlockMatrix(changed(self.raw, change), self.kind, self.shape[1])

    def __repr__(self) -> str:
        return f"<BlockMatrix {self.shape} {self.kind}>"


def open_gguf(path: str | os.PathLike[str]) -> Checkpoint:
    """Open a GGUF file; only its header is read.

    Returns
    -------
    Checkpoint
        Of layout "gguf": names such as `blk.0.attn_q.weight`; query and key rows interleaved.

    Raises
    ------
    BadFile, Unsupported, LimitExceeded
        As of `gguf_header.read_gguf_header`.
    """
    return checkpoint_of(read_gguf_header(path), path)


def checkpoint_of(header: Header, path: str | os.PathLike[str]) -> Checkpoint:
    """Return the tensors that a header describes."""
    tensors = {tensor.name: _tensor(tensor, header.raw, path) for tensor in header.tensors}
    return Checkpoint(Path(path), "gguf", tensors, dict.fromkeys(tensors, (Path(path).name,)))


def _tensor(tensor: StoredTensor, raw: np.ndarray, path: str | os.PathLike[str]) -> Tensor:
    kind = tensor.storage.name
    if kind in DTYPES:
        return np.ndarray(tensor.shape, DTYPES[kind], buffer=raw, offset=tensor.start)
    if len(tensor.shape) != 2:
        raise Unsupported(
            f"tensor {shown(tensor.name)}",
            expected=f"a matrix of {kind}",
            found=tensor.shape,
            file=path,
        )
    rows = tensor.shape[0]
    blocks = raw[tensor.start : tensor.end].reshape(rows, -1)
    return BlockMatrix(blocks, kind, tensor.shape[1])


def _package():
    """Return what makes floats of blocks, and its names for the kinds."""
    try:
        from gguf import GGMLQuantizationType, quants  # noqa: PLC0415 - an extra
    except ModuleNotFoundError:
        raise Unsupported(
            "quantised GGUF tensors",
            expected="the package gguf",
            next_step="python -m pip install 'llama_ref[gguf]'",
        ) from None
    return quants, GGMLQuantizationType
