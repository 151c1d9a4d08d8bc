"""Coarser grids of numbers: what a float32 number becomes where 16, 11 or 8 bits are kept.

Each function rounds to the numbers that another dtype has and returns them in the dtype that came
in, so that the arithmetic around it goes on as it was.
"""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np

from llama_ref.numerics import BFLOAT16, round_to

FLOAT16 = np.dtype(np.float16)

Grid = Callable[[np.ndarray], np.ndarray]
"""Rounds float32 numbers to a coarser grid and returns float32."""


def to_bfloat16(x: np.ndarray) -> np.ndarray:
    """Round to the grid of bfloat16; the dtype stays."""
    return round_to(x, BFLOAT16).astype(x.dtype)


def to_float16(x: np.ndarray) -> np.ndarray:
    """Round to the grid of float16; the dtype stays."""
    return round_to(x, FLOAT16).astype(x.dtype)


def to_tf32(x: np.ndarray) -> np.ndarray:
    """Round to 10 mantissa bits, half away from zero, as tensor cores are fed; the dtype stays."""
    bits = x.astype(np.float32).view(np.uint32)
    return ((bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32).astype(x.dtype)


def cut_to_tf32(x: np.ndarray) -> np.ndarray:
    """Cut mantissas after 10 bits, which is what the units do that get float32 as it is."""
    bits = x.astype(np.float32).view(np.uint32)
    return (bits & np.uint32(0xFFFFE000)).view(np.float32).astype(x.dtype)


def to_float8(x: np.ndarray) -> np.ndarray:
    """Round to the grid of float8 e4m3; the dtype stays."""
    return x.astype(ml_dtypes.float8_e4m3fn).astype(x.dtype)
