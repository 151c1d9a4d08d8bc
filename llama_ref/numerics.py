"""Floating-point formats: which dtype arithmetic is done in, and how results are rounded back.

Every step follows one rule. Operands are *widened* (float64 stays float64, every other float
becomes float32), the arithmetic runs there, and the result is *rounded* once to the dtype of the
activations, to nearest, ties to even:

    y = round_to(f(widen(x)), x.dtype)

NumPy has no bfloat16; `ml_dtypes` supplies it as a dtype. Single additions and products of that
dtype follow the rule by themselves, and `rope` and the residual sums use them. Never a sum over an
axis, which is rounded at every addition (a thousand ones add up to 256), nor a matrix product,
which gives bfloat16, gives float32 or raises, depending on the function called.
"""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

import ml_dtypes
import numpy as np

from llama_ref.errors import BadRequest, Unsupported, shown

BFLOAT16, FLOAT8 = np.dtype(ml_dtypes.bfloat16), np.dtype(ml_dtypes.float8_e4m3fn)
ACTIVATION_DTYPES: dict[str, np.dtype] = {
    "float64": np.dtype(np.float64),
    "float32": np.dtype(np.float32),
    "bfloat16": BFLOAT16,
    "float16": np.dtype(np.float16),
}


@runtime_checkable
class Matrix(Protocol):
    """A weight matrix that is not an array: shards side by side, quantised blocks, a formula.

    `rows` is the whole truth about a matrix: whoever multiplies with them has the linear map. Some
    attributes, each of which may be missing, tell more. `is_quantised`: the rows stand for
    narrower numbers, and are not rounded to the dtype of the activations. `prepare` and `prepared`:
    a function of the widened activations, and the matrix that what it returns is multiplied with,
    by default this one. `terms`: matrices whose sum this is, each multiplied with by itself.
    `rounds_activations`: `prepare`, or that of a term, rounds; then `rows` is the weight alone.
    `over`: the same matrix over arrays that are had in another way (`checkpoint.stored.changed`).
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns."""
        ...

    @property
    def dtype(self) -> np.dtype:
        """The dtype of what `rows` returns."""
        ...

    def rows(self, lo: int, hi: int) -> np.ndarray:
        """Return rows lo to hi - 1; only those are read or computed."""
        ...


class AllRows:
    """What a `Matrix` need not say anew: all rows as one array, and what it takes to store it."""

    shape: tuple[int, ...]
    dtype: np.dtype

    def rows(self, lo: int, hi: int) -> np.ndarray:
        """Return rows lo to hi - 1."""
        raise NotImplementedError

    @property
    def nbytes(self) -> int:
        """The bytes of what is stored."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def stored_as(self) -> str:
        """What the numbers are stored as."""
        return self.dtype.name

    def __array__(
        self, dtype: np.typing.DTypeLike | None = None, copy: bool | None = None
    ) -> np.ndarray:
        """Read or compute all rows."""
        if copy is False:
            raise BadRequest("a matrix that is no array, as one", expected="leave to copy it")
        whole = self.rows(0, self.shape[0])
        return whole if dtype is None else whole.astype(dtype, copy=False)


def check_rows(lo: int, hi: int, n_rows: int) -> None:
    """Raise `BadRequest` unless 0 <= lo <= hi <= the number of rows."""
    if not 0 <= lo <= hi <= n_rows:
        raise BadRequest("rows", expected=f"within 0 to {n_rows}", found=f"{lo} to {hi}")


def rows_of(matrix: np.ndarray | Matrix, lo: int, hi: int) -> np.ndarray:
    """Return rows lo to hi - 1 of an array (a view) or of a `Matrix` (which may compute them)."""
    return matrix[lo:hi] if isinstance(matrix, np.ndarray) else matrix.rows(lo, hi)


def dtype_named(name: str) -> np.dtype:
    """Return the activation dtype of that name.

    Examples
    --------
    >>> dtype_named("bfloat16")
    dtype(bfloat16)
    """
    if name not in ACTIVATION_DTYPES:
        raise Unsupported(
            "activation dtype", expected=" or ".join(ACTIVATION_DTYPES), found=shown(name)
        )
    return ACTIVATION_DTYPES[name]


def wide_dtype(dtype: np.dtype) -> np.dtype:
    """Return the dtype that arithmetic on `dtype` is done in: float64 for float64, else float32.

    Raises
    ------
    BadRequest
        If `dtype` is no float: results would be rounded to integers without a word.
    """
    if np.dtype(dtype).kind in "iub":
        raise BadRequest("dtype of an array", expected="floating", found=str(dtype))
    return np.dtype(np.float64) if dtype == np.float64 else np.dtype(np.float32)


def widen(x: np.ndarray) -> np.ndarray:
    """Return `x` in the dtype its arithmetic is done in: exact, and free if it is there already."""
    return x.astype(wide_dtype(x.dtype), copy=False)


def round_to(x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Round `x` to the nearest values of `dtype`, ties to even; free when `x` has that dtype.

    Examples
    --------
    >>> round_to(np.float32([257, 258, 259]), BFLOAT16).astype(int)      # steps of 2 above 256
    array([256, 258, 260])
    """
    return x.astype(dtype, copy=False)


def ulp_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Count the representable values between `a` and `b`, element by element.

    The bits of an IEEE float, read as a sign and an integer, count its values in order; so the
    distance is a difference of integers. +0 and -0 are zero steps apart.

    Parameters
    ----------
    a, b : ndarray of one shape and one floating dtype of 1, 2 or 4 bytes, finite
        Compared element by element.

    Returns
    -------
    ndarray of int64, shape of `a`
        0 where equal, 1 where neighbours.

    Examples
    --------
    >>> one = np.float32(1)
    >>> ulp_distance(one[None], np.nextafter(one, np.float32(2))[None])
    array([1])
    """
    if a.dtype != b.dtype or a.shape != b.shape:
        raise BadRequest(
            "ulp_distance", expected=f"{a.dtype} of shape {a.shape}", found=f"{b.dtype} {b.shape}"
        )
    return np.abs(_order(a) - _order(b))


def _order(x: np.ndarray) -> np.ndarray:
    """Map floats to int64 so that neighbours differ by 1 and order is kept."""
    bits = x.view(np.dtype(f"i{x.dtype.itemsize}")).astype(np.int64)
    magnitude = bits & (2 ** (8 * x.dtype.itemsize - 1) - 1)
    return np.where(bits < 0, -magnitude, magnitude)
