"""Matrices in 4 bits, groups of 32 on a scale: the quantised releases of Llama 3.2 1B and 3B.

    X.weight     [out, in]        int8, -8 to 7            a number is q * scale of its group
    X.scales     [out, in / 32]   float32
    X.adaptor.A.weight [16, in], X.adaptor.B.weight [out, 16]     QLoRA: 2 B A is added to X
    output, tok_embeddings        int8, -128 to 127, with a scale for each row

In the SpinQuant release there is no adaptor, and W_down is stored turned by a Hadamard matrix
(`hadamard.py`). Its kernels turn what it is multiplied with, and so does `linear`; whoever asks for
rows gets them turned back.

Source: models/llama3/quantization/loader.py in meta-llama/llama-models; linear_quant_modules.py in
pytorch/ao.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from llama_ref.checkpoint.fp8 import ScaledRows
from llama_ref.checkpoint.stored import Checkpoint, Tensor, changed
from llama_ref.config.quantisation import Int4
from llama_ref.dynamic_quantisation import rounded_to_int8
from llama_ref.errors import BadFile, shown
from llama_ref.hadamard import hadamard
from llama_ref.numerics import AllRows, check_rows, rows_of

BY_ROW = ("output.weight", "tok_embeddings.weight")
LEAST, LARGEST = -8, 7
Prepare = Callable[[np.ndarray], np.ndarray]


class GroupedRows(AllRows):
    """A matrix of 4-bit numbers with a scale for each group of a row; implements `numerics.Matrix`.

    Parameters
    ----------
    stored : ndarray or Matrix of shape (F, D), int8
    scale : ndarray of shape (F, D / group), floating
    prepare : function of ndarray to ndarray, optional
        Rounds the activations that `linear` multiplies with this matrix to 8 bits.
    name : str
        Of the tensor, for messages.
    """

    ndim, dtype, is_quantised = 2, np.dtype(np.float32), True

    def __init__(self, stored: Tensor, scale: np.ndarray, prepare: Prepare | None, name: str):
        self.stored, self.scale, self.prepare, self.name = stored, scale, prepare, name
        self.shape, self.rounds_activations = tuple(stored.shape), prepare is not None

    def rows(self, lo: int, hi: int) -> np.ndarray:
        """Return rows lo to hi - 1 as float32.

        Raises
        ------
        BadRequest
            Unless 0 <= lo <= hi <= the number of rows.
        BadFile
            If a number does not fit into 4 bits.
        """
        check_rows(lo, hi, self.shape[0])
        if lo == hi:
            return np.empty((0, self.shape[1]), np.float32)
        stored = rows_of(self.stored, lo, hi)
        if stored.min() < LEAST or stored.max() > LARGEST:
            raise BadFile(
                f"tensor {shown(self.name)}, rows {lo} to {hi - 1}",
                expected=f"numbers of 4 bits, {LEAST} to {LARGEST}",
                found=f"{stored.min()} to {stored.max()}",
            )
        scale = self.scale[lo:hi].astype(np.float32)
        groups = stored.reshape(hi - lo, scale.shape[1], -1).astype(np.float32)
        groups *= scale[:, :, None]
        return groups.reshape(hi - lo, self.shape[1])

    @property
    def nbytes(self) -> int:
        """The bytes of the numbers, each in a byte, and of the scales."""
        return math.prod(self.shape) + self.scale.nbytes

    @property
    def stored_as(self) -> str:
        """4 bits, in a byte each."""
        return "int4"

    def over(self, change: Callable[[np.ndarray], Tensor]) -> GroupedRows:
        """Return the same matrix over numbers that are had in another way."""
        return GroupedRows(changed(self.stored, change), self.scale, self.prepare, self.name)

    def __repr__(self) -> str:
        return f"<GroupedRows {self.shape} int4>"


class Turned(AllRows):
    """A matrix whose stored rows are turned by a Hadamard matrix; implements `numerics.Matrix`.

    Parameters
    ----------
    prepared : GroupedRows
        As stored, for activations that are turned too.
    rounding : function of ndarray to ndarray, optional
        Rounds turned activations to 8 bits.
    """

    ndim, dtype, is_quantised = 2, np.dtype(np.float32), True

    def __init__(self, prepared: GroupedRows, rounding: Prepare | None):
        self.prepared, self.rounding, self.shape = prepared, rounding, prepared.shape
        self.rounds_activations = rounding is not None

    def prepare(self, x_TF: np.ndarray) -> np.ndarray:
        """Turn activations, and round them where asked."""
        turned_TF = hadamard(x_TF)
        return self.rounding(turned_TF) if self.rounding else turned_TF

    def rows(self, lo: int, hi: int) -> np.ndarray:
        """Return rows lo to hi - 1, turned back: a Hadamard matrix is its own inverse."""
        return hadamard(self.prepared.rows(lo, hi))

    @property
    def nbytes(self) -> int:
        """The bytes of what is stored."""
        return self.prepared.nbytes

    @property
    def stored_as(self) -> str:
        """4 bits, in a byte each."""
        return self.prepared.stored_as

    def over(self, change: Callable[[np.ndarray], Tensor]) -> Turned:
        """Return the same matrix over numbers that are had in another way."""
        return Turned(self.prepared.over(change), self.rounding)


class Adaptor(AllRows):
    """The low-rank matrix  scale B A  that QLoRA adds to one; implements `numerics.Matrix`."""

    ndim, dtype, is_quantised = 2, np.dtype(np.float32), True

    def __init__(self, down: np.ndarray, up: np.ndarray, scale: float):
        self.down, self.up, self.scale = down, up, np.float32(scale)
        self.shape = (up.shape[0], down.shape[1])

    def rows(self, lo: int, hi: int) -> np.ndarray:
        """Compute rows lo to hi - 1."""
        up = self.up[lo:hi].astype(np.float32) * self.scale
        return up @ self.down.astype(np.float32)


class SumOfMatrices(AllRows):
    """A quantised matrix and its adaptor, which `linear` multiplies with one after the other."""

    ndim, dtype, is_quantised = 2, np.dtype(np.float32), True

    def __init__(self, *terms: Tensor):
        self.terms, self.shape = terms, tuple(terms[0].shape)
        self.rounds_activations = any(getattr(t, "rounds_activations", False) for t in terms)

    def rows(self, lo: int, hi: int) -> np.ndarray:
        """Return rows lo to hi - 1 of the sum."""
        first, *others = (rows_of(term, lo, hi) for term in self.terms)
        return sum(others, start=first)

    def over(self, change: Callable[[np.ndarray], Tensor]) -> SumOfMatrices:
        """Return the same sum over numbers that are had in another way."""
        return SumOfMatrices(*(changed(term, change) for term in self.terms))


def with_int4(checkpoint: Checkpoint, int4: Int4, *, quantised_activations: bool) -> Checkpoint:
    """Join the quantised matrices of a Meta checkpoint with their scales and adaptors.

    Parameters
    ----------
    checkpoint : Checkpoint
        Of one file.
    int4 : Int4
        What params.json says.
    quantised_activations : bool
        Whether `linear` is to round what it multiplies with them to 8 bits too.

    Raises
    ------
    BadFile
        If a scale or an adaptor is missing, misshapen or unexpected.
    """
    rounding = rounded_to_int8 if quantised_activations else None
    tensors: dict[str, Tensor] = {}
    used: set[str] = set()
    for name, tensor in checkpoint.items():
        if tensor.dtype != np.int8:
            continue
        if len(tensor.shape) != 2 or (name not in BY_ROW and tensor.shape[1] % int4.group_size):
            raise BadFile(
                f"tensor {shown(name)}",
                expected=f"a matrix of rows of groups of {int4.group_size}",
                found=f"shape {tuple(tensor.shape)}",
                file=checkpoint.path,
            )
        used.add(name)
        tensors[name] = _matrix(checkpoint, name, int4, rounding, used)
    if not tensors:
        raise BadFile(
            "quantised matrices",
            expected="int8, as params.json says",
            found="none",
            file=checkpoint.path,
        )
    _check_zeros(checkpoint, used)
    rest = {name: tensor for name, tensor in checkpoint.items() if name not in used}
    ordered = {n: tensors.get(n, rest.get(n)) for n in checkpoint if n in tensors or n in rest}
    return Checkpoint(checkpoint.path, checkpoint.layout, ordered, checkpoint.files)  # type: ignore[arg-type]


def _matrix(
    checkpoint: Checkpoint, name: str, int4: Int4, rounding: Prepare | None, used: set[str]
) -> Tensor:
    """Return a quantised matrix with its scales, and with its adaptor if there is one."""
    tensor, owner = checkpoint[name], name.removesuffix(".weight")
    F, D = tensor.shape
    if name in BY_ROW:
        scale = _part(checkpoint, f"{owner}.scales", (F,), used)
        return ScaledRows(tensor, scale.reshape(-1, 1).astype(np.float32), rounding)
    scale = _part(checkpoint, f"{owner}.scales", (F, D // int4.group_size), used)
    if int4.spinquant and owner.endswith(".w2"):
        return Turned(GroupedRows(tensor, scale, None, name), rounding)
    grouped = GroupedRows(tensor, scale, rounding, name)
    if not int4.rank:
        return grouped
    down = _part(checkpoint, f"{owner}.adaptor.A.weight", (int4.rank, D), used)
    up = _part(checkpoint, f"{owner}.adaptor.B.weight", (F, int4.rank), used)
    return SumOfMatrices(grouped, Adaptor(down, up, int4.lora_scale))


def _part(checkpoint: Checkpoint, name: str, shape: tuple[int, ...], used: set[str]) -> np.ndarray:
    """Return a scale or a half of an adaptor, of a shape, with a last axis of 1 or without it."""
    tensor = checkpoint[name]
    found = tuple(tensor.shape)
    if found not in (shape, (*shape, 1)) or tensor.dtype.kind not in "fV":
        raise BadFile(
            f"tensor {shown(name)}",
            expected=f"floating, of shape {shape}",
            found=f"{tensor.dtype} of shape {found}",
            file=checkpoint.path,
        )
    used.add(name)
    part = np.array(tensor).reshape(shape)
    wide = part.astype(np.float32)
    if name.endswith(".scales") and not (np.isfinite(wide) & (wide > 0)).all():
        raise BadFile(
            f"tensor {shown(name)}",
            expected="positive numbers",
            found="others",
            file=checkpoint.path,
        )
    return part


def _check_zeros(checkpoint: Checkpoint, used: set[str]) -> None:
    """Take note of zero points, which have to be 0."""
    for name in list(used):
        zeros = f"{name.removesuffix('.weight')}.zeros"
        if name.endswith(".weight") and zeros in checkpoint:
            if np.any(np.asarray(checkpoint[zeros], np.float32)):
                raise BadFile(f"tensor {shown(zeros)}", expected="all 0", file=checkpoint.path)
            used.add(zeros)
