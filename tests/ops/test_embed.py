"""Embedding: goldens from torch, and the mistakes they catch."""

import numpy as np
import pytest

from llama_ref.errors import BadRequest
from llama_ref.numerics import BFLOAT16, dtype_named
from llama_ref.ops.embed import embed
from tests.goldens.stored import caught, disagreement, op_cases
from tests.ops.matrix import Rows

CASES = op_cases("embed")


def cut_off(table):
    """Drop the low half of the bits of float32 numbers, as a bfloat16 cast by shifting does."""
    return (table.view(np.uint32) >> 16).astype(np.uint16).view(BFLOAT16)


def ties_away(table):
    """Round float32 numbers to bfloat16, ties upwards."""
    return ((table.view(np.uint32) + 0x8000) >> 16).astype(np.uint16).view(BFLOAT16)


MISTAKES = {
    "scaled by sqrt(D)": lambda i, t, d: (t[i] * np.sqrt(t.shape[1])).astype(d),
    "next row": lambda i, t, d: t[(i + 1) % len(t)].astype(d),
    "cut off": lambda i, t, d: cut_off(t)[i],
    "ties away from zero": lambda i, t, d: ties_away(t)[i],
    "dtype of the table": lambda i, t, d: t[i],
}


def arguments(case):
    return case.arguments["ids_T"], case.arguments["table_VD"], dtype_named(case.arguments["dtype"])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_embed_is_torchs(case):
    """Embedding returns the rows that torch returns, bit for bit."""
    ids_T, table_VD, dtype = arguments(case)
    y_TD = embed(ids_T, table_VD, dtype=dtype)
    assert y_TD.dtype == dtype
    assert y_TD.shape == (len(ids_T), 4)
    assert np.array_equal(y_TD, case.results["y_TD"])


@pytest.mark.parametrize(("case", "mistake"), caught(CASES), ids=str)
def test_classic_mistakes_are_caught(case, mistake):
    """An embedding with this mistake does not meet this golden."""
    found = MISTAKES[mistake](*arguments(case))
    assert disagreement(found, case.results["y_TD"], case.tolerance)


def test_a_matrix_hands_out_only_the_rows_asked_for():
    """A table that is a Matrix is asked for single rows, and gives what the array gives."""
    table = Rows(np.arange(300.0).reshape(50, 6))
    ids_T = np.array([49, 3, 3])
    y_TD = embed(ids_T, table, dtype=BFLOAT16)
    assert y_TD.dtype == BFLOAT16
    assert y_TD.shape == (3, 6)
    assert np.array_equal(y_TD, table.array[ids_T].astype(BFLOAT16))
    assert table.asked == [(49, 50), (3, 4), (3, 4)]


@pytest.mark.parametrize("bad", [-1, 5], ids=["minus one", "the size of the vocabulary"])
def test_ids_outside_the_vocabulary_are_refused(bad):
    """An id outside the table is an error that names its position; NumPy would wrap -1."""
    with pytest.raises(BadRequest, match=f"position 2.*0 to 4, found {bad}"):
        embed(np.array([0, 4, bad]), np.ones((5, 2)), dtype=np.dtype(np.float64))
