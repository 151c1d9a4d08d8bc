"""One .pth file: the views that are made, and rows 82 and 84-91 of bad inputs."""

import io
import random
import tarfile
import tracemalloc
import zlib

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_ref.checkpoint.pth import check_storages, open_pth
from llama_ref.errors import BadFile, LimitExceeded, LlamaRefError, Unsupported
from tests.checkpoint import torch_golden
from tests.checkpoint.pth_files import (
    archive,
    entry_at,
    patched,
    simple_members,
    state_dict,
    storage,
    tensor,
    write_pth,
)

DATA = np.arange(12, dtype="<f4")
NOTES = [
    (".format_version", b"1"),
    (".storage_alignment", b"64"),
    (".data/new_note", b"unseen"),
]


def written(tmp_path, data):
    """Write bytes as a .pth file."""
    path = tmp_path / "x.pth"
    path.write_bytes(data)
    return path


def one_tensor(tmp_path, data=DATA, of="FloatStorage", n=None, **view):
    """A file with one tensor `w` on a storage of these numbers."""
    n = data.size if n is None else n
    program = state_dict({"w": tensor(storage(n=n, of=of), **view)})
    return written(tmp_path, archive(simple_members(program, data.tobytes())))


# What is read.


def test_a_file_of_torch_holds_what_torch_put_in(tmp_path):
    """A file that torch 2.13 wrote gives the dtypes, shapes, strides and numbers torch lists."""
    tensors = open_pth(written(tmp_path, torch_golden.FILE))
    assert list(tensors) == list(torch_golden.CONTENTS)
    for name, (dtype, _, shape, strides, _, values) in torch_golden.CONTENTS.items():
        found = tensors[name]
        assert found.dtype.name == dtype
        assert found.shape == shape
        if found.size:
            assert [step // found.itemsize for step in found.strides] == list(strides)
        assert found.astype(np.float64).tolist() == values
    assert np.signbit(tensors["parameter"]).tolist() == [False, True]


def test_tensors_are_windows_on_the_mapped_file(tmp_path):
    """Nothing is copied: the arrays are read-only, and two that share a storage share memory."""
    tensors = open_pth(written(tmp_path, torch_golden.FILE))
    assert not any(array.flags.writeable for array in tensors.values())
    assert np.shares_memory(tensors["whole"], tensors["window"])
    assert not np.shares_memory(tensors["whole"], tensors["matrix"])
    with pytest.raises(ValueError, match="read-only"):
        tensors["matrix"][0, 0] = 1


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", ml_dtypes.bfloat16])
def test_every_bit_pattern_survives(tmp_path, dtype):
    """NaN, infinities, -0 and subnormals come out of the file as they went in."""
    dtype = np.dtype(dtype)
    array = np.frombuffer(np.random.default_rng(0).bytes(2**12 * dtype.itemsize), dtype)
    found = open_pth(write_pth(tmp_path / "x.pth", {"w": array.reshape(64, 64)}))["w"]
    assert found.dtype == dtype
    assert found.shape == (64, 64)
    assert found.tobytes() == array.tobytes()


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_strided_window_holds_the_elements_its_numbers_name(tmp_path_factory, data):
    """Element i of a view is storage element offset + sum of i times strides, by plain loops."""
    shape = tuple(data.draw(st.lists(st.integers(1, 4), max_size=3)))
    strides = tuple(data.draw(st.integers(0, 12)) for _ in shape)
    offset = data.draw(st.integers(0, 12))
    path = one_tensor(tmp_path_factory.mktemp("view"), shape=shape, strides=strides, offset=offset)
    places = [
        offset + sum(i * step for i, step in zip(index, strides, strict=True))
        for index in np.ndindex(shape)
    ]
    if max(places) < DATA.size and len(places) <= DATA.size:
        found = open_pth(path)["w"]
        assert found.dtype == np.float32
        assert found.shape == shape
        assert found.ravel().tolist() == [DATA[place] for place in places]
    else:
        with pytest.raises(BadFile, match="a view inside its storage of 12 elements"):
            open_pth(path)


def test_a_file_of_a_thousand_tensors_is_read(tmp_path):
    """Nothing but the sixteen megabytes of its description limits their number."""
    arrays = {f"layers.{i}.weight": np.full(2, i, np.float32) for i in range(1000)}
    found = open_pth(write_pth(tmp_path / "x.pth", arrays))
    assert list(found) == list(arrays)
    assert [array.tolist() for array in found.values()] == [[i, i] for i in range(1000)]


def test_old_files_have_no_byte_order_and_no_notes(tmp_path):
    """B5-91: torch 1.6 wrote three kinds of member only."""
    members = [m for m in simple_members() if m[0] in ("data.pkl", "data/0", "version")]
    assert open_pth(written(tmp_path, archive(members)))["w"].tolist() == [0, 1, 2, 3]


def test_notes_of_newer_versions_change_nothing(tmp_path):
    """B5-91: members whose names begin with a dot are torch's own; a new one may appear."""
    path = written(tmp_path, archive(simple_members() + NOTES))
    assert open_pth(path)["w"].tolist() == [0, 1, 2, 3]


# Damage to the numbers: seen when they are read, not when the file is opened.


def damaged(data, short_name):
    """Flip one bit of a member's bytes."""
    content = dict(simple_members() + NOTES)[short_name]
    at = data.index(content)
    return patched(data, at, "B", data[at] ^ 1)


@pytest.mark.parametrize("member", ["data.pkl", "byteorder", "version", ".data/new_note"])
def test_damage_to_what_opening_reads_is_found_by_opening(tmp_path, member):
    """B5-82: one bit flipped is a wrong CRC, and the message names the member."""
    path = written(tmp_path, damaged(archive(simple_members() + NOTES), member))
    with pytest.raises(BadFile, match=f"CRC of member 'archive/{member}'.*fetch it again"):
        open_pth(path)


def test_damage_to_a_storage_is_found_by_checking_storages(tmp_path):
    """B5-82: opening reads no storage; `check_storages` reads all and names the damaged one."""
    good = archive(simple_members())
    check_storages(written(tmp_path, good))
    path = written(tmp_path, damaged(good, "data/0"))
    assert open_pth(path)["w"].shape == (4,)
    with pytest.raises(BadFile, match="CRC of member 'archive/data/0'"):
        check_storages(path)


def test_large_storages_are_checked_to_the_last_byte(tmp_path):
    """40 MB are read piece by piece; damage in the last byte of the last piece is found."""
    path = write_pth(tmp_path / "x.pth", {"w": np.arange(10**7, dtype=np.float32)})
    check_storages(path)
    at = open_pth(path)["w"].nbytes
    data = path.read_bytes()
    last = data.index(np.float32(10**7 - 1).tobytes(), at) + 3
    path.write_bytes(patched(data, last, "B", data[last] ^ 128))
    with pytest.raises(BadFile, match="CRC of member 'archive/data/0'"):
        check_storages(path)


def test_a_file_without_crcs_is_told_from_a_damaged_one(tmp_path):
    """Torch can be told to write no CRC; the message says what to do."""
    data = archive(simple_members())
    content = dict(simple_members())["version"]
    crc = zlib.crc32(content).to_bytes(4, "little")
    data = data.replace(b"PK\x07\x08" + crc, b"PK\x07\x08" + bytes(4))
    path = written(tmp_path, patched(data, entry_at(data, "version") + 16, "<I", 0))
    with pytest.raises(BadFile, match="set_crc32_options"):
        open_pth(path)


# What is refused.


def members_with(**changes):
    """The members of a good file, some changed or, for None, left out."""
    members = {name.replace(".", "_").replace("/", "_"): (name, d) for name, d in simple_members()}
    for key, data in changes.items():
        members[key] = (members[key][0], data) if data is not None else None
    return archive([member for member in members.values() if member])


def tar():
    """What torch 0.1 wrote."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as file:
        file.addfile(tarfile.TarInfo("sys_info"))
    return buffer.getvalue()


BEFORE_1_6 = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}q\x00."

CONTAINERS = {
    "B5-84 byteorder big": (members_with(byteorder=b"big"), Unsupported, "expected b'little'"),
    "B5-84 byteorder junk": (members_with(byteorder=b"\0" * 6), Unsupported, "byteorder"),
    "B5-84 byteorder of 5 kB": (
        members_with(byteorder=b"l" * 5000),
        LimitExceeded,
        "at most 4,096",
    ),
    "B5-84 version 99": (members_with(version=b"99\n"), Unsupported, "b'99.n'"),
    "B5-84 version junk": (members_with(version=b"three"), Unsupported, "version"),
    "B5-84 no version": (members_with(version=None), BadFile, "version: found no such member"),
    "B5-85 TorchScript": (
        archive([*simple_members(), ("constants.pkl", b"\x80\x02).")]),
        Unsupported,
        "TorchScript",
    ),
    "B5-85 TorchScript code": (
        archive([("code/__torch__.py", b"def forward(self): ..."), *simple_members()]),
        Unsupported,
        "TorchScript",
    ),
    "B5-85 legacy tar": (tar(), BadFile, "a tar archive"),
    "B5-85 before 1.6": (BEFORE_1_6, BadFile, "before version 1.6"),
    "B5-85 bare pickle": (simple_members()[0][1] * 2, BadFile, "a bare pickle"),
    "B5-85 HTML": (b"<!DOCTYPE html>" * 9, BadFile, "an HTML"),
    "B5-85 Git-LFS pointer": (b"version https://git-lfs.github.com/spec/v1\n", BadFile, "git lfs"),
    "B5-86 storage missing": (members_with(data_0=None), BadFile, "'w': storage '0': found no"),
    "B5-86 2 bytes short": (members_with(data_0=bytes(14)), BadFile, "16 bytes, found 14"),
    "B5-86 2 bytes long": (members_with(data_0=bytes(18)), BadFile, "16 bytes, found 18"),
    "B5-86 storage of nobody": (
        archive([*simple_members(), ("data/1", b"1234")]),
        BadFile,
        "data/1: found no tensor that uses it",
    ),
    "B5-77 data.pkl inside": (archive([("x/data.pkl", b"")]), BadFile, "none of torch.save's"),
    "B5-80 storage key ../data.pkl": (
        archive(simple_members(state_dict({"w": tensor(storage("../data.pkl"), [4])}))),
        BadFile,
        "storage '../data.pkl': found no such member",
    ),
    "B5-80 storage key /etc/passwd": (
        archive(simple_members(state_dict({"w": tensor(storage("/etc/passwd"), [4])}))),
        BadFile,
        "no such member",
    ),
    "B5-86 one storage as two dtypes": (
        archive(
            simple_members(
                state_dict(
                    {"w": tensor(storage(), [4]), "v": tensor(storage(n=8, of="HalfStorage"), [8])}
                )
            )
        ),
        BadFile,
        "'v': storage 0: expected float32, found float16",
    ),
}


@pytest.mark.parametrize(("data", "error", "words"), CONTAINERS.values(), ids=CONTAINERS)
def test_files_of_other_kinds_are_refused(tmp_path, data, error, words):
    """What is not a state dict of a known torch is named."""
    with pytest.raises(error, match=words):
        open_pth(written(tmp_path, data))


@pytest.mark.parametrize("shape", [[12], [6], [3, 2]], ids=str)
def test_a_storage_is_shared_by_a_few_not_by_thousands(tmp_path, shape):
    """Names for all of it eight times over are read; one more could make a small file large."""
    view = tensor(storage(n=12), shape)
    n_names = 8 * 12 // int(np.prod(shape))
    entries = {f"w{i}": view for i in range(n_names)}
    path = written(tmp_path, archive(simple_members(state_dict(entries), DATA.tobytes())))
    assert len(open_pth(path)) == n_names
    entries["one more"] = view
    path = written(tmp_path, archive(simple_members(state_dict(entries), DATA.tobytes())))
    with pytest.raises(LimitExceeded, match=r"'one more': storage 0: .* at most 8 times its 12"):
        open_pth(path)


VIEWS = {
    "B5-86 storage declares 2^40 elements": ({"shape": [4], "n": 2**40}, "4398046511104 bytes"),
    "B5-86 storage declares 2^62 elements": ({"shape": [4], "n": 2**62}, "bytes, found 48"),
    "B5-87 offset at the end": ({"shape": [4], "offset": 9}, "inside its storage"),
    "B5-87 offset 2^62": ({"shape": [4], "offset": 2**62}, "inside its storage"),
    "B5-87 offset -1": ({"shape": [4], "offset": -1}, "a number from 0"),
    "B5-87 scalar past the end": ({"shape": [], "offset": 12}, "inside its storage"),
    "B5-87 stride past the end": ({"shape": [2, 3], "strides": [10, 1]}, "inside its storage"),
    "B5-87 stride -1": ({"shape": [4], "strides": [-1]}, "a number from 0"),
    "B5-87 stride 2^60": ({"shape": [2], "strides": [2**60]}, "inside its storage"),
    "B5-87 stride 2^62, size 1": ({"shape": [1], "strides": [2**62]}, "inside its storage"),
    "B5-87 wraps in 64 bits": ({"shape": [2**31, 2**31], "strides": [4, 0]}, "at most 64 dim"),
    "B5-87 stride 0, size 13": ({"shape": [13], "strides": [0]}, "inside its storage"),
    "B5-87 stride 0, size 2^31": ({"shape": [2**31], "strides": [0]}, "inside its storage"),
    "B5-87 stride 0, size 2^40": ({"shape": [2**40], "strides": [0]}, "at most 64 dimensions"),
    "B5-87 size -1": ({"shape": [-1]}, "a number from 0"),
    "B5-87 size 2^62": ({"shape": [2**62]}, "at most 64 dimensions"),
    "B5-87 empty, other size 2^40": ({"shape": [0, 2**40]}, "at most 64 dimensions"),
    "B5-87 empty, product wraps": ({"shape": [0, 2**30, 2**30, 2**30]}, "at most 64 dimensions"),
    "B5-87 ranks differ": ({"shape": [4], "strides": []}, "strides of a tensor: expected 1"),
    "B5-87 65 dimensions": ({"shape": [1] * 65, "strides": [1] * 65}, "64"),
}


@pytest.mark.parametrize(("view", "words"), VIEWS.values(), ids=VIEWS)
def test_views_that_leave_their_storage_are_refused(tmp_path, view, words):
    """Whatever a file claims is computed exactly before an array is made, and none is made."""
    path = one_tensor(tmp_path, **view)
    tracemalloc.start()
    try:
        with pytest.raises((BadFile, LimitExceeded), match=words):
            open_pth(path)
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("shape", [[0], [0, 4096], [3, 0, 5]])
def test_an_empty_tensor_is_empty(tmp_path, shape):
    """A tensor without elements needs no bytes, whatever its strides."""
    data = np.empty(0, "<f4")
    found = open_pth(one_tensor(tmp_path, data, shape=shape, strides=[7] * len(shape)))["w"]
    assert found.dtype == np.float32
    assert found.shape == tuple(shape)
    assert not found.flags.writeable


# Files that nobody thought of.


def test_mutated_files_are_read_or_refused(tmp_path):
    """1,000 copies of a file of torch with bytes changed, cut or repeated raise nothing foreign."""
    generator = random.Random(0)
    path = tmp_path / "x.pth"
    n_refused = 0
    for _ in range(1000):
        data = bytearray(torch_golden.FILE)
        for _ in range(generator.choice([1, 1, 2, 8])):
            at, n = generator.randrange(len(data)), generator.choice([1, 4, 30, 64])
            match generator.choice(["bit", "bit", "byte", "ones", "remove", "repeat", "cut"]):
                case "bit":
                    data[at] ^= 1 << generator.randrange(8)
                case "byte":
                    data[at] = generator.randrange(256)
                case "ones":
                    data[at : at + 4] = b"\xff" * 4
                case "remove":
                    del data[at : at + n]
                case "repeat":
                    data[at:at] = data[at : at + n]
                case "cut":
                    del data[at + 1 :]
        path.write_bytes(data)
        try:
            for array in open_pth(path).values():
                array.astype(np.float64).sum()
        except LlamaRefError as error:
            n_refused += 1
            assert len(str(error)) < 1500
        path.unlink()  # to overwrite a file may wait for the disk; to make a new one does not
    assert 700 < n_refused < 1000


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
        st.tuples(
            st.sampled_from(["float64", "float32", "float16", "bfloat16"]),
            st.lists(st.integers(0, 5), max_size=3),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_any_dict_of_arrays_comes_back(tmp_path_factory, described):
    """Names of any text and arrays of any shape are read back bit for bit, in order."""
    generator = np.random.default_rng(0)
    arrays = {
        name: generator.standard_normal(shape).astype(dtype)
        for name, (dtype, shape) in described.items()
    }
    path = tmp_path_factory.mktemp("any") / "x.pth"
    found = open_pth(write_pth(path, arrays))
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()
