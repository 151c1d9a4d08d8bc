"""What `quantise` writes, number by number, against the published formulas written as scalars."""

import math

import numpy as np
import pytest

from weights_tools.quantising import int4_by_group, int8_by_row

EPS = float(np.finfo(np.float32).eps)


def to_even(x):
    """Round a Python float to the nearest integer, halves to even: what `round` does."""
    return round(x)


def test_a_group_of_int4_is_rounded_as_torchao_does():
    """The largest number divided by 7.5 is a step; halves go to even, and 7.5 itself to 7."""
    row = [7.5, -7.5, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 3.49, 3.51] + [0.0] * 22
    numbers, scale = int4_by_group(np.array([row], np.float32), 32)
    assert scale.tolist() == [[1.0]]
    assert numbers[0].tolist() == [7, -8, 0, 2, 2, 0, -2, -2, 3, 4] + [0] * 22


def test_a_row_of_int8_has_127_steps():
    """The largest number is 127 steps; halves go to even."""
    row = [127.0, -127.0, 0.5, 1.5, -2.5, 63.49]
    numbers, scale = int8_by_row(np.array([row], np.float32), 0)
    assert scale.tolist() == [1.0]
    assert numbers[0].tolist() == [127, -127, 0, 2, -2, 63]


@pytest.mark.parametrize("seed", range(3))
def test_random_groups_follow_the_formula(seed):
    """Of every group of a matrix scale and numbers are those of the formula, computed one by one.

    The scale is not less than the step of float32 at 1: a group of zeros has that one.
    """
    rng = np.random.default_rng(seed)
    rows = (rng.standard_normal((3, 64)) * 10.0 ** rng.integers(-9, 3, (3, 1))).astype(np.float32)
    rows[1, 32:] = 0
    numbers, scales = int4_by_group(rows, 32)
    for row, own, own_scales in zip(rows, numbers, scales, strict=True):
        for group, found, scale in zip(
            row.reshape(2, 32), own.reshape(2, 32), own_scales, strict=True
        ):
            step = np.float32(np.float32(max(abs(group))) / np.float32(7.5))
            assert scale == max(step, np.float32(EPS))
            for x, q in zip(group, found, strict=True):
                assert q == min(max(to_even(float(np.float32(x / scale))), -8), 7)
    assert math.isclose(scales[1, 1], EPS)
