"""What `open_safetensors` maps, and what it refuses: rows 1-26 of the table of bad inputs."""

import json
import os
import time
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from llama_ref.checkpoint import open_safetensors
from llama_ref.errors import BadFile, LimitExceeded, LlamaRefError, Unsupported

EVERY_DTYPE = [
    np.float64,
    np.float32,
    np.float16,
    ml_dtypes.bfloat16,
    np.int64,
    np.int32,
    np.int16,
    np.int8,
    np.uint64,
    np.uint32,
    np.uint16,
    np.uint8,
    np.bool_,
]


def file_bytes(header, data=b"", length=None):
    """A safetensors file by hand: `header` is an object, or the bytes of a broken one."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    n_bytes = len(text) if length is None else length
    return n_bytes.to_bytes(8, "little") + text + data


def entry(dtype="F32", shape=(2,), offsets=(0, 8), **more):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets), **more}


def with_entry(text):
    """A file with 8 bytes of data whose one entry, 'w', is this JSON text."""
    return file_bytes(b'{"w":' + text + b"}", bytes(8))


def with_shape(text):
    return with_entry(b'{"dtype":"F32","shape":' + text + b',"data_offsets":[0,8]}')


def with_offsets(text):
    return with_entry(b'{"dtype":"F32","shape":[2],"data_offsets":' + text + b"}")


GOOD = file_bytes({"w": entry()}, bytes(8))
W = b'"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'
HALF = {"a": entry(), "b": entry(offsets=(8, 16)), "c": entry(offsets=(16, 24))}
TRIPLE = json.dumps(HALF).encode()

# id: (content of the file, class of the error, words that its message has)
MALFORMED = {
    "B1-01 empty file": (b"", BadFile, "8 bytes or more, found 0 bytes"),
    "B1-01 seven bytes": (b"\x02\0\0\0\0\0\0", BadFile, "found 7 bytes"),
    "B1-02 header longer than the file": (
        file_bytes({}, length=3),
        BadFile,
        "header length: expected at most the 2 bytes that follow it, found 3",
    ),
    "B1-02 header length 2^63": (file_bytes({}, length=2**63), BadFile, "9,223,372,036,854,775"),
    "B1-02 header length 2^64-1": (file_bytes({}, length=2**64 - 1), BadFile, "header length"),
    "B1-02 big-endian length": (
        len(TRIPLE).to_bytes(8, "big") + TRIPLE + bytes(24),
        BadFile,
        "header length",
    ),
    "B1-02 length of 4 bytes": (
        len(TRIPLE).to_bytes(4, "little") + TRIPLE + bytes(24),
        BadFile,
        "not a safetensors file",
    ),
    "B1-04 header length one short": (
        file_bytes(TRIPLE, bytes(24), length=len(TRIPLE) - 1),
        BadFile,
        "not JSON",
    ),
    "B1-04 header length one long": (
        file_bytes(TRIPLE, bytes(24), length=len(TRIPLE) + 1),
        BadFile,
        "not JSON",
    ),
    "B1-04 padded header, length one short": (
        file_bytes(TRIPLE + b" ", bytes(24), length=len(TRIPLE)),
        BadFile,
        "1 bytes that belong to no tensor",
    ),
    "B1-04 length one long, data begins with a space": (
        file_bytes(TRIPLE, b" " * 24, length=len(TRIPLE) + 1),
        BadFile,
        "tensor 'c': expected to end at byte",
    ),
    "B1-05 not UTF-8": (file_bytes(b'{"\xff":1}'), BadFile, "not UTF-8 at byte 2"),
    "B1-05 UTF-16": (file_bytes("{}".encode("utf-16")), BadFile, "UTF-16"),
    "B1-05 UTF-16 without a mark": (file_bytes("{}".encode("utf-16-le")), BadFile, "not JSON"),
    "B1-05 byte-order mark": (file_bytes(b"\xef\xbb\xbf{}"), BadFile, "byte-order mark"),
    "B1-05 NUL padding": (file_bytes(b"{}\0\0\0"), BadFile, "not JSON"),
    "B1-06 array": (file_bytes(b"[]"), BadFile, "not a safetensors file"),
    "B1-06 string": (file_bytes(b'"x"'), BadFile, "not a safetensors file"),
    "B1-06 number": (file_bytes(b"1"), BadFile, "not a safetensors file"),
    "B1-06 null": (file_bytes(b"null"), BadFile, "not a safetensors file"),
    "B1-06 leading blank": (file_bytes(b" {}"), BadFile, "not a safetensors file"),
    "B1-06 header of 0 bytes": (file_bytes(b"", b"{}"), BadFile, "empty"),
    "B1-06 two objects": (file_bytes(b"{}{}"), BadFile, "Extra data"),
    "B1-06 comment": (file_bytes(b"{/* none */}"), BadFile, "not JSON"),
    "B1-06 trailing comma": (file_bytes(b"{" + W + b",}", bytes(8)), BadFile, "not JSON"),
    "B1-06 single quotes": (file_bytes(b"{'w':1}"), BadFile, "not JSON"),
    "B1-07 Python expression": (
        file_bytes(b"{**__import__('os').environ}"),
        BadFile,
        "not JSON",
    ),
    "B1-08 lone surrogate": (
        file_bytes(b'{"\\ud800":' + W[4:] + b"}", bytes(8)),
        BadFile,
        "lone surrogate",
    ),
    "B1-08 bad escape": (file_bytes(b'{"\\q":1}'), BadFile, "escape"),
    "B1-08 raw control character": (file_bytes(b'{"a\nb":1}'), BadFile, "control character"),
    "B1-09 nested arrays": (
        file_bytes(b'{"w":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        LimitExceeded,
        "64 levels",
    ),
    "B1-09 nested objects": (
        file_bytes(b'{"w":' * 100_000 + b"1" + b"}" * 100_000),
        LimitExceeded,
        "64 levels",
    ),
    "B1-09 nested 100 deep": (
        file_bytes(b'{"w":' + b"[" * 100 + b"]" * 100 + b"}"),
        LimitExceeded,
        "64 levels",
    ),
    "B1-10 integer of 5,000 digits": (with_shape(b"[" + b"9" * 5000 + b"]"), LimitExceeded, "5000"),
    "B1-10 NaN": (with_shape(b"[NaN]"), BadFile, "'NaN'"),
    "B1-10 Infinity": (with_shape(b"[Infinity]"), BadFile, "'Infinity'"),
    "B1-10 1e999": (with_shape(b"[1e999]"), BadFile, "beyond the range"),
    "B1-10 -0": (with_offsets(b"[-0,8]"), BadFile, "-0"),
    "B1-10 2e0 as integer": (with_shape(b"[2e0]"), BadFile, r"found \[2.0\]"),
    "B1-11 duplicate key, equal": (
        file_bytes(b"{" + W + b"," + W + b"}", bytes(8)),
        BadFile,
        "key written twice: found 'w'",
    ),
    "B1-11 duplicate key, another dtype": (
        file_bytes(b"{" + W + b"," + W.replace(b"F32", b"I32") + b"}", bytes(8)),
        BadFile,
        "key written twice: found 'w'",
    ),
    "B1-11 duplicate key, escaped": (
        file_bytes(b"{" + W + b"," + W.replace(b'"w"', b'"\\u0077"') + b"}", bytes(8)),
        BadFile,
        "key written twice: found 'w'",
    ),
    "B1-11 duplicate field": (
        with_entry(b'{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}'),
        BadFile,
        "key written twice: found 'dtype'",
    ),
    "B1-11 duplicate __metadata__": (
        file_bytes(b'{"__metadata__":{},"__metadata__":{},' + W + b"}", bytes(8)),
        BadFile,
        "key written twice: found '__metadata__'",
    ),
    "B1-14 dtype unknown": (file_bytes({"w": entry("F31")}, bytes(8)), BadFile, "F64 F32 .*'F31'"),
    "B1-14 dtype lower-case": (file_bytes({"w": entry("f32")}, bytes(8)), BadFile, "'f32'"),
    "B1-14 dtype of NumPy": (file_bytes({"w": entry("float32")}, bytes(8)), BadFile, "BF16"),
    "B1-14 dtype 4": (file_bytes({"w": entry(4)}, bytes(8)), BadFile, "BF16 .*found 4"),
    "B1-14 dtype list": (file_bytes({"w": entry(["F32"])}, bytes(8)), BadFile, "BF16"),
    "B1-17 product wraps to the right size": (
        file_bytes({"w": entry("U8", (2**31, 2**31, 4, 2), (0, 0))}),
        LimitExceeded,
        "2147483648",
    ),
    "B1-17 bytes wrap to the right size": (
        file_bytes({"w": entry("F32", (2**31, 2**29 + 1), (0, 2**33))}),
        LimitExceeded,
        "2147483648",
    ),
    "B1-17 product wraps to 0, axes below the limit": (
        file_bytes({"w": entry("U8", (2**16, 2**16, 2**16, 2**16), (0, 0))}),
        LimitExceeded,
        "2\\^60",
    ),
    "B1-17 huge axes beside an axis of 0": (
        file_bytes({"w": entry("U8", (0, 2**31, 2**31, 2**31), (0, 0))}),
        LimitExceeded,
        "2\\^60",
    ),
    "B1-17 one huge axis": (
        file_bytes({"w": entry("U8", (2**64 + 8,), (0, 8))}, bytes(8)),
        LimitExceeded,
        "18446744073709551624",
    ),
    "B1-18 fewer bytes than the shape": (
        file_bytes({"w": entry(shape=(3,))}, bytes(8)),
        BadFile,
        r"tensor 'w': data_offsets: expected 12 bytes for F32 of shape \(3,\), found 8",
    ),
    "B1-18 more bytes than the shape": (
        file_bytes({"w": entry(shape=(1,))}, bytes(8)),
        BadFile,
        "expected 4 bytes for F32 .* found 8",
    ),
    "B1-18 a scalar is one element": (
        file_bytes({"w": entry(shape=())}, bytes(8)),
        BadFile,
        "expected 4 bytes .* found 8",
    ),
    "B1-20 same range twice": (
        file_bytes({"a": entry(), "b": entry()}, bytes(8)),
        BadFile,
        "tensor 'b': expected to begin after 'a'",
    ),
    "B1-20 partial overlap": (
        file_bytes({"b": entry(offsets=(4, 12)), "a": entry()}, bytes(12)),
        BadFile,
        "tensor 'b': expected to begin after 'a'",
    ),
    "B1-20 5,000 tensors on 16 bytes": (
        file_bytes({f"t{i}": entry(shape=(4,), offsets=(0, 16)) for i in range(5000)}, bytes(16)),
        BadFile,
        "tensor 't1': expected to begin after 't0'",
    ),
    "B1-20 empty tensor inside another": (
        file_bytes({"a": entry(), "z": entry(shape=(0,), offsets=(4, 4))}, bytes(8)),
        BadFile,
        "tensor 'z': expected to begin after 'a'",
    ),
    "B1-21 hole at the start": (
        file_bytes({"w": entry(offsets=(1, 9))}, bytes(9)),
        BadFile,
        "hole before tensor 'w'",
    ),
    "B1-21 hole in the middle": (
        file_bytes({"a": entry(), "b": entry(offsets=(9, 17))}, bytes(17)),
        BadFile,
        "hole before tensor 'b': expected its data at byte",
    ),
    "B1-21 hole at the end": (GOOD + b"\0", BadFile, f"from byte {len(GOOD)}"),
    "B1-21 ZIP appended": (GOOD + b"PK\x03\x04" + bytes(90), BadFile, "found a ZIP archive"),
    "B1-21 HTML appended": (GOOD + b"<script>alert(1)</script>", BadFile, "HTML"),
    "B1-21 shell script appended": (GOOD + b"#!/bin/sh\n", BadFile, "found '#!/bin|b'#!/bin"),
    "B1-21 data without tensors": (file_bytes({}, b"x"), BadFile, "1 bytes that belong to no"),
    "B1-22 last byte missing": (
        file_bytes(TRIPLE, bytes(23)),
        BadFile,
        "tensor 'c': expected to end at byte .* cut short",
    ),
    "B1-22 half missing": (file_bytes(TRIPLE, bytes(12)), BadFile, "tensor 'b': expected to end"),
    "B1-22 header only": (file_bytes(TRIPLE), BadFile, "tensor 'a': expected to end"),
    "B1-23 Git-LFS pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 16060522496\n",
        BadFile,
        "Git-LFS pointer: run `git lfs pull`",
    ),
    "B1-23 HTML page": (b"<!DOCTYPE html><html><body>404</body></html>", BadFile, "HTML"),
    "B1-23 gzip": (b"\x1f\x8b\x08\0\0\0\0\0\0\x03" + bytes(20), BadFile, "a gzip file"),
    "B1-23 ZIP": (b"PK\x03\x04" + bytes(60), BadFile, "a ZIP archive"),
    "B1-23 GGUF": (b"GGUF\x03\0\0\0" + bytes(60), BadFile, "a GGUF file"),
    "B1-23 .npy": (b"\x93NUMPY\x01\0v\0" + b"{'descr': '<f4', }", BadFile, "a NumPy .npy file"),
    "B1-23 all zeros": (bytes(4096), BadFile, "not a safetensors file"),
    "B1-23 all 0xff": (b"\xff" * 4096, BadFile, "not a safetensors file"),
}
MALFORMED |= {
    f"B1-12 __metadata__ {text}": (
        file_bytes(b'{"__metadata__":' + text.encode() + b"}"),
        BadFile,
        "__metadata__: expected an object of strings",
    )
    for text in ("null", "[]", '"pt"', '{"a":1}', '{"a":null}', '{"a":{}}')
}
MALFORMED |= {
    f"B1-13 entry {text}": (with_entry(text.encode()), BadFile, "tensor 'w': expected an object of")
    for text in (
        "null",
        "[]",
        "7",
        "{}",
        '{"shape":[2],"data_offsets":[0,8]}',
        '{"dtype":"F32","data_offsets":[0,8]}',
        '{"dtype":"F32","shape":[2]}',
        '{"dtype":"F32","shape":[2],"data_offsets":[0,8],"strides":[4]}',
    )
}
MALFORMED |= {
    f"B1-15 {dtype}": (
        file_bytes({"w": entry(dtype, (8,))}, bytes(8)),
        Unsupported,
        f"tensor 'w': dtype: expected F64 .*, found '{dtype}'",
    )
    for dtype in ("F4", "F6_E2M3", "F6_E3M2", "F8_E5M2", "F8_E8M0", "C64")
}
MALFORMED |= {
    f"B1-16 shape {text}": (
        with_shape(text.encode()),
        BadFile,
        "tensor 'w': shape: expected a list of integers",
    )
    for text in ("[-2]", "[2.0]", '["2"]', "[[2]]", "[true,2]", "[null]", "2", "null", '"2"', "{}")
}
MALFORMED["B1-16 shape of 65 axes"] = (
    with_shape(json.dumps([2] + [1] * 64).encode()),
    LimitExceeded,
    "at most 64 axes",
)
MALFORMED |= {
    f"B1-19 data_offsets {text}": (
        with_offsets(text.encode()),
        BadFile,
        "tensor 'w': data_offsets: expected two integers",
    )
    for text in (
        "[8,0]",
        "[-8,0]",
        "[]",
        "[0]",
        "[0,4,8]",
        "[0.0,8.0]",
        "[false,8]",
        '["0","8"]',
        "null",
        "8",
        "[0,null]",
    )
}
MALFORMED["B1-19 data_offsets past the end"] = (
    file_bytes({"w": entry(shape=(4,), offsets=(0, 16))}, bytes(8)),
    BadFile,
    "tensor 'w': expected to end at byte",
)
MALFORMED["B1-19 data_offsets of 40 digits"] = (
    with_offsets(b"[0," + b"9" * 40 + b"]"),
    BadFile,
    "expected 8 bytes",
)


@pytest.mark.parametrize(("content", "error", "words"), MALFORMED.values(), ids=list(MALFORMED))
def test_malformed_file_is_refused_by_name(tmp_path, content, error, words):
    """A malformed file raises the error of its kind, which names the file and what is wrong."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(error, match=words) as caught:
        open_safetensors(path)
    assert type(caught.value) is error
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 1200


@pytest.mark.parametrize("n_bytes", [16_000_001, 2**30], ids=["B1-03 one more", "B1-03 1 GiB"])
def test_header_above_the_cap_is_refused_with_both_numbers(tmp_path, n_bytes):
    """A header longer than the limit raises LimitExceeded, and is not read."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(file_bytes(b"{", length=n_bytes))
    os.truncate(path, 2**31)
    tracemalloc.start()
    with pytest.raises(LimitExceeded, match=f"at most 16,000,000 bytes, found {n_bytes:,}"):
        open_safetensors(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000


def test_header_limit_is_the_callers_to_set(tmp_path):
    """B1-03: a header of exactly the limit opens, one byte less of limit refuses it."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(GOOD)
    n_bytes = int.from_bytes(GOOD[:8], "little")
    assert list(open_safetensors(path, header_limit=n_bytes)) == ["w"]
    with pytest.raises(LimitExceeded, match=f"at most {n_bytes - 1} bytes, found {n_bytes}"):
        open_safetensors(path, header_limit=n_bytes - 1)


def test_shape_of_a_sparse_file_is_judged_from_its_header(tmp_path):
    """B2-39: an 8 GiB file with a wrong shape is refused at once, without touching its data."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(file_bytes({"w": entry("BF16", (2**31, 2), (0, 2**33))}))
    size = path.stat().st_size + 2**33
    os.truncate(path, size - 2**32)
    start = time.perf_counter()
    with pytest.raises(BadFile, match=f"to end at byte {size:,}, found a file of"):
        open_safetensors(path)
    path.write_bytes(file_bytes({"w": entry("BF16", (2**31, 3), (0, 2**33))}))
    os.truncate(path, size)
    with pytest.raises(BadFile, match=r"expected 12,884,901,888 bytes .* found 8,589,934,592"):
        open_safetensors(path)
    assert time.perf_counter() - start < 10


def test_doubled_key_in_a_long_header_is_found_quickly(tmp_path):
    """B1-11: the last of 200,000 keys written twice is refused within seconds."""
    keys = b",".join(b'"k%d":0' % i for i in range(200_000))
    path = tmp_path / "model.safetensors"
    path.write_bytes(file_bytes(b"{" + keys + b',"k199999":0}'))
    start = time.perf_counter()
    with pytest.raises(BadFile, match="twice: found 'k199999'"):
        open_safetensors(path)
    assert time.perf_counter() - start < 20


def test_every_dtype_opens_as_the_official_library_wrote_it(tmp_path):
    """Tensors of every dtype come back with their dtype, shape and bits, read-only."""
    rng = np.random.default_rng(0)
    written = {}
    for dtype in EVERY_DTYPE:
        itemsize = np.dtype(dtype).itemsize
        high = 2 if dtype is np.bool_ else 256
        bits = rng.integers(0, high, 6 * itemsize, dtype=np.uint8)
        written[f"of {np.dtype(dtype).name}"] = bits.view(dtype).reshape(2, 3)
    path = tmp_path / "model.safetensors"
    save_file(written, path)
    opened = open_safetensors(path)
    assert opened.keys() == written.keys()
    for name, array in opened.items():
        assert array.dtype == written[name].dtype
        assert array.shape == (2, 3)
        assert array.tobytes() == written[name].tobytes()
        assert not array.flags.writeable


@pytest.mark.parametrize("shift", [1, 3], ids=["B1-24 by one byte", "B1-24 by three bytes"])
def test_odd_addresses_read_right(tmp_path, shift):
    """Tensors at odd addresses hold the right values, BF16 and F64 among them."""
    stored = {
        "byte": np.full(shift, 7, np.uint8),
        "bf16": np.array([[1.5, -2], [256, 2.0**-120]], ml_dtypes.bfloat16),
        "f64": np.array([np.pi, -0.0]),
        "f32": np.array([1.25], np.float32),
    }
    header, end = {}, 0
    for (name, array), code in zip(stored.items(), ("U8", "BF16", "F64", "F32"), strict=True):
        header[name] = entry(code, array.shape, (end, end + array.nbytes))
        end += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path = tmp_path / "model.safetensors"
    path.write_bytes(file_bytes(text, b"".join(a.tobytes() for a in stored.values())))
    opened = open_safetensors(path)
    assert not any(opened[name].flags.aligned for name in ("bf16", "f64", "f32"))
    for name, array in stored.items():
        assert opened[name].dtype == array.dtype
        assert opened[name].shape == array.shape
        assert opened[name].tobytes() == array.tobytes()
    assert opened["bf16"].astype(np.float32).tolist() == [[1.5, -2.0], [256.0, 2.0**-120]]
    assert (opened["f64"] @ np.array([1.0, 5.0])) == np.pi


ODD_NAMES = {
    "escaped": 'quote " backslash \\ newline \n',
    "Unicode": "层.0.重み.🦙",
    "10 kB": "x" * 10_240,
    "ANSI": "\x1b[31mred\x1b[0m",
    "empty": "",
    "path": "../../etc/passwd",
}


@pytest.mark.parametrize("name", ODD_NAMES.values(), ids=[f"B1-25 {key}" for key in ODD_NAMES])
def test_odd_names_open_and_are_escaped_in_messages(tmp_path, name):
    """Any name that JSON can hold is a name; a message shows it escaped, and not all of it."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(file_bytes({name: entry()}, bytes(8)))
    assert list(open_safetensors(path)) == [name]
    path.write_bytes(file_bytes({name: entry()}, bytes(7)))
    with pytest.raises(BadFile, match="expected to end") as caught:
        open_safetensors(path)
    message = str(caught.value).removeprefix(str(path))
    assert message.isascii() or "…" in message
    assert message.isprintable()
    assert len(message) < 600


def test_scalars_empty_tensors_and_any_order_open(tmp_path):
    """B1-25: 0-d and zero-size tensors open; keys come in the order of their bytes."""
    header = {
        "late": entry("F32", (1,), (4, 8)),
        "empty": entry("BF16", (0, 3), (8, 8)),
        "scalar": entry("F32", (), (0, 4)),
        "empty too": entry("F32", (2, 0), (4, 4)),
        "__metadata__": {"format": "pt"},
    }
    path = tmp_path / "model.safetensors"
    path.write_bytes(file_bytes(header, np.array([1.5, 2.5], np.float32).tobytes()))
    opened = open_safetensors(path)
    assert list(opened) == ["scalar", "empty too", "late", "empty"]
    assert [array.shape for array in opened.values()] == [(), (2, 0), (1,), (0, 3)]
    assert opened["scalar"] == 1.5
    assert opened["late"].tolist() == [2.5]


def test_a_file_without_tensors_opens_empty(tmp_path):
    """B1-25: a header without tensors, padded with blanks, is a well-formed file."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(file_bytes(b"{}      "))
    assert open_safetensors(path) == {}


def test_5000_tensors_open_in_a_fraction_of_a_second(tmp_path):
    """B1-25: 5,000 tensors open, each on its own bytes, in less than a second."""
    path = tmp_path / "model.safetensors"
    save_file({f"t{i}": np.full(4, i, np.int32) for i in range(5000)}, path)
    start = time.perf_counter()
    opened = open_safetensors(path)
    assert time.perf_counter() - start < 10
    assert len(opened) == 5000
    assert all((opened[f"t{i}"] == i).all() for i in range(5000))


@pytest.mark.parametrize(
    "dtype",
    [np.float16, ml_dtypes.bfloat16, np.float32],
    ids=["B1-26 F16", "B1-26 BF16", "B1-26 F32"],
)
def test_special_values_keep_their_bits(tmp_path, dtype):
    """NaN with any payload, infinities, -0 and subnormals come back bit for bit."""
    unsigned = np.dtype(f"u{np.dtype(dtype).itemsize}")
    top = {np.float16: 0x7C00, ml_dtypes.bfloat16: 0x7F80, np.float32: 0x7F800000}[dtype]
    sign = 1 << (8 * unsigned.itemsize - 1)
    bits = np.array([top, top | 1, sign | top, sign, 1, sign | 1, top | 0x55], unsigned)
    path = tmp_path / "model.safetensors"
    save_file({"w": bits.view(dtype)}, path)
    opened = open_safetensors(path)["w"]
    assert opened.dtype == dtype
    assert opened.shape == (7,)
    assert opened.view(unsigned).tolist() == bits.tolist()


def test_tensors_outlive_the_name_of_their_file(tmp_path):
    """A mapped tensor stays whole when its file is replaced by a rename or deleted."""
    path = tmp_path / "model.safetensors"
    save_file({"w": np.arange(3.0)}, path)
    opened = open_safetensors(path)["w"]
    save_file({"w": np.zeros(3)}, tmp_path / "other")
    (tmp_path / "other").replace(path)
    assert open_safetensors(path)["w"].tolist() == [0, 0, 0]
    path.unlink()
    assert opened.tolist() == [0, 1, 2]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whatever_opens_is_what_the_official_library_reads(tmp_path_factory, data):
    """After any change of a few bytes: our error, or the very tensors that the library sees."""
    good = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.arange(4, dtype=np.uint8)}
    path = tmp_path_factory.mktemp("fuzz") / "model.safetensors"
    save_file(good, path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(
            st.sampled_from(b'0123456789{}[]",:FUBI \xff\0') | st.integers(0, 255)
        )
    path.write_bytes(bytes(content[: data.draw(st.integers(0, len(content))) or None]))
    try:
        opened = open_safetensors(path)
    except LlamaRefError:
        return
    with safe_open(path, framework="np") as official:
        assert set(official.keys()) == opened.keys()
        for name, array in opened.items():
            assert array.tobytes() == official.get_tensor(name).tobytes()
            assert array.shape == official.get_tensor(name).shape


STRICTER = {
    "B1-06 leading blank",
    "B1-11 duplicate key, equal",
    "B1-11 duplicate key, another dtype",
    "B1-11 duplicate key, escaped",
    "B1-12 __metadata__ null",
    'B1-13 entry {"dtype":"F32","shape":[2],"data_offsets":[0,8],"strides":[4]}',
    "B1-15 F8_E5M2",
    "B1-15 F8_E8M0",
    "B1-16 shape of 65 axes",
    "B1-17 huge axes beside an axis of 0",
}


@pytest.mark.parametrize("name", sorted(MALFORMED.keys() - STRICTER))
def test_the_official_library_refuses_the_same_files(tmp_path, name):
    """Every malformed file but the ones listed is refused by the official library too."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(MALFORMED[name][0])
    with pytest.raises(SafetensorError):
        safe_open(path, framework="np").__enter__()
