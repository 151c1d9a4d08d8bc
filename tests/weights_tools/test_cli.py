"""`python -m weights_tools`: every format holds the weights of the formula, bit for bit."""

import json
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import llama_ref as lr
from llama_ref.checkpoint import open_hf, open_meta, synthetic, write_hf
from llama_ref.config import PRESETS, RopeScaling, to_hf_dict
from llama_ref.errors import BadFile, Unsupported
from llama_ref.golden.candidate.raw import open_raw
from llama_ref.names import expected_shapes
from tests.checkpoint import pth_files
from tests.models import TINY, tiny_ids
from weights_tools.__main__ import main
from weights_tools.meta_folder import to_meta_params
from weights_tools.new_folder import Plan, write_folder
from weights_tools.streams import reordered_rows
from weights_tools.torch_archive import FLAGS, Entry

GOLDEN = lr.preset("golden-tiny")
ROOT = Path(__file__).resolve().parents[2]
FORMATS = ["hf", "meta", "raw"]


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def formula(seed=0, variant="plain", n_layers=2):
    return dict(synthetic.checkpoint(replace(GOLDEN, n_layers=n_layers), seed, variant))


def written(folder, *words, form):
    """Write two layers of golden-tiny."""
    line = ["synthetic", "golden-tiny", str(folder), "--n-layers", "2", "--format", form, *words]
    assert main(line) == 0
    return folder


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_hf_folder_holds_the_formula(tmp_path, dtype):
    """Names, shapes, dtype and every number of the safetensors are those of the formula."""
    folder = written(tmp_path / "out", "--dtype", dtype, "--seed", "7", form="hf")
    found = open_hf(folder)
    expected = formula(7)
    assert set(found) == set(expected)
    for name, array in expected.items():
        assert found[name].dtype.name == dtype
        assert found[name].astype(np.float32).tobytes() == array.tobytes()
    assert json.loads((folder / "config.json").read_text())["torch_dtype"] == dtype
    assert lr.load(folder).config == replace(GOLDEN, n_layers=2)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_meta_folder_is_the_same_model(tmp_path, dtype):
    """The .pth opens, its numbers lie on 64-byte boundaries, and logits agree with the formula's.

    Query and key rows are interleaved there, so the agreement says that they were moved rightly.
    """
    folder = written(tmp_path / "out", "--dtype", dtype, form="meta")
    found = open_meta(folder)
    assert all(tensor.ctypes.data % 64 == 0 for tensor in found.values())
    assert {tensor.dtype.name for tensor in found.values()} == {dtype}
    model = lr.load(folder, dtype="float64", lineage="hf")
    assert model.weights.pairing == "interleaved"
    expected = lr.load("synthetic:golden-tiny?n_layers=2", dtype="float64")
    ids = synthetic.token_ids(9, GOLDEN.vocab_size)
    np.testing.assert_allclose(model.logits(ids), expected.logits(ids), rtol=0, atol=1e-12)
    moved = found["layers.1.attention.wk.weight"].astype(np.float32)
    stored = formula()["model.layers.1.self_attn.k_proj.weight"]
    assert moved[32:].tobytes() == stored[32 + np.arange(32).reshape(2, 16).T.ravel()].tobytes()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_raw_files_are_bare_numbers(tmp_path, dtype):
    """Each .bin is the array's bytes, and the reader of raw dumps finds all of them."""
    folder = written(tmp_path / "out", "--dtype", dtype, form="raw")
    expected = formula()
    index = json.loads((folder / "index.json").read_text())
    assert set(index) == set(expected)
    short = {"bfloat16": "bf16", "float16": "f16", "float32": "f32"}[dtype]
    for tensor in open_raw(folder / "index.json"):
        array = expected[tensor.name]
        entry = {"file": f"{tensor.name}.bin", "dtype": short, "offset": 0}
        assert index[tensor.name] == entry | {"shape": list(array.shape)}
        in_file = (folder / f"{tensor.name}.bin").read_bytes()
        assert in_file == array.astype(lr.numerics.dtype_named(dtype)).tobytes()
    assert names_in(folder) == sorted(
        ["config.json", "index.json", *(f"{name}.bin" for name in expected)]
    )


@pytest.mark.parametrize("form", FORMATS)
def test_outliers_are_written(tmp_path, form):
    """The variant changes the gains and the embedding in every format."""
    words = ("--dtype", "float32", "--variant", "outliers")
    folder = written(tmp_path / "out", *words, form=form)
    expected = formula(variant="outliers")["model.norm.weight"].tobytes()
    if form == "raw":
        assert (folder / "model.norm.weight.bin").read_bytes() == expected
    else:
        assert lr.load(folder).weights.final_gain_D.tobytes() == expected


@pytest.mark.parametrize("first", ["hf", "meta"])
def test_converted_there_and_back_is_the_same_file(tmp_path, first):
    """A folder in one layout, converted to the other and back, is the same to the last byte."""
    second = {"hf": "meta", "meta": "hf"}[first]
    written(tmp_path / "a", form=first)
    assert main(["convert", str(tmp_path / "a"), str(tmp_path / "b"), "--format", second]) == 0
    assert main(["convert", str(tmp_path / "b"), str(tmp_path / "c"), "--format", first]) == 0
    assert names_in(tmp_path / "a") == names_in(tmp_path / "c")
    for name in names_in(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "c" / name).read_bytes()


def test_convert_keeps_the_dtype_unless_told(tmp_path):
    """Numbers stay as stored; with --dtype they are rounded to it."""
    write_hf(tmp_path / "a", to_hf_dict(TINY), synthetic.checkpoint(TINY))
    assert main(["convert", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    words = ["convert", str(tmp_path / "a"), str(tmp_path / "c"), "--dtype", "bfloat16"]
    assert main(words) == 0
    kinds = [open_hf(tmp_path / x)["lm_head.weight"].dtype.name for x in "bc"]
    assert kinds == ["float32", "bfloat16"]
    same = (lr.load(tmp_path / x).logits(tiny_ids(3)).tobytes() for x in "ab")
    assert len(set(same)) == 1


def test_a_tied_model_has_no_head(tmp_path):
    """Where embeddings are tied, no format holds a second matrix, and the folder opens as tied."""
    tied = replace(TINY, head_dim=4, tied_embeddings=True)
    write_hf(tmp_path / "a", to_hf_dict(tied), synthetic.checkpoint(tied))
    for form in FORMATS:
        assert main(["convert", str(tmp_path / "a"), str(tmp_path / form), "--format", form]) == 0
    assert "output.weight" not in open_meta(tmp_path / "meta")
    assert not (tmp_path / "raw" / "lm_head.weight.bin").exists()
    models = [lr.load(tmp_path / form, dtype="float64", lineage="hf") for form in ("hf", "meta")]
    assert all(model.config.tied_embeddings for model in models)
    found, expected = (model.logits(tiny_ids(5)) for model in models)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_rows_move_as_published():
    """Half-split to interleaved and back: the two numbers of a pair come to stand side by side."""
    head = np.arange(10)[:, None]
    there = reordered_rows(head, "meta")
    assert there[:, 0].tolist() == [0, 5, 1, 6, 2, 7, 3, 8, 4, 9]
    assert reordered_rows(there, "hf").tolist() == head.tolist()


@pytest.mark.parametrize("name", PRESETS)
def test_params_state_every_preset(name):
    """Each published blueprint can be written as a params.json that reads back as itself."""
    params = to_meta_params(PRESETS[name])
    assert params["multiple_of"] == PRESETS[name].d_ff


BEYOND_PARAMS = {
    "head_dim": replace(GOLDEN, head_dim=64),
    "rope_scaling": replace(GOLDEN, rope_scaling=RopeScaling(8.0, 1.0, 2.0, 8192)),
}


@pytest.mark.parametrize("field", BEYOND_PARAMS)
def test_what_params_cannot_state_is_refused(field):
    """A blueprint that Meta's file has no key for is refused by the field that would change."""
    with pytest.raises(Unsupported, match=f"{field} in params.json.*--format hf"):
        to_meta_params(BEYOND_PARAMS[field])


def test_a_narrow_feed_forward_is_stated_too():
    """F below 8/3 D is reached by the factor: any F is read back as it was."""
    for d_ff in (1, 2, 100, 681, 682, 683, 5000):
        to_meta_params(replace(GOLDEN, d_ff=d_ff))


@pytest.mark.parametrize("size", [0, 5, 2**32 - 2, 2**32 - 1, 2**32, 2**40])
@pytest.mark.parametrize("at", [0, 2**32 - 1, 2**33])
def test_members_beyond_4_gib_are_listed_in_64_bits(size, at):
    """An entry of the directory is the one that an independent writer of the format makes."""
    expected = pth_files.directory_entry(b"a/data/0", 77, size, at, flags=FLAGS)
    assert Entry(b"a/data/0", 77, size, at).packed() == expected


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "precious",
    ["config.json", "params.json", "index.json", "consolidated.00.pth", "model.safetensors"],
)
def test_an_existing_checkpoint_is_not_overwritten(tmp_path, capsys, form, precious):
    """A folder in which any part of any checkpoint lies is refused, and left as it is."""
    (tmp_path / precious).write_bytes(b"precious")
    assert main(["synthetic", "golden-tiny", str(tmp_path), "--format", form]) == 2
    assert f"without a checkpoint, found '{precious}'" in capsys.readouterr().err
    assert names_in(tmp_path) == [precious]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, BadFile("source")])
def test_an_interrupted_write_leaves_nothing(tmp_path, stop):
    """Whatever stops the writing passes through, and no file is left."""

    def write(file):
        file.write(b"half")
        raise stop

    with pytest.raises(stop if isinstance(stop, type) else type(stop)):
        write_folder(tmp_path / "out", [Plan("a.bin", 8, write)], lambda n: None)
    assert names_in(tmp_path / "out") == []


@pytest.mark.skipif(sys.platform != "linux", reason="sets the limit of file sizes of a child")
@pytest.mark.parametrize("form", FORMATS)
def test_a_full_disk_is_said_in_a_line_and_leaves_nothing(tmp_path, form):
    """When the system stops taking bytes, the exit code is 2 and the folder stays empty."""
    program = f"""
        import resource, signal, sys
        from weights_tools.__main__ import main
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        sys.exit(main(["synthetic", "golden-tiny", sys.argv[1], "--format", "{form}"]))
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path / "out")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert ran.returncode == 2
    assert "cannot be written" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1
    assert names_in(tmp_path / "out") == []


REFUSED = {
    "no such preset": (["synthetic", "llama-9", "OUT"], "golden-tiny"),
    "no such folder": (["convert", "nowhere", "OUT"], "not a readable folder"),
    "a seed out of range": (["synthetic", "golden-tiny", "OUT", "--seed", "-1"], "seed"),
    "no layers": (["synthetic", "golden-tiny", "OUT", "--n-layers", "0"], "n_layers"),
    "another format": (["synthetic", "golden-tiny", "OUT", "--format", "onnx"], "onnx"),
    "another dtype": (["synthetic", "golden-tiny", "OUT", "--dtype", "int8"], "int8"),
    "no verb": ([], "required"),
}


@pytest.mark.parametrize(("words", "says"), REFUSED.values(), ids=list(REFUSED))
def test_what_cannot_be_done_is_said(tmp_path, capsys, monkeypatch, words, says):
    """A wrong word ends with exit code 2 and its reason, and makes no folder."""
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert says in capsys.readouterr().err
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("form", FORMATS)
def test_what_was_written_is_reported(tmp_path, capsys, form):
    """With --json one object says where, what and how much; without, one line does."""
    written(tmp_path / "a", "--json", form=form)
    report = json.loads(capsys.readouterr().out)
    n = len(expected_shapes(replace(GOLDEN, n_layers=2), "hf"))
    assert (report["format"], report["tensors"]) == (form, n)
    assert report["bytes"] == 2 * replace(GOLDEN, n_layers=2).n_params
    assert report["dtypes"] == ["bfloat16"]
    written(tmp_path / "b", form=form)
    assert f"{n} tensors" in capsys.readouterr().out


def test_the_package_runs_as_a_module(tmp_path):
    """`python -m weights_tools` is the command, with its own help."""
    command = [sys.executable, "-m", "weights_tools", "synthetic", "golden-tiny", "out"]
    ran = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
    )
    assert "39 tensors" in ran.stdout
    assert main(["--help"]) == 0
