"""Stored tensors against the blueprint: what does not fit is refused by name (bad-inputs B3)."""

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llama_ref import weights
from llama_ref.checkpoint import synthetic
from llama_ref.checkpoint.stored import Checkpoint
from llama_ref.errors import BadFile, Unsupported
from llama_ref.holding import widened
from llama_ref.numerics import BFLOAT16
from llama_ref.weights import assemble
from tests.models import TINY, largest_difference, meta_name, tiny_ids, tiny_model

TIED = replace(TINY, tied_embeddings=True)
LAYER_TENSORS = [
    "input_layernorm",
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "post_attention_layernorm",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
]
Q, K, GATE = (f"model.layers.0.{LAYER_TENSORS[i]}.weight" for i in (1, 2, 6))
HEAD, EMBEDDING, NORM = "lm_head.weight", "model.embed_tokens.weight", "model.norm.weight"


def stored(config=TINY, layout="hf"):
    tensors = dict(synthetic.checkpoint(config))
    if layout == "meta":
        tensors = {meta_name(name, config.n_layers): array for name, array in tensors.items()}
    return tensors


def assembled(tensors, config=TINY, layout="hf"):
    files = dict.fromkeys(tensors, ("model.safetensors",))
    return assemble(Checkpoint(Path("folder"), layout, tensors, files), config)


@pytest.mark.parametrize("layout", ["hf", "meta"])
def test_every_tensor_finds_its_role(layout):
    """A complete checkpoint of either layout assembles, as views of what is stored."""
    tensors = stored(layout=layout)
    weights = assembled(tensors, layout=layout)
    assert weights.pairing == {"hf": "half_split", "meta": "interleaved"}[layout]
    named = {name: array for layer in (None, 0, 1) for name, array in weights.named(layer)}
    assert set(named) == set(tensors)
    assert all(named[name] is array for name, array in tensors.items())


@pytest.mark.parametrize(
    "name",
    [f"model.layers.1.{tensor}.weight" for tensor in LAYER_TENSORS] + [EMBEDDING, NORM, HEAD],
)
def test_missing_tensor_is_named_with_its_shape(name):
    """B3-41, B3-42: a missing tensor is an error that says which, and what shape it should have."""
    tensors = stored()
    shape = tensors.pop(name).shape
    with pytest.raises(BadFile) as error:
        assembled(tensors)
    assert name in str(error.value)
    assert str(shape) in str(error.value)


def test_missing_head_points_to_tied_embeddings():
    """B3-42: the message about a missing head says which key would make it right."""
    tensors = stored()
    del tensors[HEAD]
    with pytest.raises(BadFile, match="tie_word_embeddings"):
        assembled(tensors)


def test_tied_embeddings_are_one_matrix():
    """Without a stored head, tied embeddings serve as head; with an equal one, too."""
    for tensors in (stored(TIED), {**stored(TIED), HEAD: stored(TIED)[EMBEDDING].copy()}):
        weights = assembled(tensors, TIED)
        assert weights.w_head_VD is weights.embedding_VD


def test_tied_embeddings_beside_another_head_are_refused():
    """B3-43: a stored head that differs contradicts tie_word_embeddings."""
    with pytest.raises(BadFile, match="another matrix"):
        assembled(stored(), TIED)


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.self_attn.q_proj.bias",
        "model.layers.2.input_layernorm.weight",
        "model.layers.0.self_attn.q_norm.weight",
        "base_model.model.lora_A.weight",
        "module.model.norm.weight",
        "tok_embeddings.weight",
        "evil\x1b[31m",
    ],
)
def test_unexpected_tensor_is_named(name):
    """B3-44: a tensor nobody would use is an error, its name escaped."""
    with pytest.raises(BadFile, match="unexpected tensor") as error:
        assembled({**stored(), name: np.zeros(3, np.float32)})
    assert "\x1b" not in str(error.value)


@pytest.mark.parametrize("name", ["model.layers.0.self_attn.rotary_emb.inv_freq", "rope.freqs"])
def test_recomputed_tables_are_ignored(name):
    """B3-45: stored rotary tables are left unread."""
    assembled({**stored(), name: np.full(5, np.nan, np.float32)})


@pytest.mark.parametrize(
    ("name", "change"),
    [
        pytest.param(GATE, lambda a: a.T, id="B3-46 transposed"),
        pytest.param(GATE, np.ravel, id="B3-46 flattened"),
        pytest.param(GATE, lambda a: a[None], id="B3-46 extra axis"),
        pytest.param(GATE, lambda a: a[1:], id="B3-46 one row less"),
        pytest.param(GATE, lambda a: np.concatenate([a, a[:1]]), id="B3-46 one row more"),
        pytest.param(NORM, lambda a: a[None], id="B3-47 (1, D)"),
        pytest.param(NORM, lambda a: a[:1], id="B3-47 (1,)"),
        pytest.param(NORM, lambda a: a[0].reshape(()), id="B3-47 ()"),
        pytest.param(K, lambda a: np.repeat(a, 2, axis=0), id="B3-48 all heads under GQA"),
    ],
)
def test_other_shape_is_named_with_both_shapes(name, change):
    """A shape other than that of the blueprint is refused, also where NumPy would broadcast."""
    tensors = stored()
    expected, tensors[name] = tensors[name].shape, change(tensors[name])
    with pytest.raises(BadFile) as error:
        assembled(tensors)
    message = str(error.value)
    assert name in message
    assert f"expected shape {expected}, found shape {tensors[name].shape}" in message


@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool"])
def test_integer_weights_are_unsupported(dtype):
    """B3-49: numbers that are not floats are no weights."""
    tensors = stored()
    tensors[Q] = tensors[Q].astype(dtype)
    with pytest.raises(Unsupported, match=f"q_proj.*{dtype}"):
        assembled(tensors)


@pytest.mark.parametrize("matrix_dtype", [BFLOAT16, np.dtype(np.float16)])
def test_mixed_storage_types_work(matrix_dtype):
    """B3-50: float32 norms beside 16-bit matrices give what float32 matrices of equal value do."""
    model = tiny_model()
    tensors = {
        name: array if array.ndim == 1 else array.astype(matrix_dtype)
        for name, array in stored().items()
    }
    expected = model.logits(tiny_ids(6))
    model.weights = assembled(tensors)
    assert largest_difference(model.logits(tiny_ids(6)), expected) < 1e-5


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
def test_widening_changes_no_result(dtype):
    """Weights held widened in memory give the logits of weights widened block by block."""
    model = tiny_model(dtype)
    tensors = {name: array.astype(BFLOAT16) for name, array in stored().items()}
    model.weights = assembled(tensors)
    expected = model.logits(tiny_ids(6))
    model.weights = widened(model.weights, model.dtype)
    assert all(array.dtype in ("f4", "f8") for _, array in model.weights.named(0))
    logits = model.logits(tiny_ids(6))
    assert logits.dtype == expected.dtype
    assert largest_difference(logits.astype(float), expected.astype(float)) < 1e-5


@pytest.mark.parametrize("shape", [(40,), (40, 1), (8, 5), (1, 40), (2, 4, 5)], ids=str)
@pytest.mark.parametrize("at_once", [1, 7, 39, 1000])
def test_the_first_non_finite_number_is_found_in_any_block(monkeypatch, shape, at_once):
    """However many numbers are looked at together, the first one and its index are the same."""
    monkeypatch.setattr(weights, "NUMBERS_PER_SCAN", at_once)
    tensor = np.ones(shape, np.float32)
    assert weights.first_non_finite(tensor) is None
    for first in (39, 23, 0):
        tensor.reshape(-1)[first] = np.inf
        index = tuple(map(int, np.unravel_index(first, shape)))
        assert weights.first_non_finite(tensor) == (index, np.inf)


@pytest.mark.parametrize("shape", [(2**13, 2**12), (2**5, 2**20), (2**25, 1)], ids=str)
def test_looking_for_non_finite_numbers_takes_little_memory(shape):
    """A matrix of any shape, all of it NaN, is looked at in pieces of some megabytes."""
    tensor = np.broadcast_to(np.float16(np.nan), shape)
    tracemalloc.start()
    try:
        assert weights.first_non_finite(tensor)[0] == (0, 0)
        assert tracemalloc.get_traced_memory()[1] < 40e6
    finally:
        tracemalloc.stop()
