"""Whole passes against stored goldens: transformers in lineage hf, Meta's formulas in meta.

Laws hold for any consistent convention; these pin which one it is. The weights are computed anew
from their formula, the numbers at the taps are what the peers had.
"""

from pathlib import Path

import numpy as np
import pytest

from llama_ref.checkpoint import synthetic
from llama_ref.checkpoint.stored import Checkpoint
from llama_ref.lineage import LINEAGES, lineage_named
from llama_ref.model import Model
from llama_ref.numerics import BFLOAT16, dtype_named, round_to
from llama_ref.ops.attention import over_root_width, times_inverse_root_width
from llama_ref.trace import tap_names
from llama_ref.weights import assemble
from tests.goldens.stored import forward_cases, some_rows
from tests.models import meta_name
from tests.replay import assert_near, assert_same_steps, replayed

CASES = forward_cases()
SINGLE = [case for case in CASES if case.dtype == "float32"]
ROUNDED = [case for case in CASES if case.dtype == "bfloat16"]


def golden_model(case):
    """Return the model of a golden case, its weights computed from the formula."""
    tensors = dict(synthetic.checkpoint(case.config, case.seed))
    if case.lineage == "meta":
        tensors = {meta_name(name, case.config.n_layers): array for name, array in tensors.items()}
    files = dict.fromkeys(tensors, ("formula",))
    weights = assemble(Checkpoint(Path("golden"), case.lineage, tensors, files), case.config)
    return Model(case.config, weights, lineage_named(case.lineage), dtype_named(case.dtype))


@pytest.mark.parametrize("case", SINGLE, ids=str)
def test_float32_logits_are_the_peers(case):
    """Float32 logits lie within the stated part of a standard deviation of the peer's."""
    model = golden_model(case)
    logits_TV = model.forward(case.ids, model.new_cache(), positions=case.positions)
    assert_near(logits_TV, case.taps["logits"], case.bound)


@pytest.mark.parametrize("case", SINGLE, ids=str)
def test_float32_taps_are_the_peers(case):
    """Every stored tap of a float32 pass is the peer's, so a wrong one names the wrong step."""
    trace = golden_model(case).trace(case.ids, case.positions)
    for name, expected in case.taps.items():
        # Probabilities are heavy-tailed: their largest errors are wider than those of logits'.
        assert_near(some_rows(name, trace[name], case.rows), expected, 2 * case.bound, name)


@pytest.mark.parametrize("case", SINGLE, ids=str)
def test_tokens_through_the_cache_meet_the_golden(case):
    """Fed as three, one and the rest through the cache, the tokens have the peer's logits."""
    model, rows = golden_model(case), []
    cache = model.new_cache()
    for lo, hi in ((0, 3), (3, 4), (4, len(case.ids))):
        positions = None if case.positions is None else case.positions[lo:hi]
        rows.append(model.forward(case.ids[lo:hi], cache, positions=positions))
    assert_near(np.concatenate(rows), case.taps["logits"], case.bound)


@pytest.mark.parametrize("case", SINGLE, ids=str)
def test_a_packed_sequence_meets_the_golden(case):
    """Between two other sequences, with only the last two logits asked for, nothing changes."""
    model = golden_model(case)
    places = list(range(len(case.ids))) if case.positions is None else case.positions
    logits = model.forward_packed(
        [[1, 2, 3], case.ids, [4]],
        [model.new_cache() for _ in range(3)],
        positions=[[0, 1, 2], places, [7]],
        last=2,
    )
    assert [len(rows_TV) for rows_TV in logits] == [2, 2, 1]
    # The golden's deviation is that of all its rows, as in the tests above.
    expected = case.taps["logits"]
    assert np.abs(logits[1] - expected[-2:]).max() <= case.bound * expected.std()


@pytest.mark.parametrize("case", ROUNDED, ids=str)
def test_bfloat16_takes_every_step_as_the_peer(case):
    """From the peer's own inputs each tap is the peer's to the bit, but for one in a hundred."""
    computed = replayed(golden_model(case), case.taps, case.ids, case.positions)
    assert list(computed) == tap_names(case.config.n_layers)
    assert_same_steps(computed, case.taps, case.dtype)


@pytest.mark.parametrize("case", ROUNDED, ids=str)
def test_bfloat16_passes_stay_beside_the_peer(case):
    """Left to itself, a bfloat16 pass of two layers ends within a tenth of a deviation."""
    trace = golden_model(case).trace(case.ids, case.positions)
    assert_near(trace["logits"], case.taps["logits"], 0.1)


def test_meta_logits_are_rounded_and_then_widened():
    """Lineage meta returns float32 logits that are bfloat16 numbers; hf returns bfloat16."""
    by_lineage = {case.lineage: case for case in ROUNDED}
    meta = golden_model(by_lineage["meta"]).trace(by_lineage["meta"].ids)["logits"]
    assert meta.dtype == np.float32
    assert np.array_equal(round_to(meta, BFLOAT16).astype(np.float32), meta)
    hf = golden_model(by_lineage["hf"]).trace(by_lineage["hf"].ids)["logits"]
    assert hf.dtype == BFLOAT16


def test_each_lineage_scales_scores_in_its_own_way():
    """Meta divides by sqrt(H), transformers multiplies by H^-0.5: a last bit apart in float32."""
    assert LINEAGES["meta"].score_scaling is over_root_width
    assert LINEAGES["hf"].score_scaling is times_inverse_root_width
    scores = np.float32([0.1, 0.2, 0.3, 0.4, 0.7, 1.1])
    assert not np.array_equal(over_root_width(scores, 128), times_inverse_root_width(scores, 128))


def test_the_goldens_hold_every_tap():
    """The two bfloat16 goldens hold all taps of all tokens, in dataflow order and full shape."""
    assert {case.lineage for case in ROUNDED} == {"hf", "meta"}
    for case in ROUNDED:
        trace = golden_model(case).trace(case.ids, case.positions)
        assert {name: array.shape for name, array in case.taps.items()} == {
            name: array.shape for name, array in trace.items()
        }
