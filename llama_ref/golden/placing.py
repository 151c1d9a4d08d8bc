"""Putting a bundle in place: all of it at once, or nothing.

Data files are named after what is in them and are written beside whatever is there; then one rename
puts the new manifest in place, and the bundle is the new one. An error, a full disk or Ctrl-C
before that moment leaves the old bundle as it was; one after it leaves files that nobody names, and
the next writer removes those.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from pathlib import Path

import numpy as np

from llama_ref.checkpoint.staging import move, writing
from llama_ref.checkpoint.write import write_safetensors
from llama_ref.errors import BadRequest, shown
from llama_ref.files import list_folder
from llama_ref.golden.manifest import MANIFEST, Manifest
from llama_ref.mapped import map_bytes


def save(manifest: Manifest, staging: Path, stem: str, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays into a file named after its content, on disk to the last byte."""
    temporary = staging / "tensors"
    write_safetensors(temporary, arrays)
    digest = hashlib.sha256(map_bytes(temporary).data).hexdigest()
    name = f"{stem}-{digest[:12]}.safetensors"
    manifest.files[name] = {"bytes": temporary.stat().st_size, "sha256": digest}
    _sync(temporary)
    move(temporary, staging / name)


def put_in_place(manifest: Manifest, staging: Path, folder: Path) -> None:
    """Move data files, then the manifest, into the folder; remove what it does not name."""
    text = json.dumps(manifest.as_dict(), indent=1, allow_nan=False) + "\n"
    with writing(staging / MANIFEST):
        (staging / MANIFEST).write_text(text, encoding="utf-8")
    _sync(staging / MANIFEST)
    for name in manifest.files:
        move(staging / name, folder / name)
    _sync(folder)
    move(staging / MANIFEST, folder / MANIFEST)
    _sync(folder)
    for name in list_folder(folder):  # a dump that somebody keeps here has another name
        if re.fullmatch(r".+-[0-9a-f]{12}\.safetensors", name) and name not in manifest.files:
            with contextlib.suppress(OSError):
                (folder / name).unlink()


def _sync(path: Path) -> None:
    """Have the system write a file or the entries of a folder to disk."""
    with writing(path):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def refuse_existing(folder: Path, overwrite: bool) -> None:
    """Refuse a path at which something stands, unless it is a bundle that may be replaced.

    Raises
    ------
    BadRequest
        If something does, or there is no folder to make it in.
    """
    if not os.path.lexists(folder):
        if not folder.parent.is_dir():
            raise BadRequest("folder to write to", expected="in one that exists", file=folder)
        return
    if folder.is_symlink() or not folder.is_dir():
        raise BadRequest(
            "folder to write to",
            expected="a folder, or nothing yet",
            found="a file or a link",
            file=folder,
        )
    names = [name for name in list_folder(folder) if not name.startswith(".writing-")]
    if names and MANIFEST not in names:
        raise BadRequest(
            "folder to write to",
            expected="an empty one, or a bundle",
            found=shown(names[0]),
            file=folder,
        )
    if names and not overwrite:
        raise BadRequest(
            "folder to write to",
            expected="nothing there",
            found="a bundle",
            next_step="overwrite=True, --overwrite replaces it",
            file=folder,
        )
