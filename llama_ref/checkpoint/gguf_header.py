"""The header of a GGUF file: what model it is, its vocabulary, and where each tensor lies.

    "GGUF"  version  n_tensors  n_entries
    entries      key · kind · value                      kind: a number, a text, or an array of them
    tensors      name · axes, innermost first · type · offset        from where the data begins
    (padding)    data, each tensor at the next multiple of the alignment

The reader of the package `gguf` takes eight seconds for the vocabulary of Llama 3 and believes what
a file claims. This one takes the lengths for what they are, claims: nothing is allocated or looped
over that the file is too short for. And it accepts nothing unexplained: no key twice, no hole
between tensors, no byte behind the last.

Source: docs/gguf.md in ggml-org/ggml, versions 2 and 3.
"""

from __future__ import annotations

import math
import os
import struct
from collections import Counter
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from llama_ref.errors import BadFile, LimitExceeded, Unsupported, shown
from llama_ref.files import recognise
from llama_ref.mapped import map_bytes

AnyPath = str | os.PathLike[str]

MAGIC, VERSIONS = b"GGUF", (2, 3)
NUMBERS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
"""Kinds of number, as the struct module writes them."""
BOOL, STRING, ARRAY = 7, 8, 9
LEAST_ENTRY, LEAST_TENSOR = 8 + 4 + 1, 8 + 4 + 8 + 4 + 8
"""Bytes of the shortest entry, and of the shortest tensor."""
MAX_ELEMENTS, MAX_AXES, MAX_LENGTH = 2**21, 4, 2**31
"""Elements of all arrays together: the vocabulary of Llama 3 with its merges has 2^19."""
MAX_TEXT = 2**24


class Storage(NamedTuple):
    """How numbers of one type are stored: so many at a time, in so many bytes."""

    name: str
    block: int
    n_bytes: int


STORAGE = {
    0: Storage("F32", 1, 4),
    1: Storage("F16", 1, 2),
    2: Storage("Q4_0", 32, 18),
    3: Storage("Q4_1", 32, 20),
    6: Storage("Q5_0", 32, 22),
    7: Storage("Q5_1", 32, 24),
    8: Storage("Q8_0", 32, 34),
    10: Storage("Q2_K", 256, 84),
    11: Storage("Q3_K", 256, 110),
    12: Storage("Q4_K", 256, 144),
    13: Storage("Q5_K", 256, 176),
    14: Storage("Q6_K", 256, 210),
    28: Storage("F64", 1, 8),
    30: Storage("BF16", 1, 2),
}
"""By the number that the file has for a type. Others exist, and are refused by their number."""


@dataclass(frozen=True)
class StoredTensor:
    """One tensor, as the header describes it.

    Attributes
    ----------
    name : str
    shape : tuple of int
        Outermost axis first, as NumPy has it; the file says it the other way round.
    code : int
        Its type, a key of `STORAGE`.
    start, end : int
        The bytes of the file that hold it.
    """

    name: str
    shape: tuple[int, ...]
    code: int
    start: int
    end: int

    @property
    def storage(self) -> Storage:
        """How its numbers are stored."""
        return STORAGE[self.code]


@dataclass(frozen=True)
class Header:
    """What a GGUF file says of itself.

    Attributes
    ----------
    entries : dict of str to value
        Numbers, texts, bools and lists of them, by key.
    tensors : list of StoredTensor
        In the order of the file.
    raw : ndarray of uint8
        The mapped file.
    """

    entries: dict[str, Any]
    tensors: list[StoredTensor]
    raw: np.ndarray


def is_gguf(path: AnyPath) -> bool:
    """Tell whether a path is named as GGUF files are."""
    return os.fspath(path).endswith(".gguf")


def read_gguf_header(path: AnyPath) -> Header:
    """Read the header of a GGUF file; of its tensors only where they lie.

    Raises
    ------
    BadFile
        If the file is anything but a well-formed GGUF file, whole to the byte.
    Unsupported
        If it is of another version or byte order, or a tensor of a type that is not read here.
    LimitExceeded
        If arrays have more than 2^21 elements, a text more than 16 MB, or a tensor more than 2^31
        rows.
    """
    raw = map_bytes(path)
    first = raw[:64].tobytes()
    if not first.startswith(MAGIC):
        found = recognise(first) or shown(first[:16])
        raise BadFile("not a GGUF file", expected="'GGUF' at its start", found=found, file=path)
    reader = _Reader(raw, path)
    version = reader.number(4, "version")
    if version not in VERSIONS:
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big") in VERSIONS
        found = "a big-endian file" if swapped else version
        raise Unsupported("GGUF version", expected="2 or 3", found=found, file=path)
    n_tensors = reader.count("number of tensors", LEAST_TENSOR)
    n_entries = reader.count("number of entries", LEAST_ENTRY)
    entries: dict[str, Any] = {}
    for _ in range(n_entries):
        key = reader.text("key")
        if not key or key in entries:
            found = "an empty one" if not key else f"{shown(key)} twice"
            raise BadFile("key", expected="each key once", found=found, file=path)
        entries[key] = reader.value(reader.number(4, "kind"), shown(key))
    described = [reader.tensor() for _ in range(n_tensors)]
    return Header(entries, _placed(described, reader, _alignment(entries, path)), raw)


class _Reader:
    """A place in the header, moved on by what is read there."""

    def __init__(self, raw: np.ndarray, path: AnyPath):
        self.raw, self.path, self.at = raw.data, path, len(MAGIC)
        self.n_elements = 0

    def take(self, n: int, what: str) -> int:
        """Move n bytes on, if there are so many; return where they begin."""
        if n > len(self.raw) - self.at:
            raise BadFile(
                what,
                expected=f"{n:,} bytes from byte {self.at:,}",
                found=f"a file of {len(self.raw):,} bytes",
                next_step="the file was cut short, or is damaged",
                file=self.path,
            )
        self.at += n
        return self.at - n

    def number(self, kind: int, what: str) -> Any:
        """Read a number of a kind."""
        code = f"<{NUMBERS[kind]}"
        start = self.take(struct.calcsize(code), what)
        if kind == BOOL and self.raw[start] > 1:
            raise BadFile(what, expected="0 or 1", found=int(self.raw[start]), file=self.path)
        return struct.unpack_from(code, self.raw, start)[0]

    def count(self, what: str, least: int) -> int:
        """Read how many there are of something that takes some bytes at the least."""
        n = self.number(10, what)
        room = (len(self.raw) - self.at) // least
        if n > room:
            raise BadFile(what, expected=f"at most {room:,}", found=f"{n:,}", file=self.path)
        return n

    def text(self, what: str) -> str:
        """Read a text."""
        n = self.number(10, f"length of {what}")
        start = self.take(n, what)
        if n > MAX_TEXT:
            expected = f"at most {MAX_TEXT:,} bytes"
            raise LimitExceeded(what, expected=expected, found=f"{n:,}", file=self.path)
        try:
            return str(self.raw[start : start + n], "utf-8")
        except UnicodeDecodeError as error:
            found = f"byte 0x{self.raw[start + error.start]:02x} at {start + error.start:,}"
            raise BadFile(what, expected="UTF-8", found=found, file=self.path) from None

    def value(self, kind: int, what: str) -> Any:
        """Read a value of a kind."""
        if kind == STRING:
            return self.text(what)
        if kind == ARRAY:
            return self._array(what)
        if kind not in NUMBERS:
            raise BadFile(f"kind of {what}", expected="0 to 12", found=kind, file=self.path)
        return self.number(kind, what)

    def _array(self, what: str) -> list[Any]:
        kind = self.number(4, f"kind of {what}")
        if kind == STRING:
            n = self._length(what, 8)
            return [self.text(what) for _ in range(n)]
        if kind not in NUMBERS:
            expected = "an array of numbers or texts"
            raise BadFile(what, expected=expected, found=f"one of kind {kind}", file=self.path)
        dtype = np.dtype(f"<{NUMBERS[kind]}")
        n = self._length(what, dtype.itemsize)
        start = self.take(n * dtype.itemsize, what)
        return np.frombuffer(self.raw, dtype, n, start).tolist()

    def _length(self, what: str, least: int) -> int:
        n = self.count(f"length of {what}", least)
        self.n_elements += n
        if self.n_elements > MAX_ELEMENTS:
            expected = f"at most {MAX_ELEMENTS:,} elements with those of the arrays before it"
            raise LimitExceeded(what, expected=expected, found=f"{n:,}", file=self.path)
        return n

    def tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        """Read name, shape, type and offset of one tensor."""
        name = self.text("name of a tensor")
        what = f"tensor {shown(name)}"
        n_axes = self.number(4, f"{what}: axes")
        if not 1 <= n_axes <= MAX_AXES:
            raise BadFile(f"{what}: axes", expected="1 to 4", found=n_axes, file=self.path)
        shape = tuple(self.number(10, f"{what}: shape") for _ in range(n_axes))[::-1]
        if not all(1 <= length <= MAX_LENGTH for length in shape) or math.prod(shape) > 2**48:
            expected = f"axes of 1 to {MAX_LENGTH:,}, 2^48 elements in all"
            raise LimitExceeded(f"{what}: shape", expected=expected, found=shape, file=self.path)
        return name, shape, self.number(4, f"{what}: type"), self.number(10, f"{what}: offset")


def _alignment(entries: dict[str, Any], path: AnyPath) -> int:
    value = entries.get("general.alignment", 32)
    if type(value) is not int or not 8 <= value <= 2**16 or value & (value - 1):
        expected = "a power of two, 8 to 65,536"
        raise BadFile("general.alignment", expected=expected, found=shown(value), file=path)
    return value


def _placed(
    described: list[tuple[str, tuple[int, ...], int, int]], reader: _Reader, alignment: int
) -> list[StoredTensor]:
    """Return the tensors with their bytes; one must follow the other, from here to the end."""
    begin = _aligned(reader.at, alignment)
    at, tensors, path = begin, list[StoredTensor](), reader.path
    for name, shape, code, offset in described:
        what = f"tensor {shown(name)}"
        if code not in STORAGE:
            known = ", ".join(storage.name for storage in STORAGE.values())
            raise Unsupported(f"{what}: type", expected=known, found=f"type {code}", file=path)
        if shape[-1] % STORAGE[code].block:
            expected = f"rows of a multiple of {STORAGE[code].block}"
            raise BadFile(what, expected=expected, found=f"shape {shape}", file=path)
        if begin + offset != at:
            expected = f"offset {at - begin:,}, after the tensor before it"
            raise BadFile(what, expected=expected, found=f"{offset:,}", file=path)
        end = at + math.prod(shape) // STORAGE[code].block * STORAGE[code].n_bytes
        if end > len(reader.raw):
            raise BadFile(
                what,
                expected=f"to end at byte {end:,}",
                found=f"a file of {len(reader.raw):,} bytes",
                next_step="the file was cut short; fetch it again",
                file=path,
            )
        tensors.append(StoredTensor(name, shape, code, at, end))
        at = _aligned(end, alignment)
    _check_end(tensors, reader, alignment)
    return tensors


def _check_end(tensors: list[StoredTensor], reader: _Reader, alignment: int) -> None:
    """Refuse a name that stands twice, and bytes behind the last tensor that are no padding."""
    for name, times in Counter(tensor.name for tensor in tensors).items():
        if times > 1:
            raise BadFile(f"tensor {shown(name)}", expected="once", found="twice", file=reader.path)
    end = tensors[-1].end if tensors else reader.at
    if len(reader.raw) > _aligned(end, alignment):
        raise BadFile(
            f"{len(reader.raw) - end:,} bytes that belong to no tensor, from byte {end:,}",
            file=reader.path,
        )


def _aligned(position: int, alignment: int) -> int:
    return -(-position // alignment) * alignment
