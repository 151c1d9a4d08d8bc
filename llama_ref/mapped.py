"""Files as arrays of bytes: mapped, or read a range at a time; never once they have changed.

A map shows the file as it is, not as it was. Written to in place, it changes the numbers without a
word; shortened, it ends the process at the first touch beyond its end. So a map remembers what the
file was, and whoever is about to use it may ask. Reading by range asks each time.
"""

from __future__ import annotations

import mmap
import os
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from llama_ref.errors import BadFile
from llama_ref.files import open_regular


class Identity(NamedTuple):
    """Which file it is, and of what state: as long as these agree, its bytes are the same."""

    device: int
    inode: int
    n_bytes: int
    written_ns: int
    changed_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Identity:
        """Return the identity that the system states."""
        return cls(
            status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
        )


class MappedFile(mmap.mmap):
    """A mapped file that knows what it was when it was mapped."""

    path: Path
    identity: Identity

    def check(self) -> None:
        """Raise `BadFile` if the file has been shortened or written to since it was mapped.

        Of a file that was deleted, or replaced by another of its name, the map keeps what it was.
        """
        try:
            found = Identity.of(self.path.stat())
        except OSError:
            return
        if found[:2] == self.identity[:2]:
            check_identity(found, self.identity, self.path)


def check_identity(found: Identity, expected: Identity, path: Path) -> None:
    """Raise `BadFile` if a file is not what it was when it was opened."""
    if found != expected:
        raise BadFile(
            "the file has changed since it was opened",
            expected=f"{expected.n_bytes:,} bytes, last changed at {expected.changed_ns} ns",
            found=f"{found.n_bytes:,} bytes, last changed at {found.changed_ns} ns",
            next_step="load the model again; replace files by renaming, never in place",
            file=path,
        )


def map_bytes(path: str | os.PathLike[str]) -> np.ndarray:
    """Map a regular file as a read-only array of bytes; nothing is read until it is touched.

    The map sees the file, not a copy: do not rewrite a checkpoint in place while it is open.

    Returns
    -------
    ndarray of shape (bytes in the file,), uint8, read-only
        Its owner is a `MappedFile`.
    """
    with os.fdopen(open_regular(path), "rb") as file:
        status = os.fstat(file.fileno())
        if status.st_size == 0:  # a map of nothing is refused by the system
            return np.empty(0, np.uint8)
        try:
            if sys.version_info >= (3, 13) and os.name == "posix":
                mapped = MappedFile(file.fileno(), 0, access=mmap.ACCESS_READ, trackfd=False)
            else:  # holds a duplicate of the descriptor as long as the map lives
                mapped = MappedFile(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise BadFile("cannot be mapped", found=str(error), file=path) from None
    mapped.path, mapped.identity = Path(path).absolute(), Identity.of(status)
    return np.frombuffer(mapped, np.uint8)


def map_behind(array: np.ndarray) -> MappedFile | None:
    """Return the mapped file that an array is a view of."""
    owner: object = array
    while owner is not None and not isinstance(owner, MappedFile):
        owner = owner.obj if isinstance(owner, memoryview) else getattr(owner, "base", None)
    return owner


def read_range(path: Path, start: int, n_bytes: int, identity: Identity) -> np.ndarray:
    """Read some bytes of a file, if it is still what it was.

    Returns
    -------
    ndarray of shape (n_bytes,), uint8

    Raises
    ------
    BadFile
        If it cannot be read, or has changed.
    """
    buffer = np.empty(n_bytes, np.uint8)
    with os.fdopen(open_regular(path), "rb", buffering=0) as file:
        check_identity(Identity.of(os.fstat(file.fileno())), identity, path)
        at = 0
        try:
            file.seek(start)
            while at < n_bytes and (n := file.readinto(buffer[at:].data)):
                at += n
        except OSError as error:
            reason = f"{error.strerror} at byte {start + at:,}"
            raise BadFile("cannot be read", found=reason, file=path) from None
    if at < n_bytes:
        raise BadFile("bytes", expected=f"{start + n_bytes:,}", found=f"{start + at:,}", file=path)
    return buffer
