"""The five measures of an error: what each sees, by hand on arrays that fit on a line."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from llama_ref.golden.measure import (
    BAND_STARTS,
    CHANNEL,
    HEAD,
    LARGEST,
    MEASURES,
    TOKEN,
    WHOLE,
    band_of,
    has_channels,
    has_heads,
    measure,
    profile,
    rows_first,
)

NEAR = np.zeros(4, int)
ONES_TNH = np.ones((4, 2, 8))


def test_a_band_begins_at_its_start_and_ends_before_the_next():
    """Each start belongs to its own band, the position before it to the band before."""
    assert band_of(BAND_STARTS).tolist() == [0, 1, 2, 3, 4, 5]
    assert band_of([start - 1 for start in BAND_STARTS[1:]]).tolist() == [0, 1, 2, 3, 4]
    assert band_of((131_071,)).tolist() == [5]


@pytest.mark.parametrize(
    ("axes", "shape", "rows"),
    [("T D", (3, 5), (3, 1, 5)), ("T N H", (3, 2, 5), (3, 2, 5)), ("N T S", (2, 3, 5), (3, 2, 5))],
)
def test_tokens_come_first_and_heads_second(axes, shape, rows):
    """Whatever the axes of a tap, row t of what is measured is token t, by head."""
    array = np.arange(np.prod(shape), dtype=float).reshape(shape)
    found = rows_first(axes, array)
    assert found.shape == rows
    where = {"T D": (2, 4), "T N H": (2, 0, 4), "N T S": (0, 2, 4)}[axes]
    assert found[2, 0, 4] == array[where]


def test_axes_say_what_can_be_measured():
    """Only taps of three axes have heads; scores and probabilities have no channels."""
    assert [has_heads(axes) for axes in ("T D", "T N H", "N T S")] == [False, True, True]
    assert [has_channels(axes) for axes in ("T D", "T N H", "N T S")] == [True, True, False]


def test_each_measure_sees_its_own_bug():
    """A wrong token, head, channel or element is 1 by its measure, and diluted by all others."""
    where = {
        TOKEN: np.s_[2],
        HEAD: np.s_[:, 1],
        CHANNEL: np.s_[:, :, 5],
        LARGEST: np.s_[3, 0, 7],
    }
    for own, index in where.items():
        error_TNH = np.zeros((4, 2, 8))
        error_TNH[index] = 1
        found = measure(error_TNH, ONES_TNH, "T N H", NEAR)[0]
        assert found[own] == found[LARGEST] == 1
        diluted = {TOKEN, HEAD, CHANNEL} - {own}
        assert all(found[other] < 0.75 for other in diluted)
        assert found[WHOLE] == pytest.approx(np.sqrt(error_TNH.mean()))


def test_errors_are_relative_to_the_band_that_they_are_in():
    """The same error beside numbers ten times as large is a tenth, in each band by itself."""
    reference_TD = np.repeat([[1.0], [1.0], [10.0]], 6, axis=1)
    found = measure(np.full((3, 6), 0.5), reference_TD, "T D", np.array([0, 0, 4]))
    assert found[0, WHOLE] == 0.5 and found[4, WHOLE] == 0.05
    assert np.isnan(found[[1, 2, 3, 5]]).all()


def test_a_token_with_small_numbers_is_not_excused():
    """Within a band all tokens are measured against the numbers of the band."""
    reference_TD = np.array([[2.0, 2.0], [1e-6, 1e-6]])
    error_TD = np.array([[0.0, 0.0], [1e-6, 1e-6]])
    found = measure(error_TD, reference_TD, "T D", NEAR[:2])[0]
    assert found[TOKEN] == pytest.approx(1e-6 / np.sqrt(2))


def test_what_a_tap_has_not_got_is_not_measured():
    """Without heads the head measure is NaN, without channels that of channels; others are not."""
    flat = measure(np.ones((4, 8)), np.ones((4, 8)), "T D", NEAR)[0]
    assert np.isnan(flat).tolist() == [name == "head" for name in MEASURES]
    maps = measure(np.ones((2, 4, 4)), np.ones((2, 4, 4)), "N T S", NEAR)[0]
    assert np.isnan(maps).tolist() == [name == "channel" for name in MEASURES]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_error_that_is_no_number_is_infinite(value):
    """One NaN or infinity is an infinite error by every measure of its band, and of no other."""
    error_TNH = np.zeros((4, 2, 8))
    error_TNH[1, 0, 3] = value
    found = measure(error_TNH, ONES_TNH, "T N H", np.array([0, 1, 1, 2]))
    assert (found[1] == np.inf).all()
    assert (found[[0, 2]] == 0).all()


def test_beside_a_reference_of_zeros_any_error_is_infinite_and_none_is_none():
    """Nothing where nothing should be is right; something is infinitely wrong."""
    nothing_TD = np.zeros((4, 8))
    assert np.nanmax(measure(nothing_TD, nothing_TD, "T D", NEAR)) == 0
    error_TD = nothing_TD.copy()
    error_TD[0, 0] = 1e-30
    assert measure(error_TD, nothing_TD, "T D", NEAR)[0, WHOLE] == np.inf


FLOATS = st.floats(-100, 100, width=32).map(lambda x: x if abs(x) > 1e-3 else 0.0)


@given(hnp.arrays(float, (5, 2, 4), elements=FLOATS), st.sampled_from([0.125, 3.0, 1024.0]))
def test_measures_are_ordered_and_free_of_scale(error_TNH, factor):
    """No measure is below the whole or above the largest; scaling both sides changes nothing."""
    found = measure(error_TNH, np.ones((5, 2, 4)), "T N H", np.zeros(5, int))[0]
    assert all(found[WHOLE] <= found[m] * (1 + 1e-12) for m in (TOKEN, HEAD, CHANNEL, LARGEST))
    assert all(found[m] <= found[LARGEST] * (1 + 1e-12) for m in (TOKEN, HEAD, CHANNEL))
    scaled = measure(error_TNH * factor, np.full((5, 2, 4), factor), "T N H", np.zeros(5, int))[0]
    assert np.allclose(scaled, found, rtol=1e-12)


def test_the_profile_shows_where_the_measures_come_from():
    """Its rows, columns and channels have the worst of the measures at the same place."""
    rng = np.random.default_rng(0)
    error_TNH, reference_TNH = rng.standard_normal((2, 4, 2, 8))
    error_TNH[2] *= 5
    error_TNH[:, :, 6] *= 7
    found = measure(error_TNH, reference_TNH, "T N H", NEAR)[0]
    by_token_TN, by_channel, by_head = profile(error_TNH, reference_TNH, "T N H", NEAR)
    assert by_token_TN.shape == (4, 2) and by_channel.shape == (8,) and by_head.shape == (2,)
    by_token_T = np.sqrt(np.mean(by_token_TN**2, axis=1))
    assert by_token_T.argmax() == 2 and by_channel.argmax() == 6
    for values, own in ((by_token_T, TOKEN), (by_head, HEAD), (by_channel, CHANNEL)):
        assert values.max() == pytest.approx(found[own])
