"""The directory at the end of a ZIP archive: what members there are, and where.

A ZIP archive is read from its end:

    ... members ... | entry entry entry ... | end record (64 bits) · its locator | end record

The last 22 bytes say where the directory starts, how long it is and how many entries it has; an
entry says a member's name, CRC, size, and where its local header lies. Values that do not fit in
32 bits stand in the 64-bit end record, and in a 64-bit field behind the entry, instead: of a
16 GB checkpoint most of them. What is said twice must be said alike.

Source: PKWARE APPNOTE 6.3, sections 4.3.12 to 4.3.16 and 4.5.3.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

import numpy as np

from llama_ref.errors import BadFile, LimitExceeded, Unsupported, shown
from llama_ref.files import recognise

MAX_DIRECTORY_BYTES = 16 * 2**20

DIRECTORY_ENTRY = struct.Struct("<4s6H3I5H2I")
END_RECORD = struct.Struct("<4s4H2IH")
END_RECORD_64 = struct.Struct("<4sQ2H2I4Q")
LOCATOR_64 = struct.Struct("<4sIQI")

TRAILER_FOLLOWS = 0x0008  # CRC and sizes stand after the member's bytes, not before them
NAME_IS_UTF8 = 0x0800
SEE_64_BIT_VALUE = 0xFFFFFFFF
DOS_ATTRIBUTES = 0xFF  # one marks a folder: torch leaves its memory as it was, and says nothing


@dataclass(frozen=True, slots=True)
class ArchiveBytes:
    """The mapped file, read only through bounds checks."""

    raw: np.ndarray
    file: str | os.PathLike[str]

    def at(self, position: int, n: int) -> bytes:
        """Return n bytes, all of which must be there."""
        if position < 0 or position + n > len(self.raw):
            raise self.bad(
                f"{n} bytes at byte {position}", found=f"a file of {len(self.raw)} bytes"
            )
        return self.raw[position : position + n].tobytes()

    def record(self, layout: struct.Struct, position: int) -> tuple:
        """Return the fields of one fixed record."""
        return layout.unpack(self.at(position, layout.size))

    def bad(self, thing: str, expected: object = None, found: object = None) -> BadFile:
        """Return the error that says what is wrong with this file."""
        return BadFile(thing, expected=expected, found=found, file=self.file)


@dataclass(frozen=True, slots=True)
class Entry:
    """What the directory says of one member."""

    name: bytes
    flags: int
    crc: int
    size: int
    header_at: int


@dataclass(frozen=True, slots=True)
class Directory:
    """Every entry, and the byte at which the directory starts."""

    entries: list[Entry]
    start: int


def read_directory(archive: ArchiveBytes) -> Directory:
    """Read the directory of a stored archive that ends where the file ends.

    Raises
    ------
    BadFile
        Not a ZIP archive, cut, with something appended, or a directory that contradicts itself.
    Unsupported
        Compressed, encrypted, or in several parts.
    LimitExceeded
        A directory larger than 16 MiB.
    """
    start, end, n_entries = _extent(archive)
    entries = []
    position = start
    while position < end:
        entry, position = _entry(archive, position)
        entries.append(entry)
    if position != end or len(entries) != n_entries:
        expected = f"{n_entries} entries in {end - start} bytes"
        found = f"{len(entries)} in {position - start}"
        raise archive.bad("ZIP directory", expected, found)
    return Directory(entries, start)


def _extent(archive: ArchiveBytes) -> tuple[int, int, int]:
    """Return where the directory starts and ends, and how many entries it has."""
    end = len(archive.raw) - END_RECORD.size
    if end < 0 or archive.at(end, 4) != b"PK\x05\x06":
        raise archive.bad("not a file written by torch.save", found=_kind_of_file(archive.raw))
    _, *counts, size, start, comment = archive.record(END_RECORD, end)
    if comment:
        raise archive.bad("ZIP comment", "none", f"{comment} bytes")
    locator_at = end - LOCATOR_64.size
    if locator_at >= 0 and archive.at(locator_at, 4) == b"PK\x06\x07":
        end, wide = _end_record_64(archive, locator_at)
        for value, short in zip(wide[-2:], (size, start), strict=True):
            if short not in (value, SEE_64_BIT_VALUE):
                raise archive.bad("two end records that disagree", value, short)
        *counts, size, start = wide
    disk, directory_disk, n_here, n_entries = counts
    if disk or directory_disk or n_here != n_entries:
        raise Unsupported("ZIP archive in several parts", file=archive.file)
    if start + size != end:
        raise archive.bad("end of the ZIP directory", f"at byte {end}", start + size)
    if size > MAX_DIRECTORY_BYTES:
        limit = f"at most {MAX_DIRECTORY_BYTES:,} bytes"
        raise LimitExceeded("ZIP directory", expected=limit, found=f"{size:,}", file=archive.file)
    return start, end, n_entries


def _end_record_64(archive: ArchiveBytes, locator_at: int) -> tuple[int, list[int]]:
    """Return where the 64-bit end record lies, and its disks, counts, directory size and start."""
    _, disk, record_at, n_disks = archive.record(LOCATOR_64, locator_at)
    if disk or n_disks != 1:
        raise Unsupported("ZIP archive in several parts", file=archive.file)
    if record_at != locator_at - END_RECORD_64.size:
        raise archive.bad("64-bit end record", "just before its locator", f"at byte {record_at}")
    signature, length, _, _, *values = archive.record(END_RECORD_64, record_at)
    if signature != b"PK\x06\x06" or length != END_RECORD_64.size - 12:
        raise archive.bad("64-bit end record", found=f"{shown(signature)}, {length} bytes")
    return record_at, values


def _entry(archive: ArchiveBytes, position: int) -> tuple[Entry, int]:
    """Read one directory entry; return it, and where the next one starts."""
    signature, _, _, flags, method, _, _, crc, *fields = archive.record(DIRECTORY_ENTRY, position)
    packed_size, size, n_name, n_extra, n_comment, disk, _, attributes, header_at = fields
    if signature != b"PK\x01\x02" or n_comment or disk:
        raise archive.bad(f"ZIP directory entry at byte {position}", found=shown(signature))
    position += DIRECTORY_ENTRY.size
    name = archive.at(position, n_name)
    if method or flags & ~(TRAILER_FOLLOWS | NAME_IS_UTF8):
        raise Unsupported(
            f"member {shown(name)}",
            expected="bytes stored as they are",
            found=f"compression method {method}, flags {flags:#06x}",
            file=archive.file,
        )
    if attributes & DOS_ATTRIBUTES:
        raise archive.bad(f"member {shown(name)}", "a plain file", f"attributes {attributes:#x}")
    extra = archive.at(position + n_name, n_extra)
    values = [size, packed_size, header_at]
    size, packed_size, header_at = _widened(archive, name, extra, values)
    if size != packed_size:
        raise archive.bad(f"member {shown(name)}", "one size", f"{size} and {packed_size}")
    return Entry(name, flags, crc, size, header_at), position + n_name + n_extra


def _widened(archive: ArchiveBytes, name: bytes, extra: bytes, values: list[int]) -> list[int]:
    """Take each value that does not fit in 32 bits from the field behind the entry.

    The field is there when, and only when, a value is missing, and holds nothing else.
    """
    n_missing = values.count(SEE_64_BIT_VALUE)
    head = struct.pack("<2H", 1, 8 * n_missing) if n_missing else b""
    if len(extra) != len(head) + 8 * n_missing or not extra.startswith(head):
        raise archive.bad(f"64-bit values of member {shown(name)}", f"{n_missing}", shown(extra))
    wide = iter(struct.unpack(f"<{n_missing}Q", extra[len(head) :]))
    return [next(wide) if value == SEE_64_BIT_VALUE else value for value in values]


def _kind_of_file(raw: np.ndarray) -> str:
    """Say what a file is that does not end as a ZIP archive does."""
    head = raw[:512].tobytes()
    if head.startswith(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."):
        return "a torch file from before version 1.6: load and save it with a newer torch"
    if head[257:262] == b"ustar":
        return "a tar archive, as torch wrote before version 0.1.10"
    if head.startswith(b"PK\x03\x04"):
        return "a ZIP archive without its end: it was cut, or something was appended"
    return recognise(head) or f"a file of {len(raw)} bytes that starts with {shown(head[:8])}"
