"""RoPE frequencies: published values, goldens from transformers, and the mistakes they catch."""

import numpy as np
import pytest

from llama_ref.numerics import dtype_named
from llama_ref.ops.rope_frequencies import rope_frequencies, stretched_frequencies
from tests.goldens.stored import assert_golden, caught, disagreement, op_cases

CASES = op_cases("rope_frequencies")
LLAMA_31 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_context": 8192}

# Computed in float64 from the published formula: pair -> radians per position, to nine digits.
PUBLISHED = {
    "8B: H 128, factor 8": (
        (128, 8.0, 5.38605820073),
        {
            28: 0.00321144599,  # the last pair that is kept
            29: 0.00216657076,  # blended from here
            30: 0.00137189357,
            31: 0.000856751413,
            32: 0.000524846161,
            33: 0.00031269375,
            34: 0.000178507813,  # to here
            35: 9.55621235e-05,  # divided by 8 from here
            63: 3.06892599e-07,
        },
    ),
    "3B: H 128, factor 32": (
        (128, 32.0, 5.38518223388),
        {29: 0.002118407, 31: 0.000762541203, 34: 9.7082878e-05, 35: 2.38905309e-05},
    ),
    "1B: H 64, factor 32": (
        (64, 32.0, 2.96820229784),
        {
            14: 0.00321144599,
            15: 0.00129054793,
            16: 0.000429556797,
            17: 9.7082878e-05,
            18: 1.94616382e-05,
        },
    ),
}


def every_pair_stretched(frequency_P, factor, **bands):
    return frequency_P / frequency_P.dtype.type(factor)


def blended_the_wrong_way(frequency_P, **scaling):
    """Exchange s and 1 - s between the bands."""
    right = stretched_frequencies(frequency_P, **scaling)
    slowed = every_pair_stretched(frequency_P, **scaling)
    kept_or_slowed = (right == frequency_P) | (right == slowed)
    return np.where(kept_or_slowed, right, frequency_P + slowed - right)


def not_blended(frequency_P, **scaling):
    """Jump from kept to slowed at the geometric middle of the bands."""
    turns = scaling["original_context"] * frequency_P / (2 * np.pi)
    return np.where(turns > 2, frequency_P, every_pair_stretched(frequency_P, **scaling))


def other_factor(frequency_P, factor, **bands):
    return stretched_frequencies(frequency_P, factor=256 / factor, **bands)


def fixed_constants(frequency_P, factor, **bands):
    return stretched_frequencies(frequency_P, factor=factor, **LLAMA_31)


def plain(head_dim, theta, dtype, first=0, step=2):
    exponent_P = (first + np.arange(head_dim // 2) * step) / head_dim
    return (1 / theta**exponent_P).astype(dtype_named(dtype))


MISTAKES = {
    "theta 10,000": lambda head_dim, theta, dtype: plain(head_dim, 1e4, dtype),
    "exponent p/H": lambda **stated: plain(**stated, step=1),
    "exponent counts from 1": lambda **stated: plain(**stated, first=2),
    "not stretched": lambda frequency_P, **scaling: frequency_P,
    "every pair stretched": every_pair_stretched,
    "blend the wrong way round": blended_the_wrong_way,
    "no blend": not_blended,
    "8 ↔ 32": other_factor,
    "constants of Llama 3.1": fixed_constants,
}


def frequencies(case):
    """Return what our functions make of a case."""
    if case.function == "stretched_frequencies":
        return stretched_frequencies(**case.arguments)
    return rope_frequencies(**{**case.arguments, "dtype": dtype_named(case.arguments["dtype"])})


@pytest.mark.parametrize("case", CASES, ids=str)
def test_frequencies_are_transformers(case):
    """Float32 frequencies are those of LlamaRotaryEmbedding to the bit, float64 ones to 4 ulps."""
    frequency_P, expected_P = frequencies(case), case.results["frequency_P"]
    assert_golden(frequency_P, expected_P, case.tolerance)
    # Pair by pair: beside f[0] = 1 the error of a slow pair, six digits smaller, would not count.
    bound = 0 if frequency_P.dtype == np.float32 else 4 * np.finfo(np.float64).eps
    assert np.abs(frequency_P / expected_P - 1).max() <= bound


@pytest.mark.parametrize(("case", "mistake"), caught(CASES), ids=str)
def test_classic_mistakes_are_caught(case, mistake):
    """Frequencies with this mistake do not meet this golden."""
    found_P = MISTAKES[mistake](**case.arguments)
    assert disagreement(found_P, case.results["frequency_P"], case.tolerance)


def test_every_mistake_has_a_golden():
    """Each mistake written down here is caught by some golden."""
    assert {mistake for _, mistake in caught(CASES)} == set(MISTAKES)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_values(name):
    """The frequencies of 8B, 3B and 1B and their sums are the published ones, to nine digits."""
    (head_dim, factor, total), values = PUBLISHED[name]
    f = rope_frequencies(head_dim, theta=500_000.0, dtype=np.dtype(np.float64))
    f = stretched_frequencies(f, factor=factor, **LLAMA_31)
    assert f.dtype == np.float64
    assert f.shape == (head_dim // 2,)
    assert {p: float(f"{f[p]:.9g}") for p in values} == values
    assert float(f"{f.sum():.12g}") == total


@pytest.mark.parametrize(("head_dim", "kept", "blended"), [(128, 29, 6), (64, 15, 3)])
def test_bands(head_dim, kept, blended):
    """At H = 128 pairs 0-28 are kept and 29-34 blended, at H = 64 pairs 0-14 and 15-17."""
    f = rope_frequencies(head_dim, theta=500_000.0, dtype=np.dtype(np.float32))
    ratio_P = stretched_frequencies(f, factor=8.0, **LLAMA_31) / f
    between = (ratio_P < 1) & (ratio_P > 1 / 8)
    assert (ratio_P[:kept] == 1).all()
    assert np.flatnonzero(between).tolist() == list(range(kept, kept + blended))
    assert (ratio_P[kept + blended :] == 1 / 8).all()


def test_float64_angles_are_not_metas():
    """At position 131,071 float32 and float64 angles differ by 5e-3 radians, as the docs say."""
    single_P, double_P = (
        131_071 * rope_frequencies(128, theta=500_000.0, dtype=np.dtype(dtype))
        for dtype in (np.float32, np.float64)
    )
    assert 4e-3 < np.abs(single_P - double_P).max() < 6e-3
