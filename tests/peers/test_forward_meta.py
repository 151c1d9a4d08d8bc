"""Whole passes against Meta's formulas in torch: lineage meta, interleaved pairs."""

import numpy as np
import pytest

from llama_ref.checkpoint import synthetic
from llama_ref.trace import tap_names
from tests.peers.assembled import our_model, under_meta_names, weights_of
from tests.peers.torch_meta import MetaPeer
from tests.replay import assert_near, assert_same_steps, replayed
from tests.shapes import SHAPES

FAR = [*range(12), 257, 4095, 8191, 8192, *range(60_000, 60_020), 99_999, 100_000, 131_070, 131_071]


def both(shape, dtype="float32", grain=0.0):
    """Return our model and the peer, of one shape and the same weights."""
    config = SHAPES[shape]
    tensors = weights_of(config, grain=grain)
    peer = MetaPeer(config, under_meta_names(config, tensors), dtype)
    return our_model(config, tensors, dtype, "meta"), peer


def some_ids(model, n, seed=0):
    return synthetic.token_ids(n, model.config.vocab_size, seed).tolist()


@pytest.mark.parametrize("shape", SHAPES)
def test_float32_logits(shape):
    """Float32 logits are within 2e-5 of a deviation, and within 1e-4 at far positions."""
    model, peer = both(shape)
    ids = some_ids(model, 24)
    assert_near(model.logits(ids), peer.logits(ids), 2e-5)
    peer.clear()
    places = list(range(99_988, 100_012))
    far_TV = model.forward(ids, model.new_cache(), positions=places)
    assert_near(far_TV, peer.logits(ids, places), 1e-4)


@pytest.mark.parametrize("grain", [0.0, 0.1], ids=["exact weights", "weights to be rounded"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_step_in_16_bits(shape, dtype, grain):
    """In 16 bits each tap, replayed from the peer's inputs, is the peer's: 99 % to the bit."""
    model, peer = both(shape, dtype, grain)
    ids = some_ids(model, len(FAR))
    taps = peer.trace(ids, FAR)
    computed = replayed(model, taps, ids, FAR)
    assert list(computed) == tap_names(model.config.n_layers)
    assert_same_steps(computed, taps, dtype)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_every_step_behind_a_filled_cache(dtype):
    """Chunks of five, one and four tokens through the cache take the peer's steps, each chunk."""
    model, peer = both("groups of 4, N H beside D, factor 8", dtype)
    cache, ids = model.new_cache(), some_ids(model, 10)
    for lo, hi in ((0, 5), (5, 6), (6, 10)):
        taps = peer.trace(ids[lo:hi])
        computed = replayed(model, taps, ids[lo:hi], cache=cache)
        assert computed["L01.probs"].shape == (8, hi - lo, hi)
        if dtype == "bfloat16":
            assert_same_steps(computed, taps, dtype)
        else:
            for name, array in computed.items():
                assert_near(array, taps[name], 2e-5, name)


def test_logits_are_widened_after_rounding():
    """Meta's float32 logits are bfloat16 numbers, and so are ours."""
    model, peer = both("every size different, H = 10, factor 8", "bfloat16")
    ids = some_ids(model, 9)
    for logits_TV in (model.logits(ids), peer.logits(ids)):
        assert logits_TV.dtype == np.float32
        assert (logits_TV.view(np.uint32) & 0xFFFF == 0).all()
