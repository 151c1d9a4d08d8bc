"""Good and hostile .pth files, put together byte by byte without torch.

The layout is that of torch 2.x: see `tests/peers/test_meta_torch.py`, where real files of torch are
read, and `test_pth.py`, which holds one. Instructions are named as in the library's pickletools.
"""

import struct
import zlib

import numpy as np

PROTO, STOP, MARK = b"\x80\x02", b".", b"("
EMPTY_DICT, EMPTY_TUPLE, TUPLE, TUPLE1, TUPLE2 = b"}", b")", b"t", b"\x85", b"\x86"
REDUCE, BUILD, SETITEM, SETITEMS, BINPERSID = b"R", b"b", b"s", b"u", b"Q"
TRUE, FALSE, NONE = b"\x88", b"\x89", b"N"


def name(module, attribute):
    """GLOBAL: push a name."""
    return b"c" + module.encode() + b"\n" + attribute.encode() + b"\n"


def text(value):
    """BINUNICODE: push a string."""
    encoded = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def integer(value):
    """LONG1: push an integer of any size up to 255 bytes."""
    n = value.bit_length() // 8 + 1
    return b"\x8a" + bytes([n]) + value.to_bytes(n, "little", signed=True)


def many(*items):
    """MARK … TUPLE: push a tuple."""
    return MARK + b"".join(items) + TUPLE


def numbers(values):
    """Push a tuple of integers."""
    return many(*(integer(value) for value in values))


ORDERED_DICT = name("collections", "OrderedDict") + EMPTY_TUPLE + REDUCE


def storage(key="0", n=4, of="FloatStorage", device="cpu"):
    """Push a storage."""
    identifier = many(text("storage"), name("torch", of), text(key), text(device), integer(n))
    return identifier + BINPERSID


def tensor(of, shape, strides=None, offset=0, hooks=ORDERED_DICT):
    """Push a tensor; `of` pushes its storage, and strides are those of C order unless given."""
    if strides is None:
        strides = [int(np.prod(shape[i + 1 :])) for i in range(len(shape))]
    arguments = many(of, integer(offset), numbers(shape), numbers(strides), FALSE, hooks)
    return name("torch._utils", "_rebuild_tensor_v2") + arguments + REDUCE


def float8_tensor(key, shape, n=None, dtype="float8_e4m3fn"):
    """Push a tensor of a dtype without a storage class: its storage counts bytes."""
    identifier = many(
        *(text("storage"), name("torch.storage", "UntypedStorage"), text(key), text("cpu")),
        integer(int(np.prod(shape)) if n is None else n),
    )
    strides = [int(np.prod(shape[i + 1 :])) for i in range(len(shape))]
    arguments = (identifier + BINPERSID, integer(0), numbers(shape), numbers(strides), FALSE)
    arguments = many(*arguments, ORDERED_DICT, name("torch", dtype))
    return name("torch._utils", "_rebuild_tensor_v3") + arguments + REDUCE


def state_dict(entries, start=ORDERED_DICT):
    """A whole program: entries maps names to the instructions that push their values."""
    pairs = b"".join(text(key) + value for key, value in entries.items())
    return PROTO + start + MARK + pairs + SETITEMS + STOP


STORAGE_OF = {
    "float64": "DoubleStorage",
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
}


def members_of(tensors):
    """The archive members for a dict of arrays, each with a storage of its own."""
    entries, storages = {}, []
    for i, (key, array) in enumerate(tensors.items()):
        if array.dtype.name == "float8_e4m3fn":
            entries[key] = float8_tensor(str(i), array.shape)
        else:
            of = storage(str(i), array.size, STORAGE_OF[array.dtype.name])
            entries[key] = tensor(of, array.shape)
        storages.append((f"data/{i}", np.ascontiguousarray(array).tobytes()))
    return [
        ("data.pkl", state_dict(entries)),
        ("byteorder", b"little"),
        *storages,
        ("version", b"3\n"),
        (".data/serialization_id", b"0" * 40),
    ]


def simple_members(program=None, data=None):
    """The members of a file with one float32 vector `w` of four numbers."""
    data = np.arange(4, dtype="<f4").tobytes() if data is None else data
    program = state_dict({"w": tensor(storage(), [4])}) if program is None else program
    return [("data.pkl", program), ("byteorder", b"little"), ("data/0", data), ("version", b"3\n")]


def local_header(full_name, at, flags=0x0808):
    """The local header of one member, padded so that its bytes begin on a 64-byte boundary."""
    padding = -(at + 30 + len(full_name) + 4) % 64
    extra = b"FB" + struct.pack("<H", padding) + b"Z" * padding
    sizes = (0, 0, 0)
    head = (b"PK\x03\x04", 0, flags, 0, 0, 0, *sizes, len(full_name), len(extra))
    return struct.pack("<4s5H3I2H", *head) + full_name + extra


def directory_entry(full_name, crc, size, at, flags=0x0808):
    """One entry of the directory, with a 64-bit field for what does not fit."""
    wide = b"".join(struct.pack("<Q", value) for value in (size, size, at) if value >= 2**32 - 1)
    extra = struct.pack("<2H", 1, len(wide)) + wide if wide else b""
    size, at = min(size, 2**32 - 1), min(at, 2**32 - 1)
    head = (b"PK\x01\x02", 0, 0, flags, 0, 0, 0, crc, size, size, len(full_name), len(extra))
    return struct.pack("<4s6H3I5H2I", *head, 0, 0, 0, 0, at) + full_name + extra


def trailer(crc, size, wide=False):
    """CRC and sizes behind a member's bytes."""
    return struct.pack("<4sI2Q" if wide else "<4s3I", b"PK\x07\x08", crc, size, size)


def end_records(n, size, at):
    """The 64-bit end record, its locator, and the end record."""
    wide = struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 0x031E, 45, 0, 0, n, n, size, at)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, at + size, 1)
    at = min(at, 2**32 - 1)
    return wide + locator + struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, n, n, size, at, 0)


def archive(members, root="archive"):
    """The bytes of an archive as torch writes it."""
    body, directory = b"", b""
    for short_name, data in members:
        full_name, crc = f"{root}/{short_name}".encode(), zlib.crc32(data)
        flags = 0x0808 if data else 0x0800
        directory += directory_entry(full_name, crc, len(data), len(body), flags)
        body += local_header(full_name, len(body), flags) + data
        body += trailer(crc, len(data)) if data else b""
    return body + directory + end_records(len(members), len(directory), len(body))


def write_pth(path, tensors):
    """Write a dict of arrays as a .pth file."""
    path.write_bytes(archive(members_of(tensors)))
    return path


def patched(data, at, layout, *values):
    """Overwrite some bytes; a negative `at` counts from the end."""
    at = at if at >= 0 else len(data) + at
    new = struct.pack(layout, *values)
    return data[:at] + new + data[at + len(new) :]


def entry_at(data, short_name, root="archive"):
    """Where the directory entry of a member begins."""
    return data.rindex(f"{root}/{short_name}".encode()) - 46


def header_at(data, short_name, root="archive"):
    """Where the local header of a member begins."""
    return data.index(f"{root}/{short_name}".encode()) - 30
