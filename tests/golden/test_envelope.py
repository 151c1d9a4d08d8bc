"""The envelope: the worst of the legal styles, step by step and as a whole."""

from functools import cache

import numpy as np
import pytest

from llama_ref.golden.envelope import ATTENTION, LAYER, MODEL, OP, SHAPE, record
from llama_ref.golden.measure import WHOLE, band_of, measure
from llama_ref.golden.passes import whole
from llama_ref.golden.replay import SPANS
from llama_ref.golden.styles import PRECISIONS, STYLES
from llama_ref.trace import LAYER_TAPS
from tests.golden.ported import checked
from tests.golden.styled import CASES, SPEC, relative_error, styled, truth, weights


@cache
def stages(case_name):
    return list(record(CASES[case_name], SPEC, weights()))


def test_a_case_comes_in_stages_in_dataflow_order():
    """The embedding, each layer, the head; each with its own taps, all of one shape."""
    found = stages("five")
    assert [stage.layer for stage in found] == [None, 0, None]
    assert [tuple(stage.truth) for stage in found] == [
        ("embed",),
        tuple(LAYER_TAPS),
        ("final_norm", "logits"),
    ]
    for stage in found:
        assert stage.envelope.keys() == stage.truth.keys()
        assert all(array.shape == SHAPE for array in stage.envelope.values())
        assert all(array.dtype == np.float64 for array in stage.truth.values())


def test_the_truth_is_the_float64_pass():
    """What a bundle stores as the truth is what the model traces in float64, bit for bit."""
    expected = truth("five")
    for stage in stages("five"):
        for kind, array in stage.truth.items():
            name = kind if stage.layer is None else f"L00.{kind}"
            assert np.array_equal(array, expected[name])


def test_the_envelope_is_the_worst_style_of_a_class():
    """At every tap, span, band and measure it is the largest of its styles and of float32's."""
    for stage in stages("five"):
        for kind, envelope in stage.envelope.items():
            for row, precision in enumerate(PRECISIONS):
                legal = (precision, "float32")
                own = [stage.by_style[s.name, kind] for s in STYLES if s.precision in legal]
                with np.errstate(all="ignore"):
                    worst = np.fmax.reduce(own)
                assert np.array_equal(envelope[row], worst, equal_nan=True)


def test_a_step_is_measured_from_the_style_s_own_numbers():
    """The local error of q is that of the matrix alone: what entered it is taken as it is."""
    style = next(s for s in STYLES if s.name == "bfloat16, transformers")
    taps = {name: array.astype(np.float64) for name, array in styled(style, "five").items()}
    reference = taps["L00.attn_norm"] @ whole(weights().layers[0].w_query_AD).astype(np.float64).T
    reference = reference.reshape(taps["L00.q"].shape)
    band_T = band_of(CASES["five"].positions)
    expected = measure(taps["L00.q"] - reference, reference, "T N H", band_T)
    found = stages("five")[1].by_style[style.name, "q"]
    assert np.allclose(found[OP], expected, rtol=1e-6, equal_nan=True)
    assert found[OP, 0, WHOLE] < found[MODEL, 0, WHOLE]


def test_the_error_of_a_layer_and_of_attention_begin_where_they_say():
    """Over a layer everything since its input counts, over attention all since q, k and v."""
    style = next(s for s in STYLES if s.name == "bfloat16, transformers")
    found = stages("five")[1].by_style
    ctx = found[style.name, "ctx"][:, 0, WHOLE]
    assert ctx[OP] < ctx[ATTENTION] < ctx[LAYER]
    # The first layer is entered by the embedding, which is exact: there the layer is the model.
    assert np.allclose(
        found[style.name, "out"][LAYER], found[style.name, "out"][MODEL], equal_nan=True
    )
    expected = relative_error("L00.out", styled(style, "five")["L00.out"], truth("five")["L00.out"])
    assert found[style.name, "out"][MODEL, 0, WHOLE] == pytest.approx(expected)


def test_what_cannot_be_measured_is_nan():
    """Spans that a tap has not got, bands without a token; everything else is a number."""
    for stage in stages("five"):
        for kind, envelope in stage.envelope.items():
            known = ~np.isnan(envelope[:, :, 0, WHOLE])
            assert known[:, OP].all() and known[:, MODEL].all()
            assert known[:, ATTENTION].all() == (kind == "ctx")
            assert known[:, LAYER].all() == (kind != "embed")
            assert np.isnan(envelope[:, :, 1:]).all()  # five tokens from position 0
    far = stages("far")[1].envelope["q_rope"]
    assert not np.isnan(far[:, OP, :, WHOLE]).any()


def test_rope_has_an_envelope_that_grows_with_the_position():
    """In float32 an angle is off by the more the larger it is; in bfloat16 by its dtype alone."""
    far = stages("far")[1].envelope["q_rope"]
    float32 = far[PRECISIONS.index("float32"), OP, :, WHOLE]
    assert float32[-1] > 50 * float32[0]
    bfloat16 = far[PRECISIONS.index("bfloat16"), OP, :, WHOLE]
    assert bfloat16.max() < 3 * bfloat16.min()


def test_finer_classes_have_narrower_envelopes():
    """Of float32 everything is narrower than of bfloat16; a float16 cache shows behind it alone."""
    for kind, envelope in stages("prefill")[1].envelope.items():
        whole_P = envelope[:, OP, 0, WHOLE]
        fine, cache16, _, _, coarse = whole_P
        assert fine < coarse, kind
        assert (cache16 > 5 * fine) == (kind in ("scores", "ctx")), kind


def test_an_embedding_is_exact():
    """Looking a row up errs in nothing, and weights are exact in 16 bits."""
    assert np.nanmax(stages("five")[0].envelope["embed"]) == 0


def test_logits_of_every_style_are_kept_by_class():
    """The stage of the head has the logits of each style, from which divergences are made."""
    kept = stages("five")[-1].legal_logits
    assert {name: len(own) for name, own in kept.items()} == {
        name: sum(s.precision == name for s in STYLES) for name in PRECISIONS
    }


@pytest.mark.parametrize("style", STYLES, ids=lambda style: style.name)
def test_a_style_is_within_its_own_envelope(style, tmp_path, one_layer):
    """Checked against the envelope it helped to make, no tap of a style is beyond 1."""
    tensors = {f"five/{tap}": array for tap, array in styled(style, "five").items()}
    report = checked(one_layer, tensors, tmp_path, dtype=style.precision)
    assert report.verdict == "pass"
    assert {row.span for row in report.rows} == {SPANS[OP]}
    assert max(row.local.rho for row in report.rows) <= 1
    assert max(row.cumulative.rho for row in report.rows) <= 1
