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
from collections.abc import Callable, Sequence
from pathlib import Path

from llama_ref.checkpoint.safetensors import DTYPES
from llama_ref.config import Config, to_hf_dict
from weights_tools.new_folder import write_whole
from weights_tools.streams import Stream

SHORT_NAMES = {dtype: name.lower() for name, dtype in DTYPES.items()}


def write_raw_folder(
    folder: Path, config: Config, tensors: Sequence[Stream], advance: Callable[[int], object]
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

    Raises
    ------
    BadRequest
        If the folder holds a checkpoint.
    BadFile
        If it cannot be written.
    """

    def write(staging: Path) -> list[str]:
        index: dict[str, dict[str, object]] = {}
        for stream in tensors:
            file = f"{stream.name}.bin"
            with (staging / file).open("wb") as out:
                for block in stream.blocks():
                    out.write(block.tobytes())
                    advance(block.nbytes)
            index[stream.name] = {
                "file": file,
                "dtype": SHORT_NAMES[stream.dtype],
                "shape": list(stream.shape),
                "offset": 0,
            }
        for name, content in (("index.json", index), ("config.json", to_hf_dict(config))):
            (staging / name).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        return [f"{name}.bin" for name in index] + ["index.json", "config.json"]

    write_whole(folder, write)
