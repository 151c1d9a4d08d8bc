"""What the reader of stored ZIP archives finds, and what it refuses: rows 76-83 of bad inputs."""

import io
import os
import struct
import time
import tracemalloc
import warnings
import zipfile
import zlib

import numpy as np
import pytest

from llama_ref.checkpoint.pth import open_pth
from llama_ref.checkpoint.torch_zip import read_members
from llama_ref.errors import LlamaRefError
from llama_ref.mapped import map_bytes
from tests.checkpoint.pth_files import (
    archive,
    directory_entry,
    end_records,
    entry_at,
    header_at,
    local_header,
    patched,
    simple_members,
    state_dict,
    storage,
    tensor,
    trailer,
)

GOOD = archive(simple_members())
DIRECTORY_AT = entry_at(GOOD, "data.pkl")
END = -22
END_64 = -22 - 20 - 56


def by_zipfile(*members, **how):
    """An archive written by the standard library."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **how) as written, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a name written twice
        for name, data in members:
            written.writestr(name, data)
    return buffer.getvalue()


def plain(*extra, without=(), root="archive"):
    """The same by the standard library: no padding, sizes in the local headers."""
    members = [(name, data) for name, data in simple_members() if name not in without]
    return by_zipfile(*[(f"{root}/{name}", data) for name, data in members], *extra)


def opened(tmp_path, data):
    """Open bytes as a .pth file."""
    path = tmp_path / "consolidated.00.pth"
    path.write_bytes(data)
    return open_pth(path)


# What is read.


def test_members_lie_where_the_standard_library_finds_them(tmp_path):
    """Name, order, size, CRC and bytes of each member are those of zipfile."""
    path = tmp_path / "good.pth"
    path.write_bytes(GOOD)
    raw = map_bytes(path)
    members = read_members(raw, file=path)
    with zipfile.ZipFile(path) as peer:
        expected = {i.filename: (i.file_size, i.CRC, peer.read(i)) for i in peer.infolist()}
    found = {m.name: (m.size, m.crc, bytes(raw[m.start : m.end])) for m in members.values()}
    assert list(found) == list(expected)
    assert found == expected


def test_bytes_of_every_member_begin_on_a_64_byte_boundary(tmp_path):
    """The padding that torch writes is skipped, not read."""
    path = tmp_path / "good.pth"
    path.write_bytes(GOOD)
    members = read_members(map_bytes(path), file=path).values()
    assert [m.start % 64 for m in members] == [0] * 4


@pytest.mark.parametrize("root", ["archive", "consolidated.00", "модель", "a b"])
def test_any_root_folder_is_read(tmp_path, root):
    """Torch names the folder after the file; the name means nothing."""
    assert opened(tmp_path, archive(simple_members(), root=root))["w"].tolist() == [0, 1, 2, 3]


def test_an_archive_without_padding_and_trailers_is_read(tmp_path):
    """Stored archives of other writers hold the same numbers; these lie at odd addresses."""
    w = opened(tmp_path, plain())["w"]
    assert w.dtype == np.float32
    assert w.shape == (4,)
    assert w.tolist() == [0, 1, 2, 3]


def write_sparse(path, sizes):
    """An archive of the given storages that occupies no disk: their bytes were never written."""
    dtypes = [("float32", 4)] * len(sizes)
    entries = {
        f"w{i}": tensor(storage(str(i), size // width), [size // width])
        for i, (size, (_, width)) in enumerate(zip(sizes, dtypes, strict=True))
    }
    members = [("data.pkl", state_dict(entries)), ("version", b"3\n")]
    directory, n = b"", 0
    with path.open("wb") as file:
        for name, data in [*members, *[(f"data/{i}", size) for i, size in enumerate(sizes)]]:
            full_name, at = f"archive/{name}".encode(), file.tell()
            size = data if isinstance(data, int) else len(data)
            crc = 0 if isinstance(data, int) else zlib.crc32(data)
            directory += directory_entry(full_name, crc, size, at)
            file.write(local_header(full_name, at))
            file.seek(size, os.SEEK_CUR) if isinstance(data, int) else file.write(data)
            file.write(trailer(crc, size, wide=max(size, at) >= 2**32 - 1))
            n += 1
        file.write(directory + end_records(n, len(directory), file.tell()))


def test_beyond_4_gib_sizes_and_offsets_have_64_bits(tmp_path):
    """A 5 GiB storage, and one after it, are found; no byte of the 5 GiB is read."""
    path = tmp_path / "large.pth"
    write_sparse(path, [5 * 2**30, 64])
    with path.open("r+b") as file:
        at = read_members(map_bytes(path), file=path)["archive/data/1"].start
        file.seek(at)
        file.write(np.arange(16, dtype="<f4").tobytes())
    tensors = open_pth(path)
    assert tensors["w0"].shape == (5 * 2**28,)
    assert tensors["w0"][-1] == 0
    assert tensors["w1"].tolist() == list(range(16))


def test_opening_2_5_gb_takes_milliseconds_and_no_memory(tmp_path):
    """147 tensors of a 1B model are mapped in under 100 ms with under 2 MB allocated."""
    path = tmp_path / "large.pth"
    write_sparse(path, [17 * 2**20] * 147)
    assert path.stat().st_size > 2.5e9
    open_pth(path)  # compiles and imports what the first call needs
    elapsed = []
    for _ in range(3):
        start = time.perf_counter()
        tensors = open_pth(path)
        elapsed.append(time.perf_counter() - start)
    assert len(tensors) == 147
    assert min(elapsed) < 0.1
    tracemalloc.start()
    try:
        open_pth(path)
        assert tracemalloc.get_traced_memory()[1] < 2e6
    finally:
        tracemalloc.stop()


# What is refused. Each row: the bytes, and words the message must have.


def overlapping():
    """Two directory entries that share one member's bytes."""
    first = entry_at(GOOD, "data/0")
    entry = GOOD[first : entry_at(GOOD, "version")].replace(b"data/0", b"data/1")
    data = GOOD[:first] + entry + GOOD[first : END_64 % len(GOOD)]
    return data + end_records(5, len(data) - DIRECTORY_AT, DIRECTORY_AT)


def nested():
    """One storage whose bytes are a whole member: its local header is pointed at from outside."""
    name = b"archive/data/1"
    hidden = local_header(name, 0)[:44] + b"\0" * 4 + trailer(0, 4)
    data = archive(simple_members(data=hidden + b"\0" * (64 - len(hidden))))
    inside = data.index(hidden)
    start = entry_at(data, "data.pkl")
    directory = data[start : END_64 % len(data)] + directory_entry(name, 0, 4, inside)
    return data[:start] + directory + end_records(5, len(directory), start)


def with_junk(where):
    """GOOD with 64 bytes that belong to no member, and every offset right."""
    at = {"before": 0, "between": header_at(GOOD, "byteorder"), "last": DIRECTORY_AT}[where]
    data = GOOD[:at] + bytes(64) + GOOD[at:]
    for name, _ in simple_members():
        header = header_at(GOOD, name)
        moved = header + 64 if header >= at else header
        data = patched(data, entry_at(data, name) + 42, "<I", moved)
    size = len(GOOD) + END_64 - DIRECTORY_AT
    return data[: END_64 % len(data)] + end_records(4, size, DIRECTORY_AT + 64)


def with_field(field, **changes):
    """GOOD with a field behind its last directory entry, which stands just before the end."""
    at = entry_at(GOOD, "version")
    entry = patched(GOOD[at:END_64], 30, "<H", len(field)) + field
    for place, value in changes.items():
        entry = patched(entry, {"size": 24, "packed_size": 20}[place], "<I", value)
    directory = GOOD[DIRECTORY_AT:at] + entry
    return GOOD[:DIRECTORY_AT] + directory + end_records(4, len(directory), DIRECTORY_AT)


REFUSED = {
    "B5-76 empty": (b"", "0 bytes"),
    "B5-76 random": (bytes(np.random.default_rng(0).bytes(4096)), "not a file written by"),
    "B5-76 cut in half": (GOOD[: len(GOOD) // 2], "it was cut"),
    "B5-76 last byte missing": (GOOD[:-1], "it was cut"),
    "B5-76 10 bytes removed": (GOOD[:700] + GOOD[710:], "end of the ZIP directory|end record"),
    "B5-76 end record missing": (GOOD[:END], "it was cut"),
    "B5-76 only an end record": (end_records(0, 0, 0), "data.pkl"),
    "B5-76 only the last 22 bytes": (GOOD[END:], "end of the ZIP directory"),
    "B5-77 no data.pkl": (plain(without=["data.pkl"]), "data.pkl: found no such member"),
    "B5-77 two roots": (plain(("other/data/1", b"1234")), "folders: expected one"),
    "B5-77 one name twice": (plain(("archive/data/0", b"1234" * 4)), "of that name, found two"),
    "B5-77 data.pkl in capitals": (
        plain(("archive/DATA.PKL", simple_members()[0][1]), without=["data.pkl"]),
        "none of torch.save's",
    ),
    "B5-78 DEFLATE": (
        by_zipfile(*[(f"a/{n}", d) for n, d in simple_members()], compression=zipfile.ZIP_DEFLATED),
        "compression method 8",
    ),
    "B5-78 encryption flag": (
        patched(GOOD, entry_at(GOOD, "data/0") + 8, "<H", 0x0809),
        "flags 0x0809",
    ),
    "B5-78 number of this disk": (patched(GOOD, END_64 + 16, "<I", 1), "several parts"),
    "B5-78 disk of the directory": (patched(GOOD, END_64 + 20, "<I", 1), "several parts"),
    "B5-78 entries on this disk": (patched(GOOD, END_64 + 24, "<Q", 3), "several parts"),
    "B5-78 locator on another disk": (patched(GOOD, END - 20 + 16, "<I", 2), "several parts"),
    "B5-78 locator on disk 1": (patched(GOOD, END - 20 + 4, "<I", 1), "several parts"),
    "B5-78 member on another disk": (
        patched(GOOD, entry_at(GOOD, "data/0") + 34, "<H", 1),
        "directory entry",
    ),
    "B5-78 ZIP64 locator points elsewhere": (
        patched(GOOD, END - 20 + 8, "<Q", 0),
        "just before its locator",
    ),
    "B5-78 ZIP64 record of another length": (patched(GOOD, END_64 + 4, "<Q", 2**63), "64-bit end"),
    "B5-78 ZIP64 directory size 2^63": (patched(GOOD, END_64 + 40, "<Q", 2**63), "disagree"),
    "B5-78 ZIP64 directory start 2^64 - 1": (
        patched(patched(GOOD, END_64 + 48, "<Q", 2**64 - 1), END + 16, "<I", 2**32 - 1),
        "end of the ZIP directory",
    ),
    "B5-78 ZIP64 record of another kind": (
        patched(GOOD, END_64, "4s", b"PK\x06\x05"),
        "64-bit end record: found b'PK",
    ),
    "B5-78 a field that nobody needs": (with_field(b"UT\4\0abcd"), "64-bit values"),
    "B5-78 a 64-bit field that nobody needs": (
        with_field(struct.pack("<2HQ", 1, 8, 2)),
        "64-bit values of member .*: expected 0",
    ),
    "B5-78 a 64-bit field by another number": (
        with_field(struct.pack("<2HQ", 2, 8, 2), size=2**32 - 1),
        "64-bit values of member .*: expected 1",
    ),
    "B5-78 a 64-bit field too short": (
        with_field(struct.pack("<2HQ", 1, 8, 2), size=2**32 - 1, packed_size=2**32 - 1),
        "64-bit values of member .*: expected 2",
    ),
    "B5-78 a size of 2^63": (
        with_field(struct.pack("<2HQ", 1, 8, 2**63), size=2**32 - 1),
        "one size, found 9223372036854775808 and 2",
    ),
    "B5-78 two sizes of 2^63": (
        with_field(
            struct.pack("<2H2Q", 1, 16, 2**63, 2**63), size=2**32 - 1, packed_size=2**32 - 1
        ),
        "expected 9223372036854775808 bytes",
    ),
    "B5-78 an entry that runs over the directory": (
        patched(GOOD, entry_at(GOOD, "version") + 28, "<H", 30),
        "ZIP directory: expected 4 entries in",
    ),
    "B5-79 a directory of 17 MB": (
        bytes(17 * 2**20) + end_records(1, 17 * 2**20, 0),
        "ZIP directory: expected at most 16,777,216 bytes",
    ),
    "B5-78 the two end records differ": (patched(GOOD, END + 12, "<I", 4), "disagree"),
    "B5-78 more entries counted than there are": (
        patched(GOOD, END_64 + 24, "<2Q", 2**40, 2**40),
        "expected 1099511627776 entries in",
    ),
    "B5-78 size in a 64-bit field that is absent": (
        patched(GOOD, entry_at(GOOD, "data/0") + 20, "<2I", 2**32 - 1, 2**32 - 1),
        "64-bit values",
    ),
    "B5-79 bomb: 64 MB of zeros in 64 kB": (
        by_zipfile(
            *[(f"a/{n}", d) for n, d in simple_members(data=bytes(2**26))],
            compression=zipfile.ZIP_DEFLATED,
        ),
        "compression method 8",
    ),
    "B5-79 bomb: 64 MB pickle": (
        by_zipfile(("a/data.pkl", bytes(2**26)), compression=zipfile.ZIP_DEFLATED),
        "compression method 8",
    ),
    "B5-79 stored pickle of 17 MB": (
        archive(simple_members(program=bytes(17 * 2**20))),
        "at most 16,777,216 bytes",
    ),
    "B5-79 two members on the same bytes": (overlapping(), "its local header to say the same"),
    "B5-79 a member inside another": (nested(), "to begin at byte"),
    "B5-80 ../../evil": (plain(("../../evil", b"x")), "none of torch.save's"),
    "B5-80 archive/../evil": (plain(("archive/../evil", b"x")), "none of torch.save's"),
    "B5-80 absolute": (plain(("/etc/passwd", b"x")), "none of torch.save's"),
    "B5-80 backslash": (plain(("archive\\data\\1", b"x")), "none of torch.save's"),
    "B5-80 control characters": (plain(("archive/\x1b[31m", b"x")), "x1b"),
    "B5-80 a folder": (plain(("archive/data/", b"")), "a plain file, found attributes"),
    "B5-81 local name": (
        patched(GOOD, header_at(GOOD, "data/0") + 30, "14s", b"archive/data/1"),
        "local header to say the same",
    ),
    "B5-81 local signature": (
        patched(GOOD, header_at(GOOD, "data/0"), "4s", b"PK\x03\x05"),
        "same",
    ),
    "B5-81 local method": (patched(GOOD, header_at(GOOD, "data/0") + 8, "<H", 8), "same"),
    "B5-81 local flags": (patched(GOOD, header_at(GOOD, "data/0") + 6, "<H", 0x0800), "same"),
    "B5-81 local sizes": (
        patched(GOOD, header_at(GOOD, "data/0") + 18, "<2I", 16, 16),
        "CRC and sizes in its local header",
    ),
    "B5-81 padding to the end of the file": (
        patched(GOOD, header_at(GOOD, "version") + 28, "<H", 2**16 - 1),
        "2 bytes",
    ),
    "B5-81 sizes in the trailer": (
        GOOD.replace(trailer(zlib.crc32(simple_members()[2][1]), 16)[:16], bytes(16)),
        "CRC and sizes after its bytes",
    ),
    "B5-81 two sizes in the directory": (
        patched(GOOD, entry_at(GOOD, "data/0") + 20, "<I", 15),
        "one size, found 16 and 15",
    ),
    "B5-81 size claims 4 GB": (
        patched(GOOD, entry_at(GOOD, "data/0") + 20, "<2I", 2**32 - 2, 2**32 - 2),
        "4294967294 bytes",
    ),
    "B5-81 marked as a folder": (
        patched(GOOD, entry_at(GOOD, "data/0") + 38, "<I", 0x10),
        "a plain file, found attributes 0x10",
    ),
    "B5-81 directory entry of another kind": (
        patched(GOOD, entry_at(GOOD, "data/0"), "4s", b"PK\x01\x03"),
        "ZIP directory entry at byte",
    ),
    "B5-83 a comment on a member": (
        patched(GOOD, entry_at(GOOD, "data/0") + 32, "<H", 1),
        "ZIP directory entry at byte",
    ),
    "B5-81 directory entry cut": (
        patched(GOOD, entry_at(GOOD, "version") + 28, "<H", 999),
        "bytes",
    ),
    "B5-81 name that is not UTF-8": (
        GOOD.replace(b"archive/data/0", b"archive/d\xff\xffa/0"),
        "UTF",
    ),
    "B5-83 junk before": (b"junk" + GOOD, "end of the ZIP directory|just before its locator"),
    "B5-83 junk before, offsets shifted": (with_junk("before"), "at byte 0, found byte 64"),
    "B5-83 junk between members": (with_junk("between"), "to begin at byte"),
    "B5-83 junk before the directory": (with_junk("last"), "ZIP directory: expected at byte"),
    "B5-83 junk after": (GOOD + b"junk", "something was appended"),
    "B5-83 a comment": (patched(GOOD, -2, "<H", 4) + b"junk", "something was appended"),
    "B5-83 a comment that hides an end record": (
        patched(GOOD, -2, "<H", 22) + GOOD[END:],
        "end of the ZIP directory",
    ),
    "B5-83 a comment counted, not there": (patched(GOOD, -2, "<H", 4), "ZIP comment"),
    "B5-83 another archive after it": (GOOD + GOOD, "end of the ZIP directory|just before its"),
}


@pytest.mark.parametrize(("data", "words"), REFUSED.values(), ids=REFUSED)
def test_malformed_archives_are_refused(tmp_path, data, words):
    """Every damaged, ambiguous or compressed archive is named as such, in little memory."""
    tracemalloc.start()
    try:
        with pytest.raises(LlamaRefError, match=words):
            opened(tmp_path, data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1e6
