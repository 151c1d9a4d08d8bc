"""Sums in a row: right to float32, and worse than those of BLAS, which is what they are for."""

import numpy as np
import pytest

from llama_ref.golden.passes import Session, whole
from llama_ref.golden.summing import IN_A_ROW, linear
from tests.golden.styled import CASES, model, relative_error


def moments():
    """Yield, for every tap that is a sum, what BLAS makes of it, a row of sums, and float64."""
    wide = {}
    Session(model(), CASES["five"]).run(lambda m: wide.update({m.name: m.computed.copy()}))
    found = []

    def keep(moment):
        if moment.kind in IN_A_ROW:
            own = IN_A_ROW[moment.kind](moment)
            found.append((moment.kind, moment.computed.copy(), own, wide[moment.name]))

    Session(model("float32"), CASES["five"]).run(keep)
    return found


def test_every_sum_of_the_model_is_summed_in_a_row():
    """Every matrix, norm, score, softmax and mixture comes out right, in float32, in its shape."""
    found = moments()
    assert {kind for kind, *_ in found} == set(IN_A_ROW)
    for kind, computed, own, exact in found:
        assert own.dtype == np.float32 and own.shape == computed.shape
        assert relative_error(kind, own, exact) < 5e-6, kind


def test_a_row_of_sums_is_that_of_a_loop():
    """A matrix product is the one that a loop of float32 additions gives, bit for bit."""
    taken = []

    def keep(moment):
        if moment.kind == "q":
            taken.append((moment.input.copy(), whole(moment.weight()), linear(moment)))

    Session(model("float32"), CASES["two"]).run(keep)
    ((x_TD, weight_AD, found_TNH),) = taken
    total_TA = np.zeros((len(x_TD), len(weight_AD)), np.float32)
    for d in range(x_TD.shape[1]):
        total_TA = total_TA + x_TD[:, d : d + 1] * weight_AD[:, d]
    assert np.array_equal(found_TNH.reshape(total_TA.shape), total_TA)


@pytest.mark.parametrize("kind", ["q", "attn_out", "ffn_out", "logits"])
def test_it_errs_more_than_blas(kind):
    """Over rows of hundreds of numbers a loop is worse than the kernels of BLAS, or no better."""
    errors = {}
    for own_kind, computed, own, exact in moments():
        errors[own_kind] = [relative_error(own_kind, x, exact) for x in (own, computed)]
    assert errors[kind][0] > 0.8 * errors[kind][1]
