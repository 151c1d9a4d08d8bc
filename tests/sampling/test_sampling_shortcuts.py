"""Shortcuts: where they answer, it is what float64 says; where that is not certain, None."""

import math

import numpy as np
import pytest

from llama_ref.sampling import shortcuts
from llama_ref.sampling.stream import draw

V = 20_011  # no whole number of blocks
PEAKED, FLAT, STEEP, EQUAL = "peaked", "flat", "steep", "equal"


def logits(kind, seed):
    rng = np.random.default_rng(seed)
    z = rng.standard_normal(V)
    if kind == PEAKED:  # as models have them: some far above a broad rest
        z = 2.5 * z + 14 * (rng.random(V) < 20 / V)
    elif kind == STEEP:
        z = 400 * z
    elif kind == EQUAL:
        z = np.round(z)
    z[rng.random(V) < 0.1] = -np.inf
    return z


def weights_of(z):
    return np.exp(z - z.max())


def nucleus(z, top_p):
    """The definition: as many of the sorted tokens as have less than top_p in front of them."""
    falling = np.sort(z)[::-1]
    before = np.concatenate([[0.0], np.cumsum(weights_of(falling))[:-1]])
    size = int(np.searchsorted(before, top_p * math.fsum(weights_of(z))))
    return size, falling[size - 1]


@pytest.mark.parametrize("kind", [PEAKED, FLAT, STEEP, EQUAL])
def test_sums_are_within_the_margin(kind):
    """Every partial sum, over blocks and within, is as near to the exact one as is promised."""
    for seed in range(5):
        z = logits(kind, seed)
        weights = shortcuts.Weights(z)
        found = np.cumsum(weights.rows.ravel()[:V], dtype=np.float64)
        exact = np.cumsum(weights_of(z).astype(np.longdouble))
        assert np.abs(found - exact).max() <= weights.margin
        assert abs(weights.total - exact[-1]) <= weights.margin
        assert weights.margin <= 1e-6 * weights.total


@pytest.mark.parametrize("kind", [PEAKED, FLAT, STEEP, EQUAL])
def test_a_draw_that_is_certain_is_that_of_float64(kind):
    """For any u, and for u at the very edges between tokens, the id is that of the definition."""
    answered = 0
    for seed in range(20):
        z = logits(kind, seed)
        weight_V = weights_of(z)
        edges = np.cumsum(weight_V) / weight_V.sum()
        rng = np.random.default_rng(seed)
        near = edges[rng.integers(0, V, 40)] + rng.choice([0, 1e-16, -1e-16, 1e-9, -1e-7, 3e-6], 40)
        for u in np.clip([*rng.random(40), *near, 0.0, 1 - 2**-53], 0, 1 - 2**-53):
            found = shortcuts.drawn(z, float(u))
            assert found in (None, draw(weight_V, float(u)))
            answered += found is not None
    assert answered > 750  # of 800 at random, and 800 at edges


def test_where_u_is_at_an_edge_nothing_is_certain():
    """At a u that falls between two tokens to the last bit, float64 has to decide."""
    z = logits(PEAKED, 0)
    weight_V = weights_of(z)
    largest = int(weight_V.argmax())
    u = float(weight_V[: largest + 1].sum() / weight_V.sum())
    assert shortcuts.drawn(z, u) is None
    assert shortcuts.drawn(z, u - 1e-4) == largest


@pytest.mark.parametrize("kind", [PEAKED, FLAT, STEEP, EQUAL])
def test_a_nucleus_that_is_certain_is_that_of_float64(kind):
    """Its size and its lowest logit are those of the definition, which sorts everything."""
    answered = 0
    for seed in range(10):
        z = logits(kind, seed)
        for top_p in (0.0, 1e-9, 0.1, 0.5, 0.9, 0.95, 0.999, 1 - 1e-9, 1 - 1e-15):
            found = shortcuts.nucleus_size(z, top_p)
            assert found in (None, nucleus(z, top_p))
            answered += found is not None
    assert answered > 30  # of 50 that are not beside 0 or 1
