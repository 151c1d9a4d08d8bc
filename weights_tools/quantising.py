"""Quantised matrices, in the layouts of the releases.

    FP8, 405B           scale = max |row| / 448        q = row / scale, rounded to float8 e4m3
    INT4, 1B and 3B     scale = max |group| / 7.5      q = group / scale, rounded, -8 to 7
                        embedding and head: max |row| / 127, -128 to 127

Rows are read twice, once for the numbers and once for the scales, and never held all.

Source: pytorch/FBGEMM; get_group_qparams_symmetric in pytorch/ao.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from llama_ref.checkpoint.fp8 import SCALE
from llama_ref.checkpoint.int4 import BY_ROW
from llama_ref.checkpoint.meta_fp8 import scale_names
from llama_ref.config.quantisation import Fp8, Int4
from llama_ref.dynamic_quantisation import fp8_per_token
from llama_ref.errors import NonFiniteError, Unsupported, shown
from llama_ref.hadamard import hadamard
from llama_ref.numerics import FLOAT8
from weights_tools.streams import Blocks, Stream

How = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
ROWS_AT_A_TIME = 256


def in_fp8(tensors: Sequence[Stream], fp8: Fp8) -> list[Stream]:
    """Return the tensors with those that are to be quantised as float8, their scales behind them.

    Parameters
    ----------
    tensors : sequence of Stream
        With names of layout "hf".
    fp8 : Fp8
        Which are quantised.
    """
    result = []
    for stream in tensors:
        if fp8.is_quantised(stream.name):
            shape = (stream.shape[0], 1)
            scale, check = np.dtype("<f4"), stream.check
            result.append(Stream(stream.name, stream.shape, FLOAT8, _part(stream, 0), check))
            result.append(Stream(stream.name + SCALE, shape, scale, _part(stream, 1), check))
        else:
            result.append(stream)
    return result


def in_meta_fp8(
    tensors: Sequence[Stream], n_layers: int, rank: int
) -> tuple[list[Stream], list[Stream]]:
    """Return what a rank holds with the matrices of the release as float8; and their scales.

    Parameters
    ----------
    tensors : sequence of Stream
        With names of layout "meta", cut as this rank has them.
    n_layers, rank : int

    Raises
    ------
    Unsupported
        If no layer stands between the first and the last, which stay as they are.
    """
    stored, scales, before_rank = [], [], scale_names(n_layers)
    if not before_rank:
        raise Unsupported("layers in FP8", expected="all but the first and the last", found="none")
    for stream in tensors:
        if stream.name not in before_rank:
            stored.append(stream)
            continue
        name, shape = f"{before_rank[stream.name]}{rank}", stream.shape[:1]
        stored.append(replace(stream, dtype=FLOAT8, blocks=_part(stream, 0)))
        scales.append(Stream(name, shape, np.dtype("<f4"), _part(stream, 1)))
    return stored, scales


def in_int4(tensors: Sequence[Stream], int4: Int4) -> list[Stream]:
    """Return the tensors with every matrix quantised, its scales behind it.

    Parameters
    ----------
    tensors : sequence of Stream
        With names of layout "meta".
    int4 : Int4
        Without an adaptor.

    Raises
    ------
    Unsupported
        If a row does not divide into groups.
    """
    result = []
    for stream in tensors:
        if len(stream.shape) == 1:
            result.append(stream)
            continue
        F, D = stream.shape
        by_row = stream.name in BY_ROW
        if not by_row and D % int4.group_size:
            expected = f"rows of a multiple of {int4.group_size}"
            raise Unsupported(f"tensor {stream.name}", expected=expected, found=D)
        how = partial(int8_by_row if by_row else int4_by_group, group=int4.group_size)
        if int4.spinquant and stream.name.endswith(".w2.weight"):
            how = partial(_turned, how=how)
        scales = (F,) if by_row else (F, D // int4.group_size)
        name = stream.name.removesuffix("weight") + "scales"
        kinds, check = (np.dtype(np.int8), np.dtype("<f4")), stream.check
        numbers = Stream(stream.name, stream.shape, kinds[0], _part(stream, 0, how), check)
        result += [numbers, Stream(name, scales, kinds[1], _part(stream, 1, how), check)]
    return result


def int4_by_group(rows: np.ndarray, group: int) -> tuple[np.ndarray, np.ndarray]:
    """Return numbers of 4 bits as int8, and the scale of each group."""
    groups = rows.astype(np.float32).reshape(len(rows), -1, group)
    scale = np.maximum(np.abs(groups).max(axis=2) / np.float32(7.5), np.finfo(np.float32).eps)
    numbers = np.clip(np.rint(groups / scale[:, :, None]), -8, 7).astype(np.int8)
    return numbers.reshape(rows.shape), scale


def int8_by_row(rows: np.ndarray, group: int) -> tuple[np.ndarray, np.ndarray]:
    """Return numbers of 8 bits, and the scale of each row."""
    wide = rows.astype(np.float32)
    scale = np.maximum(np.abs(wide).max(axis=1) / np.float32(127), np.finfo(np.float32).eps)
    return np.clip(np.rint(wide / scale[:, None]), -128, 127).astype(np.int8), scale


def _turned(rows: np.ndarray, how: How) -> tuple[np.ndarray, np.ndarray]:
    """Quantise rows turned by the Hadamard matrix."""
    return how(hadamard(rows.astype(np.float32)))


def _in_fp8(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return fp8_per_token(rows, upper_bound=None)


def _part(stream: Stream, which: int, how: How = _in_fp8) -> Blocks:
    """Return a function that yields the numbers (0) or the scales (1) of a matrix."""

    def blocks(*span: int) -> Iterator[np.ndarray]:
        for block in stream.blocks(*span):
            for lo in range(0, len(block), ROWS_AT_A_TIME):
                rows = block[lo : lo + ROWS_AT_A_TIME]
                if not np.isfinite(rows).all():
                    raise NonFiniteError(f"tensor {shown(stream.name)}", expected="finite numbers")
                yield how(rows)[which]

    return blocks
