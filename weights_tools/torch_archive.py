"""The archive around a .pth file: a ZIP file whose members are not compressed and can be mapped.

    local header · padding · bytes · CRC and sizes        once per member, back to back
    an entry for each member                              the directory
    three end records

The bytes of each member begin at a multiple of 64. CRC and sizes stand behind them, so that a
member is written in one go, whatever its size; what does not fit into 32 bits goes into an extra
field of the directory.

Source: PKWARE APPNOTE 6.3; caffe2/serialize/inline_container.cc in pytorch.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO

ROOT, BOUNDARY = "consolidated.00", 64
FLAGS = 0x0808  # CRC and sizes follow; the name is UTF-8
FULL = 2**32 - 1
"""In a 32-bit field: the number stands elsewhere, in 64 bits."""


@dataclass(frozen=True)
class Entry:
    """What the directory says of one member."""

    name: bytes
    crc: int
    size: int
    at: int

    def packed(self) -> bytes:
        """Return the entry as it stands in the directory."""
        wide = [number for number in (self.size, self.size, self.at) if number >= FULL]
        extra = struct.pack(f"<2H{len(wide)}Q", 1, 8 * len(wide), *wide) if wide else b""
        size, at = min(self.size, FULL), min(self.at, FULL)
        head = (b"PK\x01\x02", 0, 0, FLAGS, 0, 0, 0, self.crc, size, size)
        lengths = (len(self.name), len(extra), 0, 0, 0, 0, at)
        return struct.pack("<4s6H3I5H2I", *head, *lengths) + self.name + extra


class ArchiveWriter:
    """Members are added one after the other; `finish` writes the directory.

    Parameters
    ----------
    file : binary file
        Empty, open for writing.
    """

    def __init__(self, file: BinaryIO):
        self._file = file
        self._entries: list[Entry] = []

    def add(self, name: str, blocks: Iterable[bytes | memoryview]) -> None:
        """Write one member, of whatever size its blocks add up to."""
        full_name, at = f"{ROOT}/{name}".encode(), self._file.tell()
        padding = -(at + 30 + len(full_name) + 4) % BOUNDARY
        head = (b"PK\x03\x04", 0, FLAGS, 0, 0, 0, 0, 0, 0, len(full_name), 4 + padding)
        self._file.write(struct.pack("<4s5H3I2H", *head) + full_name)
        self._file.write(struct.pack("<2sH", b"FB", padding) + b"Z" * padding)
        crc = size = 0
        for block in blocks:
            self._file.write(block)
            crc, size = zlib.crc32(block, crc), size + len(block)
        widths = "<4sI2Q" if size >= FULL else "<4s3I"
        self._file.write(struct.pack(widths, b"PK\x07\x08", crc, size, size))
        self._entries.append(Entry(full_name, crc, size, at))

    def finish(self) -> None:
        """Write the directory and the records by which it is found."""
        at, n = self._file.tell(), len(self._entries)
        directory = b"".join(entry.packed() for entry in self._entries)
        size, end = len(directory), at + len(directory)
        sizes = (n, n, size, at)
        wide = struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 0x031E, 45, 0, 0, *sizes)
        locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, end, 1)
        narrow = (0, 0, min(n, 2**16 - 1), min(n, 2**16 - 1), min(size, FULL), min(at, FULL), 0)
        self._file.write(directory + wide + locator)
        self._file.write(struct.pack("<4s4H2IH", b"PK\x05\x06", *narrow))
