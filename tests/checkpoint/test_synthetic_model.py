"""Whole models by formula: the same as from files, at no cost, and named like a path."""

import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import llama_ref as lr
from llama_ref.checkpoint import open_synthetic, synthetic, write_hf
from llama_ref.checkpoint.synthetic_model import SyntheticMatrix
from llama_ref.config import PRESETS, to_hf_dict
from llama_ref.errors import BadConfig, BadFile, BadRequest
from llama_ref.names import expected_shapes
from llama_ref.numerics import Matrix
from tests.models import TINY, tiny_ids

GOLDEN = lr.preset("golden-tiny")
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("variant", ["plain", "outliers"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
@pytest.mark.parametrize("widen", [False, True])
def test_model_by_formula_equals_the_model_from_files(tmp_path, dtype, widen, variant):
    """Logits are bit for bit those of the same weights written as a folder and opened from it."""
    tensors = synthetic.checkpoint(replace(GOLDEN, n_layers=2), 3, variant)
    write_hf(tmp_path / "files", to_hf_dict(replace(GOLDEN, n_layers=2)), tensors)
    path = f"synthetic:golden-tiny?seed=3&n_layers=2&variant={variant}"
    options = {"dtype": dtype, "widen": widen, "lineage": "meta"}
    computed, mapped = lr.load(path, **options), lr.load(tmp_path / "files", **options)
    ids = synthetic.token_ids(7, GOLDEN.vocab_size)
    found, expected = computed.logits(ids), mapped.logits(ids)
    assert computed.config == mapped.config
    assert computed.tokenizer is None
    assert found.dtype == expected.dtype
    # A computed matrix is multiplied some rows at a time, a mapped one of float32 in one go.
    if dtype == "float32" and not widen:
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    else:
        assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_opens_with_every_tensor(name):
    """Each published blueprint has all its tensors: gains as arrays, matrices as promises."""
    model = lr.load(f"synthetic:{name}")
    checkpoint = open_synthetic(lr.preset(name))
    shapes = expected_shapes(lr.preset(name), "hf")
    assert model.config is lr.preset(name)
    assert {key: tuple(tensor.shape) for key, tensor in checkpoint.items()} == shapes
    assert checkpoint.layout == "hf"
    assert not checkpoint.has_files
    for key, tensor in checkpoint.items():
        assert tensor.dtype == np.float32
        assert isinstance(tensor, np.ndarray if len(shapes[key]) == 1 else SyntheticMatrix)
    tied = lr.preset(name).tied_embeddings
    assert (model.weights.w_head_VD is model.weights.embedding_VD) == tied


@pytest.mark.parametrize("variant", ["plain", "outliers"])
def test_a_matrix_hands_out_the_rows_of_its_tensor(variant):
    """Rows, the whole, and the whole in another dtype are those that `tensor` computes."""
    checkpoint = open_synthetic(TINY, 5, variant)
    for name, matrix in checkpoint.items():
        whole = synthetic.tensor(name, tuple(matrix.shape), 5, variant=variant)
        assert np.asarray(matrix).tobytes() == whole.tobytes()
        if isinstance(matrix, SyntheticMatrix):
            assert isinstance(matrix, Matrix)
            assert matrix.ndim == 2
            assert matrix.rows(2, 9).tobytes() == whole[2:9].tobytes()
            assert np.asarray(matrix, np.float64).tolist() == whole.tolist()
            with pytest.raises(BadRequest, match="leave to compute it"):
                np.array(matrix, copy=False)
            with pytest.raises(BadRequest, match="rows"):
                matrix.rows(0, matrix.shape[0] + 1)


def test_405b_opens_at_once_and_in_no_memory():
    """Opening 405 billion weights takes a moment, and as much memory as its gains."""
    program = """
        import resource, time
        import llama_ref as lr
        lr.load("synthetic:golden-tiny")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start = time.perf_counter()
        model = lr.load("synthetic:llama-3.1-405b?seed=1")
        seconds = time.perf_counter() - start
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        row = model.weights.layers[125].w_down_DF.rows(16383, 16384)
        print(seconds, grown * (1 if __import__("sys").platform == "darwin" else 1024), row.shape)
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    seconds, grown, shape = ran.stdout.split(maxsplit=2)
    gains = 4 * 16384 * (2 * 126 + 1)
    assert float(seconds) < 10
    assert int(grown) < 3 * gains
    assert shape.strip() == "(1, 53248)"


def test_options_choose_seed_layers_and_variant():
    """Each option of the path does what the arguments of `open_synthetic` do."""
    model = lr.load("synthetic:golden-tiny?variant=outliers&n_layers=3&seed=4294967295")
    expected = open_synthetic(replace(GOLDEN, n_layers=3), 2**32 - 1, "outliers")
    assert model.config == replace(GOLDEN, n_layers=3)
    assert model.weights.embedding_VD == expected["model.embed_tokens.weight"]
    assert model.weights.final_gain_D.tolist() == expected["model.norm.weight"].tolist()
    plain = lr.load("synthetic:golden-tiny")
    assert plain.weights.embedding_VD == open_synthetic(GOLDEN, 0)["model.embed_tokens.weight"]
    assert lr.load(Path("synthetic:golden-tiny?seed=1")).lineage.name == "hf"


REFUSED = {
    "no name": ("", BadRequest, "preset: expected one of .*golden-tiny"),
    "an unknown name": ("llama-9", BadRequest, "found 'llama-9'"),
    "a hostile name": ("\x1b[31m\n", BadRequest, r"found '\\x1b\[31m\\n'"),
    "an unknown option": ("golden-tiny?layers=2", BadRequest, "n_layers=.*found 'layers=2'"),
    "an option without a value": ("golden-tiny?seed=", BadRequest, "found 'seed='"),
    "a word": ("golden-tiny?outliers", BadRequest, "found 'outliers'"),
    "an empty option": ("golden-tiny?seed=1&", BadRequest, "found ''"),
    "an option twice": ("golden-tiny?seed=1&seed=1", BadRequest, "seed.*expected once"),
    "a negative seed": ("golden-tiny?seed=-1", BadRequest, "seed.*whole number, found '-1'"),
    "a seed beyond 32 bits": ("golden-tiny?seed=4294967296", BadRequest, "seed.*2\\^32"),
    "a seed of many digits": (f"golden-tiny?seed={'9' * 5000}", BadRequest, "seed.*whole"),
    "a seed in other digits": ("golden-tiny?seed=٣", BadRequest, "seed.*whole number"),
    "no layer": ("golden-tiny?n_layers=0", BadConfig, "n_layers.*from 1"),
    "too many layers": ("golden-tiny?n_layers=999999", BadConfig, "n_layers"),
    "half a layer": ("golden-tiny?n_layers=1.5", BadRequest, "n_layers.*found '1.5'"),
    "another variant": ("golden-tiny?variant=wild", BadRequest, "plain or outliers, found 'wild'"),
    "a second question": ("golden-tiny?seed=1?n_layers=2", BadRequest, "found '1\\?n_layers=2'"),
}


@pytest.mark.parametrize(("rest", "error", "words"), REFUSED.values(), ids=list(REFUSED))
def test_a_path_that_names_no_model_is_refused(rest, error, words):
    """What follows `synthetic:` is a preset and known options, or an error says what is not."""
    with pytest.raises(error, match=words) as caught:
        lr.load(f"synthetic:{rest}")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


def test_a_folder_of_that_name_has_a_full_path(tmp_path):
    """Only a path that begins with `synthetic:` is no folder."""
    folder = tmp_path / "synthetic:golden-tiny"
    with pytest.raises(BadFile, match="not a readable folder"):
        lr.load(folder)
    write_hf(folder, to_hf_dict(TINY), synthetic.checkpoint(TINY))
    assert lr.load(folder).logits(tiny_ids(2)).shape == (2, TINY.vocab_size)


def test_a_seed_or_variant_out_of_range_is_refused_at_once():
    """`open_synthetic` does not wait for the first row to refuse what the formula has not."""
    for seed in (-1, 2**32, 1.0, "1", True):
        with pytest.raises(BadRequest, match="seed"):
            open_synthetic(TINY, seed)
    with pytest.raises(BadRequest, match="variant"):
        open_synthetic(TINY, 0, "wild")


@pytest.mark.parametrize("seed", range(3))
def test_outliers_stay_finite_in_float16(seed):
    """A float16 pass of golden-tiny stays far below the largest float16, and far above plain's."""

    def largest(variant):
        path = f"synthetic:golden-tiny?seed={seed}&variant={variant}"
        model = lr.load(path, dtype="float16", widen=True)
        trace = model.trace(synthetic.token_ids(64, GOLDEN.vocab_size, seed))
        assert all(np.isfinite(array).all() for array in trace.values())
        return max(float(np.abs(array).max()) for array in trace.values())

    plain, outliers = largest("plain"), largest("outliers")
    assert 12 < plain < 20
    assert 5 * plain < outliers < 200


def test_inspect_and_generate_take_the_path(capsys):
    """The command line shows such a model, checks all its numbers, and runs it on ids."""
    from llama_ref.__main__ import main

    assert main(["inspect", "synthetic:golden-tiny?n_layers=2", "--check"]) == 0
    out = capsys.readouterr().out
    assert "every number is computed when it is needed" in out
    assert "Nothing is wrong: every number was read." in out
    assert main(["inspect", "synthetic:golden-tiny", "--json"]) == 0
    capsys.readouterr()
    words = ["generate", "synthetic:llama-guard-3-1b?n_layers=1", "--ids", "--max-tokens", "2"]
    assert main(words) == 0
    assert len(capsys.readouterr().out.split()) == 2
    assert main(["inspect", "synthetic:golden-small"]) == 2
    assert "golden-tiny" in capsys.readouterr().err
