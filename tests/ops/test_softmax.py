"""Softmax: goldens from torch, and the mistakes they catch."""

import numpy as np
import pytest

from llama_ref.errors import BadRequest
from llama_ref.numerics import widen
from llama_ref.ops.softmax import softmax
from tests.goldens.stored import assert_golden, caught, disagreement, op_cases

CASES = op_cases("softmax")


def in_16_bits(x):
    """Round after every step, and add up in the dtype of x."""
    exp = np.exp((widen(x) - widen(x.max(-1, keepdims=True))).astype(x.dtype)).astype(x.dtype)
    total = np.zeros_like(x[..., :1])
    for i in range(x.shape[-1]):
        total = (widen(total) + widen(exp[..., i, None])).astype(x.dtype)
    return (widen(exp) / widen(total)).astype(x.dtype)


def base_2(x):
    exp = 2 ** (x - x.max(-1, keepdims=True))
    return (exp / exp.sum(-1, keepdims=True)).astype(x.dtype)


def unsubtracted(x):
    with np.errstate(all="ignore"):
        exp = np.exp(x)
        return exp / exp.sum(-1, keepdims=True)


def without_the_last_block(x):
    return np.pad(softmax(x[:, :64]), ((0, 0), (0, x.shape[1] - 64)))


def without_rescaling(x):
    """Add up block by block, each relative to the largest so far, and never rescale what was."""
    largest, total = np.full((len(x), 1), -np.inf), 0
    for lo in range(0, x.shape[1], 16):
        block = x[:, lo : lo + 16]
        largest = np.maximum(largest, block.max(-1, keepdims=True))
        total = total + np.exp(block - largest).sum(-1, keepdims=True)
    return (np.exp(x - largest) / total).astype(x.dtype)


MISTAKES = {
    "first axis": lambda x: np.moveaxis(softmax(np.moveaxis(x[None], 1, -1)), -1, 1)[0],
    "not normalised": lambda x: np.exp(x - x.max(-1, keepdims=True)),
    "base 2": base_2,
    "largest not subtracted": unsubtracted,
    "entries beyond a multiple of 64 left out": without_the_last_block,
    "blocks summed without rescaling": without_rescaling,
    "computed in 16 bits": in_16_bits,
    "through float32": lambda x: softmax(x.astype(np.float32)).astype(x.dtype),
}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_softmax_is_torchs(case):
    """Softmax gives what F.softmax gives in float32 (float64 in float64), rounded once."""
    assert_golden(softmax(**case.arguments), case.results["y"])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_hidden_entries_are_exactly_zero(case):
    """Probabilities are 0 just where the score is minus infinity or far below the largest."""
    x, p = case.arguments["x"], softmax(**case.arguments)
    assert (p[np.isneginf(x)] == 0).all()
    assert (p >= 0).all()
    assert np.abs(widen(p).sum(-1) - 1).max() < 2e-2


@pytest.mark.parametrize(("case", "mistake"), caught(CASES), ids=str)
def test_classic_mistakes_are_caught(case, mistake):
    """A softmax with this mistake does not meet this golden."""
    assert disagreement(MISTAKES[mistake](**case.arguments), case.results["y"])


def test_every_mistake_has_a_golden():
    """Each mistake written down here is caught by some golden."""
    assert {mistake for _, mistake in caught(CASES)} == set(MISTAKES)


def test_a_row_of_nothing_is_refused():
    """A row of minus infinities has no distribution; NumPy's answer would be NaN."""
    with pytest.raises(BadRequest, match=r"softmax.*a row of minus infinities"):
        softmax(np.float32([[0, 1], [-np.inf, -np.inf]]))
