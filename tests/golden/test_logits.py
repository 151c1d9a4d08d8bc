"""Divergence and choices of logits, by hand on two or three words."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from llama_ref.golden.logits import divergence, log_softmax, summary, summary_of_top

HALF, QUARTER = math.log(0.5), math.log(0.25)


def test_divergence_by_hand():
    """KL((1/2, 1/2) || (1/4, 3/4)) is ln(2) / 2 + ln(2/3) / 2 nats; the other way round another."""
    p, q = np.array([[HALF, HALF]]), np.array([[QUARTER, math.log(0.75)]])
    expected = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    assert divergence(p, q)[0] == pytest.approx(expected, rel=1e-14)
    backwards = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    assert divergence(q, p)[0] == pytest.approx(backwards, rel=1e-14)


LOGITS = hnp.arrays(np.float64, (2, 3, 7), elements=st.floats(-50, 50))


@given(LOGITS, st.floats(-100, 100))
def test_divergence_is_of_distributions(pair, shift):
    """It is never negative, and adding a number to all logits of a token changes nothing."""
    truth_TV, candidate_TV = pair
    found = divergence(truth_TV, candidate_TV)
    assert (found >= 0).all()
    assert np.allclose(divergence(truth_TV, candidate_TV + shift), found, atol=1e-10)
    assert np.allclose(divergence(truth_TV, truth_TV + shift), 0, atol=1e-12)


def test_divergence_is_taken_in_float64():
    """An error of 1e-5 in float32 logits has a divergence of 1e-11, far below float32's own."""
    rng = np.random.default_rng(0)
    truth_TV = rng.standard_normal((4, 1000))
    candidate_TV = truth_TV + 1e-5 * rng.standard_normal((4, 1000))
    kl_T = divergence(truth_TV, candidate_TV)
    # To second order the divergence is half the variance of the error.
    assert kl_T == pytest.approx(np.full(4, 0.5e-10), rel=0.3)


def test_logits_of_a_thousand_do_not_overflow():
    """The largest is taken off before anything is exponentiated."""
    found = log_softmax(np.array([[1000.0, 1000.0, -1000.0]]))
    assert found[0, :2].tolist() == pytest.approx([HALF, HALF])
    assert np.isfinite(found).all()


TRUTH_TV = np.array([[3.0, 0.0, 0.0], [1.0, 0.9, 0.0], [0.0, 2.0, 0.0]])
OTHER_TV = np.array([[3.0, 0.0, 0.0], [0.9, 1.0, 0.0], [2.0, 0.0, 0.0]])


def test_only_clear_choices_have_to_be_kept():
    """A lead of less than twice the legal error may turn over; of more it may not."""
    found = summary("five", TRUTH_TV, OTHER_TV, kl_legal=0.5, largest=0.06)
    assert (found.n_tokens, found.n_same_choice) == (3, 1)
    assert (found.n_decided, found.n_decided_same) == (2, 1)  # 3 and 2 are leads, 0.1 is none
    wider = summary("five", TRUTH_TV, OTHER_TV, kl_legal=0.5, largest=1.2)
    assert (wider.n_decided, wider.n_decided_same) == (1, 1)
    assert found.case == "five" and found.kl_legal == 0.5


def test_the_lead_is_that_over_the_second():
    """What decides is the distance to the runner-up, not to the least likely word."""
    found = summary("five", np.array([[1.0, 0.99, -50.0]]), np.array([[1.0, 0.99, -50.0]]), 0, 0.1)
    assert (found.n_decided, found.n_same_choice) == (0, 1)


def test_divergences_are_summed_up_over_tokens():
    """Mean and largest are over the tokens; a candidate that is the truth has none."""
    found = summary("five", TRUTH_TV, OTHER_TV, kl_legal=0.5, largest=0.1)
    kl_T = divergence(TRUTH_TV, OTHER_TV)
    assert found.kl_mean == pytest.approx(kl_T.mean()) and found.kl_max == kl_T.max()
    assert summary("five", TRUTH_TV, TRUTH_TV, kl_legal=0.5, largest=0.1).kl_max == 0


def test_a_fingerprint_knows_choices_and_no_divergence():
    """Of the highest logits alone the same choices follow, and the divergence is NaN."""
    top_ids = np.argsort(-TRUTH_TV, axis=1, kind="stable")[:, :2]
    top = np.take_along_axis(TRUTH_TV, top_ids, axis=1)
    found = summary_of_top("five", top_ids, top, OTHER_TV, largest=0.06)
    full = summary("five", TRUTH_TV, OTHER_TV, kl_legal=0.5, largest=0.06)
    counts = ("n_tokens", "n_same_choice", "n_decided", "n_decided_same")
    assert [getattr(found, name) for name in counts] == [getattr(full, name) for name in counts]
    assert math.isnan(found.kl_mean) and math.isnan(found.kl_max) and math.isnan(found.kl_legal)
