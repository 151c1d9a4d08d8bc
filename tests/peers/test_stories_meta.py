"""The trained model as a Meta checkpoint: interleaved rows in .pth files that torch wrote."""

import json
import shutil

import numpy as np
import pytest
import torch

import llama_ref as lr
from llama_ref.names import LAYER_NAMES, OUTER_NAMES
from llama_ref.numerics import rows_of

pytestmark = pytest.mark.real

BY_ROWS = ("wq", "wk", "wv", "w1", "w3", "output", "tok_embeddings")
BY_COLUMNS = ("wo", "w2")


def interleaved(weight, head_dim):
    """Reorder rows from half-split to interleaved: row c * H/2 + r of a head becomes 2 r + c."""
    heads = weight.reshape(-1, 2, head_dim // 2, weight.shape[1])
    return np.ascontiguousarray(heads.swapaxes(1, 2)).reshape(weight.shape)


def meta_tensors(model):
    """Return the tensors of an HF model under Meta's names, in Meta's order of rows."""
    fields = {(None, field): name for field, name in OUTER_NAMES["meta"].items()}
    for i in range(model.config.n_layers):
        fields |= {(i, field): name.format(i) for field, name in LAYER_NAMES["meta"].items()}
    del fields[(None, "w_head_VD")]  # tied
    tensors = {}
    for (layer, field), name in fields.items():
        holder = model.weights if layer is None else model.weights.layers[layer]
        array = np.array(getattr(holder, field))
        turned = field in ("w_query_AD", "w_key_BD")
        tensors[name] = interleaved(array, model.config.head_dim) if turned else array
    return tensors


def cut(name, array, n_shards, shard):
    owner = name.removesuffix(".weight").rpartition(".")[2]
    axis = 0 if owner in BY_ROWS else 1 if owner in BY_COLUMNS else None
    return array if axis is None else np.split(array, n_shards, axis)[shard]


def write_meta(folder, stories_folder, *, n_shards=1, stored_kv_heads=4, stated_kv_heads=4):
    """Write the stories model in Meta's layout, key and value heads as often as asked."""
    tensors = meta_tensors(lr.load(stories_folder))
    for name, array in tensors.items():
        if name.endswith(("wk.weight", "wv.weight")):
            heads = array.reshape(4, 8, 64).repeat(stored_kv_heads // 4, axis=0)
            tensors[name] = heads.reshape(-1, 64)
    for shard in range(n_shards):
        state = {
            name: torch.from_numpy(np.ascontiguousarray(cut(name, array, n_shards, shard)))
            for name, array in tensors.items()
        }
        torch.save(state, folder / f"consolidated.{shard:02d}.pth")
    params = {
        "dim": 64,
        "n_layers": 5,
        "n_heads": 8,
        "n_kv_heads": stated_kv_heads,
        "vocab_size": 512,
        "multiple_of": 4,
        "norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "max_seq_len": 512,
    }
    (folder / "params.json").write_text(json.dumps(params), encoding="utf-8")
    shutil.copy(stories_folder / "tokenizer.model", folder)
    return folder


@pytest.fixture(params=[1, 2], ids=["one shard", "two shards"])
def meta_folder(request, tmp_path, stories_folder):
    return write_meta(tmp_path, stories_folder, n_shards=request.param)


def test_interleaved_copy_tells_the_same_story(meta_folder, stories_folder):
    """From one shard or two, the 220 greedy ids and their text are those of the C engine."""
    expected = json.loads((stories_folder / "expected.json").read_text(encoding="utf-8"))
    model = lr.load(meta_folder)
    assert model.weights.pairing == "interleaved"
    assert model.lineage.name == "meta"
    tokens = list(lr.generate(model, [1], max_tokens=220))
    assert [token.id for token in tokens] == expected["greedy_ids"]
    assert "".join(token.text for token in tokens) == expected["text"]


def test_interleaved_copy_computes_the_same_logits(meta_folder, stories_folder):
    """Both layouts give the same float64 logits: permuted rows and paired channels cancel."""
    ids = list(range(3, 60))
    meta = lr.load(meta_folder, dtype="float64").logits(ids)
    hf = lr.load(stories_folder, dtype="float64").logits(ids)
    np.testing.assert_allclose(meta, hf, rtol=0, atol=1e-10)


def test_half_split_rotation_of_interleaved_rows_is_wrong(meta_folder):
    """The classic mistake is visible here: the right story does not come by accident."""
    model = lr.load(meta_folder)
    right = model.logits([1, 5, 9])
    object.__setattr__(model.weights, "pairing", "half_split")
    wrong = model.logits([1, 5, 9])
    np.testing.assert_allclose(wrong[0], right[0], rtol=0, atol=1e-5)  # position 0 turns nothing
    assert np.abs(wrong[1:] - right[1:]).max() > 0.1


@pytest.mark.parametrize("stated", [4, 8])
def test_heads_stored_twice_are_recognised(tmp_path, stories_folder, stated):
    """As in the 405B cut for 16 devices: each KV head twice, and params.json may count either."""
    expected = json.loads((stories_folder / "expected.json").read_text(encoding="utf-8"))
    write_meta(tmp_path, stories_folder, n_shards=4, stored_kv_heads=8, stated_kv_heads=stated)
    model = lr.load(tmp_path)
    assert model.config.n_kv_heads == stated
    tokens = list(lr.generate(model, [1], max_tokens=60))
    assert [token.id for token in tokens] == expected["greedy_ids"][:60]


def test_shards_are_read_in_place(meta_folder):
    """Row-wise cut matrices hand out views of the mapped files."""
    query = lr.load(meta_folder).weights.layers[0].w_query_AD
    assert rows_of(query, 0, 8).base is not None
    assert not rows_of(query, 0, 8).flags.writeable
