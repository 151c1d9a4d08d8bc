"""Good and hostile GGUF files, put together byte by byte."""

import struct

import numpy as np

U32, I32, F32, BOOL, STRING, ARRAY, U64 = 4, 5, 6, 7, 8, 9, 10


def text(value):
    """Write a text behind its length."""
    data = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(data)) + data


def entry(key, kind, value):
    """Write one entry; an array is a pair of its element kind and a list."""
    return text(key) + struct.pack("<I", kind) + plain(kind, value)


def plain(kind, value):
    """Write a value of a kind."""
    if kind == STRING:
        return text(value)
    if kind == ARRAY:
        inner, values = value
        head = struct.pack("<IQ", inner, len(values))
        return head + b"".join(plain(inner, each) for each in values)
    code = {0: "B", 1: "b", 2: "H", 3: "h", U32: "I", I32: "i", F32: "f", BOOL: "B", U64: "Q"}
    return struct.pack("<" + (code | {11: "q", 12: "d"})[kind], value)


def tensor(name, axes, code, offset):
    """Write how one tensor is described, its innermost axis first."""
    head = text(name) + struct.pack("<I", len(axes))
    return head + struct.pack(f"<{len(axes)}Q", *axes) + struct.pack("<IQ", code, offset)


def gguf(
    entries=(), tensors=(), data=b"", *, n_entries=None, n_tensors=None, version=3, magic=b"GGUF"
):
    """Put a file together; numbers that do not fit may be claimed."""
    n_entries = len(entries) if n_entries is None else n_entries
    n_tensors = len(tensors) if n_tensors is None else n_tensors
    head = magic + struct.pack("<IQQ", version, n_tensors, n_entries)
    head += b"".join(entries) + b"".join(tensors)
    return head + bytes(-len(head) % 32) + data


ONE = np.arange(8, dtype="<f4").tobytes()
GOOD = {
    "entries": [entry("general.architecture", STRING, "llama")],
    "tensors": [tensor("a", (4, 2), 0, 0)],
    "data": ONE,
}
