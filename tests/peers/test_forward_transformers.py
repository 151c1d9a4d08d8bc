"""Whole passes against transformers in eager mode: lineage hf, half-split pairs, files on disk.

Every checkpoint here is one that transformers wrote with save_pretrained and `llama_ref.load`
opened.
"""

import numpy as np
import pytest
import torch
from transformers import DynamicCache

from llama_ref import load
from llama_ref.checkpoint import synthetic
from llama_ref.trace import tap_names
from tests.peers.arrays import to_numpy
from tests.peers.assembled import weights_of
from tests.peers.hf_peer import hf_logits, hf_model, hf_trace
from tests.peers.torch_float64 import float64_trace
from tests.replay import assert_near, assert_same_steps, largest_error, replayed
from tests.shapes import SHAPES

FAR = [*range(12), 257, 4095, 8191, 8192, *range(60_000, 60_020), 99_999, 100_000, 131_070, 131_071]
GROUPS_OF_4 = "groups of 4, N H beside D, factor 8"


@pytest.fixture
def both(tmp_path):
    """Return what saves a peer of a shape and loads it: (our model, the peer)."""

    def saved_and_loaded(shape, dtype="float32", stored="float32", grain=0.0, **saving):
        tensors = weights_of(SHAPES[shape], grain=grain)
        folder = tmp_path / ("cut" if saving else "whole")
        hf_model(SHAPES[shape], tensors, stored).save_pretrained(folder, **saving)
        return load(folder, dtype=dtype), hf_model(SHAPES[shape], tensors, dtype)

    return saved_and_loaded


def some_ids(model, n, seed=0):
    return synthetic.token_ids(n, model.config.vocab_size, seed).tolist()


@pytest.mark.parametrize("shape", SHAPES)
def test_float32_logits(shape, both):
    """Float32 logits of a loaded checkpoint are within 2e-5 of a deviation of transformers'."""
    model, peer = both(shape)
    assert model.config == SHAPES[shape]
    ids = some_ids(model, 24)
    assert_near(model.logits(ids), hf_logits(peer, ids), 2e-5)


@pytest.mark.parametrize("places", [list(range(99_988, 100_012)), FAR[:24:2] + FAR[-12:]])
@pytest.mark.parametrize("shape", SHAPES)
def test_float32_logits_at_far_positions(shape, places, both):
    """Around position 100,000, and at sparse ones up to 131,071, logits are within 1e-4."""
    model, peer = both(shape)
    ids = some_ids(model, 24)
    logits_TV = model.forward(ids, model.new_cache(), positions=places)
    assert_near(logits_TV, hf_logits(peer, ids, places), 1e-4)


def test_depth_adds_no_error_of_our_own(both):
    """After 24 layers float32 logits are as near to the float64 truth as those of transformers."""
    model, peer = both("24 layers")
    for seed in range(2):
        ids = some_ids(model, 24, seed)
        truth = float64_trace(model.config, weights_of(model.config), ids)["logits"]
        ours, theirs = (largest_error(x, truth) for x in (model.logits(ids), hf_logits(peer, ids)))
        assert ours <= 2 * theirs


@pytest.mark.parametrize("grain", [0.0, 0.1], ids=["exact weights", "weights to be rounded"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_step_in_16_bits(shape, dtype, grain, both):
    """In 16 bits each tap, replayed from the peer's inputs, is the peer's: 99 % to the bit."""
    model, peer = both(shape, dtype, grain=grain)
    ids = some_ids(model, len(FAR))
    taps = hf_trace(peer, ids, FAR)
    computed = replayed(model, taps, ids, FAR)
    assert list(computed) == tap_names(model.config.n_layers)
    assert_same_steps(computed, taps, dtype)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_every_step_behind_a_filled_cache(dtype, both):
    """Chunks of five, one and four tokens through the cache take the peer's steps, each chunk."""
    model, peer = both(GROUPS_OF_4, dtype)
    cache, past, ids = model.new_cache(), DynamicCache(config=peer.config), some_ids(model, 10)
    for lo, hi in ((0, 5), (5, 6), (6, 10)):
        taps = hf_trace(peer, ids[lo:hi], past=past)
        computed = replayed(model, taps, ids[lo:hi], cache=cache)
        assert computed["L01.probs"].shape == (8, hi - lo, hi)
        if dtype == "bfloat16":
            assert_same_steps(computed, taps, dtype)
        else:
            for name, array in computed.items():
                assert_near(array, taps[name], 2e-5, name)


@pytest.mark.parametrize("stored", ["bfloat16", "float16", "float32"])
def test_storage_does_not_matter_to_exact_weights(stored, both):
    """Weights exact in 16 bits give float32 logits within 2e-5, whatever the file stores."""
    model, peer = both("groups of 8, tied, factor 32", stored=stored)
    assert str(model.weights.embedding_VD.dtype) == stored
    ids = some_ids(model, 24)
    assert_near(model.logits(ids), hf_logits(peer, ids), 2e-5)


def test_shards_are_one_model(both, tmp_path):
    """Cut into many shards, a checkpoint has the logits it has in one file, to the bit."""
    whole, _ = both(GROUPS_OF_4)
    cut, peer = both(GROUPS_OF_4, max_shard_size="30KB")
    assert len(list(tmp_path.rglob("model-*-of-*.safetensors"))) > 10
    ids = some_ids(cut, 24)
    assert np.array_equal(cut.logits(ids), whole.logits(ids))
    assert_near(cut.logits(ids), hf_logits(peer, ids), 2e-5)


def test_chunked_prefill_and_decoding(both):
    """Chunks, then single tokens, through both caches give the same logits, place by place."""
    model, peer = both(GROUPS_OF_4)
    cache, past, ids = model.new_cache(4), DynamicCache(config=peer.config), some_ids(model, 30)
    cache.reserve(30)
    whole_TV = hf_logits(peer, ids)
    for lo, hi in ((0, 7), (7, 9), (9, 25), *((t, t + 1) for t in range(25, 30))):
        ours_TV = model.forward(ids[lo:hi], cache)
        theirs_TV = hf_logits(peer, ids[lo:hi], past=past)
        bound = 2e-5 * whole_TV.std()
        assert np.abs(ours_TV - theirs_TV).max() <= bound
        assert np.abs(ours_TV - whole_TV[lo:hi]).max() <= bound
    assert cache.length == past.get_seq_length() == 30


def test_only_the_last_logits(both):
    """`last` gives the rows that transformers gives for logits_to_keep."""
    model, peer = both("odd vocabulary and odd F")
    ids = some_ids(model, 12)
    for last in (1, 3):
        with torch.inference_mode():
            kept = to_numpy(peer(torch.tensor([ids]), logits_to_keep=last).logits[0])
        ours_RV = model.forward(ids, model.new_cache(), last=last)
        assert ours_RV.shape == (last, 331)
        assert np.abs(ours_RV - kept).max() <= 2e-5 * hf_logits(peer, ids).std()


def test_a_ragged_batch_needs_no_padding(both):
    """Sequences packed end to end have the logits of a left-padded batch of transformers."""
    model, peer = both("a single key head")
    sequences = [some_ids(model, n, seed=n) for n in (9, 2, 14, 1)]
    longest = max(map(len, sequences))
    padded = torch.tensor([[0] * (longest - len(ids)) + ids for ids in sequences])
    mask = torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids in sequences])
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    with torch.inference_mode():
        batch = peer(padded, attention_mask=mask, position_ids=positions).logits
    for ids, ours_TV, theirs in zip(sequences, model.logits(sequences), batch, strict=True):
        assert_near(ours_TV, to_numpy(theirs[longest - len(ids) :]), 2e-5)


def test_packed_sequences_continue_their_caches(both):
    """Three sequences of unlike length, stepped together, each stay with transformers alone."""
    model, peer = both(GROUPS_OF_4)
    sequences = [some_ids(model, n, seed=n) for n in (9, 4, 6)]
    caches = [model.new_cache() for _ in sequences]
    model.forward_packed([ids[:3] for ids in sequences], caches)
    steps = model.forward_packed([ids[3:] for ids in sequences], caches)
    for ids, ours_TV in zip(sequences, steps, strict=True):
        alone_TV = hf_logits(peer, ids)
        assert np.abs(ours_TV - alone_TV[3:]).max() <= 2e-5 * alone_TV.std()
