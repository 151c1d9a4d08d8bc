"""Files that are there whole or not at all, verified, and never in the place of others.

Each file is written into a hidden folder beside its place, read back and compared with what was
written, and renamed when all are there, the one that a reader looks for last. An error, a full disk
or an interrupt leaves the folder as it was.

With a key for resuming, the hidden folder stays when the writing is cut short, with the files that
were finished and a list of them. The same command goes on where it was.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, NamedTuple

from llama_ref.checkpoint.staging import move, only_writer, staging_folder, writing
from llama_ref.errors import BadFile, BadRequest, LlamaRefError, is_whole, shown
from llama_ref.files import list_folder, open_regular
from llama_ref.strict_json import read_json

PART = re.compile(
    r"(config|generation_config|params|index)\.json|.*\.(safetensors|pth|pt|bin)", re.DOTALL
)
"""Names of files that belong to a checkpoint of any of the formats."""

FINISHED, JOURNAL_LIMIT = "finished.json", 2**24
READ_BYTES = 2**24


class Plan(NamedTuple):
    """A file to be written.

    Attributes
    ----------
    name : str
    n_bytes : int
        Of tensors in it, by which progress is counted.
    write : function of binary file
        Writes all of it, from the beginning to the end.
    """

    name: str
    n_bytes: int
    write: Callable[[BinaryIO], None]


def plan_of(name: str, data: bytes) -> Plan:
    """Return a plan for a file of those bytes, in which there is no tensor."""

    def write(file: BinaryIO) -> None:
        file.write(data)

    return Plan(name, 0, write)


def refuse_checkpoint(folder: Path, also: Collection[str] = ()) -> None:
    """Raise `BadRequest` if a checkpoint, whole or not, stands in the folder.

    Parameters
    ----------
    folder : Path
    also : collection of str
        Names of other files that may not be there.

    Raises
    ------
    BadRequest
        If it does.
    BadFile
        If this is no folder.
    """
    held = [name for name in list_folder(folder) if PART.fullmatch(name) or name in also]
    if held:
        raise BadRequest(
            "folder to write to",
            expected="one without a checkpoint",
            found=shown(held[0]),
            next_step="choose another folder, or remove the checkpoint first",
            file=folder,
        )


def write_folder(
    folder: Path,
    plans: Sequence[Plan],
    advance: Callable[[int], object],
    resume: str | None = None,
    beside: Mapping[str, bytes] = MappingProxyType({}),
) -> None:
    """Write all files of a checkpoint into a folder.

    Parameters
    ----------
    folder : Path
        Made if it does not exist.
    plans : sequence of Plan
        In the order in which the files are to appear.
    advance : function of int
        Told the bytes of files that need not be written again.
    resume : str, optional
        A name for this very conversion: what was finished under it is kept when it is cut short.
    beside : mapping of str to bytes
        More files, by name: what is no part of the weights. They appear first.

    Raises
    ------
    BadRequest
        If the folder holds a checkpoint or one of these files, before or after the writing.
    BadFile
        If it cannot be written, or does not hold what was written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    check = partial(refuse_checkpoint, also=beside)
    others = [plan_of(name, data) for name, data in beside.items()]
    with only_writer(folder):
        check(folder)
        write_files(folder, [*others, *plans], advance, resume, check)


def write_files(
    folder: Path,
    plans: Sequence[Plan],
    advance: Callable[[int], object],
    resume: str | None = None,
    check: Callable[[Path], None] = lambda folder: None,
) -> None:
    """Write files into a folder that is there; `check` it once more before they appear."""
    with _staging(folder, resume) as staging:
        finished = _finished(staging)
        for plan in plans:
            if _is_there(staging / plan.name, finished.get(plan.name)):
                advance(plan.n_bytes)
                continue
            try:
                finished[plan.name] = _write_one(staging / plan.name, plan)
            except OSError as error:  # a full disk; what is wrong with the source says so itself
                raise BadFile("cannot be written", found=error.strerror, file=folder) from None
            if resume:
                (staging / FINISHED).write_text(json.dumps(finished), encoding="utf-8")
        check(folder)
        for plan in plans:
            move(staging / plan.name, folder / plan.name)


@contextmanager
def _staging(folder: Path, resume: str | None) -> Iterator[Path]:
    """Lend a hidden folder; with a name for resuming it is the same one each time."""
    if not resume:
        with staging_folder(folder) as staging:
            yield staging
        return
    staging = folder / f".partial-{resume}"
    with writing(folder):
        staging.mkdir(mode=0o700, exist_ok=True)
    yield staging
    shutil.rmtree(staging, ignore_errors=True)  # not after an error: it is what to go on from


def _finished(staging: Path) -> dict[str, list[int]]:
    """Return the files that were finished before, with size and checksum."""
    with suppress(LlamaRefError):
        stated = read_json(staging / FINISHED, limit=JOURNAL_LIMIT)
        return {} if not isinstance(stated, dict) else {n: s for n, s in stated.items() if _fits(s)}
    return {}


def _fits(stated: object) -> bool:
    if not isinstance(stated, list) or len(stated) != 2:
        return False
    return all(is_whole(number, 0, 2**63) for number in stated)


def _is_there(path: Path, stated: list[int] | None) -> bool:
    """Tell whether a file is there with the bytes that were written into it."""
    with suppress(LlamaRefError):
        return stated is not None and _state(path) == stated
    return False


class _Checked:
    """A file open for writing that keeps a checksum of what goes into it."""

    def __init__(self, file: BinaryIO):
        self._file, self.checksum, self.n_bytes = file, 0, 0

    def write(self, data: bytes | memoryview) -> int:
        """Write, and take note."""
        self.checksum = zlib.crc32(data, self.checksum)
        n = self._file.write(data)
        self.n_bytes += n
        return n

    def tell(self) -> int:
        """Return how many bytes there are by now."""
        return self.n_bytes


def _write_one(path: Path, plan: Plan) -> list[int]:
    """Write one file and read it back; return its size and checksum."""
    path.unlink(missing_ok=True)  # what was cut short; and nothing is written through a link
    with path.open("xb") as file:
        checked = _Checked(file)
        plan.write(checked)  # type: ignore[arg-type]
        file.flush()
        os.fsync(file.fileno())
    found = _state(path)
    if found != [checked.n_bytes, checked.checksum]:
        raise BadFile(
            f"file {shown(plan.name)}",
            expected="what was written into it",
            found="other bytes",
            next_step="the disk or the memory of this machine cannot be trusted",
            file=path.parent,
        )
    return found


def _state(path: Path) -> list[int]:
    """Return the size and the checksum of a regular file."""
    n_bytes = checksum = 0
    with os.fdopen(open_regular(path), "rb") as file:
        while data := file.read(READ_BYTES):
            n_bytes, checksum = n_bytes + len(data), zlib.crc32(data, checksum)
    return [n_bytes, checksum]
