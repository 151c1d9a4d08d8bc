"""A folder in the layout of Hugging Face: config.json, and safetensors in shards of 5 GB."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from llama_ref.checkpoint.write import write_hf
from llama_ref.config import Config, quantisation, to_hf_dict
from llama_ref.config.quantisation import Fp8
from weights_tools.new_folder import make_folder
from weights_tools.streams import Stream


def write_hf_folder(
    folder: Path,
    config: Config,
    tensors: Sequence[Stream],
    advance: Callable[[int], object],
    fp8: Fp8 | None = None,
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
        Told the bytes of each tensor as it is written.
    fp8 : Fp8, optional
        How they are quantised, for config.json to say so.

    Raises
    ------
    BadRequest
        If the folder holds a checkpoint.
    BadFile
        If it cannot be written.
    """

    def arrays():
        for stream in tensors:
            yield stream.name, stream.array()
            advance(stream.n_bytes)

    make_folder(folder)
    stated = to_hf_dict(config) | {"torch_dtype": tensors[0].dtype.name}
    if fp8:
        stated[quantisation.KEY] = fp8.as_dict()
    write_hf(folder, stated, arrays())
