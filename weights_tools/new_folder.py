"""A checkpoint folder that is there whole or not at all, and never in the place of another.

Files are written into a hidden folder beside their place and then renamed, the one that a reader
looks for last. An error, a full disk or an interrupt leaves the folder as it was.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from llama_ref.checkpoint.staging import move, staging_folder, writing
from llama_ref.errors import BadFile, BadRequest, shown
from llama_ref.files import list_folder

PART = re.compile(r"(config|params|index)\.json|.*\.(safetensors|pth|bin)", re.DOTALL)
"""Names of files that belong to a checkpoint of any of the formats."""


def refuse_checkpoint(folder: Path) -> None:
    """Raise `BadRequest` if a checkpoint, whole or not, stands in the folder.

    Raises
    ------
    BadRequest
        If it does.
    BadFile
        If this is no folder.
    """
    held = [name for name in list_folder(folder) if PART.fullmatch(name)]
    if held:
        raise BadRequest(
            "folder to write to",
            expected="one without a checkpoint",
            found=shown(held[0]),
            next_step="choose another folder, or remove the checkpoint first",
            file=folder,
        )


def make_folder(folder: Path) -> None:
    """Make the folder if it does not exist, and raise `BadRequest` if it holds a checkpoint.

    Raises
    ------
    BadRequest
        If it holds one.
    BadFile
        If it cannot be made.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    refuse_checkpoint(folder)


def write_whole(folder: Path, write: Callable[[Path], list[str]]) -> None:
    """Let `write` fill a hidden folder, then move what it wrote to its place.

    Parameters
    ----------
    folder : Path
        Made if it does not exist.
    write : function of Path
        Writes files into the folder it is given; returns their names, in the order in which they
        are to appear.

    Raises
    ------
    BadRequest
        If the folder holds a checkpoint, before or after the writing.
    BadFile
        If it cannot be written.
    """
    make_folder(folder)
    with staging_folder(folder) as staging:
        try:
            names = write(staging)
        except OSError as error:  # a full disk; what is wrong with the source says so itself
            raise BadFile("cannot be written", found=error.strerror, file=folder) from None
        refuse_checkpoint(folder)
        for name in names:
            move(staging / name, folder / name)
