"""From a folder to a model: which layout it is, what stands beside the weights, what is said."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

import llama_ref as lr
from llama_ref import loading
from llama_ref.checkpoint import Checkpoint, synthetic, write_hf
from llama_ref.cli.demo_checkpoint import write_demo
from llama_ref.config import to_hf_dict
from llama_ref.errors import BadFile, BadRequest, Unsupported
from tests.checkpoint.pth_files import write_pth
from tests.models import TINY, meta_name, tiny_ids, tiny_model


@pytest.fixture
def folder(tmp_path):
    write_hf(tmp_path / "tiny", to_hf_dict(TINY), synthetic.checkpoint(TINY), shard_bytes=20_000)
    return tmp_path / "tiny"


def test_sharded_folder_computes_what_its_tensors_do(folder):
    """Written, sharded, mapped and loaded, the weights give the logits they gave in memory."""
    assert len(list(folder.glob("*.safetensors"))) > 2
    model = lr.load(folder)
    assert model.config == TINY
    assert model.tokenizer is None
    assert model.lineage.name == "hf"
    np.testing.assert_allclose(
        model.logits(tiny_ids(9)), tiny_model().logits(tiny_ids(9)), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
def test_dtype_is_that_of_the_activations(folder, dtype):
    """Logits come in the dtype asked for in lineage hf, and no narrower than float32 in meta."""
    assert str(lr.load(folder, dtype=dtype).logits([1, 2]).dtype) == dtype
    wide = lr.load(folder, dtype=dtype, lineage="meta").logits([1, 2])
    assert str(wide.dtype) == ("float64" if dtype == "float64" else "float32")


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"dtype": "float8"}, Unsupported, "activation dtype"),
        ({"lineage": "llama.cpp"}, BadRequest, "lineage"),
    ],
)
def test_unknown_options_are_refused(folder, options, error, says):
    """A dtype or lineage that does not exist is named, with those that do."""
    with pytest.raises(error, match=says):
        lr.load(folder, **options)


def test_folder_without_a_checkpoint_says_what_it_holds(tmp_path):
    """A folder of other things, and one that is not there, are named."""
    (tmp_path / "notes.txt").write_text("x", encoding="utf-8")
    with pytest.raises(BadFile, match=r"config\.json.*notes\.txt"):
        lr.load(tmp_path)
    with pytest.raises(BadFile, match="not a readable folder"):
        lr.load(tmp_path / "nowhere")
    with pytest.raises(BadFile, match="not a readable folder"):
        lr.load(tmp_path / "notes.txt")


SQUARE = replace(TINY, head_dim=4)  # params.json can only say D = N * H
PARAMS = {
    "dim": 24,
    "n_layers": 2,
    "n_heads": 6,
    "n_kv_heads": 3,
    "hidden_dim": 44,
    "vocab_size": 97,
    "norm_eps": 1e-5,
    "rope_theta": 500_000.0,
    "use_scaled_rope": True,
    "rope_scaling_factor": 8.0,
    "max_seq_len": 131_072,
}


@pytest.mark.parametrize("with_safetensors", [True, False])
def test_weight_files_decide_between_two_blueprints(tmp_path, with_safetensors):
    """Where config.json and params.json agree, safetensors are read first, else the .pth files."""
    tensors = dict(synthetic.checkpoint(SQUARE))
    write_hf(tmp_path / "both", to_hf_dict(SQUARE), tensors.items())
    (tmp_path / "both" / "params.json").write_text(json.dumps(PARAMS), encoding="utf-8")
    meta = {meta_name(name, SQUARE.n_layers): array for name, array in tensors.items()}
    write_pth(tmp_path / "both" / "consolidated.00.pth", meta)
    if not with_safetensors:
        (tmp_path / "both" / "model.safetensors").unlink()
    model = lr.load(tmp_path / "both")
    assert model.weights.layout == ("hf" if with_safetensors else "meta")
    assert model.logits([1, 2]).shape == (2, 97)


def test_another_tokenizer_leaves_a_way_out(tmp_path):
    """A tokenizer that is not Llama's stops the load, and the message says how to do without."""
    write_demo(tmp_path / "demo")
    (tmp_path / "demo" / "tokenizer.model").unlink()
    other = {"model": {"type": "WordPiece"}}
    (tmp_path / "demo" / "tokenizer.json").write_text(json.dumps(other), encoding="utf-8")
    with pytest.raises(Unsupported, match=r"tokenizer\.json.*tokenizer=False"):
        lr.load(tmp_path / "demo")
    model = lr.load(tmp_path / "demo", tokenizer=False)
    assert model.tokenizer is None
    assert len(list(lr.generate(model, [1], max_tokens=2))) == 2


def test_blueprint_and_weights_have_to_agree(folder):
    """A config.json of another shape is refused by the first tensor that does not fit."""
    stated = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    stated["intermediate_size"] = 48
    (folder / "config.json").write_text(json.dumps(stated), encoding="utf-8")
    with pytest.raises(BadFile, match=r"mlp\.gate_proj.*\(48, 24\).*\(44, 24\)"):
        lr.load(folder)


def test_a_folder_with_a_hostile_name_is_shown_escaped(tmp_path):
    """Model, checkpoint and blueprint show the name of their folder as printable text."""
    folder = tmp_path / "\x1b[31m\u202e\n"
    write_hf(folder, to_hf_dict(TINY), synthetic.checkpoint(TINY))
    for shown in (lr.load(folder), loading.open_checkpoint(folder)[0], lr.load(folder).config):
        assert repr(shown).isprintable()


def test_tied_means_the_same_view():
    """Two names for one view are tied; views that overlap are two, at once.

    Whether the pair from NumPy's manual overlaps takes it a minute to find out, and longer with
    more dimensions: `np.shares_memory` must not be asked about strides from a file.
    """
    memory = np.zeros(192_163_377, np.int8)  # of which nothing is touched
    one = as_strided(memory, shape=(1049, 1049, 1049), strides=(36674, 61119, 85569))
    other = as_strided(memory[64_023_025:], shape=(1049, 1049, 1), strides=(12223, 12224, 1))

    def is_tied(embedding, head):
        tensors = {"tok_embeddings.weight": embedding, "output.weight": head}
        return loading._is_tied(Checkpoint(Path("here"), "meta", tensors, {}))

    assert is_tied(one, one[:])
    assert not is_tied(one, other)
    assert not is_tied(memory[:9], memory[1:10])
    assert not is_tied(memory[:9], memory[:18:2])
