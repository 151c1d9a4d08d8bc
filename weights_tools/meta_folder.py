"""A folder in Meta's layout: params.json and one consolidated.00.pth.

Names are Meta's, and so is the order of the query and key rows: the two numbers that RoPE turns
together stand side by side. The file opens with `torch.load(..., weights_only=True)` and `lr.load`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from llama_ref.config import Config, parse_meta_params
from llama_ref.config.quantisation import Int4
from llama_ref.errors import BadConfig, Unsupported
from weights_tools.new_folder import write_whole
from weights_tools.state_dict import state_dict_program
from weights_tools.streams import Stream
from weights_tools.torch_archive import ArchiveWriter

PARAMS, WEIGHTS = "params.json", "consolidated.00.pth"


def write_meta_folder(
    folder: Path,
    config: Config,
    tensors: Sequence[Stream],
    advance: Callable[[int], object],
    int4: Int4 | None = None,
) -> None:
    """Write a checkpoint as Meta's own downloads are.

    Parameters
    ----------
    folder : Path
        Made if it does not exist.
    config : Config
    tensors : sequence of Stream
        With names and rows of layout "meta".
    advance : function of int
        Told the bytes of each block as it is written.
    int4 : Int4, optional
        How they are quantised, for params.json to say so.

    Raises
    ------
    BadRequest
        If the folder holds a checkpoint.
    Unsupported
        If params.json cannot state the blueprint.
    BadFile
        If the folder cannot be written.
    """
    params = to_meta_params(config)
    if int4:
        params |= int4.as_dict()

    def blocks_of(stream: Stream) -> Iterator[bytes]:
        for block in stream.blocks():
            yield block.tobytes()
            advance(block.nbytes)

    def write(staging: Path) -> list[str]:
        with (staging / WEIGHTS).open("wb") as file:
            archive = ArchiveWriter(file)
            archive.add("data.pkl", [state_dict_program(tensors)])
            archive.add("byteorder", [b"little"])
            for i, stream in enumerate(tensors):
                archive.add(f"data/{i}", blocks_of(stream))
            archive.add("version", [b"3\n"])
            archive.finish()
        (staging / PARAMS).write_text(json.dumps(params, indent=1) + "\n", encoding="utf-8")
        return [WEIGHTS, PARAMS]

    write_whole(folder, write)


def to_meta_params(config: Config) -> dict[str, Any]:
    """Return what a params.json of this blueprint says, token ids left out.

    The file has no key for F, but a formula: 8/3 D, times `ffn_dim_multiplier`, rounded up to a
    multiple of `multiple_of`. F itself as `multiple_of` gives F.

    Raises
    ------
    Unsupported
        If the file cannot say something: heads of a width other than D / N, or a band of RoPE's
        scaling other than the one written into Meta's code.

    Examples
    --------
    >>> from llama_ref.config import preset
    >>> params = to_meta_params(preset("golden-tiny"))
    >>> params["multiple_of"], params["ffn_dim_multiplier"], params["use_scaled_rope"]
    (896, 1.0, True)
    """
    params = {
        "dim": config.d_model,
        "n_layers": config.n_layers,
        "n_heads": config.n_heads,
        "n_kv_heads": config.n_kv_heads,
        "vocab_size": config.vocab_size,
        "multiple_of": config.d_ff,
        "ffn_dim_multiplier": min(1.0, config.d_ff / int(2 * (4 * config.d_model) / 3)),
        "norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "use_scaled_rope": config.rope_scaling is not None,
        "max_seq_len": config.context_length,
    }
    if config.rope_scaling is not None:
        params["rope_scaling_factor"] = config.rope_scaling.factor
    _check_stated(config, params)
    return params


def _check_stated(config: Config, params: dict[str, Any]) -> None:
    """Read the params back, and refuse a blueprint that comes out as another."""
    try:
        read = parse_meta_params(params, file=PARAMS, tied_embeddings=config.tied_embeddings)
    except BadConfig as error:
        raise Unsupported(f"{error.thing} in {PARAMS}", found=error.found) from None
    stated = replace(config, bos_id=read.bos_id, eos_ids=read.eos_ids)
    for field in fields(Config):
        ours, theirs = getattr(stated, field.name), getattr(read, field.name)
        if field.compare and ours != theirs:
            raise Unsupported(
                f"{field.name} in {PARAMS}",
                expected=f"{theirs}, the only one the file can state",
                found=ours,
                next_step="write the folder with --format hf",
            )
