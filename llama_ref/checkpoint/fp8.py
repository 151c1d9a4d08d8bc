"""Matrices in float8, a scale for each row: the FP8 release of 405B, as Hugging Face has it.

    X.weight          [out, in]   float8 e4m3: 4 bits of exponent, 3 of mantissa, no infinity
    X.weight_scale    [out, 1]    float32                        a row is q * scale

A matrix of half the bytes of 16 bits. Rows become float32 a block at a time, in `linear`; one
product of two float32 numbers, nothing is rounded twice.

The kernels of the release quantise the activations as well, each token on a scale of its own. That
is a choice of the run and not of the file: `lr.load(path, quantised_activations=True)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from llama_ref.checkpoint.stored import Checkpoint, Tensor, changed
from llama_ref.config.quantisation import Fp8
from llama_ref.dynamic_quantisation import rounded_to_fp8
from llama_ref.errors import BadFile, shown
from llama_ref.numerics import FLOAT8, AllRows, check_rows, rows_of

SCALE = "_scale"


class ScaledRows(AllRows):
    """A matrix of narrow numbers with a scale for each row; implements `numerics.Matrix`.

    Parameters
    ----------
    stored : ndarray or Matrix of shape (F, D), float8 or int8
    scale_F1 : ndarray of shape (F, 1), float32
    prepare : function of ndarray to ndarray, optional
        Rounds the activations that `linear` multiplies with this matrix to 8 bits.
    """

    ndim, dtype, is_quantised = 2, np.dtype(np.float32), True

    def __init__(
        self,
        stored: Tensor,
        scale_F1: np.ndarray,
        prepare: Callable[[np.ndarray], np.ndarray] | None = None,
    ):
        self.stored, self.scale_F1, self.prepare = stored, scale_F1, prepare
        self.shape, self.rounds_activations = tuple(stored.shape), prepare is not None

    def rows(self, lo: int, hi: int) -> np.ndarray:
        """Return rows lo to hi - 1 as float32.

        Raises
        ------
        BadRequest
            Unless 0 <= lo <= hi <= the number of rows.
        """
        check_rows(lo, hi, self.shape[0])
        rows = rows_of(self.stored, lo, hi).astype(np.float32)
        rows *= self.scale_F1[lo:hi]
        return rows

    @property
    def nbytes(self) -> int:
        """The bytes of the numbers and of the scales."""
        return math.prod(self.shape) + self.scale_F1.nbytes

    @property
    def stored_as(self) -> str:
        """float8_e4m3fn or int8."""
        return self.stored.dtype.name

    def over(self, change: Callable[[np.ndarray], Tensor]) -> ScaledRows:
        """Return the same matrix over numbers that are had in another way."""
        return ScaledRows(changed(self.stored, change), self.scale_F1, self.prepare)

    def __repr__(self) -> str:
        return f"<ScaledRows {self.shape} {self.stored.dtype}>"


def with_fp8(checkpoint: Checkpoint, fp8: Fp8, *, quantised_activations: bool) -> Checkpoint:
    """Join the matrices in float8 of an HF checkpoint with their scales.

    Parameters
    ----------
    checkpoint : Checkpoint
        With names such as `….up_proj.weight` and `….up_proj.weight_scale`.
    fp8 : Fp8
        Which matrices are in float8, as config.json says.
    quantised_activations : bool
        Whether `linear` is to round what it multiplies with them to 8 bits too.

    Raises
    ------
    BadFile
        If a matrix is in float8 and should not be, or the other way round; or a scale is missing,
        misshapen, or no positive number.
    """
    prepare = partial(rounded_to_fp8, upper_bound=fp8.upper_bound)
    tensors: dict[str, Tensor] = {}
    for name, tensor in checkpoint.items():
        if name.endswith(f".weight{SCALE}"):
            continue
        tensors[name] = tensor
        if is_in_fp8(checkpoint, name, fp8.is_quantised(name)):
            scale_F1 = scales_of(checkpoint, name + SCALE, (tensor.shape[0], 1))
            tensors[name] = ScaledRows(tensor, scale_F1, prepare if quantised_activations else None)
    for name in checkpoint:
        owner = name.removesuffix(SCALE)
        if name.endswith(SCALE) and not isinstance(tensors.get(owner), ScaledRows):
            expected = "a matrix in float8 that it is the scale of"
            raise BadFile(f"tensor {shown(name)}", expected=expected, file=checkpoint.path)
    return Checkpoint(checkpoint.path, checkpoint.layout, tensors, checkpoint.files)


def is_in_fp8(checkpoint: Checkpoint, name: str, expected: bool) -> bool:
    """Tell whether a tensor is a matrix in float8, as expected.

    Raises
    ------
    BadFile
        If it is another, or in float8 and should not be.
    """
    tensor = checkpoint[name]
    if (tensor.dtype == FLOAT8) != expected or (expected and len(tensor.shape) != 2):
        raise BadFile(
            f"tensor {shown(name)}",
            expected="a matrix in float8" if expected else "16 bits",
            found=f"{tensor.dtype} of shape {tuple(tensor.shape)}",
            file=checkpoint.path,
        )
    return expected


def scales_of(checkpoint: Checkpoint, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return the scales of the rows of a matrix, stored in that shape, as a column.

    Raises
    ------
    BadFile
        If there are none, or others than so many positive float32 numbers.
    """
    scale = checkpoint[name]
    if tuple(scale.shape) != shape or scale.dtype != np.float32:
        raise BadFile(
            f"tensor {shown(name)}",
            expected=f"float32 of shape {shape}",
            found=f"{scale.dtype} of shape {tuple(scale.shape)}",
            file=checkpoint.path,
        )
    scale_F1 = np.array(scale).reshape(-1, 1)
    if not (np.isfinite(scale_F1) & (scale_F1 > 0)).all():
        raise BadFile(f"tensor {shown(name)}", expected="positive numbers", file=checkpoint.path)
    return scale_F1
