"""Replay: from which numbers each step is taken again, and over how long a span."""

import numpy as np
import pytest

from llama_ref.golden.passes import Session, whole
from llama_ref.golden.replay import Dump, replaying, span_of
from llama_ref.golden.taps import INPUTS, kind_of, rows_of_tap
from llama_ref.trace import LAYER_TAPS, tap_names
from tests.golden.moments import CHUNKS, FAR, NEAR
from tests.models import TINY, tiny_model

T = len(NEAR.ids)
MODEL = tiny_model("float64")


class Taps:
    """A dictionary of taps, of all or some tokens, as a source."""

    def __init__(self, taps, rows=range(T)):
        self.taps, self.rows = taps, rows

    def get(self, tap):
        if tap not in self.taps:
            return None
        return Dump(rows_of_tap(kind_of(tap), self.taps[tap], self.rows), self.rows)


def replayed(source, case=NEAR):
    """Replay a source; return what was computed at each tap it has, and over which span."""
    computed, spans = {}, {}

    def compare(moment, dump, span):
        computed[moment.name] = moment.computed.copy()
        spans[moment.name] = span

    Session(MODEL, case).run(replaying(source, compare))
    return computed, spans


def traced(case=NEAR):
    return dict(MODEL.trace(case.ids, case.positions))


def spans_of(taps, rows=range(T)):
    return replayed(Taps({tap: array for tap, array in traced().items() if tap in taps}, rows))[1]


@pytest.mark.parametrize("case", [NEAR, FAR, CHUNKS], ids=lambda case: case.name)
def test_replaying_a_float64_trace_is_exact(case):
    """Every step taken again from a float64 trace gives the trace, bit for bit, op by op."""
    trace = traced(case)
    computed, spans = replayed(Taps(trace, range(len(case.ids))), case)
    assert list(computed) == tap_names(TINY.n_layers)
    assert set(spans.values()) == {"op"}
    for tap, array in computed.items():
        assert np.array_equal(array, trace[tap]), tap


def test_without_a_source_nothing_is_compared_or_replaced():
    """A replay of a candidate that has nothing is the plain pass."""
    computed, _ = replayed(Taps({}))
    assert computed == {}
    watch = replaying(Taps({}), lambda *_: None)
    assert np.array_equal(Session(MODEL, NEAR).run(watch), traced()["logits"])


ALL = tap_names(TINY.n_layers)
NO_MAPS = [tap for tap in ALL if not tap.endswith(("scores", "probs"))]
FUSED = [tap for tap in NO_MAPS if not tap.endswith("rope")]


@pytest.mark.parametrize(
    ("taps", "expected"),
    {
        "attention without its maps": (NO_MAPS, {"L01.ctx": "attention", "L01.q_rope": "op"}),
        "fused attention": (FUSED, {"L00.ctx": "attention", "L00.attn_out": "op"}),
        "out alone": (["L00.out", "L01.out", "logits"], dict.fromkeys(
            ("L00.out", "L01.out", "logits"), "layer")),
        "every second layer": (["L01.out", "logits"], {"L01.out": "model", "logits": "layer"}),
        "logits alone": (["logits"], {"logits": "model"}),
        "no embed": ([tap for tap in ALL if tap != "embed"], dict.fromkeys(ALL[1:], "op")),
        "added and normalised in one go": (
            [tap for tap in ALL if not tap.endswith("out") or tap.endswith("n_out")],
            {"L00.act": "op", "L01.attn_norm": "layer"},
        ),
        "no act": (
            [tap for tap in ALL if not tap.endswith("act")],
            {"L00.ffn_out": "layer", "L00.out": "op", "L00.up": "op"},
        ),
    }.values(),
    ids=lambda value: None if isinstance(value, dict) else f"{len(value)} taps",
)  # fmt: skip
def test_a_span_reaches_back_to_the_nearest_taps_there_are(taps, expected):
    """Taps that are missing on the way lengthen the span of the next one, and of no other."""
    spans = spans_of(taps)
    assert set(spans) == set(taps)
    assert {tap: spans[tap] for tap in expected} == expected


@pytest.mark.parametrize("kind", [kind for kind in INPUTS if kind not in ("embed", "logits")])
def test_one_missing_tap_lengthens_only_the_steps_that_read_it(kind):
    """Without one kind of tap exactly its readers are taken over more than an op."""
    spans = spans_of([tap for tap in ALL if kind_of(tap) != kind])
    readers = {name for name, inputs in INPUTS.items() if kind in inputs}
    if kind == "out":
        readers = {name for name, inputs in INPUTS.items() if "hidden" in inputs}
    longer = {tap for tap, span in spans.items() if span != "op"}
    expected = {tap for tap in spans if kind_of(tap) in readers}
    if kind == "out":  # what enters the first layer is the embedding
        expected -= {tap for tap in expected if tap.startswith("L00.")}
    assert longer == expected


def test_the_pass_goes_on_with_the_candidates_numbers():
    """After a tap that is wrong the next ones are computed from it, and not from the truth."""
    wrong = traced()
    wrong["L00.q_rope"] = wrong["L00.q_rope"] * 2
    wrong["L00.out"] = wrong["L00.out"] + 1
    computed, _ = replayed(Taps(wrong))
    truth = traced()
    assert np.array_equal(computed["L00.q_rope"], truth["L00.q_rope"])
    assert np.array_equal(computed["L00.scores"], 2 * truth["L00.scores"])
    hidden_TD, gain_D = wrong["L00.out"], whole(MODEL.weights.layers[1].attn_gain_D)
    mean_square_T1 = np.mean(hidden_TD**2, axis=1, keepdims=True)
    expected_TD = hidden_TD / np.sqrt(mean_square_T1 + TINY.norm_eps) * gain_D
    assert np.allclose(computed["L01.attn_norm"], expected_TD, rtol=1e-12)
    assert not np.allclose(computed["L01.attn_norm"], truth["L01.attn_norm"], rtol=1e-3)


def test_a_tap_that_is_missing_is_computed_from_what_was_dumped_before_it():
    """Over a longer span the step starts from the candidate's numbers all the same."""
    wrong = {tap: traced()[tap] for tap in ("L00.ffn_norm", "L00.ffn_out")}
    wrong["L00.ffn_norm"] = wrong["L00.ffn_norm"] * 3
    computed, spans = replayed(Taps(wrong))
    own, x_TD = MODEL.weights.layers[0], wrong["L00.ffn_norm"]
    gate_TF, up_TF = x_TD @ whole(own.w_gate_FD).T, x_TD @ whole(own.w_up_FD).T
    expected_TD = (gate_TF / (1 + np.exp(-gate_TF)) * up_TF) @ whole(own.w_down_DF).T
    assert np.allclose(computed["L00.ffn_out"], expected_TD, rtol=1e-10)
    assert spans["L00.ffn_out"] == "layer"


LAST = range(T - 2, T)


def test_of_some_rows_those_are_replaced_and_the_others_computed():
    """Last rows of a tap take the place of the computed ones; the rows before them stay."""
    wrong = traced()
    wrong["L00.k_rope"] = wrong["L00.k_rope"] + 1
    only = {tap: wrong[tap] for tap in ("L00.q_rope", "L00.k_rope", "L00.scores")}
    computed, _ = replayed(Taps(only, LAST))
    truth = traced()["L00.scores"]
    changed_S = ~np.isclose(computed["L00.scores"], truth, rtol=1e-9).all(axis=(0, 1))
    assert changed_S.tolist() == [s in LAST for s in range(T)]


def test_of_some_rows_steps_within_a_token_are_ops():
    """What a token computes from itself needs no other rows; attention needs all of them."""
    spans = spans_of(ALL, LAST)
    within = [tap for tap in ALL if not tap.endswith(("scores", "ctx"))]
    assert {tap: spans[tap] for tap in within} == dict.fromkeys(within, "op")
    assert spans["L00.scores"] != "op" and spans["L00.ctx"] != "op"


def test_keys_of_earlier_rows_come_from_as_far_back_as_they_were_computed():
    """Behind a first layer of which last rows were dumped, the other keys come from the ids."""
    spans = spans_of(ALL, LAST)
    assert spans["L01.scores"] == spans["L01.ctx"] == "model"


def test_the_shortest_span_that_covers_is_named():
    """Each span covers what may be missing inside it, and nothing covers what came from afar."""
    assert span_of(frozenset()) == "op"
    assert span_of(frozenset({"q_rope", "probs"})) == "attention"
    assert span_of(frozenset({"q_rope", "act"})) == "layer"
    assert span_of(frozenset(LAYER_TAPS)) == "layer"
    assert span_of(frozenset({"model"})) == "model"
