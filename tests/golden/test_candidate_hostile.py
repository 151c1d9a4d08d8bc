"""Files that are damaged, hostile or of another kind are errors of ours, and give no number."""

import json
import os
import struct
import zipfile

import numpy as np
import pytest

from llama_ref.errors import BadFile, CompareError, LimitExceeded, LlamaRefError, Unsupported
from tests.golden.dumps import opened, taps, write_raw, written


@pytest.fixture(scope="module")
def truth():
    return taps()


def npz_bytes(path, *members, **options):
    """Write a ZIP archive of (name, bytes)."""
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def npy(header, data=b""):
    """Return a .npy file with any header."""
    text = header.encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def huge(shape):
    return npy(f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}", bytes(64))


OBJECTS = npy("{'descr': '|O', 'fortran_order': False, 'shape': ()}")
NPZ = {
    "an object array": ([("embed.npy", OBJECTS)], Unsupported, "never loaded"),
    "a torch file": ([("archive/data.pkl", b"\x80\x02.")], BadFile, "safetensors.torch"),
    "longer than it says": ([("embed.npy", huge("(3,)"))], BadFile, "12 bytes"),
    "shorter than it says": ([("embed.npy", huge("(99999999, 99999999)"))], BadFile, "found 64"),
    "negative axes": ([("embed.npy", huge("(-4, -4)"))], BadFile, "embed"),
    "no header": ([("embed.npy", b"nothing")], BadFile, "header"),
    "a header that is code": ([("embed.npy", npy("__import__('os').abort()"))], BadFile, "header"),
    "a header of brackets": ([("embed.npy", npy("(" * 110))], BadFile, "header"),
}


@pytest.mark.parametrize("members, error, words", NPZ.values(), ids=NPZ)
def test_npz_archives_that_lie_are_refused(members, error, words, tmp_path):
    """An archive with a member that is no plain array of its size is an error that names it."""
    path = npz_bytes(tmp_path / "dump.npz", *members)
    with pytest.raises(error, match=words):
        opened(path)


def test_damaged_npz_archives_are_refused(truth, tmp_path):
    """Cut anywhere, or with a bit flipped in its data, an archive gives no number."""
    wide = np.pad(truth["L00.probs"], ((0, 0), (0, 0), (0, 1000)))
    path = written(tmp_path, {"embed": truth["embed"], "L00.probs": wide}, "npz")
    whole = path.read_bytes()
    for end in (0, 1, 30, 200, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:end])
        with pytest.raises(BadFile):
            opened(path)
    flipped = bytearray(whole)
    flipped[whole.index(wide.tobytes()) + wide.nbytes - 2] ^= 1
    path.write_bytes(flipped)
    found = opened(path)
    with pytest.raises(BadFile, match="CRC"):
        found.read("far", "L00.probs")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_npz_archives_with_two_members_of_one_name_are_refused(truth, tmp_path):
    """Two readers would read two different arrays."""
    path = npz_bytes(tmp_path / "dump.npz", ("embed.npy", huge("(16,)")), ("embed.npy", b""))
    with pytest.raises(BadFile, match="one name"):
        opened(path)


def patched(path, offset, value):
    """Overwrite a 32-bit field of the only directory entry of an archive."""
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02") + offset
    data[at : at + 4] = struct.pack("<I", value)
    path.write_bytes(data)


def test_npz_members_whose_sizes_lie_are_refused(truth, tmp_path):
    """Data that ends early under a right CRC, or a member larger than the file, is noticed."""
    member = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (7, 24)}", bytes(64))
    short = npz_bytes(
        tmp_path / "short.npz", ("embed.npy", member), compression=zipfile.ZIP_DEFLATED
    )
    patched(short, 24, len(member) - 64 + 7 * 24 * 4)  # its size when unpacked
    found = opened(short)
    with pytest.raises(BadFile, match="64 bytes of 672"):
        found.read("far", "embed")
    large = npz_bytes(tmp_path / "large.npz", ("embed.npy", member))
    patched(large, 20, 2**30)  # its size when packed
    with pytest.raises(BadFile, match="sum of the members"):
        opened(large)


def test_a_directory_of_an_npz_archive_is_bounded(tmp_path):
    """An archive that says its directory has 17 MB is refused before they are read."""
    size = 17 * 2**20
    with (tmp_path / "dump.npz").open("wb") as file:
        file.write(b"PK\x03\x04")
        file.truncate(size)
        file.seek(size)
        file.write(struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 1, 1, size, 0, 0))
    with pytest.raises(LimitExceeded, match="ZIP directory"):
        opened(tmp_path / "dump.npz")


def test_a_file_is_what_it_is_whatever_it_is_called(truth, tmp_path):
    """An npz archive without a suffix, or with another's, is read as one."""
    path = written(tmp_path, {"embed": truth["embed"]}, "npz")
    for name in ("dump", "dump.safetensors"):
        path = path.rename(tmp_path / name)
        assert opened(path).taps("far") == ["embed"]


RAW = {
    "unknown dtype": ({"dtype": "f8"}, "f64"),
    "no dtype": ({"dtype": None}, "f64"),
    "negative axis": ({"shape": [-7, -24]}, "integers >= 0"),
    "axes as text": ({"shape": "7,24"}, "integers >= 0"),
    "offset too large": ({"offset": 4}, "at byte 0"),
    "negative offset": ({"offset": -4}, "number of bytes"),
    "a row short": ({"shape": [6, 24]}, "found 672"),
    "a row too many": ({"shape": [8, 24]}, "found 672"),
    "overflowing": ({"shape": [2**33, 2**33]}, "found 672"),
    "outside": ({"file": "../dump.bin"}, "in the folder"),
    "absolute": ({"file": "/etc/passwd"}, "in the folder"),
    "linked outside": ({"file": "link.bin"}, "in the folder"),
    "the folder itself": ({"file": "."}, "in the folder"),
    "a NUL": ({"file": "a\0b"}, "in the folder"),
    "no text": ({"file": 3}, "in the folder"),
    "absent": ({"file": "other.bin"}, "cannot be opened"),
    "unknown key": ({"strides": [1]}, "an object of file, dtype, shape"),
}


@pytest.mark.parametrize("change, words", RAW.values(), ids=RAW)
def test_descriptions_that_do_not_agree_with_their_files_are_refused(
    change, words, truth, tmp_path
):
    """Every byte belongs to one tensor, and every file lies in the folder of the description."""
    folder = tmp_path / "dump"
    folder.mkdir()
    (tmp_path / "dump.bin").write_bytes(truth["embed"].tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "dump.bin")
    write_raw(folder / "dump.json", {"embed": truth["embed"]})
    described = json.loads((folder / "dump.json").read_text())
    described["embed"] |= change
    (folder / "dump.json").write_text(json.dumps(described))
    with pytest.raises(BadFile, match=words):
        opened(folder / "dump.json")


def test_raw_tensors_may_not_overlap(truth, tmp_path):
    """Two tensors that share a byte, and a description that is none, are refused."""
    path = tmp_path / "dump.json"
    write_raw(path, {"embed": truth["embed"], "L00.out": truth["L00.out"]})
    described = json.loads(path.read_text())
    described["L00.out"]["offset"] -= 4
    path.write_text(json.dumps(described))
    with pytest.raises(BadFile, match=r"L00\.out.*at byte 672, after 'embed' of "):
        opened(path)
    for text in ("[]", '{"embed": 3}', "NaN", '{"a": {}, "a": {}}', ""):
        path.write_text(text)
        with pytest.raises(BadFile):
            opened(path)


def test_a_raw_file_that_shrank_is_noticed(truth, tmp_path):
    """What was whole when it was opened and is shorter now gives no number."""
    path = written(tmp_path, {"embed": truth["embed"]}, "json")
    found = opened(path)
    path.with_suffix(".bin").write_bytes(b"short")
    with pytest.raises(BadFile, match="shorter"):
        found.read("far", "embed")


def test_other_files_are_refused_with_a_next_step(truth, tmp_path):
    """GGUF, cut safetensors, pipes, absent paths and bare folders each say what they are."""
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(Unsupported, match="safetensors or npz"):
        opened(tmp_path / "model.gguf")
    path = written(tmp_path, truth)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BadFile, match="cut short"):
        opened(path)
    os.mkfifo(tmp_path / "pipe.npz")
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.json").write_text("far: L00.q")
    for name in ("pipe.npz", "absent.npz", "text.json", "a\0b"):
        with pytest.raises(BadFile):
            opened(tmp_path / name)
    with pytest.raises(CompareError, match="no tensor"):
        opened(tmp_path / "empty")


def test_random_damage_never_escapes_as_another_error(truth, tmp_path):
    """Any byte of any format changed: the dump opens and reads, or the error is one of ours."""
    rng = np.random.default_rng(7)
    small = {name: truth[name] for name in ("embed", "L00.q", "logits")}
    for kind in ("safetensors", "npz", "json"):
        path = written(tmp_path, small, kind)
        whole = path.read_bytes()
        for at in rng.integers(0, len(whole), 150):
            damaged = bytearray(whole)
            damaged[at] ^= int(rng.integers(1, 256))
            path.write_bytes(damaged)
            try:
                found = opened(path)
                for tap in found.taps("far"):
                    found.read("far", tap)
            except LlamaRefError:
                pass
