"""Key/value heads that are stored more than once, given once.

Llama 3.1 405B has 8 key/value heads. To serve it on 16 GPUs Meta published a second cut ("MP16")
in which every head is stored twice in a row, so that each GPU finds its own: 0 0 1 1 2 2 …, and
its params.json counts 16. Read as 16 heads it is a correct model as it stands, with a cache twice
as large as needed. Read as 8, by this view, it is the model of the other cut.

Source: models/sku_list.py in meta-llama/llama-models, variant "bf16-mp16": n_kv_heads 16 and 16
files.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np

from llama_ref.checkpoint.stored import Checkpoint, Tensor, changed
from llama_ref.errors import BadFile, BadRequest, shown
from llama_ref.numerics import check_rows, rows_of

KEY_OR_VALUE = (".attention.wk.weight", ".attention.wv.weight")


class DistinctHeads:
    """A key or value matrix with every head once; implements `numerics.Matrix`.

    Parameters
    ----------
    stored : ndarray or Matrix of shape (copies * K * H, D)
        Head after head, each `copies` times in a row.
    copies : int
        How often each head is stored.
    head_dim : int
        Rows of one head, H.
    name : str
        The tensor's name, for messages.
    file : path-like
        The checkpoint that holds it, for messages.
    """

    def __init__(
        self,
        stored: Tensor,
        copies: int,
        head_dim: int,
        *,
        name: str,
        file: str | os.PathLike[str],
    ):
        self.stored, self.copies, self.head_dim = stored, copies, head_dim
        self.name, self.file = name, file

    def over(self, change: Callable[[np.ndarray], Tensor]) -> DistinctHeads:
        """Return the same matrix over a stored one that is had in another way."""
        stored = changed(self.stored, change)
        return DistinctHeads(stored, self.copies, self.head_dim, name=self.name, file=self.file)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns, K * H and D."""
        rows, columns = self.stored.shape
        return rows // self.copies, columns

    @property
    def dtype(self) -> np.dtype:
        """The dtype of what is stored."""
        return self.stored.dtype

    @property
    def ndim(self) -> int:
        """Two."""
        return 2

    def rows(self, lo: int, hi: int) -> np.ndarray:
        """Return rows lo to hi - 1, after comparing them with their copies.

        Raises
        ------
        BadRequest
            Unless 0 <= lo <= hi <= the number of rows.
        BadFile
            If the copies of a head differ: then they were never copies.
        """
        check_rows(lo, hi, self.shape[0])
        pieces = [rows_of(self.stored, 0, 0)]
        while lo < hi:
            head, row = divmod(lo, self.head_dim)
            n = min(hi - lo, self.head_dim - row)
            pieces.append(self._rows_of_head(head, row, n))
            lo += n
        return np.concatenate(pieces)

    def _rows_of_head(self, head: int, row: int, n: int) -> np.ndarray:
        """Return n rows of one head."""
        starts = [(head * self.copies + i) * self.head_dim + row for i in range(self.copies)]
        first, *others = (rows_of(self.stored, start, start + n) for start in starts)
        if any(first.tobytes() != other.tobytes() for other in others):
            raise BadFile(
                f"tensor {shown(self.name)}",
                expected=f"head {head} stored {self.copies} times",
                found="copies that differ",
                file=self.file,
            )
        return first

    def __array__(
        self, dtype: np.typing.DTypeLike | None = None, copy: bool | None = None
    ) -> np.ndarray:
        """Return all rows as one array."""
        if copy is False:
            raise BadRequest("distinct heads as one array", expected="leave to copy them")
        whole = self.rows(0, self.shape[0])
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def __repr__(self) -> str:
        return f"<DistinctHeads {self.shape} {self.dtype}, each stored {self.copies} times>"


def with_distinct_kv_heads(checkpoint: Checkpoint, n_kv_heads: int, head_dim: int) -> Checkpoint:
    """Give every key/value head of a Meta checkpoint once, however often it is stored.

    Parameters
    ----------
    checkpoint : Checkpoint
        Of the Meta layout.
    n_kv_heads, head_dim : int
        K and H of the model.

    Returns
    -------
    Checkpoint
        The same tensors, but for each wk and wv that is stored more than once: a view that
        compares the copies whenever rows are read, which is the only time both are in memory.

    Raises
    ------
    BadRequest
        If K or H is not positive.
    BadFile
        If a wk or wv does not hold a whole number of copies of K heads.
    """
    if n_kv_heads < 1 or head_dim < 1:
        raise BadRequest("key/value heads", expected="at least 1", found=(n_kv_heads, head_dim))
    tensors = dict(checkpoint)
    for name, tensor in checkpoint.items():
        if not name.endswith(KEY_OR_VALUE) or len(tensor.shape) != 2:
            continue  # what is no matrix is refused where every shape is checked
        copies, rest = divmod(tensor.shape[0], n_kv_heads * head_dim)
        if rest or not copies:
            raise BadFile(
                f"tensor {shown(name)}",
                expected=f"a multiple of {n_kv_heads} heads of {head_dim} rows",
                found=f"{tensor.shape[0]} rows",
                file=checkpoint.path,
            )
        if copies > 1:
            tensors[name] = DistinctHeads(tensor, copies, head_dim, name=name, file=checkpoint.path)
    return Checkpoint(checkpoint.path, checkpoint.layout, tensors, checkpoint.files)
