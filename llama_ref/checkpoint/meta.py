"""Meta's checkpoint folder: consolidated.00.pth, 01, …, each with a part of every matrix.

A model trained on n GPUs was saved as n files, as each GPU held it. All have the same names; what
a name stands for is cut in one of three ways:

    by rows       wq wk wv w1 w3 output, and tok_embeddings of Llama 3
    by columns    wo w2, and tok_embeddings of Llama 1 and 2
    not at all    the norms and rope.freqs: every file has a copy

Beside the shards of the FP8 release of 405B lie as many files of scales (`meta_fp8.py`).

The rows of wq and wk are in Meta's order: the two numbers that RoPE rotates together stand side by
side (interleaved), where HF's converted files keep them half a head apart.

Source: meta-llama/llama-models, models/llama3/model.py (ColumnParallelLinear, RowParallelLinear,
VocabParallelEmbedding) and models/checkpoint.py.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np

from llama_ref.checkpoint.pth import open_pth
from llama_ref.checkpoint.readahead import scattered_reads
from llama_ref.checkpoint.sharded import ShardedMatrix
from llama_ref.checkpoint.stored import Checkpoint, Tensor
from llama_ref.errors import BadFile, LimitExceeded, Unsupported, shown
from llama_ref.files import list_folder

SHARD_NAME = re.compile(r"consolidated\.([0-9]{2})\.pth")
SCALES_NAME = re.compile(r"fp8_scales_.*\.pt", re.DOTALL)
CUT_BY_ROWS = {"wq", "wk", "wv", "w1", "w3", "output"}
CUT_BY_COLUMNS = {"wo", "w2"}
EMBEDDING = "tok_embeddings.weight"
FINAL_NORM = "norm.weight"
FIRST_QUERY = "layers.0.attention.wq.weight"

MAX_REPEATED = 2**20
"""The copies of a vector are compared when the folder is opened; a norm of 405B has 16,384."""

Shard = dict[str, np.ndarray]


def open_meta(folder: str | os.PathLike[str]) -> Checkpoint:
    """Open a folder in Meta's layout: map every file, join nothing, read almost nothing.

    Parameters
    ----------
    folder : path-like
        Holds consolidated.00.pth and, for larger models, 01, 02, … without a gap.

    Returns
    -------
    Checkpoint
        By Meta's names. From one file, every tensor is a mapped array; from several, matrices are
        `ShardedMatrix`, and what every file repeats is the mapped copy of the first. Scales of
        quantised parts are tensors of their own.

    Raises
    ------
    BadFile
        If a file is missing or malformed, or the files do not fit together: other names, dtypes
        or shapes, a norm that is not the same in all, scales of some parts and not of others.
    Unsupported
        Several files with a matrix whose cut is not known.
    LimitExceeded
        As `open_pth`; or a vector of more than 2^20 numbers in several files.
    """
    folder = Path(folder)
    names = _shard_names(folder)
    shards = [open_pth(folder / name) for name in names]
    _check_number_of_files(folder, shards)
    if len(shards) == 1:
        tensors: dict[str, Tensor] = dict(shards[0])
    else:
        _check_same_names(folder, names, shards)
        with scattered_reads(*(next(iter(shard.values())) for shard in shards)):
            tensors = {name: _merged(folder, name, shards) for name in shards[0]}
    files = dict.fromkeys(tensors, tuple(names))
    for file, scales in _scales(folder, len(shards)).items():
        if twice := tensors.keys() & scales.keys():
            raise BadFile(
                f"tensor {shown(min(twice))}", expected="once", found="twice", file=folder
            )
        tensors |= scales
        files |= dict.fromkeys(scales, (file,))
    return Checkpoint(folder, "meta", tensors, files)


def _shard_names(folder: Path) -> list[str]:
    """Return consolidated.00.pth, 01, … of a folder, all of which must be there."""
    names = [name for name in list_folder(folder) if SHARD_NAME.fullmatch(name)]
    for i in range(max(len(names), 1)):
        name = f"consolidated.{i:02d}.pth"
        if name not in names:
            hint = "an HF repository has Meta's files in its folder `original`"
            raise BadFile(
                f"shard {name}",
                found="no such file",
                next_step=None if names else hint,
                file=folder,
            )
    return names


def is_scales_file(name: str) -> bool:
    """Tell whether a file holds scales of a quantised checkpoint."""
    return SCALES_NAME.fullmatch(name) is not None


def _scales(folder: Path, n_shards: int) -> dict[str, Shard]:
    """Return what each file of scales holds: none, or fp8_scales_0.pt and one for each shard."""
    found = {name for name in list_folder(folder) if is_scales_file(name)}
    names = [f"fp8_scales_{rank}.pt" for rank in range(n_shards)] if found else []
    for name in sorted(found.symmetric_difference(names)):
        raise BadFile(
            f"scales {shown(name)}",
            expected=f"{names[0]} to {n_shards - 1}, one for each shard",
            found="no such file" if name in names else "one more",
            file=folder,
        )
    return {name: open_pth(folder / name) for name in names}


def _check_number_of_files(folder: Path, shards: list[Shard]) -> None:
    """Notice that the last files are missing: over all files, wq is a square of the width."""
    query, norm = shards[0].get(FIRST_QUERY), shards[0].get(FINAL_NORM)
    if query is None or norm is None or query.ndim != 2 or norm.ndim != 1:
        return
    n_rows, width = query.shape[0], norm.shape[0]
    if n_rows and width % n_rows == 0 and width // n_rows != len(shards):
        raise BadFile(
            "number of shards",
            expected=f"{width // n_rows}, as each has {n_rows} of {width} rows of {FIRST_QUERY}",
            found=f"{len(shards)}",
            file=folder,
        )


def _check_same_names(folder: Path, names: list[str], shards: list[Shard]) -> None:
    """Check that all files hold tensors of the same names."""
    for name, shard in zip(names, shards, strict=True):
        for lacking, having, where in (
            (shards[0], shard, names[0]),
            (shard, shards[0], name),
        ):
            if odd := [tensor for tensor in having if tensor not in lacking]:
                raise BadFile(
                    f"tensor {shown(odd[0])}",
                    expected="in every shard",
                    found=f"none in {where}",
                    file=folder,
                )


def _merged(folder: Path, name: str, shards: list[Shard]) -> Tensor:
    """Join what the files hold under one name, without copying it."""
    parts = [shard[name] for shard in shards]
    first = parts[0]
    if first.ndim < 2 and first.size > MAX_REPEATED:
        raise LimitExceeded(
            f"tensor {shown(name)}",
            expected=f"at most {MAX_REPEATED:,} numbers, since every file repeats it",
            found=f"{first.size:,}",
            file=folder,
        )
    for i, part in enumerate(parts):
        if (part.shape, part.dtype) != (first.shape, first.dtype):
            raise BadFile(
                f"tensor {shown(name)} in shard {i:02d}",
                expected=f"{first.dtype} {first.shape}, as in shard 00",
                found=f"{part.dtype} {part.shape}",
                file=folder,
            )
        if first.ndim < 2 and not _same_bits(part, first):
            raise BadFile(
                f"tensor {shown(name)} in shard {i:02d}",
                expected="a copy of that in shard 00",
                found="other numbers",
                file=folder,
            )
    if first.ndim < 2:
        return first
    if first.ndim > 2 or 0 in first.shape:
        raise BadFile(f"tensor {shown(name)}", expected="a matrix", found=first.shape, file=folder)
    return ShardedMatrix(parts, _cut_axis(folder, name, shards))


def _same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Compare bit by bit, so that a NaN equals itself and 0 differs from -0."""
    return a.tobytes() == b.tobytes()


def _cut_axis(folder: Path, name: str, shards: list[Shard]) -> int:
    """Return the axis along which a matrix was cut."""
    if name == EMBEDDING:
        return _embedding_axis(folder, shards)
    owner = name.removesuffix(".weight").rpartition(".")[2]
    if owner in CUT_BY_ROWS:
        return 0
    if owner in CUT_BY_COLUMNS:
        return 1
    raise Unsupported(
        f"tensor {shown(name)} over {len(shards)} shards",
        expected="a matrix of a Llama text model",
        found="no rule for how it was cut",
        file=folder,
    )


def _embedding_axis(folder: Path, shards: list[Shard]) -> int:
    """Tell Llama 3's embedding from that of Llama 1 and 2 by the width of a norm."""
    shape = shards[0][EMBEDDING].shape
    norm = shards[0].get(FINAL_NORM)
    widths = {shape[1]: 0, shape[1] * len(shards): 1}
    if norm is None or norm.ndim != 1 or norm.shape[0] not in widths:
        found = "no norm" if norm is None else f"{norm.shape}"
        raise BadFile(
            f"tensor {FINAL_NORM}, by which the cut of {EMBEDDING} {shape} is known",
            expected=f"({shape[1]},) or ({shape[1] * len(shards)},)",
            found=found,
            file=folder,
        )
    return widths[norm.shape[0]]
