"""SwiGLU: goldens from torch, and the mistakes they catch."""

import math

import numpy as np
import pytest

from llama_ref.numerics import widen
from llama_ref.ops.swiglu import swiglu
from tests.goldens.stored import assert_golden, caught, disagreement, op_cases

CASES = op_cases("swiglu")
erf = np.vectorize(math.erf)


def curve(bend):
    """Return the mistake of bending the gate by another curve."""

    def mistake(gate, up):
        with np.errstate(over="ignore"):
            bent = bend(gate.astype(np.float64)).astype(gate.dtype)
        return (widen(bent) * widen(up)).astype(gate.dtype)

    return mistake


def rounded_once(gate, up):
    wide = widen(gate)
    return (wide / (1 + np.exp(-wide)) * widen(up)).astype(gate.dtype)


def in_16_bits(gate, up):
    """Round after every step of silu."""
    below = (1 + widen(np.exp(-widen(gate)).astype(gate.dtype))).astype(gate.dtype)
    silu = (widen(gate) / widen(below)).astype(gate.dtype)
    return (widen(silu) * widen(up)).astype(gate.dtype)


def by_exp_of_the_gate(gate, up):
    """Take sigmoid(g) for exp(g) / (exp(g) + 1), which is inf / inf for a large gate."""
    with np.errstate(over="ignore", invalid="ignore"):
        exp = np.exp(gate)
        return gate * (exp / (exp + 1)) * up


MISTAKES = {
    "GELU": curve(lambda g: g * (1 + erf(g / math.sqrt(2))) / 2),
    "GELU by tanh": curve(
        lambda g: g / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (g + 0.044715 * g**3)))
    ),
    "quick GELU": curve(lambda g: g / (1 + np.exp(-1.702 * g))),
    "ReLU": curve(lambda g: np.maximum(g, 0)),
    "sigmoid alone": curve(lambda g: 1 / (1 + np.exp(-g))),
    "exp of the gate overflows": by_exp_of_the_gate,
    "gate and up exchanged": lambda gate, up: swiglu(up, gate),
    "rounded once": rounded_once,
    "computed in 16 bits": in_16_bits,
    "through float32": lambda gate, up: swiglu(
        gate.astype(np.float32), up.astype(np.float32)
    ).astype(gate.dtype),
}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_swiglu_is_torchs(case):
    """SwiGLU gives F.silu(gate) * up, rounded after each of the two, and warns of nothing."""
    assert_golden(swiglu(**case.arguments), case.results["y_TF"])


@pytest.mark.parametrize(("case", "mistake"), caught(CASES), ids=str)
def test_classic_mistakes_are_caught(case, mistake):
    """SwiGLU with this mistake does not meet this golden."""
    assert disagreement(MISTAKES[mistake](*case.arguments.values()), case.results["y_TF"])


def test_every_mistake_has_a_golden():
    """Each mistake written down here is caught by some golden."""
    assert {mistake for _, mistake in caught(CASES)} == set(MISTAKES)
