"""The few lines of ggml that the Python binding of llama.cpp has not bound: looking at a tensor.

The beginning of `struct ggml_tensor` has been the same for years, but nobody promises that. It ends
here with the tensor's name, which ggml also tells by a function; if the two differ, the layout has
changed, and that is an error rather than a wrong number.

Source: ggml/include/ggml.h and ggml-backend.h in ggml-org/llama.cpp.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from llama_ref.errors import Unsupported, shown

FLOAT_TYPES: dict[int, np.dtype] = {0: np.dtype(np.float32), 1: np.dtype(np.float16)}


class GgmlTensor(ctypes.Structure):
    """The beginning of `struct ggml_tensor`."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * 4),
        ("nb", ctypes.c_size_t * 4),
        ("op", ctypes.c_int),
        ("op_params", ctypes.c_int32 * 16),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * 10),
        ("view_src", ctypes.c_void_p),
        ("view_offs", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("name", ctypes.c_char * 64),
    )


def look_at(address: int) -> tuple[GgmlTensor, str, str]:
    """Return the tensor at an address, its name, and its operation.

    Raises
    ------
    Unsupported
        If this ggml lays tensors out in another way.
    """
    tensor = GgmlTensor.from_address(address)
    name = ggml().ggml_get_name(address)
    if tensor.name != name:
        raise Unsupported(
            "struct ggml_tensor",
            expected=f"the name {shown(name)} where ggml.h of 2025 has it",
            found=shown(tensor.name),
            next_step="use another release of llama-cpp-python",
        )
    return tensor, name.decode(errors="replace"), ggml().ggml_op_desc(address).decode()


def read(address: int) -> np.ndarray:
    """Return a copy of the numbers of a tensor, in four axes, slowest first.

    Raises
    ------
    Unsupported
        If they are neither float32 nor float16, or not stored row by row.
    """
    tensor, name, _ = look_at(address)
    if tensor.type not in FLOAT_TYPES or not ggml().ggml_is_contiguous(address):
        raise Unsupported(
            f"node {shown(name)}",
            expected="float32 or float16, row by row",
            found=f"ggml type {tensor.type}, strides {list(tensor.nb)}",
        )
    array = np.empty(tuple(tensor.ne)[::-1], FLOAT_TYPES[tensor.type])
    ggml().ggml_backend_tensor_get(address, array.ctypes.data, 0, array.nbytes)
    return array


def write(address: int, numbers: np.ndarray) -> None:
    """Overwrite the beginning of a tensor with numbers of its own type."""
    ggml().ggml_backend_tensor_set(address, numbers.ctypes.data, 0, numbers.nbytes)


@cache
def ggml() -> Any:
    """Return ggml's own library, which comes with the binding."""
    import llama_cpp  # noqa: PLC0415  (this module loads without)

    folder = Path(llama_cpp.__file__).parent / "lib"
    files = sorted(p for p in folder.glob("*ggml-base*") if p.suffix in (".so", ".dylib", ".dll"))
    if not files:
        raise Unsupported("llama-cpp-python", expected=f"ggml-base in {folder}", found="none")
    library = ctypes.CDLL(str(files[0]))
    address, size = ctypes.c_void_p, ctypes.c_size_t
    for name, arguments, result in (
        ("ggml_get_name", [address], ctypes.c_char_p),
        ("ggml_op_desc", [address], ctypes.c_char_p),
        ("ggml_is_contiguous", [address], ctypes.c_bool),
        ("ggml_backend_tensor_get", [address, address, size, size], None),
        ("ggml_backend_tensor_set", [address, address, size, size], None),
    ):
        getattr(library, name).argtypes, getattr(library, name).restype = arguments, result
    return library
