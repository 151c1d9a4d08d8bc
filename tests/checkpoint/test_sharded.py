"""A matrix in parts gives the rows of the whole."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_ref.checkpoint.sharded import ShardedMatrix
from llama_ref.errors import BadRequest
from llama_ref.ops.linear import linear


@given(
    axis=st.sampled_from([0, 1]),
    n=st.integers(1, 4),
    shape=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    bounds=st.tuples(st.integers(0, 16), st.integers(0, 16)),
)
def test_rows_are_those_of_the_whole(axis, n, shape, bounds):
    """For any cut and any lo and hi, rows(lo, hi) equals whole[lo:hi], or is refused beyond it."""
    parts = [np.arange(100 * i, 100 * i + shape[0] * shape[1]).reshape(shape) for i in range(n)]
    whole, matrix = np.concatenate(parts, axis), ShardedMatrix(parts, axis)
    lo, hi = bounds
    if lo <= hi <= whole.shape[0]:
        found = matrix.rows(lo, hi)
        assert found.dtype == whole.dtype
        assert found.shape == (hi - lo, whole.shape[1])
        assert found.tolist() == whole[lo:hi].tolist()
    else:
        with pytest.raises(BadRequest, match="rows: expected within 0 to"):
            matrix.rows(lo, hi)


@pytest.mark.parametrize("axis", [0, 1])
def test_it_has_shape_dtype_and_rank_of_the_whole(axis):
    """shape, dtype, ndim and the joined array are those of concatenation."""
    parts = [np.full((2, 3), i, np.float16) for i in range(4)]
    matrix, whole = ShardedMatrix(parts, axis), np.concatenate(parts, axis)
    assert (matrix.dtype, matrix.shape, matrix.ndim) == (whole.dtype, whole.shape, 2)
    assert np.asarray(matrix).tolist() == whole.tolist()
    assert np.asarray(matrix, np.float32).dtype == np.float32
    assert repr(matrix).startswith(f"<ShardedMatrix {whole.shape} float16")


def test_rows_of_one_part_are_not_copied():
    """A block of rows that lies in one part is a view of that part."""
    parts = [np.zeros((4, 3)) for _ in range(3)]
    matrix = ShardedMatrix(parts, axis=0)
    assert np.shares_memory(matrix.rows(4, 8), parts[1])
    assert np.shares_memory(matrix.rows(5, 6), parts[1])
    assert not np.shares_memory(matrix.rows(3, 5), parts[1])


@pytest.mark.parametrize("axis", [0, 1])
def test_a_linear_map_by_parts_is_that_by_the_whole(axis):
    """linear() gives the same numbers for the cut matrix as for the joined one."""
    generator = np.random.default_rng(0)
    parts = [generator.standard_normal((6, 8)).astype(np.float16) for _ in range(3)]
    whole = np.concatenate(parts, axis)
    x_TD = generator.standard_normal((5, whole.shape[1])).astype(np.float32)
    found = linear(x_TD, ShardedMatrix(parts, axis))
    assert found.dtype == np.float32
    assert found.shape == (5, whole.shape[0])
    np.testing.assert_array_equal(found, linear(x_TD, whole))


@pytest.mark.parametrize(
    ("parts", "axis"),
    [
        ([], 0),
        ([np.zeros((2, 3)), np.zeros((3, 3))], 0),
        ([np.zeros((2, 3)), np.zeros((2, 3), np.float32)], 0),
        ([np.zeros((2, 3))], 2),
        ([np.zeros(3)], 0),
        ([np.zeros((0, 3))], 0),
    ],
    ids=["none", "shapes", "dtypes", "axis", "vector", "empty"],
)
def test_parts_that_are_not_equal_matrices_are_refused(parts, axis):
    """A part that would shift every later row is refused at once."""
    with pytest.raises(BadRequest, match="ShardedMatrix: expected equal matrices"):
        ShardedMatrix(parts, axis)


def test_a_view_of_all_parts_is_refused():
    """NumPy may ask for an array without a copy; there is none."""
    with pytest.raises(ValueError, match="leave to copy"):
        np.asarray(ShardedMatrix([np.eye(2)] * 2, axis=0), copy=False)
