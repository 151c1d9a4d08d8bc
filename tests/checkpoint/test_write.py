"""What `write_safetensors` and `write_hf` leave on disk: whole checkpoints, or nothing."""

import json
import os
import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open

from llama_ref.checkpoint import open_hf, open_safetensors, write_hf, write_safetensors
from llama_ref.errors import BadFile, BadRequest, Unsupported

CONFIG = {"model_type": "llama", "rope_scaling": None, "rms_norm_eps": 1e-05, "eos": [1, 2]}
INDEX = "model.safetensors.index.json"


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def read_officially(path):
    """Tensors and metadata as the official library sees them."""
    with safe_open(path, framework="np") as official:
        return {k: official.get_tensor(k) for k in official.keys()}, official.metadata()  # noqa: SIM118


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()


def every_kind():
    """One array of each stored dtype, and the shapes that trip writers up."""
    rng = np.random.default_rng(1)
    tensors = {
        dtype: rng.integers(0, 100, (2, 3)).astype(dtype)
        for dtype in ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?"]
    }
    return tensors | {
        "bfloat16": rng.standard_normal((3, 2)).astype(ml_dtypes.bfloat16),
        "scalar": np.array(2.5, np.float32),
        "empty": np.zeros((0, 4), np.float16),
        "层 \x1b": np.ones(1, np.float32),
    }


def test_written_file_reads_the_same_in_the_official_library(tmp_path):
    """Arrays of every dtype, a scalar and an empty one arrive bit for bit, marked as PyTorch's."""
    path = tmp_path / "model.safetensors"
    write_safetensors(path, every_kind())
    found, metadata = read_officially(path)
    assert_same(found, every_kind())
    assert metadata == {"format": "pt"}
    assert_same(open_safetensors(path), every_kind())
    assert names_in(tmp_path) == ["model.safetensors"]


base = np.arange(24, dtype=np.float32).reshape(4, 6)
NOT_CONTIGUOUS = {
    "transposed": base.T,
    "reversed": base[::-1],
    "strided": base[:, ::2],
    "column": base[:, 1],
    "Fortran order": np.asfortranarray(base),
    "broadcast": np.broadcast_to(np.float32(7), (2, 3)),
    "big-endian": base.astype(">f4"),
    "read-only": np.frombuffer(base.tobytes(), np.float32),
    "bfloat16 transposed": base.astype(ml_dtypes.bfloat16).T,
}


@pytest.mark.parametrize("array", NOT_CONTIGUOUS.values(), ids=list(NOT_CONTIGUOUS))
def test_memory_layout_does_not_change_the_values(tmp_path, array):
    """An array of any strides or byte order is stored row by row: the values are those it shows."""
    write_safetensors(tmp_path / "file", {"w": array})
    found, _ = read_officially(tmp_path / "file")
    assert found["w"].dtype == array.dtype.newbyteorder("=")
    assert found["w"].shape == array.shape
    assert found["w"].tolist() == array.tolist()


def test_rewriting_a_file_does_not_disturb_those_who_map_it(tmp_path):
    """A second write replaces the name in one step; an open map keeps the first values."""
    path = tmp_path / "model.safetensors"
    write_safetensors(path, {"w": np.array([1.0, 2.0])})
    opened = open_safetensors(path)["w"]
    write_safetensors(path, {"w": np.array([3.0, 4.0])})
    assert opened.tolist() == [1.0, 2.0]
    assert open_safetensors(path)["w"].tolist() == [3.0, 4.0]


def test_a_small_checkpoint_is_one_file_and_its_config(tmp_path):
    """What fits into one shard becomes model.safetensors without an index."""
    folder = tmp_path / "new" / "folder"
    write_hf(folder, CONFIG, every_kind().items())
    assert names_in(folder) == ["config.json", "model.safetensors"]
    assert json.loads((folder / "config.json").read_text()) == CONFIG
    assert_same(read_officially(folder / "model.safetensors")[0], every_kind())
    assert_same(dict(open_hf(folder)), every_kind())


def test_a_large_checkpoint_is_numbered_shards_and_an_index(tmp_path):
    """Shards fill up in order to the limit; a larger tensor stands alone; the index has it all."""
    tensors = {
        name: np.full(n, i, np.uint8)
        for i, (name, n) in enumerate([("a", 60), ("b", 40), ("c", 1), ("big", 500), ("d", 100)])
    }
    (tmp_path / "tokenizer.model").write_bytes(b"stays")
    write_hf(tmp_path, CONFIG, tensors.items(), shard_bytes=100)
    shards = [f"model-0000{i}-of-00004.safetensors" for i in (1, 2, 3, 4)]
    assert names_in(tmp_path) == ["config.json", *shards, INDEX, "tokenizer.model"]
    assert [list(read_officially(tmp_path / shard)[0]) for shard in shards] == [
        ["a", "b"],
        ["c"],
        ["big"],
        ["d"],
    ]
    assert json.loads((tmp_path / INDEX).read_text()) == {
        "metadata": {"total_size": 701},
        "weight_map": dict(zip(["a", "b", "c", "big", "d"], [shards[0], *shards], strict=True)),
    }
    assert_same(dict(open_hf(tmp_path)), tensors)


def test_at_most_one_shard_is_held(tmp_path):
    """Before a tensor is computed, all but the last shard's tensors have been let go of."""
    alive = []

    class Watched(np.ndarray):
        def __del__(self):
            alive.remove(self.shape)

    def stream():
        for i in range(9):
            array = np.zeros(100 + i, np.uint8).view(Watched)
            alive.append(array.shape)
            yield f"t{i}", array
            del array
            assert len(alive) <= 3

    write_hf(tmp_path, CONFIG, stream(), shard_bytes=220)
    assert alive == []
    assert len(open_hf(tmp_path)) == 9


EXISTING = ["config.json", INDEX, "model.safetensors", "model-00002-of-00003.safetensors"]


@pytest.mark.parametrize("name", EXISTING)
def test_an_existing_checkpoint_is_not_overwritten(tmp_path, name):
    """Any file of a checkpoint in the folder refuses the write before a tensor is asked for."""
    (tmp_path / name).write_bytes(b"precious")

    def never():
        pytest.fail("a tensor was asked for")
        yield

    with pytest.raises(BadRequest, match=f"without a checkpoint, found '{name}'"):
        write_hf(tmp_path, CONFIG, never())
    assert names_in(tmp_path) == [name]
    assert (tmp_path / name).read_bytes() == b"precious"


def test_a_checkpoint_that_appears_meanwhile_is_not_overwritten(tmp_path):
    """A second writer that finishes first wins; the other leaves nothing of its own."""

    def stream():
        write_hf(tmp_path, CONFIG, [("w", np.zeros(3))])
        yield "w", np.ones(3)

    with pytest.raises(BadRequest, match="without a checkpoint"):
        write_hf(tmp_path, CONFIG, stream())
    assert names_in(tmp_path) == ["config.json", "model.safetensors"]
    assert open_hf(tmp_path)["w"].tolist() == [0, 0, 0]


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, ZeroDivisionError, MemoryError])
def test_an_interrupted_write_leaves_nothing(tmp_path, interrupt):
    """Whatever stops the stream of tensors passes through, and no file is left behind."""

    def stream():
        yield "a", np.zeros(60)
        yield "b", np.zeros(60)
        assert any(name.startswith(".writing-") for name in names_in(tmp_path))
        raise interrupt

    with pytest.raises(interrupt):
        write_hf(tmp_path, CONFIG, stream(), shard_bytes=100)
    assert names_in(tmp_path) == []


def test_a_killed_write_leaves_no_final_name(tmp_path):
    """A process that dies between two shards leaves a hidden folder that no reader looks into."""
    program = """
        import os, sys
        import numpy as np
        from llama_ref.checkpoint import write_hf
        def stream():
            yield "a", np.zeros(60)
            yield "b", np.zeros(60)
            os._exit(9)
        write_hf(sys.argv[1], {}, stream(), shard_bytes=100)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)]
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run(command, check=False, cwd=root).returncode == 9
    assert [name[:9] for name in names_in(tmp_path)] == [".writing-"]
    with pytest.raises(BadFile, match="no checkpoint"):
        open_hf(tmp_path)
    write_hf(tmp_path, CONFIG, [("w", np.ones(2))])
    assert open_hf(tmp_path)["w"].tolist() == [1, 1]


BAD_TENSORS = {
    "none": ([], BadRequest, "tensors: expected one or more"),
    "twice in one shard": (
        [("a", np.ones(1)), ("a", np.ones(1))],
        BadRequest,
        "'a': expected once",
    ),
    "twice in two shards": (
        [("a", np.ones(99)), ("b", np.ones(99)), ("a", np.ones(99))],
        BadRequest,
        "'a': expected once",
    ),
    "the name of the metadata": ([("__metadata__", np.ones(1))], BadRequest, "tensor name"),
    "a name that is a number": ([(7, np.ones(1))], BadRequest, "tensor name: .* found 7"),
    "a name with a lone surrogate": ([("\ud800", np.ones(1))], BadRequest, "tensor name"),
    "a list": ([("a", [1.0, 2.0])], BadRequest, "'a': expected an array, found list"),
    "complex64": ([("a", np.ones(1, np.complex64))], Unsupported, "found 'complex64'"),
    "objects": ([("a", np.array([None]))], Unsupported, "found 'object'"),
    "text": ([("a", np.array(["x"]))], Unsupported, "found '<U1'"),
    "float8": ([("a", np.ones(1, ml_dtypes.float8_e5m2))], Unsupported, "float8_e5m2"),
}


@pytest.mark.parametrize(("tensors", "error", "words"), BAD_TENSORS.values(), ids=list(BAD_TENSORS))
def test_what_cannot_be_stored_is_refused(tmp_path, tensors, error, words):
    """A name or value that the format has no place for raises our error and leaves nothing."""
    with pytest.raises(error, match=words):
        write_hf(tmp_path, CONFIG, tensors, shard_bytes=1000)
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("shard_bytes", [1, 10_000], ids=["own shards", "one shard"])
def test_a_buffer_that_is_filled_again_is_refused(tmp_path, shard_bytes):
    """A stream that reuses its memory raises before the first values can be written wrong."""

    def stream():
        buffer = np.empty(8)
        for i in range(3):
            buffer[:] = i
            yield f"t{i}", buffer

    with pytest.raises(BadRequest, match="'t1': expected memory of its own, found that of 't0'"):
        write_hf(tmp_path, CONFIG, stream(), shard_bytes=shard_bytes)
    assert names_in(tmp_path) == []


BAD_CONFIGS = {"NaN": {"eps": float("nan")}, "a set": {"ids": {1}}, "bytes": {"name": b"x"}}


@pytest.mark.parametrize("config", BAD_CONFIGS.values(), ids=list(BAD_CONFIGS))
def test_a_config_that_is_not_json_is_refused(tmp_path, config):
    """A config with a value that JSON cannot hold raises before anything is written."""
    with pytest.raises(BadRequest, match="config: expected JSON values"):
        write_hf(tmp_path / "new", config, [("w", np.ones(1))])
    assert names_in(tmp_path) == []


def test_a_shard_needs_room(tmp_path):
    """shard_bytes below 1 is refused."""
    with pytest.raises(BadRequest, match="shard_bytes: expected 1 or more, found 0"):
        write_hf(tmp_path, CONFIG, [("w", np.ones(1))], shard_bytes=0)


@pytest.mark.parametrize("place", ["file/new", "file", "absent/new", "nul\0/new", "folder"])
def test_a_place_that_cannot_be_written_is_an_error_of_ours(tmp_path, place):
    """A path below a file, in no folder, with a NUL, or of a folder raises BadFile naming it."""
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    if place != "file":
        with pytest.raises(BadFile, match="cannot be written"):
            write_safetensors(tmp_path / place, {"w": np.ones(1)})
    if place.startswith(("file", "nul")):
        with pytest.raises(BadFile, match="cannot be written"):
            write_hf(tmp_path / place, CONFIG, [("w", np.ones(1))])
    assert names_in(tmp_path) == ["file", "folder"]
    assert names_in(tmp_path / "folder") == []


@pytest.mark.skipif(sys.platform != "linux", reason="sets the limit of file sizes of a child")
def test_a_full_disk_is_an_error_of_ours_and_leaves_nothing(tmp_path):
    """When the system stops taking bytes, BadFile says so and the folder stays empty."""
    program = """
        import signal, sys
        import numpy as np
        from llama_ref.checkpoint import write_hf
        from llama_ref.errors import BadFile
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            write_hf(sys.argv[1], {}, [("w", np.zeros(100_000))])
        except BadFile as error:
            print(error)
    """
    answer = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).resolve().parents[2],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)),
    )
    assert "cannot be written: found" in answer.stdout
    assert names_in(tmp_path) == []


def test_written_files_have_the_permissions_of_any_new_file(tmp_path):
    """The temporary folder is private; what comes out of it follows the umask."""
    write_hf(tmp_path, CONFIG, [("w", np.ones(1))])
    (tmp_path / "plain").write_bytes(b"")
    expected = (tmp_path / "plain").stat().st_mode
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / name).stat().st_mode == expected
    assert os.access(tmp_path / "config.json", os.R_OK)
