"""The legal ways to round: each rounds where it says, by as much as its class may."""

from dataclasses import replace
from fractions import Fraction
from functools import cache

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llama_ref.golden.grids import cut_to_tf32, to_bfloat16, to_float16, to_tf32
from llama_ref.golden.passes import Session, whole
from llama_ref.golden.styles import (
    OPERANDS,
    PRECISIONS,
    RESIDUALS,
    STYLES,
    Style,
    exp_by_exp2,
    flash,
    rotated_as_ggml,
)
from llama_ref.trace import tap_names
from tests.golden.styled import CASES, SPEC, model, relative_error, styled, truth, weights

BY_NAME = {style.name: style for style in STYLES}
# What the logits of one layer are off by, at positions 0 to 63.
EXPECTED = {
    "float32": (1e-8, 2e-6),
    "float32-kv16": (2e-5, 1e-3),
    "tf32": (1e-4, 2e-3),
    "float16": (1e-4, 2e-3),
    "bfloat16": (1e-3, 2e-2),
}
taps_of = cache(lambda name, case: styled(BY_NAME[name], case))


def test_the_classes_are_those_that_a_user_can_name():
    """They come finest first, and the names of styles are unique."""
    assert tuple(EXPECTED) == PRECISIONS
    assert len(BY_NAME) == len(STYLES)


@pytest.mark.parametrize("name", BY_NAME)
def test_a_style_is_as_far_off_as_its_class(name):
    """Its taps are all there, and its logits are off by what its dtype does: no more, no less."""
    taps = taps_of(name, "prefill")
    assert set(taps) == set(tap_names(1))
    low, high = EXPECTED[BY_NAME[name].precision]
    assert low < relative_error("logits", taps["logits"], truth("prefill")["logits"]) < high


@pytest.mark.parametrize("name", BY_NAME)
def test_a_style_has_no_step_that_is_wrong(name):
    """No tap at all is off by more than four times what the class allows of logits."""
    _, high = EXPECTED[BY_NAME[name].precision]
    for tap, array in taps_of(name, "prefill").items():
        assert relative_error(tap, array, truth("prefill")[tap]) < 4 * high, tap


@pytest.mark.parametrize("case", ["prefill", "far"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(("who", "lineage"), [("transformers", "hf"), ("Meta", "meta")])
def test_the_released_code_is_what_the_model_traces(who, lineage, dtype, case):
    """The styles of transformers and Meta have the model's own taps in that dtype, bit for bit."""
    taps = taps_of(f"{dtype}, {who}", case)
    expected = model(dtype, lineage).trace(CASES[case].ids, CASES[case].positions)
    for tap, array in expected.items():
        widened = lineage == "meta" and tap == "logits"  # the last line of Meta's forward
        assert array.dtype == (np.float32 if widened else taps[tap].dtype)
        assert np.array_equal(taps[tap].astype(np.float64), array.astype(np.float64)), tap


def test_transformers_and_meta_round_differently():
    """In bfloat16 the two are no closer to each other than each is to the truth."""
    hf, meta = (
        taps_of(f"bfloat16, {who}", "prefill")["logits"] for who in ("transformers", "Meta")
    )
    assert relative_error("logits", hf, meta.astype(np.float64)) > 1e-3


FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False).filter(
    lambda x: 1e-30 < abs(x) < 1e30
)


@given(FLOATS)
@example(1 + 2**-11)  # a tie
@example(-1 - 3 * 2**-11)
def test_tf32_has_ten_bits_and_the_nearest_of_them(x):
    """Rounded or cut, 13 bits are zero; rounded is the nearer one, of two the farther from 0."""
    exact = np.float32(x)
    rounded, cut = (grid(np.array([exact]))[0] for grid in (to_tf32, cut_to_tf32))
    assert rounded.dtype == cut.dtype == np.float32
    assert not (np.array([rounded, cut]).view(np.uint32) & 0x1FFF).any()
    assert abs(cut) <= abs(exact)
    step = np.array([cut]).view(np.uint32) + np.uint32(0x2000)
    above = step.view(np.float32)[0]
    to_cut, to_above = (abs(Fraction(float(one)) - Fraction(float(exact))) for one in (cut, above))
    assert rounded == (cut if to_cut < to_above else above)
    assert to_tf32(np.array([rounded]))[0] == rounded == cut_to_tf32(np.array([rounded]))[0]


@pytest.mark.parametrize("grid", [to_bfloat16, to_float16, to_tf32, cut_to_tf32])
def test_a_grid_keeps_the_dtype(grid):
    """What is rounded to a coarser grid stays in the dtype it came in."""
    for dtype in (np.float32, np.float64):
        rounded = grid(np.array([1 / 3], dtype))
        assert rounded.dtype == dtype
        assert 1e-6 < abs(rounded[0] - 1 / 3) < 1e-3


def on_grid(array, grid):
    return np.array_equal(grid(array), array)


def test_operands_are_rounded_for_their_readers_alone():
    """With tensor cores a tap is dumped in float32, and what reads it gets 10 bits of it."""
    taps = taps_of("tf32, rounded", "prefill")
    assert BY_NAME["tf32, rounded"].operands.keys() == set(OPERANDS)
    assert not any(on_grid(taps[f"L00.{kind}"], to_tf32) for kind in ("ffn_norm", "act", "ctx"))
    gate_TF = to_tf32(taps["L00.ffn_norm"]) @ whole(weights().layers[0].w_gate_FD).T
    assert np.allclose(taps["L00.gate"], gate_TF, rtol=0, atol=4e-6)
    unrounded_TF = taps["L00.ffn_norm"] @ whole(weights().layers[0].w_gate_FD).T
    assert np.abs(taps["L00.gate"] - unrounded_TF).max() > 1e-5


@pytest.mark.parametrize(("dtype", "grid"), [("bfloat16", to_bfloat16), ("float16", to_float16)])
def test_one_rounding_a_tap_leaves_every_tap_on_the_grid(dtype, grid):
    """Every tap of the fused style is a number of the dtype, and it runs in float32 in between."""
    for tap, array in taps_of(f"{dtype}, one rounding a tap", "prefill").items():
        assert array.dtype == np.float32
        assert on_grid(array, grid), tap


@pytest.mark.parametrize(("dtype", "grid"), [("bfloat16", to_bfloat16), ("float16", to_float16)])
def test_a_wide_residual_is_not_on_the_grid_and_its_branches_are(dtype, grid):
    """With a float32 residual stream the sums keep all bits, everything else is rounded."""
    taps = taps_of(f"{dtype}, float32 residual", "prefill")
    off_grid = {tap.rpartition(".")[2] for tap, array in taps.items() if not on_grid(array, grid)}
    assert off_grid == set(RESIDUALS) - {"embed"}  # weights are exact in 16 bits


def test_flash_attention_is_attention():
    """Without rounding, mixing before normalising is plain attention to float32 precision."""
    nothing = Style("flash, unrounded", "float32", "float64", "hf", {"ctx": flash(lambda x: x)})
    found, expected = styled(nothing, "prefill")["L00.ctx"], truth("prefill")["L00.ctx"]
    assert relative_error("ctx", found, expected) < 1e-7


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_flash_attention_keeps_its_maps_in_float32(dtype):
    """Scores and probabilities inside the kernel are not rounded; what it hands out is."""
    taps, grid = taps_of(f"{dtype}, flash", "prefill"), {"bfloat16": to_bfloat16}.get(dtype)
    grid = grid or to_float16
    assert not on_grid(taps["L00.probs"], grid) and on_grid(taps["L00.ctx"], grid)


def test_flash_attention_bears_scores_that_overflow_an_exponential():
    """The running maximum is taken off first: scores of a thousand are no infinity."""
    moments = {}

    def keep(moment):
        if moment.kind == "ctx":
            taps = {kind: array.copy() for kind, array in moment.taps.items()}
            moments["ctx"] = replace(moment, taps=taps, computed=moment.computed.copy())

    Session(model(), CASES["five"]).run(keep)
    moments["ctx"].taps["scores"] += 1000
    assert np.allclose(flash(lambda x: x)(moments["ctx"]), moments["ctx"].computed, atol=1e-6)


def test_angles_of_ggml_are_those_of_rope_but_for_float32():
    """Found by repeated products they turn as ours do; far out they are off by their rounding."""
    near, far = (
        relative_error(tap, taps[tap], truth(case)[tap])
        for case, tap, taps in (
            (case, "L00.q_rope", taps_of("float32, angles of ggml", case))
            for case in ("prefill", "far")
        )
    )
    assert near < 3e-6
    assert 1e-5 < far < 0.02
    assert SPEC.config.rope_scaling is not None


def test_angles_of_ggml_without_rounding_are_exact():
    """At position 1 the turn of each pair is its frequency, stretched or not, to float32."""
    seen = {}

    def keep(moment):
        if moment.kind == "q_rope":
            seen["found"], seen["expected"] = rotated_as_ggml(moment), moment.computed.copy()

    Session(model(), CASES["two"]).run(keep)
    assert np.allclose(seen["found"], seen["expected"], atol=1e-6 * np.abs(seen["expected"]).max())


def test_ggml_multiplies_bfloat16_operands_and_keeps_float32():
    """What enters a matrix is rounded to bfloat16, what leaves it is not."""
    taps = taps_of("bfloat16, operands of ggml", "prefill")
    assert not on_grid(taps["L00.q"], to_bfloat16)
    expected = to_bfloat16(taps["L00.attn_norm"]) @ whole(weights().layers[0].w_query_AD).T
    assert np.allclose(taps["L00.q"].reshape(expected.shape), expected, atol=1e-5)


def test_a_float16_cache_rounds_keys_and_values_alone():
    """Up to the cache the style is float32; behind it the mixture reads float16 values."""
    taps, plain = taps_of("float16 cache", "prefill"), taps_of("float32, transformers", "prefill")
    for kind in ("q", "k", "v", "q_rope", "k_rope"):
        assert np.array_equal(taps[f"L00.{kind}"], plain[f"L00.{kind}"])
    value_SNH = np.repeat(to_float16(taps["L00.v"]), SPEC.config.n_heads // 2, axis=1)
    expected = np.einsum("nts,snh->tnh", taps["L00.probs"], value_SNH)
    assert np.allclose(taps["L00.ctx"], expected, atol=1e-6)


def test_exponentials_by_exp2_err_as_their_argument_grows():
    """Near 0 they are exact to float32; at -80 they are off by some 80 half steps, and no more."""
    x = -np.geomspace(1e-3, 80, 2000).astype(np.float32)
    exact = np.exp(x.astype(np.float64))
    off = np.abs(exp_by_exp2(x) / exact - 1)
    assert exp_by_exp2(x).dtype == np.float32
    assert off[x > -0.1].max() < 3 * 2.0**-24
    assert 20 * 2.0**-24 < off.max() < 100 * 2.0**-24
    assert (off <= (2 - 1.5 * x) * 2.0**-24 + 2.0**-23).all()
    assert exp_by_exp2(np.float32([-np.inf, 0])).tolist() == [0, 1]


def test_exponentials_by_exp2_change_softmax_and_silu_alone():
    """Probabilities and the gate differ in their last digits, and what comes before does not."""
    plain, powers = (
        taps_of(f"float32, {how}", "prefill") for how in ("transformers", "exponentials by exp2")
    )
    differ = [tap for tap in tap_names(1) if not np.array_equal(plain[tap], powers[tap])]
    assert differ[0] == "L00.probs"
    assert relative_error("L00.probs", powers["L00.probs"], plain["L00.probs"]) < 1e-6
    assert not np.triu(powers["L00.probs"], 1).any()


@pytest.mark.parametrize(("dtype", "grid"), [("bfloat16", to_bfloat16), ("float16", to_float16)])
def test_operands_alone_are_rounded_before_every_product(dtype, grid):
    """What a product gives is not rounded, and what it reads is: the values among it."""
    taps = taps_of(f"{dtype}, operands alone", "prefill")
    assert not any(on_grid(taps[f"L00.{kind}"], grid) for kind in ("q", "v", "ctx", "ffn_norm"))
    first_NH = taps["L00.ctx"][0]  # the first token sees itself: its own values, rounded
    value_KH = grid(taps["L00.v"][0])
    assert np.array_equal(first_NH, np.repeat(value_KH, len(first_NH) // len(value_KH), axis=0))
