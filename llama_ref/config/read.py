"""The blueprint of a checkpoint folder, from the file that lies in it.

    config.json (Hugging Face)   a generation_config.json beside it knows the stop tokens better
    params.json (Meta)           says less; `meta` tells where the rest comes from

If both lie side by side and state different numbers, one of them does not describe these weights,
and nobody can tell which: an error. A neighbour that cannot be read is only warned about, because
Meta's own params.json of Llama 2 is one (vocab_size -1).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from llama_ref.config.blueprint import Config
from llama_ref.config.hf import FIELDS, parse_hf_config, token_ids
from llama_ref.config.json_object import JsonObject
from llama_ref.config.meta import parse_meta_params
from llama_ref.config.quantisation import Fp8, Int4, parse_fp8, parse_int4
from llama_ref.errors import BadConfig, LlamaRefError
from llama_ref.strict_json import read_json

MAX_CONFIG_BYTES = 1_000_000

SHARED_NUMBERS = (
    *("d_model", "n_layers", "n_heads", "n_kv_heads", "head_dim", "d_ff", "vocab_size"),
    *("norm_eps", "rope_theta", "rope_scaling"),
)
"""What both kinds of file state about the weights."""


def read_hf_config(folder: str | os.PathLike[str]) -> Config:
    """Return the blueprint of a folder in Hugging Face's layout.

    The stop tokens are those of `generation_config.json` where it names any: for the instruct
    models it lists all three, and people edit it when theirs stops too late.

    Parameters
    ----------
    folder : path-like
        Holds config.json. Its name becomes the name of the config.

    Raises
    ------
    BadFile, LimitExceeded
        A file is absent, not regular, not strict JSON, or above 1 MB.
    BadConfig, Unsupported
        What it says is not a Llama this library states; or a params.json beside it disagrees.
    """
    file = Path(folder) / "config.json"
    config = parse_hf_config(read_json(file, limit=MAX_CONFIG_BYTES), file=file)
    config = _with_stop_tokens(config, Path(folder) / "generation_config.json")

    def parse(data: Any, file: Path) -> Config:
        return parse_meta_params(data, file=file, tied_embeddings=config.tied_embeddings)

    _refuse_neighbour(config, file, Path(folder) / "params.json", parse)
    return replace(config, name=_folder_name(folder))


def read_hf_quantisation(folder: str | os.PathLike[str]) -> Fp8 | None:
    """Return how matrices of a folder in Hugging Face's layout are quantised; None if none is.

    Raises
    ------
    BadFile, LimitExceeded, BadConfig, Unsupported
        As `read_hf_config`.
    """
    file = Path(folder) / "config.json"
    return parse_fp8(read_json(file, limit=MAX_CONFIG_BYTES), file=file)


def read_meta_params(folder: str | os.PathLike[str], *, tied_embeddings: bool) -> Config:
    """Return the blueprint of a folder in Meta's layout.

    Parameters
    ----------
    folder : path-like
        Holds params.json. Its name becomes the name of the config.
    tied_embeddings : bool
        Whether the output matrix is the embedding; the tensors say so, not the file.

    Raises
    ------
    BadFile, LimitExceeded, BadConfig, Unsupported
        As `read_hf_config`.
    """
    file = Path(folder) / "params.json"
    data = read_json(file, limit=MAX_CONFIG_BYTES)
    config = parse_meta_params(data, file=file, tied_embeddings=tied_embeddings)

    def parse(data: Any, file: Path) -> Config:
        return parse_hf_config(data, file=file)

    _refuse_neighbour(config, file, Path(folder) / "config.json", parse)
    return replace(config, name=_folder_name(folder))


def read_meta_quantisation(folder: str | os.PathLike[str]) -> Int4 | None:
    """Return how matrices of a folder in Meta's layout are quantised; None if none is.

    Raises
    ------
    BadFile, LimitExceeded, BadConfig, Unsupported
        As `read_meta_params`.
    """
    file = Path(folder) / "params.json"
    return parse_int4(read_json(file, limit=MAX_CONFIG_BYTES), file=file)


def _with_stop_tokens(config: Config, file: Path) -> Config:
    """Return the config with the stop tokens of a generation_config.json, if there is one.

    The rest of that file sets sampling, which is no part of a blueprint.
    """
    if not os.path.lexists(file):
        return config
    stated = JsonObject(read_json(file, limit=MAX_CONFIG_BYTES), file=file)
    ids = token_ids(stated.get("eos_token_id"))
    if not ids:
        return config
    return stated.build(lambda **fields: replace(config, **fields), FIELDS, eos_ids=ids)


def _refuse_neighbour(
    config: Config, file: Path, neighbour: Path, parse: Callable[[Any, Path], Config]
) -> None:
    """Refuse the other kind of file beside this one if it states other numbers."""
    if not os.path.lexists(neighbour):
        return
    try:
        other = parse(read_json(neighbour, limit=MAX_CONFIG_BYTES), neighbour)
    except LlamaRefError as error:
        warnings.warn(f"{file.name} is used, not its neighbour: {error}", stacklevel=3)
        return
    for name in SHARED_NUMBERS:
        mine, theirs = getattr(config, name), getattr(other, name)
        if mine != theirs:
            raise BadConfig(
                name,
                expected=f"{mine}, as {file.name} says",
                found=theirs,
                next_step="remove whichever file does not describe these weights",
                file=neighbour,
            )


def _folder_name(folder: str | os.PathLike[str]) -> str:
    return Path(os.path.abspath(folder)).name  # noqa: PTH100 - resolve() would follow links
