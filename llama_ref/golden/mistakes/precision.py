"""Mistakes of precision: matrices that are multiplied, summed or stored more coarsely than said.

None of these is wrong where it is meant. They are here since they are often not: a switch that was
on by default, an accumulator of the wrong type, a file that was quantised.
"""

from __future__ import annotations

import numpy as np

from llama_ref.golden.grids import Grid, to_bfloat16, to_float8, to_float16, to_tf32
from llama_ref.golden.mistake import Mistake
from llama_ref.golden.mistakes.common import at, flat, project
from llama_ref.golden.passes import Change, Moment, Session, blocks_of_rows, whole
from llama_ref.golden.taps import LINEARS

SUMMED_AT_ONCE = 32
"""Products that a kernel adds up in float32 before it adds them to a coarser sum."""

FLOAT8_MAX = 448
"""The largest number of float8 e4m3."""


def _operands_on(grid: Grid) -> dict[str, Change]:
    return at(LINEARS, lambda m: project(m, grid(whole(m.weight())), grid(m.input)))


def _summed_on(grid: Grid) -> dict[str, Change]:
    def change(m: Moment) -> np.ndarray:
        x_TD, weight_FD = flat(m.input).astype(np.float32), whole(m.weight()).astype(np.float32)
        sum_TF = np.zeros((len(x_TD), len(weight_FD)), np.float32)
        for some in blocks_of_rows(x_TD.shape[1], SUMMED_AT_ONCE):
            sum_TF = grid(sum_TF + x_TD[:, some] @ weight_FD[:, some].T)
        return sum_TF.astype(m.computed.dtype).reshape(m.computed.shape)

    return at(LINEARS, change)


def to_q8_0(weight_FD: np.ndarray) -> np.ndarray:
    """Round to ggml's Q8_0: blocks of 32 integers up to 127, each block with a float16 scale."""
    block = weight_FD.astype(np.float32).reshape(-1, 32)
    scale = np.abs(block).max(axis=1, keepdims=True) / np.float32(127)
    scaled = block * np.where(scale > 0, 1 / scale, 0)
    # roundf: halves away from zero. The scale that divides is not yet rounded to float16.
    whole_numbers = np.trunc(scaled + np.copysign(np.float32(0.5), scaled))
    return (whole_numbers * to_float16(scale)).reshape(weight_FD.shape)


def to_q4_0(weight_FD: np.ndarray) -> np.ndarray:
    """Round to ggml's Q4_0: blocks of 32 integers from -8 to 7, the largest number being -8."""
    block = weight_FD.astype(np.float32).reshape(-1, 32)
    at_largest = np.abs(block).argmax(axis=1, keepdims=True)
    scale = np.take_along_axis(block, at_largest, axis=1) / np.float32(-8)
    scaled = block * np.where(scale != 0, 1 / scale, 0)
    nibble = np.minimum(15, np.trunc(scaled + np.float32(8.5)))
    return ((nibble - 8) * to_float16(scale)).reshape(weight_FD.shape)


def to_scaled_float8(weight_FD: np.ndarray) -> np.ndarray:
    """Round to float8 e4m3, each row scaled so that its largest number is the largest there is."""
    weight_FD = weight_FD.astype(np.float32)
    scale_F1 = np.abs(weight_FD).max(axis=1, keepdims=True) / np.float32(FLOAT8_MAX)
    scale_F1[scale_F1 == 0] = 1
    return to_float8(weight_FD / scale_F1) * scale_F1


def _weights_on(grid: Grid) -> dict[str, Change]:
    return at(LINEARS, lambda m: project(m, grid(whole(m.weight()))))


def _rows_fill_blocks(session: Session) -> bool:
    config = session.model.config
    widths = (config.d_model, config.n_heads * config.head_dim, config.d_ff)
    return all(width % (32 * session.case.n_ranks) == 0 for width in widths)


MISTAKES = (
    Mistake(
        "operands-in-bfloat16",
        "matrix operands in bfloat16",
        "Inputs and weights of every matrix are rounded to bfloat16 before they are multiplied.",
        "Autocast is on, or the matrix unit takes bfloat16: the default precision of JAX on a TPU,"
        " and ggml's products with BF16 weights.",
        _operands_on(to_bfloat16),
    ),
    Mistake(
        "operands-in-float16",
        "matrix operands in float16",
        "Inputs and weights of every matrix are rounded to float16 before they are multiplied.",
        "Autocast is on, or a kernel stages its tiles in half precision: ggml does so for F16"
        " weights, cuBLAS in its fast 16F modes.",
        _operands_on(to_float16),
    ),
    Mistake(
        "operands-in-tf32",
        "matrix operands in TF32",
        "Inputs and weights of every matrix are rounded to 10 mantissa bits.",
        "Tensor cores do this to float32 when `torch.backends.cuda.matmul.allow_tf32` or"
        " `set_float32_matmul_precision` says so, and JAX does by default.",
        _operands_on(to_tf32),
    ),
    Mistake(
        "accumulated-in-bfloat16",
        "sums in bfloat16",
        "The sums of matrix products are rounded to bfloat16 as they grow.",
        "The accumulator has the dtype of the operands: look for a dot product without"
        " preferred_element_type, or partial sums that are stored in 16 bits.",
        _summed_on(to_bfloat16),
        is_noise=True,
    ),
    Mistake(
        "accumulated-in-float16",
        "sums in float16",
        "The sums of matrix products are rounded to float16 as they grow.",
        "The accumulator has the dtype of the operands: `half` in a shader, or cuBLAS asked to"
        " compute in 16F.",
        _summed_on(to_float16),
        is_noise=True,
    ),
    Mistake(
        "weights-in-q8-0",
        "weights quantised to Q8_0",
        "Weights are read as blocks of 32 integers of 8 bits with a float16 scale.",
        "The file is a quantised GGUF: compare with an F32 or BF16 one, or give the reference the"
        " dequantised weights.",
        _weights_on(to_q8_0),
        _rows_fill_blocks,
    ),
    Mistake(
        "weights-in-q4-0",
        "weights quantised to Q4_0",
        "Weights are read as blocks of 32 integers of 4 bits with a float16 scale.",
        "The file is a quantised GGUF: compare with an F32 or BF16 one, or give the reference the"
        " dequantised weights.",
        _weights_on(to_q4_0),
        _rows_fill_blocks,
    ),
    Mistake(
        "weights-in-float8",
        "weights quantised to float8",
        "Weights are rounded to float8 e4m3 with one scale for each row.",
        "Engines quantise on loading when told `quantization=fp8`; Meta's FP8 release of 405B has"
        " such weights in its feed-forward.",
        _weights_on(to_scaled_float8),
    ),
)
