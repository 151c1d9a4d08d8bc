"""The pickle in a .pth file, instruction by instruction: a dict of tensors and where they lie.

A pickle is a program for a stack machine. Torch's describes each tensor by a storage (a member of
the archive), an offset, a shape and strides; these are the instructions for it, and no pickle
library is needed to write them, as none is to read them (`llama_ref.checkpoint.symbolic_pickle`).

    OrderedDict()                                            the dict
    (  "tok_embeddings.weight"                               for each tensor: its name, and
       _rebuild_tensor_v2(
           storage("0", BFloat16Storage, n elements),        the member data/0 of the archive
           offset 0, shape (V, D), strides (D, 1), …)
    …  SETITEMS                                              all of them into the dict

Source: torch/serialization.py and torch/_utils.py in pytorch; pickletools in Python's library.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from llama_ref.checkpoint.torch_objects import (
    BYTES,
    DTYPE_OF_STORAGE,
    FLOAT8,
    ORDERED_DICT,
    REBUILD_FLOAT8,
    REBUILD_TENSOR,
    Name,
)
from weights_tools.streams import Stream

PROTOCOL_2, STOP = b"\x80\x02", b"."
MARK, TUPLE, EMPTY_TUPLE = b"(", b"t", b")"
CALL, PERSISTENT, SET_ITEMS, FALSE = b"R", b"Q", b"u", b"\x89"
STORAGE_OF = {dtype: name for name, dtype in DTYPE_OF_STORAGE.items()}


def state_dict_program(tensors: Sequence[Stream]) -> bytes:
    """Return the program that makes the dict; the i-th tensor's numbers are the member data/i."""
    empty = _global(ORDERED_DICT) + EMPTY_TUPLE + CALL
    items = b"".join(
        _text(stream.name) + _tensor(i, stream, empty) for i, stream in enumerate(tensors)
    )
    return PROTOCOL_2 + empty + MARK + items + SET_ITEMS + STOP


def _tensor(i: int, stream: Stream, no_hooks: bytes) -> bytes:
    """Push a tensor that fills its storage row by row."""
    is_float8 = stream.dtype.name == FLOAT8.name
    kind = _global(BYTES if is_float8 else STORAGE_OF[stream.dtype.name])
    n_elements = _integer(stream.n_elements)
    storage = _tuple(_text("storage"), kind, _text(str(i)), _text("cpu"), n_elements) + PERSISTENT
    strides = (stream.shape[1], 1) if len(stream.shape) == 2 else (1,)
    shape, steps = (_tuple(*map(_integer, numbers)) for numbers in (stream.shape, strides))
    arguments = (storage, _integer(0), shape, steps, FALSE, no_hooks)
    if is_float8:
        return _global(REBUILD_FLOAT8) + _tuple(*arguments, _global(FLOAT8)) + CALL
    return _global(REBUILD_TENSOR) + _tuple(*arguments) + CALL


def _global(name: Name) -> bytes:
    return f"c{name.module}\n{name.name}\n".encode()


def _text(value: str) -> bytes:
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def _integer(value: int) -> bytes:
    n_bytes = value.bit_length() // 8 + 1
    return b"\x8a" + bytes([n_bytes]) + value.to_bytes(n_bytes, "little", signed=True)


def _tuple(*items: bytes) -> bytes:
    return MARK + b"".join(items) + TUPLE
