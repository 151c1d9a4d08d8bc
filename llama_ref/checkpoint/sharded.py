"""A matrix that was cut over several files, handed out in whole rows without joining it.

Large models were trained with each matrix cut into equal parts, one per GPU, and Meta stored the
parts as they were: side by side in the rows, or in the columns.

    axis 0     rows lo to hi - 1 lie in one part, or in a few       (one part: no copy)
    axis 1     every row has a piece in every part                  (only those rows are copied)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from llama_ref.checkpoint.stored import changed
from llama_ref.errors import BadRequest
from llama_ref.numerics import Matrix, check_rows, rows_of


class ShardedMatrix:
    """Equal parts of one matrix, along axis 0 or 1; implements `numerics.Matrix`.

    Parameters
    ----------
    parts : sequence of ndarray or Matrix of one shape (rows, columns) and one dtype
        In order; not copied.
    axis : {0, 1}
        0 if the parts lie one below the other, 1 if side by side.

    Raises
    ------
    BadRequest
        If the parts differ in shape or dtype, are empty or no matrices, or `axis` is neither.

    Examples
    --------
    >>> left, right = np.array([[1, 2], [5, 6]]), np.array([[3, 4], [7, 8]])
    >>> ShardedMatrix([left, right], axis=1).rows(1, 2)
    array([[5, 6, 7, 8]])
    """

    def __init__(self, parts: Sequence[np.ndarray | Matrix], axis: int):
        kinds = {(part.shape, part.dtype) for part in parts}
        if axis not in (0, 1) or len(kinds) != 1 or len(parts[0].shape) != 2 or 0 in parts[0].shape:
            found = f"axis {axis}, {len(parts)} parts of {len(kinds)} kinds"
            raise BadRequest("ShardedMatrix", expected="equal matrices, axis 0 or 1", found=found)
        self.parts, self.axis = tuple(parts), axis

    def over(self, change: Callable[[np.ndarray], np.ndarray | Matrix]) -> ShardedMatrix:
        """Return the same matrix of parts that are had in another way."""
        return type(self)([changed(part, change) for part in self.parts], self.axis)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the whole matrix."""
        rows, columns = self.parts[0].shape
        n_parts = len(self.parts)
        return (rows * n_parts, columns) if self.axis == 0 else (rows, columns * n_parts)

    @property
    def dtype(self) -> np.dtype:
        """The dtype of every part."""
        return self.parts[0].dtype

    @property
    def ndim(self) -> int:
        """Two."""
        return 2

    def rows(self, lo: int, hi: int) -> np.ndarray:
        """Return rows lo to hi - 1; a view where they lie in one part, else a copy of them.

        Returns
        -------
        ndarray of shape (hi - lo, columns), dtype of the parts

        Raises
        ------
        BadRequest
            Unless 0 <= lo <= hi <= the number of rows.
        """
        check_rows(lo, hi, self.shape[0])
        if self.axis == 1:
            return np.concatenate([rows_of(part, lo, hi) for part in self.parts], axis=1)
        height = self.parts[0].shape[0]
        pieces = [
            rows_of(part, max(lo - top, 0), min(hi - top, height))
            for top, part in zip(range(0, self.shape[0], height), self.parts, strict=True)
            if top < hi and lo < top + height
        ]
        if not pieces:
            return rows_of(self.parts[0], 0, 0)
        return np.concatenate(pieces) if len(pieces) > 1 else pieces[0]

    def __array__(
        self, dtype: np.typing.DTypeLike | None = None, copy: bool | None = None
    ) -> np.ndarray:
        """Join the parts, for tests and small matrices."""
        if copy is False:
            raise BadRequest("a cut matrix as one array", expected="leave to copy it")
        whole = self.rows(0, self.shape[0])
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def __repr__(self) -> str:
        where = "rows" if self.axis == 0 else "columns"
        return f"<ShardedMatrix {self.shape} {self.dtype}, {where} in {len(self.parts)} parts>"
