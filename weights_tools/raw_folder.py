"""Bare numbers, for a port that reads no format yet: a file for each tensor, and what is in it.

    NAME.bin       the numbers, little-endian, row by row, and nothing else
    index.json     {"model.norm.weight": {"file": "model.norm.weight.bin", "dtype": "bf16",
                                          "shape": [256], "offset": 0}, …}
    config.json    the blueprint, as Hugging Face spells it

The index is of the form in which `llama-ref golden check` reads raw dumps. dtype is f64, f32, f16
or bf16; offset, in bytes, is always 0 here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

from llama_ref.checkpoint.safetensors import DTYPES
from llama_ref.config import Config, to_hf_dict
from weights_tools.new_folder import Plan, plan_of, write_folder
from weights_tools.streams import Stream, bytes_of

SHORT_NAMES = {dtype: name.lower() for name, dtype in DTYPES.items()}


def write_raw_folder(
    folder: Path,
    config: Config,
    tensors: Sequence[Stream],
    advance: Callable[[int], object],
    *,
    resume: str | None = None,
    beside: Mapping[str, bytes] = MappingProxyType({}),
) -> None:
    """Write a file of numbers for each tensor, and the index.

    Parameters
    ----------
    folder : Path
        Made if it does not exist.
    config : Config
    tensors : sequence of Stream
    advance : function of int
        Told the bytes of each block as it is written.
    resume, beside
        As of `write_folder`.

    Raises
    ------
    BadRequest
        If the folder holds a checkpoint.
    BadFile
        If it cannot be written.
    """

    def numbers(stream: Stream, file: BinaryIO) -> None:
        for data in bytes_of(stream, advance):
            file.write(data)

    index = {
        stream.name: {
            "file": f"{stream.name}.bin",
            "dtype": SHORT_NAMES[stream.dtype],
            "shape": list(stream.shape),
            "offset": 0,
        }
        for stream in tensors
    }
    plans = [Plan(f"{s.name}.bin", s.n_bytes, partial(numbers, s)) for s in tensors]
    for name, content in (("index.json", index), ("config.json", to_hf_dict(config))):
        plans.append(plan_of(name, (json.dumps(content, indent=1) + "\n").encode()))
    write_folder(folder, plans, advance, resume, beside)
