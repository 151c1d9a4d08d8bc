"""A tensor of a dump as its file describes it, not read yet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

TENSORS_LIMIT = 200_000
"""Tensors in one dump. All taps of the 405B model in ten cases are 21,450."""

AXES_LIMIT = 32
"""Axes of one tensor: as many as every release of NumPy has."""


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a dump.

    Attributes
    ----------
    name : str
        As it stands in the file.
    dtype : dtype
        As stored, in the byte order of this machine.
    shape : tuple of int
    load : function of nothing to ndarray
        Reads it: a fresh array of that shape and dtype, nothing else of the file kept in memory.
    file : Path
        Where it lies.
    case, call : str or None, int or None
        The case, and the number of the call within it, that the file's own name says.
    """

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    load: Callable[[], np.ndarray]
    file: Path
    case: str | None = None
    call: int | None = None

    @property
    def label(self) -> str:
        """What it is called in reports: its name, behind the case and call of its file."""
        parts = [self.case, None if self.call is None else str(self.call), self.name]
        return "/".join(part for part in parts if part is not None)
