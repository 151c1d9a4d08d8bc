"""Writing checkpoints: safetensors files, and whole folders in the Hugging Face layout.

All files of a checkpoint are written before the first one gets its final name; the index comes
after its shards and `config.json` last. The serialisation itself is the official library's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from llama_ref.checkpoint.hf import INDEX, SINGLE, WEIGHT_FILE
from llama_ref.checkpoint.safetensors import DTYPES
from llama_ref.checkpoint.staging import move, staging_folder, writing
from llama_ref.errors import BadRequest, Unsupported, shown
from llama_ref.files import list_folder

CONFIG = "config.json"
# transformers opens only files that say in whose layout matrices are stored: [out, in], PyTorch's.
METADATA = {"format": "pt"}


def write_safetensors(path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray]) -> None:
    """Write one safetensors file, replacing what stood under that name in one step.

    Parameters
    ----------
    path : path-like
        The file, in a folder that exists.
    tensors : mapping of str to ndarray
        Of any memory layout; they are written row by row, little-endian.

    Raises
    ------
    BadRequest
        If a name is not text, or a value is not an array.
    Unsupported
        If the format, as read here, has no name for a dtype.
    BadFile
        If the file cannot be written.
    """
    path = Path(path)
    contiguous = {name: _storable(name, array) for name, array in tensors.items()}
    with staging_folder(path.parent) as staging:
        _save(staging / "tensors", contiguous)
        move(staging / "tensors", path)


def write_hf(
    folder: str | os.PathLike[str],
    config: Mapping[str, Any],
    tensors: Iterable[tuple[str, np.ndarray]],
    *,
    shard_bytes: int = 5_000_000_000,
) -> None:
    """Write a checkpoint folder in the Hugging Face layout.

    Parameters
    ----------
    folder : path-like
        Made if it does not exist. Other files in it, a tokenizer say, stay as they are.
    config : mapping
        The content of `config.json`.
    tensors : iterable of (str, ndarray)
        Names and arrays, taken one at a time: at most one shard is held. An array must keep its
        values until the iterable is used up: a generator that fills one buffer again and again
        is refused.
    shard_bytes : int
        Largest shard; a single tensor may exceed it. What fits into one shard becomes
        `model.safetensors`, more becomes numbered shards and an index.

    Raises
    ------
    BadRequest
        If the folder holds a checkpoint already, a name comes twice, there are no tensors, or
        `config` is not JSON.
    Unsupported
        If the format, as read here, has no name for a dtype.
    BadFile
        If the folder cannot be written.
    """
    folder = Path(folder)
    if shard_bytes < 1:
        raise BadRequest("shard_bytes", expected="1 or more", found=shard_bytes)
    config_text = _json_text("config", config)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    _refuse_existing(folder)

    with staging_folder(folder) as staging:
        held, n_bytes = _save_shards(staging, tensors, shard_bytes)
        files = _number(len(held))
        final_names = {str(i): file for i, file in enumerate(files)}
        if len(files) > 1:
            weight_map = {
                name: file for file, names in zip(files, held, strict=True) for name in names
            }
            index = {"metadata": {"total_size": n_bytes}, "weight_map": weight_map}
            _save_text(staging / INDEX, _json_text("index", index))
            final_names[INDEX] = INDEX
        _save_text(staging / CONFIG, config_text)
        final_names[CONFIG] = CONFIG

        _refuse_existing(folder)
        for staged, name in final_names.items():
            move(staging / staged, folder / name)


def _save_shards(
    staging: Path, tensors: Iterable[tuple[str, np.ndarray]], shard_bytes: int
) -> tuple[list[list[str]], int]:
    """Write shards named 0, 1, …; return the tensor names in each, and the bytes of all tensors."""
    held: list[list[str]] = []
    n_bytes = 0
    for shard in _collect_shards(tensors, shard_bytes):
        _save(staging / str(len(held)), shard)
        held.append(list(shard))
        n_bytes += sum(array.nbytes for array in shard.values())
        shard.clear()  # let go of it before the next one fills up
    if not held:
        raise BadRequest("tensors", expected="one or more", found="none")
    return held, n_bytes


def _collect_shards(
    tensors: Iterable[tuple[str, np.ndarray]], shard_bytes: int
) -> Iterator[dict[str, np.ndarray]]:
    """Gather tensors, in order, into shards of at most `shard_bytes` (or of one larger tensor)."""
    seen: set[str] = set()
    owners: dict[int, str] = {}  # of the memory that the arrays of this shard begin at
    shard: dict[str, np.ndarray] = {}
    used = 0
    for name, array in tensors:
        stored = _storable(name, array)
        if name in seen:
            raise BadRequest(f"tensor {shown(name)}", expected="once", found="twice")
        seen.add(name)
        _refuse_refilled(name, stored, owners)
        if shard and used + stored.nbytes > shard_bytes:
            yield shard
            shard, used = {}, 0
            owners.clear()
        shard[name] = stored
        used += stored.nbytes
        owners[stored.ctypes.data] = name
    if shard:
        yield shard


def _refuse_refilled(name: str, array: np.ndarray, owners: Mapping[int, str]) -> None:
    """Refuse an array in the memory of one still waiting: it may have overwritten that one."""
    owner = owners.get(array.ctypes.data)
    if owner is not None and array.size and array.flags.writeable:
        raise BadRequest(
            f"tensor {shown(name)}",
            expected="memory of its own",
            found=f"that of {shown(owner)}, which is not written yet",
            next_step="pass a copy, or leave a tied tensor out",
        )


def _storable(name: str, array: np.ndarray) -> np.ndarray:
    """Return the array row by row and little-endian, as the format stores it; a copy if need be."""
    if not isinstance(name, str) or name == "__metadata__" or _has_surrogates(name):
        raise BadRequest("tensor name", expected="Unicode text", found=shown(name))
    if not isinstance(array, np.ndarray):
        raise BadRequest(f"tensor {shown(name)}", expected="an array", found=type(array).__name__)
    # Not ascontiguousarray, which turns a scalar into a row.
    stored = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
    if stored.dtype not in DTYPES.values():
        raise Unsupported(
            f"tensor {shown(name)}: dtype", expected=" ".join(DTYPES), found=shown(str(array.dtype))
        )
    return stored


def _has_surrogates(text: str) -> bool:
    return text.encode(errors="ignore").decode() != text


def _number(n_shards: int) -> list[str]:
    """Return the final names of that many shards."""
    if n_shards == 1:
        return [SINGLE]
    return [f"model-{i:05}-of-{n_shards:05}.safetensors" for i in range(1, n_shards + 1)]


def _refuse_existing(folder: Path) -> None:
    """Refuse a folder in which a checkpoint, whole or not, stands already."""
    held = [n for n in list_folder(folder) if n in (CONFIG, INDEX) or WEIGHT_FILE.fullmatch(n)]
    if held:
        raise BadRequest(
            "folder to write to",
            expected="one without a checkpoint",
            found=shown(held[0]),
            next_step="choose another folder, or remove the checkpoint first",
            file=folder,
        )


def _json_text(thing: str, value: Mapping[str, Any]) -> str:
    try:
        return json.dumps(dict(value), indent=2, allow_nan=False) + "\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise BadRequest(thing, expected="JSON values", found=shown(str(error))) from None


def _save(path: Path, tensors: dict[str, np.ndarray]) -> None:
    from safetensors.numpy import save_file  # noqa: PLC0415  (reading needs no library)

    with writing(path):
        path.touch()
        usual_mode = path.stat().st_mode
        save_file(tensors, path, METADATA)
        path.chmod(usual_mode)  # the library may leave a file that only its owner can read


def _save_text(path: Path, text: str) -> None:
    with writing(path):
        path.write_text(text, encoding="utf-8")
