"""Opening what a stranger hands us: regular files only, and bounded reads.

A checkpoint folder may hold a named pipe, a link to a device, or a web page saved under a
tokenizer's name. Nothing here blocks on one, and nothing reads more than its caller allows.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from llama_ref.errors import BadFile, LimitExceeded

# What people really find in the place of a checkpoint file, by its first bytes.
SIGNATURES = [
    (b"version https://git-lfs", "a Git-LFS pointer: run `git lfs pull` to fetch the real file"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"GGUF", "a GGUF file"),
    (b"\x93NUMPY", "a NumPy .npy file"),
    (b"\x1f\x8b", "a gzip file"),
    (b"\xff\xfe", "UTF-16 text"),
    (b"\xfe\xff", "UTF-16 text"),
    (b"\xef\xbb\xbf", "text that begins with a byte-order mark"),
    (b"<", "an HTML or XML page"),
    (b"\x80\x02", "a bare pickle"),
]


def recognise(first_bytes: bytes) -> str | None:
    r"""Name a well-known kind of file by its first bytes; None if it is none of them.

    Examples
    --------
    >>> recognise(b"PK\x03\x04....")
    'a ZIP archive'
    """
    head = first_bytes[:64].lstrip(b" \t\r\n")
    return next((name for signature, name in SIGNATURES if head.startswith(signature)), None)


def open_regular(path: str | os.PathLike[str]) -> int:
    """Open a regular file for reading and return its descriptor; never blocks on a pipe or device.

    Raises
    ------
    BadFile
        If the path is absent, unreadable, or anything but a regular file (a link to one is fine).
    """
    try:
        descriptor = os.open(
            path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise BadFile("cannot be opened", found=reason, file=path) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise BadFile(
            "not a regular file", expected="a file", found="a folder, pipe or device", file=path
        )
    return descriptor


def read_bytes(path: str | os.PathLike[str], *, limit: int) -> bytes:
    """Read a whole regular file of at most `limit` bytes.

    Raises
    ------
    BadFile
        If it cannot be opened or read, or is not a regular file.
    LimitExceeded
        If it is larger than `limit`.
    """
    with os.fdopen(open_regular(path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size <= limit:
            try:
                data = file.read(limit + 1)
            except OSError as error:
                raise BadFile("cannot be read", found=error.strerror, file=path) from None
            if data is None:  # not a file on a disk: the kernel's log, for one, may have no news
                raise BadFile("cannot be read", found="nothing to read yet", file=path)
            size = max(size, len(data))
    if size > limit:
        raise LimitExceeded(
            "file size", expected=f"at most {limit:,} bytes", found=f"{size:,}", file=path
        )
    return data


def list_folder(path: str | os.PathLike[str]) -> list[str]:
    """Return the sorted file names of a folder, or raise `BadFile` if there is no such folder."""
    try:
        return sorted(entry.name for entry in Path(path).iterdir())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise BadFile("not a readable folder", found=reason, file=path) from None
