"""RMS normalisation: goldens from transformers and torch, and the mistakes they catch."""

import numpy as np
import pytest

from llama_ref.errors import BadRequest
from llama_ref.numerics import BFLOAT16, widen
from llama_ref.ops.rms_norm import rms_norm
from tests.goldens.stored import assert_golden, caught, disagreement, op_cases

CASES = op_cases("rms_norm")


def root(x, eps, mean=np.mean):
    return np.sqrt(mean(widen(x) ** 2, axis=-1, keepdims=True) + eps)


def in_dtype_of_x(x, gain, eps):
    """Square and sum in the dtype of x."""
    with np.errstate(over="ignore"):
        square = (widen(x) ** 2).astype(x.dtype)
        total = np.zeros_like(square[:, :1])
        for d in range(x.shape[1]):
            total = (widen(total) + widen(square[:, d, None])).astype(x.dtype)
    unit = widen(x) / np.sqrt(widen(total) / x.shape[1] + eps)
    return (widen(unit.astype(x.dtype)) * widen(gain)).astype(x.dtype)


def gain_not_rounded(x, gain, eps):
    unit = (widen(x) / root(x, eps)).astype(x.dtype)
    return (widen(unit) * gain).astype(x.dtype)


def without_eps(x, gain, eps):
    with np.errstate(invalid="ignore"):
        return rms_norm(x, gain, eps=0.0)


def without_the_last_block(x, gain, eps):
    """Sum the squares of whole blocks alone."""
    whole = x[:, : x.shape[1] // 32 * 32]
    mean_square = (whole**2).sum(-1, keepdims=True) / x.shape[1]
    return x / np.sqrt(mean_square + x.dtype.type(eps)) * gain


MISTAKES = {
    "eps outside the root": lambda x, g, eps: (x / (root(x, 0) + eps) * g).astype(x.dtype),
    "eps left out": without_eps,
    "D beyond a multiple of 32 left out": without_the_last_block,
    "eps 1e-6": lambda x, g, eps: rms_norm(x, g, eps=1e-6),
    "sum instead of mean": lambda x, g, eps: (x / root(x, eps, np.sum) * g).astype(x.dtype),
    "mean subtracted": lambda x, g, eps: rms_norm(x - x.mean(-1, keepdims=True), g, eps=eps),
    "gain missing": lambda x, g, eps: rms_norm(x, np.ones_like(g), eps=eps),
    "one plus gain": lambda x, g, eps: rms_norm(x, 1 + g, eps=eps),  # Gemma
    "gain before rounding": lambda x, g, eps: (widen(x) / root(x, eps) * widen(g)).astype(x.dtype),
    "statistics in the dtype of x": in_dtype_of_x,
    "gain not rounded": gain_not_rounded,
    "through bfloat16": lambda x, g, eps: rms_norm(x.astype(BFLOAT16), g, eps=eps).astype(x.dtype),
    "through float32": lambda x, g, eps: rms_norm(x.astype(np.float32), g, eps=eps).astype(x.dtype),
}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_rms_norm_is_transformers(case):
    """Normalising gives what LlamaRMSNorm gives (in float64 F.rms_norm), at its rounding points."""
    assert_golden(rms_norm(**case.arguments), case.results["y_TD"])


@pytest.mark.parametrize(("case", "mistake"), caught(CASES), ids=str)
def test_classic_mistakes_are_caught(case, mistake):
    """A norm with this mistake does not meet this golden."""
    found = MISTAKES[mistake](*case.arguments.values())
    assert disagreement(found, case.results["y_TD"])


def test_every_mistake_has_a_golden():
    """Each mistake written down here is caught by some golden."""
    assert {mistake for _, mistake in caught(CASES)} == set(MISTAKES)


@pytest.mark.parametrize("gain_shape", [(3,), (1, 4), ()], ids=str)
def test_a_gain_of_another_shape_is_refused(gain_shape):
    """A gain that NumPy would broadcast is an error with both shapes."""
    with pytest.raises(BadRequest, match=r"shape \(4,\)"):
        rms_norm(np.ones((2, 4)), np.ones(gain_shape), eps=1e-5)
