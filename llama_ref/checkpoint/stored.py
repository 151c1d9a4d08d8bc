"""A checkpoint as one mapping: stored name -> mapped tensor, with the file each lives in.

Opening reads headers only. A tensor is a read-only view of the mapped file, or, where a matrix
was cut over several files or is computed, a `Matrix` that hands out rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from llama_ref.errors import BadFile, printable, shown
from llama_ref.numerics import Matrix

Tensor = np.ndarray | Matrix


def changed(tensor: Tensor, change: Callable[[np.ndarray], Tensor]) -> Tensor:
    """Return a tensor whose stored arrays are had in another way: one, the parts of one, or none.

    Parameters
    ----------
    tensor : Tensor
        An array, or a `Matrix`; one that consists of arrays has a method `over`.
    change : function of ndarray to Tensor
        Called for each array, in the order of its rows.
    """
    if isinstance(tensor, np.ndarray):
        return change(tensor)
    return tensor.over(change) if hasattr(tensor, "over") else tensor


class Checkpoint(Mapping[str, Tensor]):
    """Every tensor of a checkpoint by its stored name.

    Parameters
    ----------
    path : Path
        The folder or file that was opened.
    layout : {"hf", "meta", "gguf"}
        Whose names, and whose order of the query and key rows (half-split or interleaved).
    tensors : mapping of str to Tensor
        In stored order.
    files : mapping of str to tuple of str
        For each tensor, the names of the files that hold it; none if it is computed.
    """

    def __init__(
        self,
        path: Path,
        layout: str,
        tensors: Mapping[str, Tensor],
        files: Mapping[str, tuple[str, ...]],
    ):
        self.path, self.layout = path, layout
        self.files = dict(files)
        self._tensors = dict(tensors)

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._tensors:
            raise BadFile(f"tensor {shown(name)}", found="no such tensor", file=self.path)
        return self._tensors[name]

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    @property
    def folder(self) -> Path:
        """Where its files lie."""
        return self.path.parent if self.layout == "gguf" else self.path

    @property
    def has_files(self) -> bool:
        """Whether any tensor lies in a file, and `path` is one or a folder of them."""
        return any(self.files.values())

    def __repr__(self) -> str:
        name = printable(self.path.name)
        if not self.has_files:
            return f"<Checkpoint {name}: {len(self)} computed tensors of layout {self.layout}>"
        n_files = len({file for files in self.files.values() for file in files})
        return f"<Checkpoint {name}: {len(self)} tensors in {n_files} {self.layout} files>"
