"""Nothing half-written under a final name: write beside it, then rename.

    with staging_folder(folder) as staging:
        ...                                     # write whole files into staging
        move(staging / name, folder / name)     # a rename: there at once, or not at all

An error or an interrupt leaves the folder as it was. A process that is killed outright leaves a
hidden folder `.writing-…`, which no reader takes for anything and which may be deleted.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from llama_ref.errors import BadFile, shown


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the system or the safetensors library says about writing `path` into `BadFile`."""
    try:
        yield
    except (OSError, ValueError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or shown(str(error))
        raise BadFile("cannot be written", found=reason, file=path) from None


@contextmanager
def staging_folder(folder: Path) -> Iterator[Path]:
    """Lend a temporary folder inside `folder`, on its file system, and remove it in the end."""
    staging = folder / f".writing-{secrets.token_hex(8)}"
    try:  # before there is anything, so that no interrupt falls between making and removing it
        with writing(folder):
            staging.mkdir(mode=0o700)
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Wait until nobody else writes into the folder; on systems without `flock`, do not wait."""
    try:
        import fcntl  # noqa: PLC0415  (POSIX)
    except ImportError:
        yield
        return
    with writing(folder):
        descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a file; one that stands there is replaced whole, or not at all."""
    with writing(path):
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with temporary.open("x", encoding="utf-8") as file:  # through no link to elsewhere
                file.write(text)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def move(source: Path, target: Path) -> None:
    """Give a written file its final name, replacing what had that name."""
    with writing(target):
        source.replace(target)
