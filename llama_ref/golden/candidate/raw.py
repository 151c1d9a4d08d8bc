"""Raw numbers and a description: the format that any language can write in a few lines.

A file `NAME.json` beside one or more files of numbers, little-endian, row by row:

    {"far/L00.q":   {"file": "far.bin", "dtype": "f32", "shape": [64, 8, 32], "offset": 0},
     "far/L00.k":   {"file": "far.bin", "dtype": "f32", "shape": [64, 2, 32], "offset": 65536},
     "far/logits":  {"file": "logits.bin", "dtype": "bf16", "shape": [64, 1024]}}

    dtype    f64 f32 f16 bf16     (i8 … u64 and bool may be described; they are not compared)
    offset   in bytes; 0 where it is left out
    file     in the folder of the description, or in one below it

Every byte of a file must belong to exactly one of the tensors described: a shape that is wrong
shows itself.
"""

from __future__ import annotations

import math
import os
from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from llama_ref.checkpoint.safetensors import DTYPES
from llama_ref.errors import BadFile, LimitExceeded, is_whole, shown
from llama_ref.files import open_regular
from llama_ref.golden.candidate.stored import AXES_LIMIT, TENSORS_LIMIT, StoredTensor
from llama_ref.mapped import map_bytes
from llama_ref.strict_json import read_json

DESCRIPTION_LIMIT = 64 * 2**20
NAMES = {name.lower(): dtype for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Span:
    """Where one described tensor lies."""

    name: str
    file: Path
    dtype: np.dtype
    shape: tuple[int, ...]
    begin: int

    @property
    def end(self) -> int:
        """The first byte after it."""
        return self.begin + math.prod(self.shape) * self.dtype.itemsize


def open_raw(path: Path) -> list[StoredTensor]:
    """List the tensors that a description describes; of their files only the sizes are read.

    Raises
    ------
    BadFile
        If the description is not of this form, or a file is outside its folder, absent, or not as
        long as its tensors.
    LimitExceeded
        If it describes more than 200,000 tensors, or one of more than 32 axes.
    """
    described = read_json(path, limit=DESCRIPTION_LIMIT)
    if not isinstance(described, dict):
        raise BadFile(
            "not a description of raw tensors",
            expected='{"far/L00.q": {"file": "far.bin", "dtype": "f32", "shape": [64, 8, 32]}, …}',
            found=shown(described),
            file=path,
        )
    if len(described) > TENSORS_LIMIT:
        limit = f"at most {TENSORS_LIMIT:,}"
        raise LimitExceeded("tensors", expected=limit, found=f"{len(described):,}", file=path)
    spans = [_span(name, fields, path) for name, fields in described.items()]
    by_file: dict[Path, list[Span]] = defaultdict(list)
    for span in spans:
        by_file[span.file].append(span)
    for file, own in by_file.items():
        _check_extent(file, own)
    return [
        StoredTensor(span.name, span.dtype, span.shape, partial(_load, span), span.file)
        for span in spans
    ]


def _span(name: str, fields: Any, path: Path) -> Span:
    """Check one entry of the description by itself."""
    required, optional = {"file", "dtype", "shape"}, {"offset"}
    thing = f"tensor {shown(name)}"
    if not isinstance(fields, dict) or not required <= fields.keys() <= required | optional:
        expected = "an object of file, dtype, shape and, if need be, offset"
        raise BadFile(thing, expected=expected, found=shown(fields), file=path)
    shape, dtype, begin = fields["shape"], fields["dtype"], fields.get("offset", 0)
    if not isinstance(dtype, str) or dtype.lower() not in NAMES:
        raise BadFile(f"{thing}: dtype", expected=" ".join(NAMES), found=shown(dtype), file=path)
    if not isinstance(shape, list) or not all(is_whole(size, 0, 2**48) for size in shape):
        expected = "a list of integers >= 0"
        raise BadFile(f"{thing}: shape", expected=expected, found=shown(shape), file=path)
    if len(shape) > AXES_LIMIT:
        limit = f"at most {AXES_LIMIT} axes"
        raise LimitExceeded(f"{thing}: shape", expected=limit, found=len(shape), file=path)
    if not is_whole(begin, 0, 2**48):
        expected = "a number of bytes"
        raise BadFile(f"{thing}: offset", expected=expected, found=shown(begin), file=path)
    file = _inside(path, fields["file"], thing)
    return Span(name, file, NAMES[dtype.lower()], tuple(shape), begin)


def _inside(path: Path, name: Any, thing: str) -> Path:
    """Return the file of that name, which must lie in the description's folder, links followed."""
    folder = path.parent.resolve()
    try:
        file = (folder / name).resolve()
        is_inside = folder in file.parents
    except (TypeError, ValueError, OSError, RuntimeError):  # no text, a NUL, a loop of links
        is_inside = False
    if not is_inside:
        raise BadFile(
            f"{thing}: file",
            expected="a file in the folder of the description, or below it",
            found=shown(name),
            file=path,
        )
    return file


def _check_extent(file: Path, spans: list[Span]) -> None:
    """Check that the tensors of one file fill it: no overlap, no hole, no cut, no tail."""
    descriptor = open_regular(file)
    size = os.fstat(descriptor).st_size
    os.close(descriptor)
    position, before = 0, "the beginning of the file"
    for span in sorted(spans, key=lambda span: (span.begin, span.end)):
        if span.begin != position:
            raise BadFile(
                f"tensor {shown(span.name)}",
                expected=f"at byte {position:,}, after {before}",
                found=f"at byte {span.begin:,}",
                file=file,
            )
        position = span.end
        shape = " × ".join(map(str, span.shape)) or "one number"
        before = f"{shown(span.name)} of {shape} {span.dtype}"
    if position != size:
        raise BadFile(
            "file size",
            expected=f"{position:,} bytes, the sum of the tensors described",
            found=f"{size:,}",
            next_step="dtype, shape and offset of each must agree with the bytes",
            file=file,
        )


def _load(span: Span) -> np.ndarray:
    """Read one tensor; its file is mapped no longer than that, since there may be thousands."""
    raw = map_bytes(span.file)
    if len(raw) < span.end:
        raise BadFile(
            f"tensor {shown(span.name)}", found="a file that has become shorter", file=span.file
        )
    return np.ndarray(span.shape, span.dtype, buffer=raw, offset=span.begin).copy()
