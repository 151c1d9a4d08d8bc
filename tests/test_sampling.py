"""Sampling: each step on its own, at its edges, and the draw against published constants."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_ref.errors import BadRequest, NonFiniteError
from llama_ref.ops.softmax import softmax
from llama_ref.sampling import draw, keep_top_k, keep_top_p, sample, uniform, with_temperature

OFF = {"top_k": 0, "top_p": 1.0, "seed": 0, "step": 0}
logits = st.lists(st.floats(-20, 20), min_size=1, max_size=30).map(np.array)
quick = settings(max_examples=100, deadline=None)


def kept(logits_V):
    return np.flatnonzero(np.isfinite(logits_V)).tolist()


@pytest.mark.parametrize("name", ["temperature", "top_p", "seed"])
@pytest.mark.parametrize("value", [10**400, -(10**400)], ids=["10^400", "-10^400"])
def test_integers_beyond_every_float_are_refused(name, value):
    """A number of 400 digits is out of range, and no OverflowError."""
    options = {"temperature": 1.0} | OFF | {name: value}
    with pytest.raises(BadRequest, match=f"^{name}: "):
        sample(np.zeros(4), **options)


def test_greedy_ties_go_to_the_lowest_id():
    """Of equal logits the first is chosen: bfloat16 logits near 20 have steps of 0.125."""
    assert sample(np.float32([1, 3, 3, 2]), temperature=0, **OFF) == 1


def test_top_k_keeps_ties():
    """All tokens that equal the k-th stay, as in vLLM and transformers."""
    assert kept(keep_top_k(np.array([5.0, 1.0, 3.0, 3.0, 3.0]), 2)) == [0, 2, 3, 4]


@pytest.mark.parametrize("top_k", [0, -1, 4, 100])
def test_top_k_off(top_k):
    """0, -1, V and more switch it off."""
    assert kept(keep_top_k(np.arange(4.0), top_k)) == [0, 1, 2, 3]


def test_top_p_boundary_is_exclusive():
    """A token stays if those before it sum to less than p; at equality it goes."""
    dyadic = np.log([0.5, 0.25, 0.125, 0.125])
    assert kept(keep_top_p(dyadic, 0.5)) == [0]
    assert kept(keep_top_p(dyadic, 0.5 + 1e-9)) == [0, 1]
    assert kept(keep_top_p(dyadic, 1e-9)) == [0]


def test_top_p_cuts_ties_by_id():
    """Of equally probable tokens the lowest ids survive."""
    assert kept(keep_top_p(np.zeros(8), 0.375)) == [0, 1, 2]


def test_top_p_is_taken_of_what_top_k_left():
    """Top-p sees the probabilities renormalised over the survivors of top-k."""
    quarters = np.log([0.4, 0.3, 0.2, 0.1])
    assert kept(keep_top_p(keep_top_k(quarters, 2), 0.5)) == [0]  # 4/7 reaches 0.5, 0.4 does not
    assert kept(keep_top_p(quarters, 0.5)) == [0, 1]


def test_temperature_below_a_hundredth_is_a_hundredth():
    """A tiny temperature is raised to 0.01, as in vLLM, instead of overflowing."""
    np.testing.assert_array_equal(with_temperature(np.array([1.0]), 1e-30), [100.0])


@quick
@given(logits, st.integers(1, 10), st.floats(0.01, 1))
def test_filters_remove_and_never_change(logits_V, top_k, top_p):
    """What a filter keeps it keeps as it was, and it always keeps a most probable token."""
    probs = softmax(logits_V)  # in which logits that differ by 1e-178 are equal
    for filtered in (keep_top_k(logits_V, top_k), keep_top_p(logits_V, top_p)):
        survivors = kept(filtered)
        np.testing.assert_array_equal(filtered[survivors], logits_V[survivors])
        assert probs[survivors].max() == probs.max()


@quick
@given(logits, st.floats(0, 1, exclude_max=True))
def test_a_draw_never_falls_on_the_impossible(logits_V, u):
    """Whatever the uniform number, the token drawn has a positive probability."""
    probs = softmax(keep_top_k(logits_V, 3))
    assert probs[draw(probs, u)] > 0


def test_uniform_numbers_are_philox():
    """Key 0, counter 0 gives the first word of Philox4x64-10 as Random123 publishes it.

    Random123's known answer for philox4x64-10 with counter and key all zero begins
    16554d9eca36314c. NumPy counts up before it draws, so its first word at counter c is that of
    c + 1; the published word is reached from a counter of all ones.
    """
    known = np.random.Philox(key=0, counter=2**256 - 1).random_raw()
    assert f"{known:016x}" == "16554d9eca36314c"
    raw = np.random.Philox(key=5, counter=9).random_raw()
    assert uniform(5, 9) == (raw >> 11) * 2.0**-53


def test_frequencies_follow_the_probabilities():
    """20,000 draws pass a chi-square test against the distribution they are drawn from."""
    logits_V, n = np.log([0.1, 0.2, 0.3, 0.4]), 20_000
    drawn = [
        sample(logits_V, temperature=1.0, top_k=0, top_p=1.0, seed=1, step=step)
        for step in range(n)
    ]
    expected = n * softmax(logits_V)
    chi_square = ((np.bincount(drawn, minlength=4) - expected) ** 2 / expected).sum()
    assert chi_square < 16.3  # 3 degrees of freedom, p = 0.001


@pytest.mark.parametrize("bad", [[np.nan, 1.0], [-np.inf, -np.inf], [np.inf, 1.0]])
def test_logits_that_are_no_distribution_are_an_error(bad):
    """NaN, or nothing finite to choose, never becomes token 0."""
    with pytest.raises(NonFiniteError, match="logits"):
        sample(np.array(bad), temperature=1.0, **OFF)
