"""Telling noise from a mistake: rounding of any kind is noise, a formula is not."""

import numpy as np
import pytest

from llama_ref.golden.grids import cut_to_tf32, to_bfloat16, to_float16, to_tf32
from llama_ref.golden.noise import common_factor, explained_by_factors, is_noise, size_of

RNG = np.random.default_rng(0)
NORMAL_TD = RNG.standard_normal((48, 96))
# As activations are: some channels are ten times as large as others, and one is beyond all.
UNEVEN_TD = NORMAL_TD * np.exp(RNG.standard_normal(96))
OUTLIER_TD = NORMAL_TD * np.where(np.arange(96) == 5, 64, 1)


@pytest.mark.parametrize("grid", [to_bfloat16, to_float16, to_tf32])
@pytest.mark.parametrize(
    "array", [NORMAL_TD, UNEVEN_TD, OUTLIER_TD], ids=["even", "uneven", "outlier"]
)
def test_rounding_is_noise(grid, array):
    """What rounding to any grid leaves follows nothing, however uneven the numbers are."""
    assert is_noise(grid(array) - array, array)


def test_cutting_is_no_noise():
    """Cut mantissas shrink every number: three quarters of that error are one factor."""
    error = cut_to_tf32(NORMAL_TD) - NORMAL_TD
    assert explained_by_factors(error, NORMAL_TD)["all"] > 0.7
    assert not is_noise(error, NORMAL_TD)


MISTAKES = {
    "a factor": 0.01 * UNEVEN_TD,
    "a factor by token": UNEVEN_TD * RNG.standard_normal((48, 1)) * 0.01,
    "a gain by channel": UNEVEN_TD * RNG.standard_normal(96) * 0.01,
    "half the tokens scaled": np.where(np.arange(48)[:, None] % 2, 0.01 * UNEVEN_TD, 0),
    "other numbers": RNG.standard_normal((48, 96)),
    "garbage in a third of the tokens": np.where(
        np.arange(48)[:, None] % 3, 1e-6, 0.3 * RNG.standard_normal((48, 96))
    ),
    "garbage behind a cache": np.where(
        np.arange(48)[:, None] < 18, 1e-8, 0.2 * RNG.standard_normal((48, 96))
    ),
    "one element": np.pad([[1.0]], ((20, 27), (50, 45))),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_wrong_formula_is_not_noise(name):
    """An error that follows the numbers, a token or a channel, or sits in one place, is none."""
    assert not is_noise(MISTAKES[name], UNEVEN_TD)


def test_a_token_without_error_is_noise_only_where_a_step_can_be_exact():
    """RoPE rounds nothing at position 0; a layer that rounds everywhere but there turns wrongly."""
    error = to_bfloat16(NORMAL_TD) - NORMAL_TD
    error[0] = 0
    assert is_noise(error, NORMAL_TD, can_be_exact=True)
    assert not is_noise(error, NORMAL_TD)
    error[: len(error) // 3] = 0
    assert not is_noise(error, NORMAL_TD, can_be_exact=True)


@pytest.mark.parametrize("factor", [0.5, 2.0, -1.0, 1.001])
def test_a_factor_is_told(factor):
    """Whatever all numbers are multiplied by is found to the last digits, with rounding on it."""
    error = to_float16(factor * NORMAL_TD).astype(float) - NORMAL_TD
    found = common_factor(factor * NORMAL_TD - NORMAL_TD, NORMAL_TD)
    assert found == pytest.approx(factor, rel=1e-12)
    if abs(factor - 1) > 0.1:
        assert common_factor(error, NORMAL_TD) == pytest.approx(factor, rel=1e-3)


def test_what_is_no_factor_is_not_told():
    """Noise, a shift, a gain by channel and no numbers at all have no common factor."""
    for error in (to_bfloat16(NORMAL_TD) - NORMAL_TD, np.ones((48, 96)), np.full((48, 96), np.nan)):
        assert common_factor(error, NORMAL_TD) is None
    assert common_factor(MISTAKES["a gain by channel"], UNEVEN_TD) is None
    assert common_factor(np.ones((4, 4)), np.zeros((4, 4))) is None
    assert common_factor(np.full((4, 4), 1e300), np.ones((4, 4))) is None


def test_a_mistake_with_noise_on_it_is_a_mistake():
    """A factor that is as large as the rounding beside it is recognised."""
    noise = to_bfloat16(UNEVEN_TD) - UNEVEN_TD
    assert not is_noise(2 * size_of(noise) / size_of(UNEVEN_TD) * UNEVEN_TD + noise, UNEVEN_TD)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_not_noise(value):
    """One NaN or infinity is no rounding."""
    error = to_bfloat16(NORMAL_TD) - NORMAL_TD
    error[0, 0] = value
    assert not is_noise(error, NORMAL_TD)


def test_of_too_few_numbers_nothing_is_claimed():
    """Below 64 numbers anything can look like noise, so nothing does."""
    error = to_bfloat16(NORMAL_TD) - NORMAL_TD
    assert is_noise(error[:1, :64], NORMAL_TD[:1, :64])
    assert not is_noise(error[:1, :63], NORMAL_TD[:1, :63])


def test_no_error_at_all_has_nothing_to_explain():
    """An error of zero divides by nothing."""
    shares = explained_by_factors(np.zeros((8, 8)), np.ones((8, 8)))
    assert all(np.isfinite(list(shares.values())))


def test_chance_explains_nothing():
    """Of noise, factors explain 0 to a few percent once what chance explains is taken off."""
    error = RNG.standard_normal(NORMAL_TD.shape)
    shares = explained_by_factors(error, NORMAL_TD)
    assert all(abs(share) < 0.05 for share in shares.values())


def test_size_is_the_root_mean_square():
    """Three and four make the root of 12.5."""
    assert size_of(np.array([3.0, 4.0])) == pytest.approx(12.5**0.5)
