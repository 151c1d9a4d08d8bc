"""Safetensors: a length, a JSON header, and the tensors end to end.

    [n: 8 bytes, little-endian] [header: n bytes of JSON] [data]
    header = {"__metadata__": {"format": "pt"},
              "lm_head.weight": {"dtype": "BF16", "shape": [V, D], "data_offsets": [begin, end]}}

Offsets count from the end of the header; bytes are little-endian, matrices row by row. Every byte
must be explained: the tensors, in the order of their offsets, touch each other and fill the data
section exactly, and each is as long as its shape and dtype say. So a file that was cut, spliced or
appended to cannot pass, and a reader need not look at the data to know that the file is whole.

This is not the official reader, which copies tensors out. It is also stricter: a key written twice,
or one that the format does not have, is an error.

Source: the section "Format" in the README of https://github.com/huggingface/safetensors
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from llama_ref.errors import BadFile, LimitExceeded, LlamaRefError, Unsupported, shown
from llama_ref.files import recognise
from llama_ref.mapped import map_bytes
from llama_ref.numerics import BFLOAT16, FLOAT8
from llama_ref.strict_json import parse_json

AnyPath = str | os.PathLike[str]

HEADER_LIMIT = 16_000_000
"""Bytes of header read by default. The 405B model has less than 200,000 in any of its files."""
AXES_LIMIT = 64
AXIS_LIMIT = 2**31

DTYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": BFLOAT16,
    "F8_E4M3": FLOAT8,
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
"""The format's names of the dtypes that are read and written here."""

# Names that the format has, so that they are `Unsupported` and not `BadFile`.
EIGHT_BITS = {"F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"}
NOT_READ = EIGHT_BITS | {"F6_E2M3", "F6_E3M2", "F4", "C64"}


class Entry(NamedTuple):
    """One tensor as the header describes it; `begin` and `end` count from the end of the header."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


def open_safetensors(path: AnyPath, *, header_limit: int = HEADER_LIMIT) -> dict[str, np.ndarray]:
    """Map every tensor of a safetensors file; only the header is read.

    Parameters
    ----------
    path : path-like
        The file. It is mapped once and must not be rewritten in place while a tensor is alive.
    header_limit : int
        Longest header accepted, in bytes.

    Returns
    -------
    dict of str to ndarray
        Read-only views in the order of their bytes, each of its stored shape and dtype (BF16 as
        `ml_dtypes.bfloat16`); NumPy reads tensors at odd addresses too, a little slower.

    Raises
    ------
    BadFile
        If the file is anything but a well-formed safetensors file, whole to the byte.
    Unsupported
        If a tensor has a dtype of the format that is not read here (8, 6 and 4 bits, complex).
    LimitExceeded
        If the header is longer than `header_limit`, a tensor has more than 64 axes, or an axis
        more than 2^31 entries.
    """
    raw = map_bytes(path)
    header, start = _read_header(raw, header_limit, path)
    _check_metadata(header.pop("__metadata__", {}), path)
    entries = [_parse_entry(name, fields, path) for name, fields in header.items()]
    entries.sort(key=lambda entry: (entry.begin, entry.end))
    _check_extent(entries, raw, start, path)
    return {
        entry.name: np.ndarray(entry.shape, entry.dtype, buffer=raw, offset=start + entry.begin)
        for entry in entries
    }


def _read_header(raw: np.ndarray, limit: int, path: AnyPath) -> tuple[dict[str, Any], int]:
    """Return the parsed header and where the data begins."""
    if raw.size < 8:
        raise BadFile("file", expected="8 bytes or more", found=f"{raw.size} bytes", file=path)
    # The one byte that a web page, a pointer file or an archive does not share with us.
    if raw[8:9].tobytes() != b"{":
        first = raw[:72].tobytes()
        raise BadFile(
            "not a safetensors file",
            expected="'{' after a length of 8 bytes",
            found=recognise(first) or recognise(first[8:]) or shown(first[:16]),
            file=path,
        )
    n_bytes = int.from_bytes(raw[:8].tobytes(), "little")
    if n_bytes > raw.size - 8:
        raise BadFile(
            "header length",
            expected=f"at most the {raw.size - 8:,} bytes that follow it",
            found=f"{n_bytes:,}",
            file=path,
        )
    if n_bytes > limit:
        raise LimitExceeded(
            "header length", expected=f"at most {limit:,} bytes", found=f"{n_bytes:,}", file=path
        )
    return parse_json(raw[8 : 8 + n_bytes].tobytes(), file=path), 8 + n_bytes


def _check_metadata(metadata: Any, path: AnyPath) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise BadFile(
            "__metadata__", expected="an object of strings", found=shown(metadata), file=path
        )


def _parse_entry(name: str, fields: Any, path: AnyPath) -> Entry:
    """Check one entry of the header by itself."""
    if not isinstance(fields, dict) or fields.keys() != {"dtype", "shape", "data_offsets"}:
        raise BadFile(
            f"tensor {shown(name)}",
            expected="an object of dtype, shape and data_offsets",
            found=shown(fields),
            file=path,
        )
    dtype = _parse_dtype(name, fields["dtype"], path)
    shape = _parse_shape(name, fields["shape"], path)
    begin, end = _parse_offsets(name, fields["data_offsets"], path)

    # Python integers: in 64 bits a hostile shape wraps round to the right size.
    n_bytes = math.prod(shape) * dtype.itemsize
    if end - begin != n_bytes:
        raise BadFile(
            f"tensor {shown(name)}: data_offsets",
            expected=f"{n_bytes:,} bytes for {fields['dtype']} of shape {shape}",
            found=f"{end - begin:,}",
            file=path,
        )
    return Entry(name, dtype, shape, begin, end)


def _parse_dtype(name: str, code: Any, path: AnyPath) -> np.dtype:
    if isinstance(code, str) and code in DTYPES:
        return DTYPES[code]
    if isinstance(code, str) and code in NOT_READ:
        kind: type[LlamaRefError] = Unsupported
    else:
        kind = BadFile
    raise kind(
        f"tensor {shown(name)}: dtype", expected=" ".join(DTYPES), found=shown(code), file=path
    )


def _parse_shape(name: str, shape: Any, path: AnyPath) -> tuple[int, ...]:
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise BadFile(
            f"tensor {shown(name)}: shape",
            expected="a list of integers >= 0",
            found=shown(shape),
            file=path,
        )
    # Beside an axis of 0, NumPy still refuses other axes whose product overflows.
    address_space = math.prod(max(n, 1) for n in shape) < 2**60
    if len(shape) > AXES_LIMIT or max(shape, default=0) > AXIS_LIMIT or not address_space:
        raise LimitExceeded(
            f"tensor {shown(name)}: shape",
            expected=f"at most {AXES_LIMIT} axes, {AXIS_LIMIT:,} entries an axis, 2^60 in all",
            found=shown(shape),
            file=path,
        )
    return tuple(shape)


def _parse_offsets(name: str, offsets: Any, path: AnyPath) -> tuple[int, int]:
    if (
        not isinstance(offsets, list)
        or len(offsets) != 2
        or not all(type(n) is int for n in offsets)
        or not 0 <= offsets[0] <= offsets[1]
    ):
        raise BadFile(
            f"tensor {shown(name)}: data_offsets",
            expected="two integers, 0 <= begin <= end",
            found=shown(offsets),
            file=path,
        )
    return offsets[0], offsets[1]


def _check_extent(entries: Iterable[Entry], raw: np.ndarray, start: int, path: AnyPath) -> None:
    """Check that the tensors, in order, fill the data section: no overlap, hole, cut or tail."""
    position, previous = 0, ""
    for name, _, _, begin, end in entries:
        if begin < position:
            raise BadFile(
                f"tensor {shown(name)}",
                expected=f"to begin after {shown(previous)}, at byte {start + position:,}",
                found=f"byte {start + begin:,}, so they overlap",
                file=path,
            )
        if begin > position:
            raise BadFile(
                f"hole before tensor {shown(name)}",
                expected=f"its data at byte {start + position:,}",
                found=f"byte {start + begin:,}",
                file=path,
            )
        if start + end > raw.size:
            raise BadFile(
                f"tensor {shown(name)}",
                expected=f"to end at byte {start + end:,}",
                found=f"a file of {raw.size:,} bytes",
                next_step="the file was cut short; fetch it again",
                file=path,
            )
        position, previous = end, name
    if start + position < raw.size:
        tail = raw[start + position :]
        raise BadFile(
            f"{tail.size:,} bytes that belong to no tensor, from byte {start + position:,}",
            found=recognise(tail[:64].tobytes()) or shown(tail[:16].tobytes()),
            file=path,
        )
