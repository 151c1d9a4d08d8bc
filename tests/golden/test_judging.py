"""Units and gates: what a ratio means, and what is allowed for."""

import math

import numpy as np
import pytest

from llama_ref.golden.judging import FAIL_AT, SOURCES, WARN_AT, counted, floor_of, judge, status_of
from llama_ref.golden.measure import BAND_STARTS, LARGEST, MEASURES, TOKEN, WHOLE
from llama_ref.golden.report import Ratios
from llama_ref.golden.styles import PRECISIONS

SHAPE = (len(BAND_STARTS), len(MEASURES))
MANY = np.full(len(BAND_STARTS), 10**16)


def filled(value, **places):
    array = np.full(SHAPE, float(value))
    for measure, number in places.items():
        array[:, MEASURES.index(measure)] = number
    return array


def test_an_error_as_large_as_the_envelope_is_one():
    """Ratios are in units of the envelope, measure by measure."""
    ratios = judge(filled(1e-3, token=4e-3), filled(1e-3, token=2e-3), MANY).ratios
    assert ratios.whole == pytest.approx(1) and ratios.token == pytest.approx(2)
    assert ratios.rho == pytest.approx(2)


@pytest.mark.parametrize(
    ("rho", "status"),
    [
        (0.0, "pass"),
        (1.999, "pass"),
        (2.0, "warn"),
        (2.999, "warn"),
        (3.0, "fail"),
        (math.inf, "fail"),
    ],
)
def test_the_gates_stand_at_two_and_three(rho, status):
    """From 2 on a tap is warned about, from 3 on it fails."""
    assert (WARN_AT, FAIL_AT) == (2, 3)
    assert status_of(rho) == status


def test_the_largest_error_fails_at_five():
    """A single number may be off by more than a mean: its gate is 5 where others have 3."""
    assert status_of(Ratios(1, largest=4.99).rho) == "warn"
    assert status_of(Ratios(1, largest=5.01).rho) == "fail"


def test_the_worst_band_and_the_worst_measure_decide():
    """One bad measure in one band is the ratio of the tap, whatever all others are."""
    found = filled(1e-3)
    found[4, TOKEN] = 7e-3
    found[4, WHOLE] = 2e-3
    judged = judge(found, filled(1e-3), MANY)
    assert judged.ratios.rho == judged.ratios.token == pytest.approx(7)
    assert judged.error == 2e-3 and judged.envelope == 1e-3  # of that band


def test_few_numbers_may_scatter_more():
    """Over n numbers the envelope is widened by 2 / sqrt(n): 1.5 times at 16, nothing at 10^16."""
    few = judge(filled(1e-3), filled(1e-3), np.full(len(BAND_STARTS), 16)).ratios.whole
    assert few == pytest.approx(1 / 1.5)


@pytest.mark.parametrize("value", [math.inf])
def test_an_infinite_error_is_infinite_in_any_units(value):
    """What is no number fails, even where the envelope is infinite or unknown itself."""
    for envelope in (1e-3, 0, math.inf):
        assert judge(filled(value), filled(envelope), MANY).ratios.rho == math.inf


def test_where_nothing_is_measured_nothing_is_said():
    """Without a token in any band the ratio is NaN, and no error is claimed."""
    judged = judge(filled(math.nan), filled(math.nan), np.zeros(len(BAND_STARTS), int))
    assert math.isnan(judged.ratios.rho) and judged.n == 0


def test_bands_without_a_token_are_left_out():
    """Bands of NaN neither excuse nor accuse."""
    found, envelope, n_in_band = filled(math.nan), filled(math.nan), np.zeros(6, int)
    found[2], envelope[2], n_in_band[2] = 5e-3, 1e-3, 10**16
    judged = judge(found, envelope, n_in_band)
    assert judged.ratios.rho == pytest.approx(5)
    assert judged.n == 10**16


def test_where_legal_rounding_is_exact_half_a_step_is_allowed():
    """An envelope of 0 is taken for half a step of the dtype; nothing at all stays nothing."""
    for precision, half in (("float32", 2**-24), ("float16", 2**-12), ("bfloat16", 2**-9)):
        floor = floor_of("q_rope", precision)
        assert floor == half
        assert judge(filled(half), filled(0), MANY, floor).ratios.rho == pytest.approx(1)
        assert judge(filled(4 * half), filled(0), MANY, floor).ratios.rho == pytest.approx(4)
    assert judge(filled(0), filled(0), MANY).ratios.rho == 0


@pytest.mark.parametrize("precision", PRECISIONS)
def test_an_embedding_is_excused_nothing(precision):
    """A look-up is exact in every class: there even a step of bfloat16 is wrong."""
    floor = floor_of("embed", precision)
    judged = judge(filled(2**-9), filled(0), MANY, floor)
    assert status_of(judged.ratios.rho) == "fail"


def test_the_row_of_a_band_has_the_error_of_that_band():
    """The reported error and envelope are the root mean squares where the ratio is worst."""
    found, envelope = filled(1e-3), filled(1e-3)
    found[3], envelope[3] = 6e-5, 1e-5
    found[:, LARGEST] = 0
    judged = judge(found, envelope, MANY)
    assert (judged.error, judged.envelope) == (6e-5, 1e-5)


def test_all_normal_numbers_count():
    """Of many normal numbers each counts; bands are counted apart, and an empty one has none."""
    reference = np.random.default_rng(0).standard_normal((40, 1000))
    n = counted(reference, np.repeat([1, 3], [10, 30]), inherited=False)
    assert n[[1, 3]] == pytest.approx([10_000, 30_000], rel=0.05)
    assert not n[[0, 2, 4, 5]].any()


def test_a_channel_that_outweighs_all_others_counts_alone():
    """With one channel a thousand times the rest, 8 tokens of 1000 numbers count as 8 times 3."""
    reference = np.random.default_rng(0).standard_normal((8, 1000))
    reference[:, 5] = 1000
    assert counted(reference, np.zeros(8, int), inherited=False)[0] == pytest.approx(24, rel=0.01)


def test_an_error_from_further_back_counts_by_token():
    """Over more than one step a token is no more than a few numbers, however wide it is."""
    reference = np.random.default_rng(0).standard_normal((8, 1000))
    assert counted(reference, np.zeros(8, int), inherited=True)[0] == 8 * SOURCES
    assert counted(reference[:, :2], np.zeros(8, int), inherited=True)[0] <= 16


def test_nothing_but_zeros_counts_as_it_is():
    """Where all is zero no number outweighs another."""
    assert counted(np.zeros((4, 5)), np.zeros(4, int), inherited=False)[0] == 20
