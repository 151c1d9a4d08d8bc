"""The ZIP archive that `torch.save` writes: where each member's bytes lie in the file.

Since version 1.6 torch stores each tensor's bytes uncompressed as one member of a ZIP archive,
padded to a 64-byte boundary, so that a program can map them instead of reading them:

    local header · name · padding · bytes · trailer (CRC, sizes)      once per member, back to back
    directory and end records                                         see `zip_directory`

This reader knows that layout and nothing else. A ZIP file may hide a second archive, members that
overlap, or a local header that contradicts the directory, and two readers of such a file see
different contents. So here every byte before the directory belongs to exactly one member, what is
said twice must be said alike, and a size is believed only where the file is long enough for it.

Source: PKWARE APPNOTE 6.3, section 4.3.7 to 4.3.9; caffe2/serialize/inline_container.cc and
third_party/miniz in pytorch/pytorch.
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass

import numpy as np

from llama_ref.checkpoint.zip_directory import (
    TRAILER_FOLLOWS,
    ArchiveBytes,
    Entry,
    read_directory,
)
from llama_ref.errors import BadFile, shown

LOCAL_HEADER = struct.Struct("<4s5H3I2H")
CRC_CHUNK = 2**24


@dataclass(frozen=True, slots=True)
class Member:
    """One member of the archive: its name, and where its bytes lie in the file."""

    name: str
    start: int
    size: int
    crc: int

    @property
    def end(self) -> int:
        """The first byte after the member's own."""
        return self.start + self.size


def read_members(raw: np.ndarray, *, file: str | os.PathLike[str]) -> dict[str, Member]:
    """Find every member of a stored ZIP archive, reading its headers only.

    Parameters
    ----------
    raw : ndarray of shape (bytes in the file,), uint8
        The mapped file.
    file : path-like
        Its name, for messages.

    Returns
    -------
    dict of str to Member
        By full name, in the order of their bytes.

    Raises
    ------
    BadFile
        Not a ZIP archive, cut, with bytes that belong to no member or to two, or with a header
        that contradicts the directory.
    Unsupported
        Compressed, encrypted, or in several parts.
    LimitExceeded
        A directory larger than 16 MiB.
    """
    archive = ArchiveBytes(raw, file)
    directory = read_directory(archive)
    members: dict[str, Member] = {}
    position = 0
    for entry in sorted(directory.entries, key=lambda entry: entry.header_at):
        member = _member(archive, entry, position)
        if member.name in members:
            raise archive.bad(f"member {shown(member.name)}", "one of that name", "two")
        members[member.name] = member
        position = member.end + len(_trailer(archive, entry, member))
    if position != directory.start:
        raise archive.bad("ZIP directory", f"at byte {position}", f"at byte {directory.start}")
    return members


def check_crc(raw: np.ndarray, member: Member, *, file: str | os.PathLike[str]) -> None:
    """Read all bytes of a member and compare their CRC-32 with the stored one.

    Raises
    ------
    BadFile
        If they differ: the file was damaged, or written without CRCs.
    """
    crc = 0
    for start in range(member.start, member.end, CRC_CHUNK):
        crc = zlib.crc32(raw[start : min(start + CRC_CHUNK, member.end)].data, crc)
    if crc == member.crc:
        return
    next_step = "the file is damaged: fetch it again"
    if member.crc == 0:
        next_step = "if torch.serialization.set_crc32_options(False) was set, save it without that"
    raise BadFile(
        f"CRC of member {shown(member.name)}",
        expected=f"{member.crc:08x}",
        found=f"{crc:08x}",
        next_step=next_step,
        file=file,
    )


def _member(archive: ArchiveBytes, entry: Entry, position: int) -> Member:
    """Read a member's local header, which must lie at `position` and repeat the directory."""
    where = f"member {shown(entry.name)}"
    if entry.header_at != position:
        raise archive.bad(where, f"to begin at byte {position}", f"byte {entry.header_at}")
    header = archive.record(LOCAL_HEADER, position)
    signature, _, flags, method, _, _, *crc_and_sizes, n_name, n_extra = header
    name = archive.at(position + LOCAL_HEADER.size, n_name)
    if signature != b"PK\x03\x04" or (flags, method, name) != (entry.flags, 0, entry.name):
        raise archive.bad(where, "its local header to say the same", shown(name))
    expected = [entry.crc, entry.size, entry.size]
    if flags & TRAILER_FOLLOWS:
        expected = [0, 0, 0]
    if crc_and_sizes != expected:
        raise archive.bad(f"{where}: CRC and sizes in its local header", expected, crc_and_sizes)
    # What is left of the header, `n_extra` bytes, is torch's padding up to the boundary.
    start = position + LOCAL_HEADER.size + n_name + n_extra
    if start + entry.size > len(archive.raw):
        raise archive.bad(where, f"{entry.size} bytes", f"{len(archive.raw) - start} in the file")
    return Member(_text(archive, name), start, entry.size, entry.crc)


def _trailer(archive: ArchiveBytes, entry: Entry, member: Member) -> bytes:
    """Return the CRC and sizes that stand after a member's bytes, if its flags announce them.

    The sizes have 64 bits where the member is, or lies, beyond 4 GiB.
    """
    if not entry.flags & TRAILER_FOLLOWS:
        return b""
    head = struct.pack("<4sI", b"PK\x07\x08", entry.crc)
    trailers = [head + entry.size.to_bytes(width, "little") * 2 for width in _widths(entry.size)]
    for trailer in trailers:
        if archive.at(member.end, len(trailer)) == trailer:
            return trailer
    raise archive.bad(f"member {shown(entry.name)}: CRC and sizes after its bytes", "those before")


def _widths(size: int) -> list[int]:
    """Return the number of bytes a size may be written in."""
    return [4, 8] if size < 2**32 else [8]


def _text(archive: ArchiveBytes, name: bytes) -> str:
    """Decode a member's name."""
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        raise archive.bad(f"member {shown(name)}", "a name in UTF-8") from None
