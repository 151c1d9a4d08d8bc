"""Converting there and back, cutting over files, going on after an interrupt: no bit is lost."""

import json
from dataclasses import replace

import numpy as np
import pytest

import llama_ref as lr
from llama_ref.checkpoint import open_hf, open_meta, synthetic, write_hf
from llama_ref.config import to_hf_dict
from llama_ref.errors import BadFile
from llama_ref.numerics import BFLOAT16
from tests.models import TINY
from weights_tools import new_folder
from weights_tools.__main__ import main
from weights_tools.new_folder import Plan, write_folder

SIZES = {"d_model": 64, "n_heads": 8, "n_kv_heads": 8, "head_dim": 8, "d_ff": 128}
CONFIG = replace(TINY, **SIZES, vocab_size=96)


@pytest.fixture
def whole(tmp_path):
    tensors = ((name, array.astype(BFLOAT16)) for name, array in synthetic.checkpoint(CONFIG))
    write_hf(tmp_path / "whole", to_hf_dict(CONFIG), tensors)
    return tmp_path / "whole"


def convert(source, out, *words):
    return main(["convert", str(source), str(out), *words])


def assert_same_tensors(one, other):
    before, after = open_hf(one), open_hf(other)
    assert set(before) == set(after)
    for name, array in before.items():
        assert array.dtype == after[name].dtype, name
        assert array.tobytes() == after[name].tobytes(), name


@pytest.mark.parametrize("shards", [1, 2, 8])
def test_hf_to_meta_and_back(whole, tmp_path, shards):
    """Over one file, two and eight, as for so many GPUs: back again all bits are the same."""
    meta = tmp_path / "meta"
    assert convert(whole, meta, "--format", "meta", "--shards", str(shards)) == 0
    assert len(list(meta.glob("consolidated.*.pth"))) == shards
    cut = open_meta(meta)
    assert tuple(cut["layers.0.feed_forward.w2.weight"].shape) == (64, 128)
    assert convert(meta, tmp_path / "back") == 0
    assert_same_tensors(whole, tmp_path / "back")
    expected = lr.load(whole, lineage="meta").logits([1, 2, 3])
    np.testing.assert_allclose(lr.load(meta).logits([1, 2, 3]), expected, rtol=0, atol=2e-5)


def test_recutting_meta_and_hf(whole, tmp_path):
    """Eight files become two, and one shard many: `shard` and `merge` are conversions."""
    assert convert(whole, tmp_path / "8", "--format", "meta", "--shards", "8") == 0
    assert convert(tmp_path / "8", tmp_path / "2", "--format", "meta", "--shards", "2") == 0
    assert convert(tmp_path / "2", tmp_path / "many", "--shard-bytes", "20000") == 0
    assert len(list((tmp_path / "many").glob("model-*.safetensors"))) > 5
    assert convert(tmp_path / "many", tmp_path / "one") == 0
    assert_same_tensors(whole, tmp_path / "many")
    assert_same_tensors(whole, tmp_path / "one")


def test_through_gguf(whole, tmp_path):
    """HF to GGUF to Meta to HF."""
    assert convert(whole, tmp_path / "x.gguf", "--format", "gguf") == 0
    assert convert(tmp_path / "x.gguf", tmp_path / "meta", "--format", "meta", "--shards", "4") == 0
    assert convert(tmp_path / "meta", tmp_path / "back") == 0
    assert_same_tensors(whole, tmp_path / "back")


def test_the_official_library_reads_what_is_written(whole, tmp_path):
    """Shards that are streamed are safetensors to the library that defines them."""
    from safetensors import safe_open

    assert convert(whole, tmp_path / "many", "--shard-bytes", "20000", "--dtype", "float32") == 0
    expected = lr.checkpoint.open_hf(whole)
    seen = set()
    for path in (tmp_path / "many").glob("*.safetensors"):
        with safe_open(path, framework="np") as official:
            assert official.metadata() == {"format": "pt"}
            for name in official.keys():  # noqa: SIM118
                seen.add(name)
                assert np.array_equal(official.get_tensor(name), expected[name].astype(np.float32))
    assert seen == set(expected)
    index = json.loads((tmp_path / "many" / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == seen


def test_what_cannot_be_cut_is_refused(whole, tmp_path, capsys):
    """Rows, columns and numbers of files have to come out even; nothing is written."""
    for words in (["--shards", "5"], ["--shards", "0"], ["--shards", "-8"]):
        assert convert(whole, tmp_path / "out", "--format", "meta", *words) == 2
        assert "shards" in capsys.readouterr().err
    assert convert(whole, tmp_path / "out", "--shard-bytes", "0") == 2
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize("form", ["hf", "meta", "raw"])
def test_an_interrupted_conversion_goes_on_and_ends_identical(whole, tmp_path, form, monkeypatch):
    """What was finished is kept and not written again; the end is that of one go."""
    words = ["--format", form, "--resume"]
    words += {"hf": ["--shard-bytes", "20000"], "meta": ["--shards", "4"], "raw": []}[form]
    assert convert(whole, tmp_path / "once", *words) == 0
    out, written, real = tmp_path / "out", [], new_folder._write_one

    def interrupted(path, plan):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(plan.name)
        return real(path, plan)

    monkeypatch.setattr(new_folder, "_write_one", interrupted)
    assert convert(whole, out, *words) == 130
    assert [path.name for path in out.iterdir() if not path.name.startswith(".")] == []
    kept = list(written)
    monkeypatch.setattr(
        new_folder, "_write_one", lambda p, plan: (written.append(plan.name), real(p, plan))[1]
    )
    written.clear()
    assert convert(whole, out, *words) == 0
    assert not set(kept) & set(written)
    names = sorted(path.name for path in (tmp_path / "once").iterdir())
    assert sorted(path.name for path in out.iterdir()) == names
    for name in names:
        assert (out / name).read_bytes() == (tmp_path / "once" / name).read_bytes()


def test_a_damaged_remainder_is_written_again(whole, tmp_path, monkeypatch):
    """A finished file that is not what it was is not believed; nor is another conversion's."""
    out, real, count = tmp_path / "out", new_folder._write_one, [0]

    def interrupted(path, plan):
        count[0] += 1
        if count[0] == 3:
            raise KeyboardInterrupt
        return real(path, plan)

    monkeypatch.setattr(new_folder, "_write_one", interrupted)
    words = ["--shard-bytes", "20000", "--resume"]
    assert convert(whole, out, *words) == 130
    monkeypatch.undo()
    (partial,) = out.iterdir()
    path = sorted(partial.glob("*.safetensors"))[0]
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert convert(whole, tmp_path / "other", "--shard-bytes", "30000", "--resume") == 0
    assert convert(whole, out, *words) == 0
    assert_same_tensors(whole, out)


def test_bytes_that_come_back_otherwise_are_an_error(tmp_path, monkeypatch):
    """What was written is read again; if it is not the same, nothing appears."""
    monkeypatch.setattr(new_folder, "_state", lambda path: [3, 1])
    plan = Plan("a.bin", 3, lambda file: file.write(b"abc"))
    with pytest.raises(BadFile, match="other bytes"):
        write_folder(tmp_path / "out", [plan], lambda n: None)
    assert list((tmp_path / "out").iterdir()) == []
