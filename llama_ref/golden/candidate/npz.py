"""NumPy's `.npz`: a ZIP archive with one `.npy` file for each array.

    far/L00.q.npy     magic · version · header, a Python literal of dtype, order and shape · data

The archive is read by the standard library, the header by NumPy, and both only as far as needed:
opening reads headers, and data is read when asked for. Arrays of Python objects are pickles, which
are programs; none is ever loaded. The format has no bfloat16.
"""

from __future__ import annotations

import io
import math
import os
import zipfile
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from llama_ref.checkpoint.readahead import let_go
from llama_ref.errors import BadFile, LimitExceeded, LlamaRefError, Unsupported, shown
from llama_ref.golden.candidate.stored import AXES_LIMIT, TENSORS_LIMIT, StoredTensor
from llama_ref.mapped import map_bytes

READ_LIMIT = 16 * 2**20
"""Bytes read at once: as long as the archive's directory may be."""
BLOCK = 2**20
HEADER_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError)
"""What `zipfile` raises at a file that is cut, damaged, encrypted or packed in a strange way."""


class MappedFile(io.RawIOBase):
    """A mapped file as the file object that `zipfile` asks for.

    Parameters
    ----------
    raw : ndarray of uint8
        All bytes of the file.
    path : Path
        Its name, for messages.
    """

    def __init__(self, raw: np.ndarray, path: Path):
        self.raw, self.path, self._position = raw, path, 0

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def seekable(self) -> bool:
        """Say that it can be read from any place."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: len(self.raw)}[whence]
        if start + offset < 0:
            raise OSError("a place before the beginning of the file")
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        """Say where reading goes on."""
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, or as much of it as is left."""
        piece = self.raw[self._position : self._position + len(buffer)]
        buffer[: len(piece)] = piece.data
        self._position += len(piece)
        return len(piece)

    def read(self, size: int = -1, /) -> bytes:
        """Return the next bytes; an archive that wants very many at once is refused."""
        size = size if size >= 0 else max(0, len(self.raw) - self._position)
        if size > READ_LIMIT:
            raise LimitExceeded(
                "ZIP directory", expected=f"at most {READ_LIMIT:,} bytes", file=self.path
            )
        return super().read(size) or b""


def open_npz(path: Path) -> list[StoredTensor]:
    """List the arrays of an `.npz` file; only their headers are read.

    Raises
    ------
    BadFile
        Not an archive of `.npy` files, damaged, or an array that is not as long as it says.
    Unsupported
        An array of Python objects.
    LimitExceeded
        A directory of more than 16 MiB, more than 200,000 arrays, or more than 32 axes of one.
    """
    raw = map_bytes(path)
    try:
        archive = zipfile.ZipFile(MappedFile(raw, path))
    except ZIP_ERRORS as error:
        raise BadFile("not an npz archive", found=shown(str(error)), file=path) from None
    members = archive.infolist()
    _check_members(members, raw, path)
    try:
        return [_describe(archive, member, path) for member in members]
    finally:
        let_go(raw)


def _check_members(members: list[zipfile.ZipInfo], raw: np.ndarray, path: Path) -> None:
    if len(members) > TENSORS_LIMIT:
        limit = f"at most {TENSORS_LIMIT:,}"
        raise LimitExceeded("arrays", expected=limit, found=f"{len(members):,}", file=path)
    if len({member.filename for member in members}) < len(members):
        raise BadFile("npz archive", found="two members of one name", file=path)
    # Members that share bytes could make a small file stand for any amount of data.
    n_bytes = sum(member.compress_size for member in members)
    if n_bytes > len(raw):
        raise BadFile(
            "sum of the members", expected=f"<= {len(raw):,} bytes", found=f"{n_bytes:,}", file=path
        )


def _describe(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> StoredTensor:
    """Read one array's header."""
    thing = f"array {shown(member.filename)}"
    if not member.filename.endswith(".npy"):
        torch = "if torch.save wrote this file, write it with safetensors.torch.save_file instead"
        raise BadFile(thing, expected="a name that ends in .npy", next_step=torch, file=path)
    try:
        with archive.open(member) as file:
            shape, column_major, dtype = _header(file)
            start = file.tell()
    except LlamaRefError:
        raise
    except Exception as error:  # NumPy evaluates a literal here, and lists no errors
        raise BadFile(f"{thing}: header", found=shown(str(error)), file=path) from None
    if dtype.hasobject:
        raise Unsupported(
            thing, expected="numbers", found="Python objects, which are never loaded", file=path
        )
    n_bytes = math.prod(shape) * dtype.itemsize
    if len(shape) > AXES_LIMIT:
        limit = f"at most {AXES_LIMIT} axes"
        raise LimitExceeded(f"{thing}: shape", expected=limit, found=len(shape), file=path)
    if min(shape, default=0) < 0 or start + n_bytes != member.file_size:
        expected = f"{n_bytes:,} bytes for {dtype} of shape {shape}"
        raise BadFile(thing, expected=expected, found=f"{member.file_size - start:,}", file=path)
    load = partial(_load, archive, member, shape, column_major, dtype, path)
    native = dtype.newbyteorder("=")
    return StoredTensor(member.filename.removesuffix(".npy"), native, shape, load, path)


def _header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    if version not in HEADER_READERS:
        raise ValueError(f"version {version} of the npy format")
    return HEADER_READERS[version](file)


def _load(
    archive: zipfile.ZipFile,
    member: zipfile.ZipInfo,
    shape: tuple[int, ...],
    column_major: bool,
    dtype: np.dtype,
    path: Path,
) -> np.ndarray:
    """Read one array whose header was read before; the archive checks its CRC."""
    array = np.empty(math.prod(shape), dtype)
    target, filled = array.view(np.uint8), 0
    try:
        with archive.open(member) as file:
            _header(file)
            while block := file.read(BLOCK):
                target[filled : filled + len(block)] = np.frombuffer(block, np.uint8)
                filled += len(block)
        if filled < len(target):
            raise EOFError(f"{filled:,} bytes of {len(target):,}")
    except LlamaRefError:
        raise
    except (*ZIP_ERRORS, ValueError) as error:  # or a header that has changed since it was read
        raise BadFile(
            f"array {shown(member.filename)}", found=shown(str(error)), file=path
        ) from None
    finally:
        mapped = archive.fp
        if isinstance(mapped, MappedFile):
            let_go(mapped.raw)
    native = array.astype(dtype.newbyteorder("="), copy=False)
    return native.reshape(shape, order="F" if column_major else "C")
