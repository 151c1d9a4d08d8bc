"""A folder in the layout of Hugging Face: config.json, and safetensors in shards.

    [n: 8 bytes, little-endian] [header: n bytes of JSON] [tensors, one after the other]

The header states where each tensor lies, and all sizes are known beforehand: so a shard is written
from its first byte to its last, and a tensor is never held whole.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

from llama_ref.checkpoint.hf import INDEX, SINGLE
from llama_ref.checkpoint.safetensors import DTYPES
from llama_ref.checkpoint.write import METADATA
from llama_ref.config import Config, quantisation, to_hf_dict
from llama_ref.config.quantisation import Fp8
from weights_tools.new_folder import Plan, plan_of, write_folder
from weights_tools.streams import Stream, bytes_of

SHARD_BYTES = 5 * 10**9
CODES = {dtype: code for code, dtype in DTYPES.items()}


def write_hf_folder(
    folder: Path,
    config: Config,
    tensors: Sequence[Stream],
    advance: Callable[[int], object],
    *,
    fp8: Fp8 | None = None,
    shard_bytes: int = SHARD_BYTES,
    resume: str | None = None,
    beside: Mapping[str, bytes] = MappingProxyType({}),
) -> None:
    """Write a checkpoint that transformers and `lr.load` open.

    Parameters
    ----------
    folder : Path
        Made if it does not exist.
    config : Config
    tensors : sequence of Stream
        With names and rows of layout "hf".
    advance : function of int
        Told the bytes of each block as it is written.
    fp8 : Fp8, optional
        How they are quantised, for config.json to say so.
    shard_bytes : int
        Largest shard; a single tensor may exceed it.
    resume, beside
        As of `write_folder`.

    Raises
    ------
    BadRequest
        If the folder holds a checkpoint.
    BadFile
        If it cannot be written.
    """
    stated = to_hf_dict(config) | {"torch_dtype": tensors[0].dtype.name}
    if fp8:
        stated[quantisation.KEY] = fp8.as_dict()
    shards = _shards(tensors, shard_bytes)
    names = [f"model-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, len(shards) + 1)]
    if len(shards) == 1:
        names = [SINGLE]
    plans = [
        Plan(name, sum(s.n_bytes for s in shard), partial(_write_shard, shard, advance))
        for name, shard in zip(names, shards, strict=True)
    ]
    if len(shards) > 1:
        weight_map = {s.name: n for n, shard in zip(names, shards, strict=True) for s in shard}
        total = {"total_size": sum(stream.n_bytes for stream in tensors)}
        plans.append(plan_of(INDEX, _json({"metadata": total, "weight_map": weight_map})))
    plans.append(plan_of("config.json", _json(stated)))
    write_folder(folder, plans, advance, resume, beside)


def _shards(tensors: Sequence[Stream], shard_bytes: int) -> list[list[Stream]]:
    """Return the tensors in order, in shards of no more than that many bytes where possible."""
    shards: list[list[Stream]] = [[]]
    used = 0
    for stream in tensors:
        if shards[-1] and used + stream.n_bytes > shard_bytes:
            shards.append([])
            used = 0
        shards[-1].append(stream)
        used += stream.n_bytes
    return shards


def _write_shard(
    tensors: Sequence[Stream], advance: Callable[[int], object], file: BinaryIO
) -> None:
    header: dict[str, object] = {"__metadata__": METADATA}
    at = 0
    for stream in tensors:
        place = [at, at + stream.n_bytes]
        dtype = CODES[stream.dtype]
        header[stream.name] = {"dtype": dtype, "shape": stream.shape, "data_offsets": place}
        at += stream.n_bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for stream in tensors:
        for data in bytes_of(stream, advance):
            file.write(data)


def _json(value: dict[str, object]) -> bytes:
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()
