"""Writing that is cut short, and what it finds when it goes on: nothing of another conversion."""

from dataclasses import replace

import numpy as np
import pytest

import llama_ref as lr
from llama_ref.checkpoint import open_hf, synthetic, write_hf
from llama_ref.config import to_hf_dict
from tests.models import TINY
from weights_tools import new_folder
from weights_tools.__main__ import main

CONFIG = replace(TINY, d_model=64, n_heads=8, n_kv_heads=2, head_dim=8, d_ff=128)
MANY = ["--shard-bytes", "20000", "--resume"]


def write_source(folder, seed):
    tensors = list(synthetic.checkpoint(CONFIG, seed))
    write_hf(folder, to_hf_dict(CONFIG), tensors, shard_bytes=60_000)
    return folder


@pytest.fixture
def cut_short(tmp_path, monkeypatch):
    """A conversion of a folder of several files, interrupted after two files of many."""
    source, out = write_source(tmp_path / "source", 0), tmp_path / "out"
    assert len(list(source.glob("*.safetensors"))) > 2
    real, written = new_folder._write_one, []

    def interrupted(path, plan):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(plan.name)
        return real(path, plan)

    with monkeypatch.context() as patched:
        patched.setattr(new_folder, "_write_one", interrupted)
        assert main(["convert", str(source), str(out), *MANY]) == 130
    return source, out


def assert_holds(folder, seed, dtype=np.float32):
    found = open_hf(folder)
    for name, array in synthetic.checkpoint(CONFIG, seed):
        assert found[name].dtype == dtype
        assert np.array_equal(found[name], array.astype(dtype)), name


@pytest.mark.parametrize("which", [0, -1])
def test_a_source_that_changed_is_begun_anew(cut_short, which, tmp_path):
    """Where any file of the source is another one, what was finished of the old is not used."""
    source, out = cut_short
    write_source(tmp_path / "other", 1)
    changed = sorted(source.glob("*.safetensors"))[which]
    (tmp_path / "other" / changed.name).replace(changed)
    expected = {name: np.array(array) for name, array in open_hf(source).items()}
    assert main(["convert", str(source), str(out), *MANY]) == 0
    for name, array in open_hf(out).items():
        assert np.array_equal(array, expected[name]), name


def test_other_options_begin_anew(cut_short):
    """Resumed in another dtype, no file of the first one is used."""
    source, out = cut_short
    assert main(["convert", str(source), str(out), *MANY, "--dtype", "float16"]) == 0
    assert_holds(out, 0, np.float16)


def test_progress_counts_what_was_there_already(cut_short, monkeypatch):
    """The files that need not be written again are told as done, so that the end is the whole."""
    source, out = cut_short
    told, real = [], new_folder.write_files

    def listening(folder, plans, advance, *rest, **more):
        return real(folder, plans, lambda n: (told.append(n), advance(n)), *rest, **more)

    monkeypatch.setattr(new_folder, "write_files", listening)
    assert main(["convert", str(source), str(out), *MANY]) == 0
    skipped = [n for n in told if n]
    assert len(skipped) == 2


@pytest.mark.parametrize("form", ["hf", "meta", "raw", "gguf"])
def test_a_checkpoint_that_appears_meanwhile_stays(tmp_path, form, monkeypatch, capsys):
    """What somebody else has put there while ours was written is neither replaced nor joined."""
    source, folder = write_source(tmp_path / "source", 0), tmp_path / "out"
    out = folder / "x.gguf" if form == "gguf" else folder
    theirs = {"hf": "config.json", "meta": "params.json", "raw": "a.bin", "gguf": "x.gguf"}[form]
    real = new_folder._write_one

    def meanwhile(path, plan):
        (folder / theirs).write_text("theirs")
        return real(path, plan)

    monkeypatch.setattr(new_folder, "_write_one", meanwhile)
    assert main(["convert", str(source), str(out), "--format", form]) == 2
    assert "found" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == [theirs]
    assert (folder / theirs).read_text() == "theirs"


@pytest.mark.parametrize(
    ("form", "last"), [("hf", "config.json"), ("meta", "params.json"), ("raw", "config.json")]
)
def test_the_file_that_readers_look_for_appears_last(tmp_path, form, last, monkeypatch):
    """Until everything is there, nothing opens as a checkpoint."""
    source, moved, real = write_source(tmp_path / "source", 0), [], new_folder.move
    monkeypatch.setattr(new_folder, "move", lambda a, b: (moved.append(b.name), real(a, b)))
    assert main(["convert", str(source), str(tmp_path / "out"), "--format", form]) == 0
    assert moved[-1] == last


@pytest.mark.parametrize(("shard_bytes", "n_files"), [(800, 1), (799, 2), (400, 2), (399, 4)])
def test_shards_are_filled_to_the_byte(shard_bytes, n_files):
    """A shard takes what fits exactly, and each begins to count anew."""
    from weights_tools.hf_folder import _shards
    from weights_tools.streams import Stream

    four = [Stream(str(i), (50,), np.dtype("<f4"), lambda *span: iter([])) for i in range(4)]
    shards = _shards(four, shard_bytes)
    sizes = [sum(stream.n_bytes for stream in shard) for shard in shards]
    assert len(shards) == n_files
    assert max(sizes) <= shard_bytes


def test_the_config_states_the_dtype_of_the_matrices(tmp_path):
    """Of a quantised folder that is the dtype of what is not: `torch_dtype`, as in the release."""
    words = ["quantise", "synthetic:golden-tiny?n_layers=3", str(tmp_path / "q")]
    assert main([*words, "--to", "fp8"]) == 0
    text = (tmp_path / "q" / "config.json").read_text()
    assert '"torch_dtype": "bfloat16"' in text


def test_a_header_is_padded_so_that_tensors_are_aligned(tmp_path):
    """Numbers of every shard begin at a multiple of eight bytes, as the format's library has it."""
    source = write_source(tmp_path / "source", 0)
    assert main(["convert", str(source), str(tmp_path / "out"), "--shard-bytes", "20000"]) == 0
    for path in (tmp_path / "out").glob("*.safetensors"):
        assert int.from_bytes(path.read_bytes()[:8], "little") % 8 == 0
    assert lr.load(tmp_path / "out").config == CONFIG
