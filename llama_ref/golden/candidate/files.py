"""A path becomes a list of unread tensors: one file, or a folder of them.

dump.safetensors     dump.npz     dump.json beside raw files (see `raw`)

dump/far.safetensors             a file called after a case: its names need not repeat it
dump/far/anything.npz            a folder called after a case
dump/decode/0.npz  1.npz  …      in it, files called by the number of the call
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from llama_ref.checkpoint.readahead import let_go
from llama_ref.checkpoint.safetensors import open_safetensors
from llama_ref.errors import LimitExceeded, Unsupported, printable
from llama_ref.files import list_folder, open_regular
from llama_ref.golden.candidate.npz import open_npz
from llama_ref.golden.candidate.raw import open_raw
from llama_ref.golden.candidate.stored import TENSORS_LIMIT, StoredTensor


def open_dump(path: Path, cases: Collection[str]) -> tuple[list[StoredTensor], list[str]]:
    """List every tensor of a dump; nothing but headers is read.

    Parameters
    ----------
    path : Path
        A file or a folder.
    cases : collection of str
        Names of cases: a file or folder of such a name is that case's.

    Returns
    -------
    tensors : list of StoredTensor
    skipped : list of str
        Files and folders in it that were not read.

    Raises
    ------
    BadFile
        If a file is not what it says it is.
    Unsupported
        If it is a GGUF file, or holds what is not read here.
    LimitExceeded
        If there are more than 200,000 tensors.
    """
    if _is_folder(path):
        tensors, skipped = _open_folder(path, cases)
    else:
        tensors, skipped = _open_file(path, path.stem if path.stem in cases else None), []
    if len(tensors) > TENSORS_LIMIT:
        limit = f"at most {TENSORS_LIMIT:,}"
        raise LimitExceeded("tensors", expected=limit, found=f"{len(tensors):,}", file=path)
    return tensors, skipped


def _open_folder(folder: Path, cases: Collection[str]) -> tuple[list[StoredTensor], list[str]]:
    """Open the files of a folder, and of the folders in it that are called after a case."""
    tensors: list[StoredTensor] = []
    others: list[Path] = []
    for name in _visible(folder):
        path = folder / name
        if name in cases and _is_folder(path):
            inner = [path / file for file in _visible(path)]
            for file in filter(_is_readable, inner):
                call = int(file.stem) if file.stem.isdecimal() else None
                tensors += _open_file(file, name, call)
            others += [file for file in inner if not _is_readable(file)]
        elif _is_readable(path):
            tensors += _open_file(path, path.stem if path.stem in cases else None)
        else:
            others.append(path)
    read = {tensor.file.resolve() for tensor in tensors}
    return tensors, _unread(others, read, folder)


def _visible(folder: Path) -> list[str]:
    return [name for name in list_folder(folder) if not name.startswith(".")]


def _is_readable(path: Path) -> bool:
    return path.suffix in OPENERS and not _is_folder(path)


def _is_folder(path: Path) -> bool:
    """Tell whether this is a folder; of what cannot be looked at, opening it will say why."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _unread(paths: Iterable[Path], read: set[Path], folder: Path) -> list[str]:
    """Return those that neither were read nor hold a raw file that was."""
    holding = read | {parent for file in read for parent in file.parents}
    unread = [path for path in paths if _resolved(path) not in holding]
    return [printable(os.fspath(path.relative_to(folder))) for path in unread]


def _resolved(path: Path) -> Path:
    """Return where links lead to; a link that leads to itself leads nowhere."""
    try:
        return path.resolve()
    except (OSError, RuntimeError):
        return path


def _open_file(path: Path, case: str | None, call: int | None = None) -> list[StoredTensor]:
    """Open one file by what it is, whatever it is called; only a description goes by its name."""
    with os.fdopen(open_regular(path), "rb") as file:
        first = file.read(8)
    if first.startswith(b"GGUF"):
        raise Unsupported(
            "GGUF file",
            expected="a dump in safetensors, npz, or raw with a description",
            next_step="GGUF holds weights; write what your port computed as safetensors or npz",
            file=path,
        )
    opener = OPENERS.get(path.suffix, _open_safetensors)
    if first.startswith(b"PK"):
        opener = open_npz
    return [replace(tensor, case=case, call=call) for tensor in opener(path)]


def _open_safetensors(path: Path) -> list[StoredTensor]:
    return [
        StoredTensor(name, view.dtype, view.shape, partial(_copy, view), path)
        for name, view in open_safetensors(path).items()
    ]


def _copy(view: np.ndarray) -> np.ndarray:
    """Copy a mapped tensor, and let the system have its pages back."""
    copy = view.copy()
    let_go(view)
    return copy


OPENERS: dict[str, Callable[[Path], list[StoredTensor]]] = {
    ".safetensors": _open_safetensors,
    ".npz": open_npz,
    ".json": open_raw,
}
"""By suffix: the files of a folder that are read."""
