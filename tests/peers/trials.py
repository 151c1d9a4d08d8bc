"""Numbers to try ops on, and how nearly two float32 computations of one op agree."""

import numpy as np

from llama_ref.numerics import dtype_named
from tests.replay import assert_step

SIXTEEN_BITS = ["bfloat16", "float16"]
ROUNDED = ["bfloat16", "float16", "float32"]
FLOAT32_ULPS = 16 * 2.0**-24
"""By how much float32 results may differ, relative to the largest of a row: sums have no order."""


def all_numbers(dtype):
    """Return every finite number of a 16-bit dtype."""
    bits = np.arange(2**16, dtype=np.uint16)
    exponent = bits & (0x7F80 if dtype == "bfloat16" else 0x7C00)
    return bits[exponent != exponent.max()].view(dtype_named(dtype))


def normal(shape, dtype, scale=1.0, seed=0):
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(dtype_named(dtype))


def assert_rounded_alike(found, expected, name):
    """Fail unless 16-bit results are the peer's step for step, float32 ones to a few units."""
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    if found.dtype == np.float32:
        largest = np.abs(expected).max(axis=-1, keepdims=True)
        assert (np.abs(found - expected) <= FLOAT32_ULPS * largest).all()
    else:
        assert_step(found, expected, name)
