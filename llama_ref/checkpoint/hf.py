"""A folder in the Hugging Face layout: one file of tensors, or an index and its shards.

    model.safetensors                                     or
    model.safetensors.index.json     {"metadata": {"total_size": bytes of all tensors},
                                      "weight_map": {tensor: shard}}
    model-00001-of-00030.safetensors …

The index is believed in nothing: each shard must hold exactly the tensors listed for it, and all
of them together exactly `total_size` bytes. A half-finished download, or shards of two models in
one folder, is an error when the folder is opened and not a wrong number later.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from llama_ref.checkpoint.safetensors import open_safetensors
from llama_ref.checkpoint.stored import Checkpoint
from llama_ref.errors import BadFile, LlamaRefError, Unsupported, shown
from llama_ref.files import list_folder
from llama_ref.strict_json import read_json

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
INDEX_LIMIT = 64_000_000
# The names under which a model's own tensors are stored; other files, an adapter say, may stand by.
WEIGHT_FILE = re.compile(r"model(-\d+-of-\d+)?\.safetensors")
# A word character first: no hidden file, no parent folder, no home folder, no absolute path.
PLAIN_NAME = re.compile(r"\w[\w. +-]{0,200}\.safetensors")
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def open_hf(folder: str | os.PathLike[str]) -> Checkpoint:
    """Open a checkpoint in the Hugging Face layout; only headers and the index are read.

    Parameters
    ----------
    folder : path-like
        Holds `model.safetensors`, or `model.safetensors.index.json` and its shards. The files may
        be links, as in the cache of the Hugging Face hub.

    Returns
    -------
    Checkpoint
        Shard by shard in the order of their names, each in the order of its bytes. Query and key
        rows are in half-split order, as the layout demands.

    Raises
    ------
    BadFile
        If the folder holds no such checkpoint, an incomplete or contradictory one, or a file in
        it is malformed.
    Unsupported
        If it holds pickle files only, or a tensor of a dtype not read here.
    LimitExceeded
        If the index is larger than 64 MB, or a header larger than 16 MB.
    """
    folder = Path(folder)
    present = list_folder(folder)
    if INDEX in present:
        shards = _open_indexed(folder, present)
    elif SINGLE in present:
        shards = {SINGLE: open_safetensors(folder / SINGLE)}
    else:
        raise _nothing_to_open(folder, present)

    strays = [name for name in present if WEIGHT_FILE.fullmatch(name) and name not in shards]
    if strays:
        raise BadFile(
            f"weight file {shown(strays[0])}",
            expected=f"only {INDEX if INDEX in present else SINGLE} and what it names",
            found="a second set of weights in one folder",
            next_step="keep one of them",
            file=folder,
        )
    tensors = {name: array for shard in shards.values() for name, array in shard.items()}
    files = {name: (file,) for file, shard in shards.items() for name in shard}
    return Checkpoint(folder, "hf", tensors, files)


def _open_indexed(folder: Path, present: list[str]) -> dict[str, dict[str, np.ndarray]]:
    """Open every shard that the index names, and compare what they hold with what it says."""
    weight_map, total_size = _read_index(folder / INDEX)
    listed: dict[str, set[str]] = {}
    in_folder = set(present)
    for name, file in weight_map.items():
        if file not in in_folder:
            raise BadFile(
                f"shard {shown(file)}, which the index names for {shown(name)}",
                found="no such file",
                next_step="fetch it, then open the folder again",
                file=folder,
            )
        listed.setdefault(file, set()).add(name)

    shards = {}
    for file in sorted(listed):
        shards[file] = open_safetensors(folder / file)
        _compare_inventory(listed[file], shards[file], weight_map, folder / file)

    n_bytes = sum(array.nbytes for shard in shards.values() for array in shard.values())
    if total_size is not None and total_size != n_bytes:
        raise BadFile(
            "metadata.total_size",
            expected=f"{n_bytes:,}, the bytes of all tensors",
            found=shown(total_size),
            file=folder / INDEX,
        )
    return shards


def _compare_inventory(
    listed: set[str], shard: Mapping[str, np.ndarray], weight_map: Mapping[str, str], path: Path
) -> None:
    """Check that a shard holds exactly the tensors that the index lists for it."""
    missing, extra = listed - shard.keys(), shard.keys() - listed
    if missing:
        raise BadFile(
            f"tensor {shown(min(missing))}",
            expected="in this shard, as the index says",
            found="no such tensor",
            file=path,
        )
    if extra:
        name = min(extra)
        elsewhere = weight_map.get(name)
        raise BadFile(
            f"tensor {shown(name)}",
            expected="only tensors that the index lists for this shard",
            found=f"one listed for {shown(elsewhere)}" if elsewhere else "one not in the index",
            file=path,
        )


def _read_index(path: Path) -> tuple[dict[str, str], object]:
    """Return the index's map from tensor to shard, and its claim about their size (or None)."""
    index = read_json(path, limit=INDEX_LIMIT)
    if not isinstance(index, dict) or not index.keys() <= {"metadata", "weight_map"}:
        raise BadFile(
            "index", expected="an object of metadata and weight_map", found=shown(index), file=path
        )
    metadata, weight_map = index.get("metadata", {}), index.get("weight_map")
    if not isinstance(metadata, dict):
        raise BadFile("metadata", expected="an object", found=shown(metadata), file=path)
    if not isinstance(weight_map, dict) or not weight_map:
        raise BadFile(
            "weight_map",
            expected="an object of tensor names and file names",
            found=shown(weight_map),
            file=path,
        )
    for name, file in weight_map.items():
        _check_file_name(name, file, path)
    total_size = metadata.get("total_size")
    if "total_size" in metadata and type(total_size) not in (int, float):
        raise BadFile(
            "metadata.total_size", expected="a number", found=shown(total_size), file=path
        )
    return weight_map, total_size


def _check_file_name(name: str, file: Any, path: Path) -> None:
    """Refuse, before anything is opened, a shard name that could lead out of the folder."""
    if not isinstance(file, str) or not PLAIN_NAME.fullmatch(file):
        raise BadFile(
            f"weight_map: {shown(name)}",
            expected="a plain file name that ends in .safetensors",
            found=shown(file),
            file=path,
        )


def _nothing_to_open(folder: Path, present: list[str]) -> LlamaRefError:
    """Return the error that tells what the folder holds instead of a checkpoint."""
    tensors = [name for name in present if name.endswith(".safetensors")]
    pickles = [name for name in present if name.endswith(PICKLES)]
    if tensors:
        return BadFile(
            "shards without an index" if WEIGHT_FILE.fullmatch(tensors[0]) else "weights",
            expected=f"{SINGLE} or {INDEX}",
            found=shown(tensors),
            next_step="fetch the index, or open one file with open_safetensors",
            file=folder,
        )
    if pickles:
        return Unsupported(
            "pickle files are not loaded",
            expected=f"{SINGLE} or {INDEX}",
            found=shown(pickles),
            next_step="convert them to safetensors; consolidated.*.pth are opened by open_meta",
            file=folder,
        )
    return BadFile(
        "no checkpoint", expected=f"{SINGLE} or {INDEX}", found=shown(present), file=folder
    )
