"""`llama-ref inspect`: what a checkpoint holds, and everything that is wrong with it at once."""

import json
import shutil

import ml_dtypes
import numpy as np
import pytest

from llama_ref.__main__ import CANNOT_RUN, main
from llama_ref.checkpoint import open_hf, synthetic, write_hf
from llama_ref.cli.demo_checkpoint import CONFIG
from llama_ref.config.hf import parse_hf_config
from tests.checkpoint.pth_files import write_pth
from tests.models import meta_name
from weights_tools.__main__ import main as write_weights

FINDING, GOOD = 1, 0
QUERY = "model.layers.2.self_attn.q_proj.weight"
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@pytest.fixture
def tensors(small_checkpoint):
    """The tensors of the small checkpoint, in memory, to be damaged."""
    return {name: np.array(tensor) for name, tensor in open_hf(small_checkpoint).items()}


def inspect(capsys, folder, *options):
    """Run, and return exit code and output."""
    code = main(["inspect", str(folder), *options])
    return code, capsys.readouterr().out


def found_in(capsys, tmp_path, tensors, *options, **changes):
    """Write tensors as a checkpoint; return exit code and the findings of --json."""
    write_hf(tmp_path / "made", CONFIG | changes, tensors.items())
    code, output = inspect(capsys, tmp_path / "made", "--json", *options)
    findings = json.loads(output)["findings"]
    return code, [(f["kind"], f["thing"], f["is_warning"]) for f in findings]


def test_a_good_checkpoint_has_no_findings(small_checkpoint, capsys):
    """Exit code 0, with headers read and with everything read."""
    for options, said in (([], "names, shapes and dtypes"), (["--check"], "every number was read")):
        code, output = inspect(capsys, small_checkpoint, *options)
        assert code == GOOD
        assert f"Nothing is wrong{' with' if not options else ':'} {said}" in output


def test_the_overview_names_sizes_files_and_tensors(small_checkpoint, monkeypatch, capsys):
    """Blueprint, files, one block for the four equal layers, totals: all in 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    code, output = inspect(capsys, small_checkpoint)
    assert code == GOOD and max(map(len, output.splitlines())) <= 80
    assert ": 242,240 parameters" in output
    first = (small_checkpoint / "model-00001-of-00005.safetensors").stat().st_size
    assert f"[1]  model-00001-of-00005.safetensors   8 tensors   {round(first / 1000)} kB" in output
    assert "  model.layers.0 … 3, each" in output
    assert "    self_attn.k_proj.weight          bfloat16  16 × 64   2.05 kB  [1–4]" in output
    assert "  bfloat16  39 tensors  484 kB" in output
    assert "tokenizer.model: 512 tokens, begins with 256, stops at 257, 264, 265" in output


def test_all_shows_every_tensor_by_its_stored_name(small_checkpoint, capsys):
    """--all writes one line for each of the 39 tensors."""
    _, output = inspect(capsys, small_checkpoint, "--all")
    shown = [line.split()[0] for line in output.splitlines() if ".weight" in line]
    assert sorted(shown) == sorted(open_hf(small_checkpoint))


def test_the_report_holds_every_tensor(small_checkpoint, capsys):
    """--json holds the blueprint and, for each tensor, dtype, shape, bytes and files."""
    code, output = inspect(capsys, small_checkpoint, "--json")
    found = json.loads(output)
    assert code == GOOD and found["findings"] == [] and not found["checked"]
    assert (found["layout"], found["n_params"]) == ("hf", 242_240)
    assert found["config"]["rope_scaling"]["factor"] == 8
    tensor = next(tensor for tensor in found["tensors"] if tensor["name"] == QUERY)
    assert (tensor["dtype"], tensor["shape"], tensor["bytes"]) == ("bfloat16", [64, 64], 8192)
    stored_in = {name: open_hf(small_checkpoint).files[name] for name in (QUERY,)}
    assert tensor["files"] == [*stored_in[QUERY]]
    assert found["totals"] == {"bfloat16": {"tensors": 39, "bytes": 2 * 242_240}}
    sizes = {file["name"]: file["bytes"] for file in found["files"]}
    assert sizes == {name: (small_checkpoint / name).stat().st_size for name in sizes}


def test_layers_that_differ_are_not_folded(tmp_path, tensors, capsys):
    """A layer with another dtype stands alone, between those that are alike."""
    tensors[QUERY] = tensors[QUERY].astype(np.float32)
    write_hf(tmp_path / "made", CONFIG, tensors.items())
    code, output = inspect(capsys, tmp_path / "made")
    assert code == GOOD
    headings = [line.split("  ")[1] for line in output.splitlines() if "  model.layers" in line]
    assert headings == ["model.layers.0 … 1, each", "model.layers.2", "model.layers.3"]


def test_everything_wrong_with_the_headers_is_listed_at_once(tmp_path, tensors, capsys):
    """Missing, unexpected, misshapen and non-floating tensors are all named in one run."""
    del tensors["model.norm.weight"]
    tensors["model.layers.9.mlp.up_proj.bias"] = np.zeros(3, np.float32)
    tensors[QUERY] = tensors[QUERY].T[:10].copy()
    tensors[HEAD] = np.ones(tensors[HEAD].shape, np.int64)
    code, findings = found_in(capsys, tmp_path, tensors)
    assert code == FINDING
    assert findings == [
        ("missing", "model.norm.weight", False),
        ("unexpected", "model.layers.9.mlp.up_proj.bias", False),
        ("shape", QUERY, False),
        ("dtype", HEAD, False),
    ]


def test_a_table_that_is_recomputed_is_no_finding(tmp_path, tensors, capsys):
    """`rotary_emb.inv_freq`, as old files carry it, is shown and not complained about."""
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    code, findings = found_in(capsys, tmp_path, tensors | {name: np.ones(4, np.float32)}, "--check")
    assert (code, findings) == (GOOD, [])


def test_a_tokenizer_of_another_size_is_a_finding(small_checkpoint, tmp_path, tensors, capsys):
    """A tokenizer that does not fit the embedding is reported beside the tensors."""
    smaller = {
        name: tensor[:500] if name in (EMBEDDING, HEAD) else tensor
        for name, tensor in tensors.items()
    }
    (tmp_path / "made").mkdir()
    shutil.copy(small_checkpoint / "tokenizer.model", tmp_path / "made")
    code, findings = found_in(capsys, tmp_path, smaller, vocab_size=500)
    assert (code, findings) == (FINDING, [("tokenizer", "tokenizer", False)])


@pytest.mark.parametrize("value", [np.nan, -np.inf], ids=["B3-51 NaN", "B3-51 infinity"])
def test_b3_51_a_number_that_is_none_is_found_by_check(tmp_path, tensors, value, capsys):
    """--check names the tensor and the index; without it nothing is read."""
    tensors[QUERY][63, 5] = value
    code, findings = found_in(capsys, tmp_path, tensors, "--check")
    assert (code, findings) == (FINDING, [("non-finite", QUERY, False)])
    code, output = inspect(capsys, tmp_path / "made", "--check")
    assert code == FINDING and f"non-finite: {QUERY}: {value} at (63, 5)" in output
    assert inspect(capsys, tmp_path / "made")[0] == GOOD


@pytest.mark.parametrize("value", [0.0, 0.5], ids=["B3-52 zero", "B3-52 constant"])
def test_b3_52_a_constant_matrix_is_a_warning_of_check(tmp_path, tensors, value, capsys):
    """A matrix that is one number all over is named; the exit code stays 0."""
    tensors[QUERY][:] = value
    code, findings = found_in(capsys, tmp_path, tensors, "--check")
    assert (code, findings) == (GOOD, [("constant", QUERY, True)])
    code, output = inspect(capsys, tmp_path / "made", "--check")
    assert f"warning: {QUERY}: every element is {'zero' if value == 0 else '0.5'}" in output


@pytest.mark.parametrize("row", [0, 37], ids=["in a sampled row", "in any row"])
def test_a_tied_head_is_compared_in_full_by_check(tmp_path, tensors, row, capsys):
    """A stored head that differs from the tied embedding in one number is found."""
    tensors[HEAD] = tensors[EMBEDDING].copy()
    assert found_in(capsys, tmp_path, tensors, "--check", tie_word_embeddings=True)[1] == []
    tensors[HEAD][row, 1] += np.asarray(1, ml_dtypes.bfloat16)
    shutil.rmtree(tmp_path / "made")
    code, findings = found_in(capsys, tmp_path, tensors, "--check", tie_word_embeddings=True)
    assert code == FINDING and ("tied", HEAD, False) in findings


def test_a_damaged_pth_file_is_found_by_check(tmp_path, tensors, capsys):
    """One flipped bit in a storage of a .pth file breaks its checksum, which --check compares."""
    floats = {meta_name(name, 4): tensor for name, tensor in tensors.items()}
    write_pth(tmp_path / "consolidated.00.pth", floats)
    params = {"dim": 64, "n_layers": 4, "n_heads": 8, "n_kv_heads": 2, "vocab_size": 512}
    params |= {"multiple_of": 16, "ffn_dim_multiplier": 1.0, "norm_eps": 1e-5}
    params |= {"rope_theta": 500000.0, "use_scaled_rope": True, "rope_scaling_factor": 8}
    (tmp_path / "params.json").write_text(json.dumps(params))
    code, output = inspect(capsys, tmp_path, "--check")
    assert code == GOOD and "layout   meta" in output

    data = bytearray((tmp_path / "consolidated.00.pth").read_bytes())
    at = data.find(floats["norm.weight"].tobytes())
    data[at] ^= 1
    (tmp_path / "consolidated.00.pth").write_bytes(data)
    code, output = inspect(capsys, tmp_path, "--check")
    assert code == FINDING and "damaged: consolidated.00.pth: " in output
    assert inspect(capsys, tmp_path)[0] == GOOD


def test_hostile_names_are_escaped(tmp_path, tensors, capsys):
    """Escape codes, line ends and reordering in a tensor's name reach no output; 10 kB are cut."""
    tensors["a\x1b[2J\n\u202eb"] = np.zeros(1, np.float32)
    tensors["x" * 10_000] = np.zeros(1, np.float32)
    code, findings = found_in(capsys, tmp_path, tensors)
    assert code == FINDING
    assert findings[0][:2] == ("unexpected", r"a\x1b[2J\n\u202eb")
    _, output = inspect(capsys, tmp_path / "made", "--all")
    assert not set(output) & {"\x1b", "\u202e"}
    assert "x" * 100 not in output


def test_a_folder_that_cannot_be_opened_is_exit_code_2(small_checkpoint, tmp_path, capsys):
    """A missing shard is no finding among others: nothing can be inspected."""
    folder = shutil.copytree(small_checkpoint, tmp_path / "cut")
    (folder / "model-00003-of-00005.safetensors").unlink()
    assert main(["inspect", str(folder)]) == CANNOT_RUN
    captured = capsys.readouterr()
    assert captured.out == "" and "model-00003-of-00005.safetensors" in captured.err


def test_a_gguf_file_is_shown_like_a_folder(capsys, small_checkpoint, tmp_path):
    """Its layers folded, its own size, llama.cpp's names; read through where asked."""
    path = tmp_path / "small.gguf"
    assert write_weights(["convert", str(small_checkpoint), str(path), "--format", "gguf"]) == 0
    capsys.readouterr()
    code, output = inspect(capsys, path, "--check")
    assert code == GOOD
    assert "blk.0 … " in output
    assert "llama.cpp's names" in output
    report = json.loads(inspect(capsys, path, "--json")[1])
    assert str(path.stat().st_size) in json.dumps(report["files"])


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        *(("fp8", "float8_e4m3fn"), ("fp8-meta", "float8_e4m3fn")),
        *(("int4", "int4"), ("int4-spinquant", "int4")),
    ],
)
def test_quantised_matrices_are_shown_as_stored(capsys, tmp_path, kind, dtype):
    """The dtype is that of the numbers in the file, and the total is near the size of the files."""
    config = CONFIG | {"num_hidden_layers": 4, "intermediate_size": 128, "hidden_size": 64}
    whole, folder = tmp_path / "whole", tmp_path / kind
    blueprint = parse_hf_config(config, file="config.json")
    write_hf(whole, config, synthetic.checkpoint(blueprint))
    assert write_weights(["quantise", str(whole), str(folder), "--to", kind]) == 0
    capsys.readouterr()
    code, output = inspect(capsys, folder, "--json", "--check")
    assert code == GOOD, output
    tensors = json.loads(output)["tensors"]
    stored = [tensor for tensor in tensors if tensor["dtype"] == dtype]
    assert len(stored) == (6 if "fp8" in kind else 28)
    n_bytes = sum(tensor["bytes"] for tensor in tensors)
    files = sum(file.stat().st_size for file in folder.iterdir() if file.suffix != ".json")
    assert 0.8 < n_bytes / files < 1.05
