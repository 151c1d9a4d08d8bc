"""Rotary embedding: goldens from transformers (half-split) and Meta's formulas (interleaved)."""

import numpy as np
import pytest

from llama_ref.errors import BadRequest
from llama_ref.numerics import BFLOAT16, dtype_named, widen
from llama_ref.ops.rope import rope_half_split, rope_interleaved, rope_table
from tests.goldens.stored import assert_golden, caught, disagreement, op_cases

TABLES = op_cases("rope", "rope_table")
ROTATE = {"rope_half_split": rope_half_split, "rope_interleaved": rope_interleaved}
OTHER = {"rope_half_split": rope_interleaved, "rope_interleaved": rope_half_split}
ROTATIONS = [case for function in ROTATE for case in op_cases("rope", function)]


def table(position_T, frequency_P, dtype):
    return rope_table(position_T, frequency_P, dtype=dtype_named(dtype))


def in_bfloat16(position_T, frequency_P, dtype):
    """Round positions to bfloat16: 257 becomes 256."""
    return table(position_T.astype(BFLOAT16).astype(np.int64), frequency_P, dtype)


def turned_back(position_T, frequency_P, dtype):
    cos_TP, sin_TP = table(position_T, frequency_P, dtype)
    return cos_TP, -sin_TP


TABLE_MISTAKES = {
    "positions from 1": lambda t, f, d: table(t + 1, f, d),
    "positions in bfloat16": in_bfloat16,
    "turned the other way": turned_back,
    "positions counted in the call": lambda t, f, d: table(np.arange(len(t)), f, d),
    "not rounded": lambda t, f, d: table(t, f, "float32"),
    "angles in float64": lambda t, f, d: [
        part.astype(np.float32) for part in table(t, f.astype(np.float64), "float64")
    ],
}


def rounded_once(rotate, x, cos, sin):
    """Rotate 16-bit numbers in float32, then round: fused kernels do."""
    return rotate(widen(x), widen(cos), widen(sin)).astype(x.dtype)


def table_rounded(rotate, x, cos, sin):
    return rotate(x, cos.astype(x.dtype), sin.astype(x.dtype))


ROTATION_MISTAKES = {
    "turned the other way": lambda rotate, x, cos, sin: rotate(x, cos, -sin),
    "not turned": lambda rotate, x, cos, sin: x,
    "angles of the next token": lambda rotate, x, cos, sin: rotate(
        x, np.roll(cos, -1, axis=0), np.roll(sin, -1, axis=0)
    ),
    "rounded once": rounded_once,
    "table rounded": table_rounded,
}


@pytest.mark.parametrize("case", TABLES, ids=str)
def test_tables_are_the_peers(case):
    """Cosines and sines are the peer's up to position 131,071, in the dtype of the lineage."""
    for found_TP, expected_TP in zip(table(**case.arguments), case.results.values(), strict=True):
        assert_golden(found_TP, expected_TP)


@pytest.mark.parametrize(("case", "mistake"), caught(TABLES), ids=str)
def test_classic_mistakes_of_tables_are_caught(case, mistake):
    """A table with this mistake does not meet this golden."""
    found = TABLE_MISTAKES[mistake](*case.arguments.values())
    assert any(disagreement(f, e) for f, e in zip(found, case.results.values(), strict=True))


@pytest.mark.parametrize("case", ROTATIONS, ids=str)
def test_rotations_are_the_peers(case):
    """Half-split rotation is transformers', interleaved Meta's, at their rounding points."""
    assert_golden(ROTATE[case.function](**case.arguments), case.results["y_TNH"])


@pytest.mark.parametrize(("case", "mistake"), caught(ROTATIONS), ids=str)
def test_classic_mistakes_of_rotations_are_caught(case, mistake):
    """A rotation with this mistake does not meet this golden."""
    if mistake == "the other pairing":
        found = OTHER[case.function](**case.arguments)
    else:
        rotate = ROTATE[case.function]
        found = ROTATION_MISTAKES[mistake](rotate, *case.arguments.values())
    assert disagreement(found, case.results["y_TNH"])


def test_every_mistake_has_a_golden():
    """Each mistake written down here is caught by some golden."""
    assert {mistake for _, mistake in caught(TABLES)} == set(TABLE_MISTAKES)
    assert {mistake for _, mistake in caught(ROTATIONS)} == {
        "the other pairing",
        *ROTATION_MISTAKES,
    }


def test_the_pairings_are_one_rotation_on_permuted_channels():
    """Interleaved rotation of channels reordered into pairs is half-split rotation, reordered."""
    rng = np.random.default_rng(0)
    x_TNH = rng.standard_normal((5, 3, 8))
    tables = rope_table(np.arange(5) * 1000, 500_000.0 ** -np.arange(4.0), dtype=np.float64)
    into_pairs = [0, 4, 1, 5, 2, 6, 3, 7]
    half_split_TNH = rope_half_split(x_TNH, *tables)
    interleaved_TNH = rope_interleaved(x_TNH[..., into_pairs], *tables)
    assert np.array_equal(interleaved_TNH, half_split_TNH[..., into_pairs])


@pytest.mark.parametrize("rotate", ROTATE.values(), ids=ROTATE)
@pytest.mark.parametrize(
    ("x", "table"),
    [
        pytest.param((5, 3, 8), (5, 8), id="a table of H columns, as in transformers"),
        pytest.param((5, 3, 8), (1, 4), id="one position for five tokens"),
        pytest.param((3, 5, 8), (5, 4), id="heads before tokens"),
        pytest.param((1, 5, 3, 8), (5, 4), id="a batch axis"),
        pytest.param((5, 3, 7), (5, 3), id="an odd width"),
    ],
)
def test_shapes_that_numpy_would_broadcast_are_refused(rotate, x, table):
    """Tokens, heads and pairs have to be where the table says; all three shapes are named."""
    with pytest.raises(BadRequest, match=r"cosine and sine \(T, H/2\), found"):
        rotate(np.ones(x), np.ones(table), np.ones(table))
