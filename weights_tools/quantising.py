"""Matrices in 8 bits, as the FP8 release of 405B has them: a scale for each row.

    scale = max |row| / 448          q = row / scale, rounded to float8 e4m3

Rows are read twice, once for the numbers and once for the scales, and never held all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from llama_ref.checkpoint.fp8 import SCALE
from llama_ref.config.quantisation import Fp8
from llama_ref.dynamic_quantisation import fp8_per_token
from llama_ref.numerics import FLOAT8
from weights_tools.streams import Stream

ROWS_AT_A_TIME = 256


def quantised(tensors: Sequence[Stream], fp8: Fp8) -> list[Stream]:
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
            result.append(Stream(stream.name, stream.shape, FLOAT8, _part(stream, 0)))
            scale = np.dtype("<f4")
            result.append(Stream(stream.name + SCALE, shape, scale, _part(stream, 1)))
        else:
            result.append(stream)
    return result


def _part(stream: Stream, which: int):
    """Return a function that yields the numbers (0) or the scales (1) of a matrix."""

    def blocks() -> Iterator[np.ndarray]:
        for block in stream.blocks():
            for lo in range(0, len(block), ROWS_AT_A_TIME):
                yield fp8_per_token(block[lo : lo + ROWS_AT_A_TIME], upper_bound=None)[which]

    return blocks
