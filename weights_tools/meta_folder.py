"""A folder in Meta's layout: params.json, and consolidated.00.pth or one file for each GPU.

As released in FP8, a file of scales lies beside each (`llama_ref.checkpoint.meta_fp8`).

Names are Meta's, and so is the order of the query and key rows: the two numbers that RoPE turns
together stand side by side. The file opens with `torch.load(..., weights_only=True)` and `lr.load`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

import numpy as np

from llama_ref.checkpoint.meta import CUT_BY_COLUMNS
from llama_ref.config import Config, parse_meta_params
from llama_ref.config.quantisation import Int4
from llama_ref.errors import BadConfig, BadRequest, Unsupported
from weights_tools.new_folder import Plan, plan_of, write_folder
from weights_tools.quantising import in_meta_fp8
from weights_tools.state_dict import state_dict_program
from weights_tools.streams import Stream, bytes_of
from weights_tools.torch_archive import ArchiveWriter

PARAMS = "params.json"
MOST_SHARDS = 100
"""Their names have two digits."""


def write_meta_folder(
    folder: Path,
    config: Config,
    tensors: Sequence[Stream],
    advance: Callable[[int], object],
    *,
    int4: Int4 | None = None,
    fp8: bool = False,
    shards: int = 1,
    resume: str | None = None,
    beside: Mapping[str, bytes] = MappingProxyType({}),
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
    fp8 : bool
        Quantise what each file holds as in the FP8 release of 405B.
    shards : int
        How many files to cut every matrix over, as for so many GPUs: 8 for 70B and 405B.
    resume, beside
        As of `write_folder`.

    Raises
    ------
    BadRequest
        If the folder holds a checkpoint, or a matrix cannot be cut into so many parts.
    Unsupported
        If params.json cannot state the blueprint, or no layer would be in FP8.
    BadFile
        If the folder cannot be written.
    """
    params = to_meta_params(config)
    if int4:
        params |= int4.as_dict()
        if shards > 1:
            raise BadRequest("shards", expected="1, as the quantised releases have", found=shards)
    if shards > MOST_SHARDS:
        raise BadRequest("shards", expected=f"at most {MOST_SHARDS}", found=shards)

    plans = []
    for rank in range(shards):
        own = [cut(stream, rank, shards) for stream in tensors]
        files = {f"consolidated.{rank:02d}.pth": own}
        if fp8:
            own, scales = in_meta_fp8(own, config.n_layers, rank)
            files = {f"consolidated.{rank:02d}.pth": own, f"fp8_scales_{rank}.pt": scales}
        for name, streams in files.items():
            n_bytes = sum(stream.n_bytes for stream in streams)
            plans.append(Plan(name, n_bytes, partial(_write_archive, streams, advance)))
    plans.append(plan_of(PARAMS, (json.dumps(params, indent=1) + "\n").encode()))
    write_folder(folder, plans, advance, resume, beside)


def _write_archive(
    tensors: Sequence[Stream], advance: Callable[[int], object], file: BinaryIO
) -> None:
    archive = ArchiveWriter(file)
    archive.add("data.pkl", [state_dict_program(tensors)])
    archive.add("byteorder", [b"little"])
    for i, stream in enumerate(tensors):
        archive.add(f"data/{i}", bytes_of(stream, advance))
    archive.add("version", [b"3\n"])
    archive.finish()


def cut(stream: Stream, rank: int, shards: int) -> Stream:
    """Return what one of several files holds of a tensor: rows, columns, or a copy of a vector.

    Raises
    ------
    BadRequest
        If the matrix cannot be cut into so many parts.
    """
    if shards == 1 or len(stream.shape) == 1:
        return stream
    owner = stream.name.removesuffix(".weight").rpartition(".")[2]
    axis = 1 if owner in CUT_BY_COLUMNS else 0
    part, rest = divmod(stream.shape[axis], shards)
    if rest:
        expected = f"a divisor of {stream.shape[axis]}, the length of {stream.name}"
        raise BadRequest("shards", expected=expected, found=shards)
    lo, hi = rank * part, (rank + 1) * part
    if axis == 0:
        shape = (part, stream.shape[1])
        return replace(stream, shape=shape, blocks=lambda: stream.blocks(lo, hi))
    shape = (stream.shape[0], part)
    columns = slice(lo, hi)
    return replace(
        stream,
        shape=shape,
        blocks=lambda: (np.ascontiguousarray(block[:, columns]) for block in stream.blocks()),
    )


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
