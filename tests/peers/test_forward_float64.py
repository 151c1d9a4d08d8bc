"""Whole passes in float64 against a float64 recomputation in torch: the mathematics alone."""

import pytest

from llama_ref.checkpoint import synthetic
from llama_ref.trace import tap_names
from tests.peers.assembled import our_model, weights_of
from tests.peers.torch_float64 import float64_trace
from tests.replay import assert_near
from tests.shapes import SHAPES

PAIRING = {"hf": "half_split", "meta": "interleaved"}
FAR = 1e-10  # one unit of the last place of a frequency is 1e-11 radians at position 100,000
PLACES = {
    "from 0": (1e-12, None),
    "around 100,000": (FAR, list(range(99_990, 100_014))),
    "sparse": (
        FAR,
        [*range(5), 4095, 4096, 8191, 8192, *range(60_000, 60_012), 99_999, 131_070, 131_071],
    ),
}


@pytest.mark.parametrize("places", PLACES)
@pytest.mark.parametrize("lineage", PAIRING)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_tap_in_float64(shape, lineage, places):
    """In float64 every tap is the recomputation's to 1e-12 of its deviation, far away to 1e-10."""
    config, (bound, positions) = SHAPES[shape], PLACES[places]
    tensors = weights_of(config, grain=0.1)
    ids = synthetic.token_ids(24, config.vocab_size)
    trace = our_model(config, tensors, "float64", lineage).trace(ids, positions)
    truth = float64_trace(config, tensors, ids, positions, PAIRING[lineage])
    assert list(trace) == tap_names(config.n_layers)
    for name, array in trace.items():
        assert_near(array, truth[name], bound, name)
