"""The machine that reads data.pkl: what torch writes, and rows 113-114 of bad inputs.

What hostile programs try, and that none of it runs, is in `test_hostile_pickles.py`.
"""

import io
import pickletools
import random
import struct
import time
import tracemalloc
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_ref.checkpoint.symbolic_pickle import INSTRUCTIONS, MAX_INSTRUCTIONS, read_state_dict
from llama_ref.checkpoint.torch_objects import Storage, StridedTensor
from llama_ref.errors import BadFile, LimitExceeded, LlamaRefError, Unsupported
from tests.checkpoint import torch_golden
from tests.checkpoint.pth_files import (
    BUILD,
    EMPTY_DICT,
    EMPTY_TUPLE,
    FALSE,
    MARK,
    NONE,
    ORDERED_DICT,
    PROTO,
    REDUCE,
    SETITEM,
    SETITEMS,
    STOP,
    TRUE,
    TUPLE,
    float8_tensor,
    integer,
    many,
    name,
    numbers,
    state_dict,
    storage,
    tensor,
    text,
)

with zipfile.ZipFile(io.BytesIO(torch_golden.FILE)) as archive:
    TORCH_PROGRAM = archive.read("golden/data.pkl")

TENSOR = tensor(storage(), [4])
VECTOR = StridedTensor(Storage("0", "float32", 4), 0, (4,), (1,))
REBUILD = name("torch._utils", "_rebuild_tensor_v2")
PARAMETER = name("torch._utils", "_rebuild_parameter")


def read(program):
    """Run a program as that of a file called x.pth."""
    return read_state_dict(program, file="x.pth")


# What is read.


def test_a_program_of_torch_describes_the_tensors_that_torch_saved():
    """Dtype, offset, shape, strides and storage of each tensor are those torch reports."""
    tensors = read(TORCH_PROGRAM)
    assert list(tensors) == list(torch_golden.CONTENTS)
    for key, (dtype, offset, shape, strides, n, _) in torch_golden.CONTENTS.items():
        found = tensors[key]
        assert (found.storage.dtype, found.storage.n_elements) == (dtype, n)
        assert (found.offset, found.shape, found.strides) == (offset, shape, strides)
    assert tensors["window"].storage == tensors["whole"].storage


def test_the_instructions_are_those_of_pickle_protocol_2():
    """Every instruction of the table is one that the library's disassembler knows by that byte."""
    codes = {opcode.code.encode("latin1"): opcode for opcode in pickletools.opcodes}
    assert len(INSTRUCTIONS) == 24
    assert all(codes[instruction].proto <= 2 for instruction in INSTRUCTIONS)


def test_torch_needs_no_instruction_that_is_not_in_the_table():
    """The instructions of torch's own file are in the table, but for its first and its last."""
    used = {opcode.code.encode("latin1") for opcode, _, _ in pickletools.genops(TORCH_PROGRAM)}
    assert used - set(INSTRUCTIONS) == {b"\x80", b"."}


METADATA = EMPTY_DICT + text("_metadata") + ORDERED_DICT + SETITEM + BUILD


def with_memo(put, get):
    """The length of the vector, which is also that of its storage, is written once."""
    identifier = many(
        text("storage"), name("torch", "FloatStorage"), text("0"), text("cpu"), b"K\4" + put
    )
    arguments = many(identifier + b"Q", b"K\0", get + b"\x85", b"K\1\x85", FALSE, ORDERED_DICT)
    return state_dict({"w": REBUILD + arguments + REDUCE})


ACCEPTED = {
    "B5-91 ordered dict": state_dict({"w": TENSOR}),
    "B5-91 plain dict": state_dict({"w": TENSOR}, start=EMPTY_DICT),
    "B5-91 one SETITEM": PROTO + EMPTY_DICT + text("w") + TENSOR + SETITEM + STOP,
    "B5-91 parameter": state_dict({"w": PARAMETER + many(TENSOR, FALSE, ORDERED_DICT) + REDUCE}),
    "B5-91 storage on cuda:0": state_dict({"w": tensor(storage(device="cuda:0"), [4])}),
    "B5-91 _metadata of a module": state_dict({"w": TENSOR})[:-1] + METADATA + STOP,
    "B5-91 numbers of 1, 2 and 4 bytes": state_dict(
        {
            "w": REBUILD
            + many(storage(), b"K\0", b"J\4\0\0\0\x85", b"M\1\0\x85", FALSE, ORDERED_DICT)
            + REDUCE
        }
    ),
    "B5-91 shape out of the memo": with_memo(b"q\0", b"h\0"),
    "B5-91 shape out of the memo, long": with_memo(b"r\0\0\0\0", b"j\0\0\0\0"),
}


@pytest.mark.parametrize("row", ACCEPTED)
def test_the_ways_to_write_a_state_dict_are_read(row):
    """Each of these spells the same vector of four float32."""
    assert read(ACCEPTED[row]) == {"w": VECTOR}


# What is refused.


def rebuild(*arguments):
    """A state dict whose entry is a rebuilt tensor with these arguments."""
    return state_dict({"w": REBUILD + many(*arguments) + REDUCE})


def persistent(*items):
    """A state dict with a tensor on a storage of this persistent id."""
    return state_dict({"w": tensor(many(*items) + b"Q", [4])})


CLASS, SHAPE, STRIDES = name("torch", "FloatStorage"), numbers([4]), numbers([1])
REAL = b"G" + struct.pack(">d", 4.0)
GOOD = state_dict({"w": TENSOR})

BYTES = name("torch.storage", "UntypedStorage")
BYTE_STORAGE = many(text("storage"), BYTES, text("0"), text("cpu"), integer(4)) + b"Q"
REBUILD_FLOAT8 = name("torch._utils", "_rebuild_tensor_v3")
FLOAT8 = name("torch", "float8_e4m3fn")
WINDOW = (integer(0), SHAPE, STRIDES, FALSE, ORDERED_DICT)

MALFORMED = {
    "float8 without its dtype": (
        state_dict({"w": REBUILD_FLOAT8 + many(BYTE_STORAGE, *WINDOW) + REDUCE}),
        "arguments of a name",
    ),
    "float8 of another storage": (
        state_dict({"w": REBUILD_FLOAT8 + many(storage(), *WINDOW, FLOAT8) + REDUCE}),
        "arguments of a name",
    ),
    "float8 whose dtype is no dtype": (
        state_dict({"w": REBUILD_FLOAT8 + many(BYTE_STORAGE, *WINDOW, BYTES) + REDUCE}),
        "arguments of a name",
    ),
    "bytes without a dtype": (
        state_dict({"w": REBUILD + many(BYTE_STORAGE, *WINDOW) + REDUCE}),
        "arguments of a name",
    ),
    "float8 with too few strides": (
        state_dict(
            {
                "w": REBUILD_FLOAT8
                + many(BYTE_STORAGE, integer(0), SHAPE, numbers([]), FALSE, ORDERED_DICT, FLOAT8)
                + REDUCE
            }
        ),
        "strides of a tensor",
    ),
    "B5-85 TorchScript class": (
        state_dict({"w": name("__torch__", "Model")}),
        r"the name '__torch__\.Model'",
    ),
    "B5-88 unknown storage": (
        state_dict({"w": tensor(storage(of="Float8Storage"), [4])}),
        r"the name 'torch\.Float8Storage'",
    ),
    "B5-89 wrong tag": (
        persistent(text("module"), CLASS, text("0"), text("cpu"), integer(4)),
        "persistent id: .*found a tuple of 5",
    ),
    "B5-89 an int": (state_dict({"w": tensor(integer(7) + b"Q", [4])}), "persistent id: .*found 7"),
    "B5-89 a string": (
        state_dict({"w": tensor(text("storage") + b"Q", [4])}),
        "persistent id: .*found 'storage'",
    ),
    "B5-89 too short": (
        persistent(text("storage"), CLASS, text("0"), text("cpu")),
        "persistent id: .*found a tuple of 4",
    ),
    "B5-89 with view metadata": (
        persistent(text("storage"), CLASS, text("0"), text("cpu"), integer(4), NONE),
        "that torch uses, found b'N'",
    ),
    "B5-89 int key": (
        persistent(text("storage"), CLASS, integer(0), text("cpu"), integer(4)),
        "persistent id: .*found a tuple of 5",
    ),
    "B5-89 negative number": (
        persistent(text("storage"), CLASS, text("0"), text("cpu"), integer(-4)),
        "the number of elements of a storage: .*found -4",
    ),
    "B5-89 number above 2^63": (
        persistent(text("storage"), CLASS, text("0"), text("cpu"), integer(2**64)),
        "an integer: expected at most 8 bytes, found 9",
    ),
    "B5-89 True as number": (
        persistent(text("storage"), CLASS, text("0"), text("cpu"), TRUE),
        "the number of elements of a storage: .*found True",
    ),
    "B5-89 class as text": (
        persistent(text("storage"), text("FloatStorage"), text("0"), text("cpu"), integer(4)),
        "persistent id: .*found a tuple of 5",
    ),
    "B5-89 another name as class": (
        persistent(text("storage"), REBUILD, text("0"), text("cpu"), integer(4)),
        "the class of a storage: found '_rebuild_tensor_v2'",
    ),
    "B5-90 float in the shape": (
        rebuild(storage(), integer(0), many(REAL), STRIDES, FALSE, ORDERED_DICT),
        "that torch uses, found b'G'",
    ),
    "B5-90 True in the shape": (
        rebuild(storage(), integer(0), many(TRUE), STRIDES, FALSE, ORDERED_DICT),
        "the shape of a tensor: .*found True",
    ),
    "B5-90 shape not a tuple": (
        rebuild(storage(), integer(0), integer(4), STRIDES, FALSE, ORDERED_DICT),
        "the shape of a tensor: expected a tuple, found 4",
    ),
    "B5-90 True as offset": (
        rebuild(storage(), TRUE, SHAPE, STRIDES, FALSE, ORDERED_DICT),
        "the offset of a tensor: .*found True",
    ),
    "B5-90 2 arguments": (
        rebuild(storage(), integer(0)),
        "arguments of a name: .*found a tuple of 2",
    ),
    "B5-90 7 arguments": (
        rebuild(storage(), integer(0), SHAPE, STRIDES, FALSE, ORDERED_DICT, EMPTY_DICT),
        "arguments of a name: .*found a tuple of 7",
    ),
    "B5-90 number as requires_grad": (
        rebuild(storage(), integer(0), SHAPE, STRIDES, integer(0), ORDERED_DICT),
        "arguments of a name: .*found a tuple of 6",
    ),
    "B5-90 hooks": (
        rebuild(
            storage(),
            integer(0),
            SHAPE,
            STRIDES,
            FALSE,
            ORDERED_DICT + text("a") + integer(1) + SETITEM,
        ),
        "arguments of a name: .*found a tuple of 6",
    ),
    "B5-90 hooks that are a plain dict": (
        rebuild(storage(), integer(0), SHAPE, STRIDES, FALSE, EMPTY_DICT),
        "arguments of a name: .*found a tuple of 6",
    ),
    "B5-90 tensor without a storage": (
        rebuild(text("0"), integer(0), SHAPE, STRIDES, FALSE, ORDERED_DICT),
        "arguments of a name: .*found a tuple of 6",
    ),
    "B5-90 parameter with hooks": (
        state_dict(
            {
                "w": PARAMETER
                + many(TENSOR, FALSE, ORDERED_DICT + text("a") + integer(1) + SETITEM)
                + REDUCE
            }
        ),
        "arguments of a name: .*found a tuple of 3",
    ),
    "B5-90 parameter of a parameter's arguments": (
        state_dict({"w": PARAMETER + many(storage(), FALSE, ORDERED_DICT) + REDUCE}),
        "arguments of a name: .*found a tuple of 3",
    ),
    "B5-90 parameter with a tensor's arguments": (
        state_dict(
            {
                "w": PARAMETER
                + many(storage(), integer(0), SHAPE, STRIDES, FALSE, ORDERED_DICT)
                + REDUCE
            }
        ),
        "arguments of a name: .*found a tuple of 6",
    ),
    "B5-90 tensor with a parameter's arguments": (
        rebuild(TENSOR, FALSE, ORDERED_DICT),
        "arguments of a name: .*found a tuple of 3",
    ),
    "B5-90 ordered dict with pairs": (
        state_dict({"w": name("collections", "OrderedDict") + many(EMPTY_TUPLE) + REDUCE}),
        "arguments of a name: .*found a tuple of 1",
    ),
    "B5-87 strides of another rank": (
        state_dict({"w": tensor(storage(), [4], [1, 1])}),
        "the strides of a tensor: expected 1, found 2",
    ),
    "B5-92 a list": (PROTO + b"]" + STOP, r"that torch uses, found b'\]'"),
    "B5-92 None": (PROTO + NONE + STOP, "that torch uses, found b'N'"),
    "B5-92 a tensor": (PROTO + TENSOR + STOP, "what was saved: .*found a tensor"),
    "B5-92 a tuple": (PROTO + many(TENSOR) + STOP, "what was saved: .*found a tuple of 1"),
    "B5-92 a name": (PROTO + REBUILD + STOP, "what was saved: .*found a name"),
    "B5-92 a storage": (PROTO + storage() + STOP, "what was saved: .*found a storage"),
    "B5-92 nested": (
        state_dict({"model": state_dict({"w": TENSOR})[2:-1]}),
        "entry 'model': expected a tensor, found a dict of 1",
    ),
    "B5-92 int keys": (
        PROTO + EMPTY_DICT + integer(0) + TENSOR + SETITEM + STOP,
        "a key: expected text, found 0",
    ),
    "B5-92 tensor as a key": (
        PROTO + EMPTY_DICT + TENSOR + TENSOR + SETITEM + STOP,
        "a key: expected text, found a tensor",
    ),
    "B5-92 empty": (state_dict({}), "what was saved: .*found a dict of 0"),
    "B5-92 a number beside tensors": (
        state_dict({"w": TENSOR, "epoch": integer(3)}),
        "entry 'epoch': expected a tensor, found 3",
    ),
    "B5-92 text beside tensors": (
        state_dict({"w": TENSOR, "name": text("llama")}),
        "entry 'name': expected a tensor, found 'llama'",
    ),
    "B5-92 a dict in itself": (
        PROTO + EMPTY_DICT + b"q\0" + text("w") + b"h\0" + SETITEM + STOP,
        "entry 'w': expected a tensor, found a dict of 1",
    ),
    "B5-92 key twice": (
        PROTO + EMPTY_DICT + MARK + (text("w") + TENSOR) * 2 + SETITEMS + STOP,
        "key 'w': expected once, found twice",
    ),
    "B5-92 key twice, one by one": (
        PROTO + EMPTY_DICT + (text("w") + TENSOR + SETITEM) * 2 + STOP,
        "key 'w': expected once, found twice",
    ),
    "B6-110 BUILD of a plain dict": (
        state_dict({"w": TENSOR}, start=EMPTY_DICT)[:-1] + METADATA + STOP,
        "attributes: expected only _metadata, and of a state dict",
    ),
    "B6-110 BUILD of another attribute": (
        GOOD[:-1] + METADATA.replace(b"_metadata", b"__class__") + STOP,
        "attributes: expected only _metadata, and of a state dict",
    ),
    "B6-110 BUILD of one attribute more": (
        GOOD[:-1] + METADATA[:-1] + text("x") + integer(0) + SETITEM + BUILD + STOP,
        "attributes: expected only _metadata, and of a state dict, found a dict of 2",
    ),
    "B6-110 BUILD with a tuple": (
        GOOD[:-1] + many(EMPTY_DICT, EMPTY_DICT) + BUILD + STOP,
        "attributes: expected only _metadata, and of a state dict, found a tuple of 2",
    ),
    "B6-113 empty program": (
        b"",
        r"pickle protocol: expected 2, as torch\.save writes it, found b''",
    ),
    "B6-113 only the protocol": (PROTO, "the rest of an instruction: expected 1 bytes, found 0"),
    "B6-113 no STOP": (GOOD[:-1], "the rest of an instruction: expected 1 bytes, found 0"),
    "B6-113 bytes after STOP": (GOOD + b"\0", "STOP: expected the last byte, found 1 more bytes"),
    "B6-113 STOP at once": (
        PROTO + STOP,
        "STOP: expected one value on the stack, found 0 values, 0 marks",
    ),
    "B6-113 two values at STOP": (
        PROTO + integer(1) + GOOD[2:],
        "STOP: expected one value on the stack, found 2 values, 0 marks",
    ),
    "B6-113 MARK left": (
        PROTO + MARK + GOOD[2:],
        "STOP: expected one value on the stack, found 1 values, 1 marks",
    ),
    "B6-113 REDUCE of an empty stack": (
        PROTO + REDUCE + STOP,
        "an instruction that needs a value: found an empty stack",
    ),
    "B6-113 a value below the MARK": (
        PROTO + EMPTY_DICT + MARK + REDUCE + STOP,
        "an instruction that needs a value: found an empty stack",
    ),
    "B6-113 TUPLE without MARK": (
        PROTO + TUPLE + STOP,
        "an instruction that needs a mark: found none",
    ),
    "B6-113 SETITEMS without MARK": (
        PROTO + EMPTY_DICT + SETITEMS + STOP,
        "an instruction that needs a mark: found none",
    ),
    "B6-113 odd SETITEMS": (
        PROTO + EMPTY_DICT + MARK + text("w") + SETITEMS + STOP,
        "SETITEMS: expected a dict and pairs, found a dict of 0 and 1 values",
    ),
    "B6-113 SETITEM on a tensor": (
        PROTO + TENSOR + text("w") + TENSOR + SETITEM + STOP,
        "SETITEMS: expected a dict and pairs, found a tensor and 2 values",
    ),
    "B6-113 SETITEM on a list": (
        PROTO + b"]" + text("w") + TENSOR + SETITEM + STOP,
        r"that torch uses, found b'\]'",
    ),
    "B6-113 APPEND on a dict": (
        PROTO + EMPTY_DICT + TENSOR + b"a" + STOP,
        "that torch uses, found b'a'",
    ),
    "B6-113 REDUCE of a string": (
        state_dict({"w": text("os.system") + many(text("x")) + REDUCE}),
        r"arguments of 'os\.system': .*found a tuple of 1",
    ),
    "B6-113 REDUCE of a tensor": (
        state_dict({"w": TENSOR + EMPTY_TUPLE + REDUCE}),
        "arguments of a tensor: .*found a tuple of 0",
    ),
    "B6-113 REDUCE with a list": (
        state_dict({"w": REBUILD + b"]" + REDUCE}),
        r"that torch uses, found b'\]'",
    ),
    "B6-113 REDUCE with a dict": (
        state_dict({"w": REBUILD + EMPTY_DICT + REDUCE}),
        "arguments of a name: .*found a dict of 0",
    ),
    "B6-113 memo never set": (
        state_dict({"w": b"h\0"}),
        "memo: expected a number below 0, found 0",
    ),
    "B6-113 long memo never set": (
        state_dict({"w": b"j\0\0\0\1"}),
        "memo: expected a number below 0, found 16777216",
    ),
    "B6-113 memo of an empty stack": (
        PROTO + b"q\0" + STOP,
        "an instruction that needs a value: found an empty stack",
    ),
    "B6-113 memo set again": (
        state_dict({"w": TENSOR + b"q\0q\0"}),
        "memo: expected number 1 next, found 0",
    ),
    "B6-113 memo with a gap": (
        state_dict({"w": TENSOR + b"q\1"}),
        "memo: expected number 0 next, found 1",
    ),
    "B6-113 unknown instruction": (PROTO + b"\xff" + STOP, r"that torch uses, found b'\\xff'"),
    "B6-113 protocol twice": (PROTO + GOOD, r"that torch uses, found b'\\x80'"),
    "B6-113 protocol 99": (
        b"\x80\x63" + GOOD[2:],
        r"pickle protocol: expected 2, as torch\.save writes it, found b'\\x80c'",
    ),
    "B6-113 protocol 3": (
        b"\x80\3" + GOOD[2:],
        r"pickle protocol: expected 2, as torch\.save writes it, found b'\\x80\\x03'",
    ),
    "B6-113 protocol 4": (
        b"\x80\4" + GOOD[2:],
        r"pickle protocol: expected 2, as torch\.save writes it, found b'\\x80\\x04'",
    ),
    "B6-113 no protocol": (
        GOOD[2:],
        r"pickle protocol: expected 2, as torch\.save writes it, found b'cc'",
    ),
    "B6-113 name cut before its line ends": (
        PROTO + b"ctorch._utils",
        r"a line: expected at most 100 ASCII characters, found b'torch\._utils'",
    ),
    "B6-113 text that is not UTF-8": (
        state_dict({"w": b"X\1\0\0\0\xff"}),
        r"text: expected UTF-8, found b'\\xff'",
    ),
    "B6-113 text with a lone surrogate": (
        state_dict({"\ud800": TENSOR}),
        r"text: expected UTF-8, found b'\\xed\\xa0\\x80'",
    ),
    "B6-113 BUILD of an empty stack": (
        PROTO + BUILD + STOP,
        "an instruction that needs a value: found an empty stack",
    ),
    "B6-114 declared text of 4 GB": (
        PROTO + b"X\xff\xff\xff\xff" + STOP,
        "bytes of text: expected at most 65,536",
    ),
    "B6-114 declared short binary of 2^62": (
        PROTO + b"\x8e" + struct.pack("<Q", 2**62) + STOP,
        r"that torch uses, found b'\\x8e'",
    ),
    "B6-114 declared unicode of 2^62": (
        PROTO + b"\x8d" + struct.pack("<Q", 2**62) + STOP,
        r"that torch uses, found b'\\x8d'",
    ),
    "B6-114 declared bytes of 4 GB": (
        PROTO + b"B\xff\xff\xff\xff" + STOP,
        "that torch uses, found b'B'",
    ),
    "B6-114 declared frame of 2^62": (
        PROTO + b"\x95" + struct.pack("<Q", 2**62) + STOP,
        r"that torch uses, found b'\\x95'",
    ),
    "B6-114 declared LONG4 of 2 GB": (
        PROTO + b"\x8b\xff\xff\xff\x7f" + STOP,
        r"that torch uses, found b'\\x8b'",
    ),
    "B6-114 LONG1 of 255 bytes": (
        PROTO + b"\x8a\xff" + b"\x7f" * 255 + STOP,
        "an integer: expected at most 8 bytes, found 255",
    ),
    "B6-114 memo number 2^31": (
        PROTO + EMPTY_DICT + b"r\0\0\0\x80" + STOP,
        "memo: expected number 0 next, found 2147483648",
    ),
    "B6-114 a million MARKs": (PROTO + MARK * 10**6 + STOP, "marks: expected at most 8"),
    "B6-114 ten million DUPs": (
        PROTO + EMPTY_DICT + b"2" * 10**7 + STOP,
        "that torch uses, found b'2'",
    ),
    "B6-114 a million values": (
        PROTO + EMPTY_DICT * 10**6 + STOP,
        "values on the stack: expected at most 10,000",
    ),
    "B6-114 a hundred thousand nested tuples": (
        PROTO + EMPTY_TUPLE + b"\x85" * 10**5 + STOP,
        "a tuple: expected 64 items, two levels at most",
    ),
    "B6-114 a hundred thousand nested lists": (
        PROTO + b"](" * 10**5 + b"e" * 10**5 + STOP,
        r"that torch uses, found b'\]'",
    ),
    "B6-114 a tuple doubled 60 times as a key": (
        PROTO
        + EMPTY_DICT
        + EMPTY_TUPLE
        + b"".join(b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(60))
        + TENSOR
        + SETITEM
        + STOP,
        "a tuple: expected 64 items, two levels at most",
    ),
    "B6-114 a tuple of ten thousand": (
        state_dict({"w": many(*[b"K\0"] * 9_000)}),
        "a tuple: expected 64 items, two levels at most",
    ),
    "B6-114 bytearray(2^40)": (
        state_dict({"w": name("builtins", "bytearray") + many(integer(2**40)) + REDUCE}),
        r"the name 'builtins\.bytearray': ",
    ),
    "B6-114 INT of 5,000 digits": (
        PROTO + b"I" + b"9" * 5000 + b"\n" + STOP,
        "that torch uses, found b'I'",
    ),
    "B6-114 LONG of 5,000 digits": (
        PROTO + b"L" + b"9" * 5000 + b"L\n" + STOP,
        "that torch uses, found b'L'",
    ),
    "B6-114 name of 1 MB": (
        PROTO + b"c" + b"a" * 2**20 + b"\nb\n" + STOP,
        "a line: expected at most 100 ASCII characters, found",
    ),
    "B6-114 key of 1 MB": (
        state_dict({"k" * 2**20: TENSOR}),
        "bytes of text: expected at most 65,536",
    ),
    "B6-114 17 MiB": (
        PROTO + bytes(17 * 2**20),
        "expected at most 16,777,216 bytes, found 17,825,794",
    ),
}


@pytest.mark.parametrize(("program", "words"), MALFORMED.values(), ids=MALFORMED)
def test_malformed_programs_are_refused(program, words):
    """Each is refused for its own reason, in a short message, allocating next to nothing."""
    tracemalloc.start()
    try:
        with pytest.raises((BadFile, LimitExceeded), match=words) as caught:
            read(program)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1e6
    assert str(caught.value).startswith("x.pth: data.pkl")
    assert len(str(caught.value)) < 1000


def test_float8_is_a_window_on_bytes():
    """A tensor without a storage class of its own takes its dtype from the last argument."""
    found = read(state_dict({"w": float8_tensor("0", [2, 3])}))["w"]
    assert found == StridedTensor(Storage("0", "float8_e4m3fn", 6), 0, (2, 3), (3, 1))


UNSUPPORTED = {
    **{
        f"B5-88 {kind}": tensor(storage(of=f"{kind}Storage"), [4])
        for kind in ("Long", "Int", "Short", "Byte", "Bool", "QInt8", "QUInt4x2")
    },
    "B5-88 complex": tensor(storage(of="ComplexFloatStorage"), [4]),
    "B5-88 another float8": float8_tensor("0", [4], dtype="float8_e5m2"),
    "B5-88 unsigned": float8_tensor("0", [4], dtype="uint16"),
    "B5-88 quantised": name("torch._utils", "_rebuild_qtensor"),
    "B5-90 sparse": name("torch._utils", "_rebuild_sparse_tensor"),
}


@pytest.mark.parametrize("row", UNSUPPORTED)
def test_other_tensors_of_torch_are_named_as_such(row):
    """What honest files hold, and this library does not read, is told from what is hostile."""
    with pytest.raises(Unsupported, match="expected tensors of bfloat16, float16, float32"):
        read(state_dict({"w": UNSUPPORTED[row]}))


def test_no_program_runs_for_more_than_two_million_instructions():
    """A program that only goes on is stopped, in seconds."""
    program = PROTO + EMPTY_DICT + (MARK + SETITEMS) * (MAX_INSTRUCTIONS // 2) + STOP
    start = time.perf_counter()
    with pytest.raises(LimitExceeded, match="at most 2,000,000"):
        read(program)
    assert time.perf_counter() - start < 20


# Programs that nobody thought of.


def outcome(program):
    """Read a program; anything but an answer or a LlamaRefError escapes."""
    try:
        read(program)
    except LlamaRefError as error:
        assert len(str(error)) < 1000
        return type(error)
    return None


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(sorted([*INSTRUCTIONS, b"\0", b"\1", b"w", b"\n"])), max_size=40))
def test_any_sequence_of_instructions_is_read_or_refused(instructions):
    """No order of known instructions leads anywhere but to an answer or an error of ours."""
    outcome(PROTO + b"".join(instructions) + STOP)


def test_mutations_of_a_program_of_torch_are_read_or_refused():
    """2,000 copies with bytes changed, removed, repeated or exchanged raise nothing foreign."""
    generator = random.Random(0)
    outcomes = [outcome(mutated(TORCH_PROGRAM, generator)) for _ in range(2000)]
    assert outcomes.count(BadFile) > 1000
    assert outcomes.count(None) > 10


def mutated(data, generator):
    """Change a few bytes of data, or cut, repeat, remove or insert a piece of it."""
    data = bytearray(data)
    for _ in range(generator.choice([1, 1, 1, 2, 5])):
        at, n = generator.randrange(len(data) + 1), generator.randrange(1, 40)
        change = generator.choice(["bit", "byte", "insert", "remove", "repeat", "cut"])
        if change == "bit" and at < len(data):
            data[at] ^= 1 << generator.randrange(8)
        elif change == "byte" and at < len(data):
            data[at] = generator.randrange(256)
        elif change == "insert":
            data[at:at] = generator.choice(list(INSTRUCTIONS))
        elif change == "remove":
            del data[at : at + n]
        elif change == "repeat":
            data[at:at] = data[at : at + n]
        elif change == "cut" and generator.random() < 0.1:
            del data[at:]
    return bytes(data)
