"""Conversions of sources and into folders that are not as they should be: a line, never a guess."""

import json
import os
import time
from dataclasses import replace

import numpy as np
import pytest

import llama_ref as lr
from llama_ref.checkpoint import open_hf, synthetic, write_hf
from llama_ref.config import to_hf_dict
from llama_ref.errors import BadFile
from tests.models import TINY
from weights_tools import new_folder
from weights_tools.__main__ import main
from weights_tools.streams import Stream, bytes_of

GROUPED = replace(TINY, d_model=64, n_heads=8, n_kv_heads=2, head_dim=8, d_ff=128, vocab_size=96)


def write_source(folder, config=GROUPED, seed=0, **changed):
    tensors = {**dict(synthetic.checkpoint(config, seed)), **changed}
    write_hf(folder, to_hf_dict(config), tensors.items(), shard_bytes=60_000)
    return folder


@pytest.fixture
def source(tmp_path):
    return write_source(tmp_path / "source")


def convert(source, out, *words):
    return main(["convert", str(source), str(out), *words])


@pytest.mark.parametrize("shards", [4, 16])
def test_heads_that_are_cut_over_files_lose_no_row(source, tmp_path, shards):
    """With more files than key heads each holds a part of one, and back again all is the same."""
    assert convert(source, tmp_path / "m", "--format", "meta", "--shards", str(shards)) == 0
    assert convert(tmp_path / "m", tmp_path / "back") == 0
    before, after = open_hf(source), open_hf(tmp_path / "back")
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_a_tensor_of_other_bytes_than_its_shape_says_is_an_error():
    """Whoever writes a tensor is told if more or fewer bytes came than it has."""
    rows = np.ones((3, 2), np.float32)
    for n in (2, 4):
        stream = Stream("w", (n, 2), rows.dtype, lambda *span: iter([rows]))
        with pytest.raises(BadFile, match=f"tensor 'w': expected {8 * n} bytes, found 24"):
            list(bytes_of(stream, lambda n: None))


def test_a_source_written_to_meanwhile_is_noticed(source, tmp_path, monkeypatch, capsys):
    """In place and with its times restored, what the conversion reads from is another file."""
    path = sorted(source.glob("*.safetensors"))[-1]
    status, real = path.stat(), new_folder._write_one

    def meanwhile(staged, plan):
        with path.open("r+b") as file:
            file.seek(-4, os.SEEK_END)
            file.write(b"\0\0\0\0")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        return real(staged, plan)

    time.sleep(0.02)  # the clock of file systems is coarse
    monkeypatch.setattr(new_folder, "_write_one", meanwhile)
    assert convert(source, tmp_path / "out") == 2
    assert "has changed since it was opened" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


def test_a_damaged_pth_is_not_converted(source, tmp_path, capsys):
    """A bit that flipped in a member of Meta's file is found by its checksum."""
    assert convert(source, tmp_path / "m", "--format", "meta") == 0
    path = tmp_path / "m" / "consolidated.00.pth"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert convert(tmp_path / "m", tmp_path / "out") == 2
    assert "CRC of member" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_resuming_with_another_blueprint_begins_anew(source, tmp_path, monkeypatch):
    """A config.json that changed after the interrupt is the one that is written."""
    words, real, count = ["--shard-bytes", "20000", "--resume"], new_folder._write_one, [0]

    def interrupted(path, plan):
        count[0] += 1
        if count[0] == 3:
            raise KeyboardInterrupt
        return real(path, plan)

    with monkeypatch.context() as patched:
        patched.setattr(new_folder, "_write_one", interrupted)
        assert convert(source, tmp_path / "out", *words) == 130
    (first,) = (tmp_path / "out").glob(".partial-*")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.25}))
    assert convert(source, tmp_path / "out", *words) == 0
    assert first.exists()  # of the other conversion, and untouched
    assert lr.load(tmp_path / "out").config.norm_eps == 0.25


JOURNALS = {"null": "null", "a number": "5", "a list": "[[[], 1]]", "deep": "[" * 100_000}


@pytest.mark.parametrize("text", JOURNALS.values(), ids=list(JOURNALS))
def test_a_journal_that_is_none_is_not_believed(source, tmp_path, monkeypatch, text):
    """With whatever stands in it, the conversion is begun anew and ends well."""
    words = ["--resume"]

    def interrupted(path, plan):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(new_folder, "_write_one", interrupted)
        assert convert(source, tmp_path / "out", *words) == 130
    (partial,) = (tmp_path / "out").glob(".partial-*")
    (partial / new_folder.FINISHED).write_text(text)
    (tmp_path / "victim").write_text("precious")
    (partial / "model.safetensors").symlink_to(tmp_path / "victim")
    assert convert(source, tmp_path / "out", *words) == 0
    assert not (tmp_path / "out" / "model.safetensors").is_symlink()
    assert (tmp_path / "victim").read_text() == "precious"


@pytest.mark.parametrize(
    ("number", "words", "says"),
    [
        (1e5, ["convert", "--dtype", "float16"], "expected numbers that float16 holds"),
        (np.nan, ["quantise", "--to", "fp8"], "finite numbers"),
        (np.inf, ["quantise", "--to", "int4"], "finite numbers"),
    ],
)
def test_numbers_that_cannot_be_kept_are_refused(tmp_path, capsys, number, words, says):
    """Beyond the dtype, or none at all: nothing is written, and the tensor is named."""
    name = "model.layers.1.mlp.up_proj.weight"
    weight = dict(synthetic.checkpoint(GROUPED))[name].copy()
    weight[3, 4] = number
    config = replace(GROUPED, n_layers=3)
    source = write_source(tmp_path / "source", config, **{name: weight})
    verb, *rest = words
    assert main([verb, str(source), str(tmp_path / "out"), *rest]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert "layers.1." in said
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["convert", "SOURCE", "OUT", "--shards", "2"], "--shards: expected --format meta"),
        (["convert", "SOURCE", "OUT", "--format", "raw", "--shard-bytes", "9"], "--format hf"),
        (["convert", "SOURCE", "OUT.gguf"], "OUT: expected --format gguf"),
        (["convert", "SOURCE", "OUT", "--format", "meta", "--shards", "128"], "at most 100"),
        (["quantise", "SOURCE", "OUT", "--to", "int4", "--shards", "2"], "shards: expected 1"),
    ],
)
def test_options_of_another_format_are_refused(source, tmp_path, capsys, words, says):
    """An option that would be ignored, or give what nobody can read, is an error."""
    words = [w.replace("SOURCE", str(source)).replace("OUT", str(tmp_path / "out")) for w in words]
    assert main(words) == 2
    assert says in capsys.readouterr().err.replace(str(tmp_path / "out"), "OUT")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_name_that_is_no_text_is_written_as_well_as_can_be(tmp_path):
    """A folder whose name is not UTF-8 gives a GGUF file all the same."""
    source = write_source(tmp_path / os.fsdecode(b"bad\xff"))
    assert convert(source, tmp_path / "x.gguf", "--format", "gguf") == 0
    assert lr.load(tmp_path / "x.gguf").config.n_layers == GROUPED.n_layers


def test_stop_tokens_of_another_model_are_not_inherited(source, tmp_path, capsys):
    """A generation_config.json that lies in the folder counts as a part of a checkpoint."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "generation_config.json").write_text('{"eos_token_id": 5}')
    assert convert(source, tmp_path / "out") == 2
    assert "without a checkpoint" in capsys.readouterr().err


def test_two_writers_of_one_folder_wait_for_each_other(source, tmp_path, monkeypatch):
    """The second finds what the first has written, and refuses it; nothing is mixed."""
    import threading

    other = write_source(tmp_path / "other", seed=1)
    begun, real, codes, folders = threading.Event(), new_folder._write_one, [], []

    def slowly(path, plan):
        begun.set()
        time.sleep(0.05)
        folders.append(path.parent)
        return real(path, plan)

    monkeypatch.setattr(new_folder, "_write_one", slowly)
    out, words = tmp_path / "out", ["--shard-bytes", "20000"]
    first = threading.Thread(target=lambda: codes.append(convert(source, out, *words)))
    first.start()
    assert begun.wait(10)
    codes.append(convert(other, out, *words))
    first.join()
    assert sorted(codes) == [0, 2]
    assert len(set(folders)) == 1  # the second had not begun to write
    expected = open_hf(source)
    assert all(np.array_equal(array, expected[name]) for name, array in open_hf(out).items())
