"""What `open_hf` opens, and what it refuses: rows 27-40 of the table of bad inputs."""

import json
import os
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from llama_ref.checkpoint import open_hf
from llama_ref.errors import BadFile, LimitExceeded, Unsupported

INDEX = "model.safetensors.index.json"
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
TENSORS = {
    "embed": np.arange(6, dtype=np.float32).reshape(3, 2),
    "norm": np.array([1.5, -2], ml_dtypes.bfloat16),
    "head": np.arange(4, dtype=np.float16).reshape(2, 2),
}
WEIGHT_MAP = {"embed": FIRST, "norm": FIRST, "head": SECOND}
TOTAL_SIZE = 24 + 4 + 8
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 23950\n"


@pytest.fixture
def folder(tmp_path):
    """A well-formed checkpoint of two shards, written by the official library and by hand."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    save_file({name: TENSORS[name] for name in ("embed", "norm")}, folder / FIRST)
    save_file({"head": TENSORS["head"]}, folder / SECOND)
    write_index(folder, {"metadata": {"total_size": TOTAL_SIZE}, "weight_map": WEIGHT_MAP})
    return folder


def write_index(folder, index):
    text = index if isinstance(index, bytes) else json.dumps(index).encode()
    (folder / INDEX).write_bytes(text)


def n_descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def assert_is_whole(checkpoint):
    """The three tensors are there, with the dtypes, shapes and bits that were stored."""
    assert checkpoint.keys() == TENSORS.keys()
    for name, array in checkpoint.items():
        assert array.dtype == TENSORS[name].dtype
        assert array.shape == TENSORS[name].shape
        assert array.tobytes() == TENSORS[name].tobytes()
        assert not array.flags.writeable


def test_shards_open_as_one_checkpoint(folder):
    """Both shards' tensors are in one mapping that knows the file of each."""
    checkpoint = open_hf(folder)
    assert_is_whole(checkpoint)
    assert checkpoint.layout == "hf"
    assert checkpoint.path == folder
    assert checkpoint.files == {"embed": (FIRST,), "norm": (FIRST,), "head": (SECOND,)}
    assert list(checkpoint)[-1] == "head"


def test_single_file_opens(tmp_path):
    """A folder with model.safetensors alone is a checkpoint; other files may stand by."""
    save_file(TENSORS, tmp_path / "model.safetensors")
    save_file({"lora": np.zeros(2)}, tmp_path / "adapter_model.safetensors")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02")
    checkpoint = open_hf(str(tmp_path))
    assert_is_whole(checkpoint)
    assert set(checkpoint.files.values()) == {("model.safetensors",)}


@pytest.mark.real
def test_the_trained_checkpoint_opens_as_the_official_library_reads_it(stories_folder):
    """All 47 tensors of stories260k have the dtype, shape and bits that the library reads."""
    checkpoint = open_hf(stories_folder)
    assert len(checkpoint) == 47
    for name, array in checkpoint.items():
        with safe_open(stories_folder / checkpoint.files[name][0], framework="np") as official:
            expected = official.get_tensor(name)
        assert array.dtype == expected.dtype
        assert array.shape == expected.shape
        assert array.tobytes() == expected.tobytes()


def test_index_may_lack_a_total_or_name_the_single_file(tmp_path):
    """An index without metadata opens, and one whose only shard is called model.safetensors."""
    save_file(TENSORS, tmp_path / "model.safetensors")
    write_index(tmp_path, {"weight_map": dict.fromkeys(TENSORS, "model.safetensors")})
    assert_is_whole(open_hf(tmp_path))


def b2_27(folder):
    (folder / SECOND).unlink()


def b2_28_absent(folder):
    save_file({"embed": TENSORS["embed"]}, folder / FIRST)


def b2_28_other_shard(folder):
    write_index(folder, {"weight_map": {**WEIGHT_MAP, "norm": SECOND}})


def b2_29_not_listed(folder):
    write_index(folder, {"weight_map": {"embed": FIRST, "head": SECOND}})


def b2_29_two_shards(folder):
    save_file({name: TENSORS[name] for name in ("head", "norm")}, folder / SECOND)


def b2_35(folder):
    write_index(folder, {"metadata": {"total_size": TOTAL_SIZE + 1}, "weight_map": WEIGHT_MAP})


def b2_36_no_index(folder):
    (folder / INDEX).unlink()


def b2_36_both(folder):
    save_file(TENSORS, folder / "model.safetensors")


def b2_36_single_and_shards(folder):
    (folder / INDEX).unlink()
    save_file(TENSORS, folder / "model.safetensors")


def b2_36_two_sets_of_shards(folder):
    save_file(TENSORS, folder / "model-00001-of-00003.safetensors")


def b2_37(name):
    def leave_only(folder):
        for path in folder.iterdir():
            path.unlink()
        (folder / name).write_bytes(b"\x80\x02}q\x00.")

    return leave_only


def b2_38_truncated(folder):
    os.truncate(folder / SECOND, (folder / SECOND).stat().st_size - 1)


def b2_38_directory(folder):
    (folder / SECOND).unlink()
    (folder / SECOND).mkdir()


def b2_38_fifo(folder):
    (folder / SECOND).unlink()
    os.mkfifo(folder / SECOND)


def b2_38_link_to(target):
    def link(folder):
        (folder / SECOND).unlink()
        (folder / SECOND).symlink_to(target)

    return link


def b2_38_index_fifo(folder):
    (folder / INDEX).unlink()
    os.mkfifo(folder / INDEX)


def b2_39(folder):
    header = b'{"head":{"dtype":"BF16","shape":[65536,65537],"data_offsets":[0,8589934592]}}'
    (folder / SECOND).write_bytes(len(header).to_bytes(8, "little") + header)
    os.truncate(folder / SECOND, 8 + len(header) + 2**33)


# id: (what is done to a good checkpoint, class of the error, words that its message has)
BROKEN = {
    "B2-27 shard absent": (b2_27, BadFile, f"shard '{SECOND}', .* 'head': found no such file"),
    "B2-28 tensor absent from its shard": (b2_28_absent, BadFile, f"{FIRST}: tensor 'norm'"),
    "B2-28 tensor in the other shard": (b2_28_other_shard, BadFile, f"listed for '{SECOND}'"),
    "B2-29 tensor not in the index": (b2_29_not_listed, BadFile, "'norm': .* not in the index"),
    "B2-29 tensor in two shards": (
        b2_29_two_shards,
        BadFile,
        f"{SECOND}: tensor 'norm': .* one listed for '{FIRST}'",
    ),
    "B2-35 total_size wrong": (b2_35, BadFile, "total_size: expected 36, .* found 37"),
    "B2-36 shards without index": (b2_36_no_index, BadFile, "shards without an index"),
    "B2-36 index and single file": (b2_36_both, BadFile, "'model.safetensors': expected only"),
    "B2-36 single file and shards": (b2_36_single_and_shards, BadFile, "second set of weights"),
    "B2-36 shards of two models": (b2_36_two_sets_of_shards, BadFile, "00001-of-00003"),
    "B2-37 only pytorch_model.bin": (
        b2_37("pytorch_model.bin"),
        Unsupported,
        "pickle files are not loaded: .*'pytorch_model.bin'",
    ),
    "B2-37 only model.pt": (b2_37("model.pt"), Unsupported, "pickle files are not loaded"),
    "B2-37 only consolidated.00.pth": (b2_37("consolidated.00.pth"), Unsupported, "open_meta"),
    "B2-37 neither": (b2_37("README.md"), BadFile, "no checkpoint: .*'README.md'"),
    "B2-38 shard cut": (b2_38_truncated, BadFile, f"{SECOND}: tensor 'head': .* cut short"),
    "B2-38 shard is a folder": (b2_38_directory, BadFile, "not a regular file"),
    "B2-38 shard is a pipe": (b2_38_fifo, BadFile, "not a regular file"),
    "B2-38 shard is a device": (b2_38_link_to("/dev/zero"), BadFile, "not a regular file"),
    "B2-38 dangling link": (b2_38_link_to("../blobs/none"), BadFile, "No such file"),
    "B2-38 looping link": (b2_38_link_to(SECOND), BadFile, "cannot be opened"),
    "B2-38 index is a pipe": (b2_38_index_fifo, BadFile, "not a regular file"),
    "B2-39 8 GiB sparse, wrong shape": (b2_39, BadFile, "expected 8,590,065,664 bytes .* found 8,"),
}


@pytest.mark.parametrize(("damage", "error", "words"), BROKEN.values(), ids=list(BROKEN))
def test_broken_folder_is_refused_at_once(folder, damage, error, words):
    """A folder whose files do not belong together raises an error that names one of them."""
    damage(folder)
    start = time.perf_counter()
    with pytest.raises(error, match=words) as caught:
        open_hf(folder)
    assert time.perf_counter() - start < 10
    assert type(caught.value) is error
    assert str(folder) in str(caught.value)


UNREADABLE = {
    "B2-34 duplicate key": (b'{"weight_map":{"embed":"a","embed":"b"}}', "twice: found 'embed'"),
    "B2-34 byte-order mark": (b"\xef\xbb\xbf{}", "byte-order mark"),
    "B2-34 UTF-16": ("{}".encode("utf-16"), "UTF-16"),
    "B2-34 cut": (b'{"weight_map":{"embed":"mod', "not JSON"),
    "B2-34 empty": (b"", "empty"),
    "B2-34 list": (b"[]", "index: expected an object"),
    "B2-34 null": (b"null", "index: expected an object"),
    "B2-34 unknown key": (b'{"weight_map":{},"weights":{}}', "index: expected an object"),
    "B2-34 LFS": (LFS, "Git-LFS pointer"),
    "B2-34 HTML": (b"<html>404</html>", "an HTML or XML page"),
    "B2-30 weight_map missing": (b'{"metadata":{}}', "weight_map: expected .* found None"),
    "B2-30 weight_map list": (b'{"weight_map":[]}', "weight_map: expected an object"),
    "B2-30 weight_map empty": (b'{"weight_map":{}}', "weight_map: expected an object"),
    "B2-35 metadata list": (b'{"metadata":[],"weight_map":{"a":"b"}}', "metadata: expected"),
    "B2-35 total_size text": (
        b'{"metadata":{"total_size":"36"},"weight_map":{"embed":"model.safetensors"}}',
        "total_size: expected a number",
    ),
    "B2-35 total_size true": (
        b'{"metadata":{"total_size":true},"weight_map":{"embed":"model.safetensors"}}',
        "total_size: expected a number",
    ),
}


@pytest.mark.parametrize(("content", "words"), UNREADABLE.values(), ids=list(UNREADABLE))
def test_unreadable_index_is_refused(folder, content, words):
    """An index that is not the JSON object of the layout raises BadFile, which names it."""
    write_index(folder, content)
    with pytest.raises(BadFile, match=words) as caught:
        open_hf(folder)
    assert str(folder / INDEX) in str(caught.value)


def test_nested_index_is_refused(folder):
    """B2-34: an index nested 100,000 deep raises LimitExceeded and does not recurse."""
    write_index(folder, b'{"weight_map":' * 100_000 + b"1" + b"}" * 100_000)
    with pytest.raises(LimitExceeded, match="64 levels"):
        open_hf(folder)


def test_index_above_the_limit_is_refused(folder):
    """An index of more than 64 MB raises LimitExceeded with both numbers, unread."""
    os.truncate(folder / INDEX, 64_000_001)
    with pytest.raises(LimitExceeded, match="at most 64,000,000 bytes, found 64,000,001"):
        open_hf(folder)


NOT_FILE_NAMES = {
    "B2-30 7": 7,
    "B2-30 null": None,
    "B2-30 empty": "",
    "B2-30 dot": ".",
    "B2-30 list": [FIRST],
    "B2-31 parent": "../outside.safetensors",
    "B2-31 parent in the middle": "a/../../outside.safetensors",
    "B2-31 absolute": "/abs.safetensors",
    "B2-31 two slashes": "//abs.safetensors",
    "B2-31 backslash": "..\\outside.safetensors",
    "B2-31 file URL": "file://outside.safetensors",
    "B2-31 http URL": "http://localhost/outside.safetensors",
    "B2-31 home": "~/outside.safetensors",
    "B2-31 tilde": "~.safetensors",
    "B2-31 drive": "c:outside.safetensors",
    "B2-31 stream": "outside.safetensors:hidden",
    "B2-31 environment": "/proc/self/environ",
    "B2-31 device": "/dev/zero",
    "B2-31 subfolder": "sub/outside.safetensors",
    "B2-31 hidden": ".outside.safetensors",
    "B2-31 pickle": "pytorch_model.bin",
    "B2-32 NUL": "model\0.safetensors",
    "B2-32 newline": "model.safetensors\n",
    "B2-32 5,000 characters": "m" * 5000 + ".safetensors",
}


@pytest.mark.parametrize("name", NOT_FILE_NAMES.values(), ids=list(NOT_FILE_NAMES))
def test_shard_name_that_is_no_plain_file_name_is_refused_unopened(folder, name):
    """A shard name is refused by its letters alone, although a file of tensors stands there."""
    for place in (folder.parent, folder / "sub"):
        place.mkdir(exist_ok=True)
        save_file({"head": TENSORS["head"]}, place / "outside.safetensors")
    write_index(folder, {"weight_map": {**WEIGHT_MAP, "head": name}})
    with pytest.raises(BadFile, match="weight_map: 'head': expected a plain file name") as caught:
        open_hf(folder)
    assert str(folder / INDEX) in str(caught.value)
    assert len(str(caught.value)) < 800


def test_shard_name_with_a_lone_surrogate_is_refused(folder):
    """B2-32: a shard name that is not Unicode text raises BadFile."""
    write_index(folder, b'{"weight_map":{"head":"\\ud800.safetensors"}}')
    with pytest.raises(BadFile, match="lone surrogate"):
        open_hf(folder)


@pytest.mark.parametrize("to", ["../../blobs", None], ids=["B2-33 relative", "B2-33 absolute"])
def test_links_into_a_cache_open(folder, to):
    """A snapshot whose files are links into ../../blobs opens like the files themselves."""
    blobs, snapshot = folder.parent / "blobs", folder.parent / "snapshots" / "0a1b2c"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    for i, path in enumerate(sorted(folder.iterdir())):
        path.rename(blobs / f"{i:064x}")
        (snapshot / path.name).symlink_to(Path(to or blobs) / f"{i:064x}")
    assert_is_whole(open_hf(snapshot))


@pytest.mark.parametrize("n", [2, 8], ids=["B2-40 two loaders", "B2-40 eight loaders"])
def test_loaders_at_once_see_the_same(folder, n):
    """Sixteen loads of one folder in several threads all give the whole checkpoint."""
    with ThreadPoolExecutor(n) as pool:
        for checkpoint in pool.map(open_hf, [folder] * 16):
            assert_is_whole(checkpoint)


def test_a_good_folder_opens_after_a_bad_one(folder, tmp_path):
    """A refusal leaves nothing behind that would keep a good folder from opening."""
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "model.safetensors").write_bytes(LFS)
    for _ in range(3):
        with pytest.raises(BadFile, match="Git-LFS"):
            open_hf(tmp_path / "bad")
    assert_is_whole(open_hf(folder))


@pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors in /proc")
def test_no_descriptor_stays_open_but_the_one_that_python_insists_on(folder):
    """Before Python 3.13 a mapped shard holds one descriptor; after it, or refused, none."""
    before = n_descriptors()
    checkpoint = open_hf(folder)
    assert n_descriptors() - before == (0 if sys.version_info >= (3, 13) else 2)
    assert len(checkpoint) == 3
    del checkpoint
    (folder / SECOND).write_bytes(LFS)
    with pytest.raises(BadFile, match="Git-LFS"):
        open_hf(folder)
    assert n_descriptors() == before


@pytest.mark.parametrize("path", ["nowhere", "file", "nul\0"])
def test_what_is_no_folder_is_refused(tmp_path, path):
    """A path that is absent, a file, or no path at all raises BadFile."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BadFile, match="not a readable folder"):
        open_hf(tmp_path / path)


@pytest.mark.skipif(sys.platform != "linux", reason="reads its peak of memory in /proc")
def test_opening_a_large_checkpoint_costs_neither_time_nor_memory(tmp_path):
    """A sharded 2.5 GB BF16 checkpoint opens in under 100 ms and 60 MB beyond the imports."""
    n_layers, shape = 16, (8704, 8704)
    weight_map, n_bytes = {}, 0
    for i in range(n_layers):
        shard = f"model-{i + 1:05}-of-{n_layers:05}.safetensors"
        size = 2 * shape[0] * shape[1]
        entry = {"dtype": "BF16", "shape": shape, "data_offsets": [0, size]}
        header = json.dumps({f"layer.{i}": entry}).encode()
        (tmp_path / shard).write_bytes(len(header).to_bytes(8, "little") + header)
        os.truncate(tmp_path / shard, 8 + len(header) + size)
        weight_map[f"layer.{i}"] = shard
        n_bytes += size
    assert n_bytes > 2.4e9
    write_index(tmp_path, {"metadata": {"total_size": n_bytes}, "weight_map": weight_map})
    program = """
        import sys, time
        from pathlib import Path
        from llama_ref.checkpoint import open_hf
        def peak():
            return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
        before, start = peak(), time.perf_counter()
        checkpoint = open_hf(sys.argv[1])
        print(time.perf_counter() - start, peak() - before, len(checkpoint))
    """
    answer = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    seconds, grown, n_tensors = map(float, answer.stdout.split())
    assert n_tensors == n_layers
    assert seconds < 0.1
    assert grown * 1024 < 60e6
