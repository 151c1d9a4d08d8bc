"""The count sketch: another implementation agrees, and it estimates what it says it does."""

import numpy as np
import pytest

from llama_ref.golden.sketch import BUCKETS, sketch, sketched_error


def mix(x):
    x ^= x >> 16
    x = x * 0x7FEB352D & 0xFFFFFFFF
    x ^= x >> 15
    x = x * 0x846CA68B & 0xFFFFFFFF
    return x ^ x >> 16


def sketch_in_whole_numbers(values, seed=0):
    """The sketch as the documentation of the hash and of the sketch state it, number by number."""
    name_hash = 0x811C9DC5
    for byte in b"sketch":
        name_hash = (name_hash ^ byte) * 0x01000193 & 0xFFFFFFFF
    k0 = mix(name_hash ^ mix(seed))
    k1 = mix(k0 + 0x9E3779B9 & 0xFFFFFFFF)
    total = [0.0] * 256
    for i, value in enumerate(values):
        h = mix(mix(i + k0 & 0xFFFFFFFF) ^ k1)
        total[h >> 24] += -value if h % 2 else value
    return total


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1])
def test_a_second_implementation_gives_the_same_numbers(seed):
    """Whole numbers, sketched by a loop over Python's integers, come out the same."""
    array = np.random.default_rng(1).integers(-1000, 1000, (3, 7, 50)).astype(np.float32)
    found = sketch(array, seed)
    assert found.dtype == np.float64 and found.shape == (256,)
    assert found.tolist() == sketch_in_whole_numbers(array.ravel().tolist(), seed)


def test_the_sketch_is_taken_in_row_order_whatever_lies_in_memory():
    """A transposed view has the sketch of its copy, and not that of the array behind it."""
    array = np.random.default_rng(2).standard_normal((30, 40))
    assert np.array_equal(sketch(array.T), sketch(np.ascontiguousarray(array.T)))
    assert not np.array_equal(sketch(array.T), sketch(array))


def test_sketching_is_linear():
    """The difference of two sketches is the sketch of the difference."""
    a, b = np.random.default_rng(3).integers(-999, 999, (2, 70_000)).astype(np.float64)
    assert np.array_equal(sketch(a) - sketch(b), sketch(a - b))


def relative_errors(n_arrays, size=4096):
    """Return estimates of the relative error of arrays that are off by a thousandth."""
    rng = np.random.default_rng(4)
    estimates = []
    for _ in range(n_arrays):
        truth, noise = rng.standard_normal((2, size))
        off = 1e-3 * noise * np.linalg.norm(truth) / np.linalg.norm(noise)
        estimates.append(sketched_error(sketch(truth + off), sketch(truth)) / 1e-3)
    return np.array(estimates)


def test_a_sketch_estimates_a_relative_error_to_a_few_percent():
    """With 256 buckets the estimate is off by less than 8 % on average, and not to one side."""
    ratios = relative_errors(200)
    assert np.mean(np.abs(ratios - 1)) < 0.08
    assert np.abs(np.mean(ratios) - 1) < 0.02
    assert np.std(ratios) > 0.03  # an estimate, no exact figure


def test_the_square_of_a_sketch_is_that_of_the_array_on_average():
    """Over 200 seeds the squares of a sketch sum to those of the array to 2 %: no bias."""
    array = np.random.default_rng(5).standard_normal(2000)
    found = [np.sum(sketch(array, seed) ** 2) for seed in range(200)]
    assert np.mean(found) == pytest.approx(np.sum(array**2), rel=0.02)


def test_every_bucket_is_used_and_both_signs():
    """Ones land in all 256 buckets, nearly as many positive as negative."""
    found = sketch(np.ones(100_000))
    assert (found != 0).sum() > 0.9 * BUCKETS
    assert abs(found.sum()) < 4 * np.sqrt(100_000)


def test_no_number_in_the_candidate_is_an_infinite_error():
    """NaN or infinity anywhere in an array makes the estimate infinite."""
    truth = np.ones(1000)
    for value in (np.nan, np.inf):
        wrong = truth.copy()
        wrong[17] = value
        with np.errstate(invalid="ignore"):
            assert sketched_error(sketch(wrong), sketch(truth)) == np.inf


def test_beside_a_truth_of_zeros_only_zeros_are_right():
    """Nothing where nothing should be has no error, anything else an infinite one."""
    nothing = sketch(np.zeros(100))
    assert sketched_error(nothing, nothing) == 0
    assert sketched_error(sketch(np.full(100, 1e-9)), nothing) == np.inf
