"""The linear map: goldens from torch, the mistakes they catch, and the blocks it works in."""

import re

import numpy as np
import pytest

from llama_ref.errors import BadRequest
from llama_ref.numerics import ACTIVATION_DTYPES, BFLOAT16, widen
from llama_ref.ops import linear as linear_file
from llama_ref.ops.linear import MANY_TOKENS, linear
from tests.goldens.stored import assert_golden, caught, disagreement, op_cases
from tests.ops.matrix import Rows

CASES = op_cases("linear")


def rounded_at_every_addition(x, weight):
    """Accumulate in the dtype of x, as a loop over bfloat16 numbers does."""
    y = np.zeros((len(x), len(weight)), x.dtype)
    with np.errstate(over="ignore"):
        for d in range(x.shape[1]):
            y = (widen(y) + widen(x[:, d, None]) * widen(weight[:, d])).astype(x.dtype)
    return y


def without_the_last_block_of_d(x, weight):
    whole = x.shape[1] // 32 * 32
    return x[:, :whole] @ weight[:, :whole].T


def without_the_last_block_of_f(x, weight):
    y = x @ weight.T
    y[:, len(weight) // 16 * 16 :] = 0
    return y


MISTAKES = {
    "x W instead of x W^T": lambda x, w: x @ w,
    "rounded at every addition": rounded_at_every_addition,
    "weight not rounded": lambda x, w: (widen(x) @ w.T).astype(x.dtype),
    "computed in bfloat16": lambda x, w: linear(x.astype(BFLOAT16), w).astype(x.dtype),
    "D beyond a multiple of 32 left out": without_the_last_block_of_d,
    "F beyond a multiple of 16 left out": without_the_last_block_of_f,
    "computed in float32": lambda x, w: linear(x.astype(np.float32), w).astype(x.dtype),
}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_linear_is_torchs(case):
    """A linear map gives what F.linear gives, to the rounding of its dtype."""
    assert_golden(linear(**case.arguments), case.results["y_TF"])


@pytest.mark.parametrize(("case", "mistake"), caught(CASES), ids=str)
def test_classic_mistakes_are_caught(case, mistake):
    """A linear map with this mistake does not meet this golden."""
    found = MISTAKES[mistake](case.arguments["x_TD"], case.arguments["weight_FD"])
    assert disagreement(found, case.results["y_TF"])


def test_every_mistake_has_a_golden():
    """Each mistake written down here is caught by some golden."""
    assert {mistake for _, mistake in caught(CASES)} == set(MISTAKES)


@pytest.mark.parametrize("dtype", ACTIVATION_DTYPES.values(), ids=str)
@pytest.mark.parametrize("stored", ACTIVATION_DTYPES.values(), ids=lambda dtype: f"weight {dtype}")
@pytest.mark.parametrize("n_tokens", [0, 1, 2, MANY_TOKENS, MANY_TOKENS + 1])
def test_every_path_multiplies_by_the_same_weight(n_tokens, stored, dtype, monkeypatch):
    """However many tokens and blocks, array or Matrix: one product, in C order, in x's dtype."""
    monkeypatch.setattr(linear_file, "BLOCK_ELEMENTS", 40)
    monkeypatch.setattr(linear_file, "BLOCK_ROWS", 3)
    monkeypatch.setattr(linear_file, "WORTH_A_THREAD", 0)
    rng = np.random.default_rng(0)
    x_TD = rng.integers(-3, 4, (n_tokens, 12)).astype(dtype)
    weight_FD = rng.integers(-3, 4, (17, 12)).astype(stored)
    exact_TF = x_TD.astype(np.float64) @ weight_FD.astype(np.float64).T  # small whole numbers
    for weight in (weight_FD, Rows(weight_FD), np.asfortranarray(weight_FD)):
        y_TF = linear(x_TD, weight)
        assert y_TF.dtype == dtype
        assert y_TF.shape == (n_tokens, 17)
        assert y_TF.flags.c_contiguous
        assert np.array_equal(y_TF.astype(np.float64), exact_TF)


def test_a_matrix_is_read_block_by_block(monkeypatch):
    """A Matrix is asked for each row once, a block at a time."""
    monkeypatch.setattr(linear_file, "BLOCK_ELEMENTS", 40)
    monkeypatch.setattr(linear_file, "BLOCK_ROWS", 3)
    monkeypatch.setattr(linear_file, "WORTH_A_THREAD", 0)
    weight = Rows(np.ones((17, 12), BFLOAT16))
    linear(np.ones((2, 12), np.float32), weight)
    assert sorted(weight.asked) == [(lo, min(lo + 3, 17)) for lo in range(0, 17, 3)]


@pytest.mark.parametrize("shape", [(5,), (5, 3), (5, 4, 1)], ids=str)
def test_a_weight_of_another_width_is_refused(shape):
    """A weight whose rows do not fit the tokens is an error with both shapes."""
    with pytest.raises(BadRequest, match=re.escape(f"found (2, 4) and {shape}")):
        linear(np.ones((2, 4)), np.ones(shape))


@pytest.mark.parametrize("shape", [(4,), (1, 2, 4)], ids=str)
@pytest.mark.parametrize("dtype", [BFLOAT16, np.float32], ids=str)
def test_a_batch_axis_is_refused(dtype, shape):
    """Tokens are rows of a matrix; one vector, or a batch of matrices, is an error."""
    with pytest.raises(BadRequest, match=r"x \(T, D\)"):
        linear(np.ones(shape, dtype), np.ones((5, 4), dtype))


def test_no_token_reads_no_weight():
    """For no token at all, as in a chunk of a prompt whose logits nobody wants, nothing is read."""
    weight = Rows(np.ones((17, 12), BFLOAT16))
    assert linear(np.ones((0, 12), np.float32), weight).shape == (0, 17)
    assert weight.asked == []
