"""Attention: goldens from transformers and Meta's formulas, and the mistakes they catch."""

import time

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from llama_ref.errors import BadRequest
from llama_ref.numerics import widen
from llama_ref.ops import attention as attention_file
from llama_ref.ops.attention import (
    attention,
    attention_mix,
    attention_probs,
    attention_scores,
    over_root_width,
    packed_attention,
    times_inverse_root_width,
)
from llama_ref.ops.softmax import softmax
from llama_ref.threads import single_threaded_blas
from tests.goldens.stored import assert_golden, caught, disagreement, op_cases

CASES = op_cases("attention")
SCALING = {"hf": times_inverse_root_width, "meta": over_root_width}
MASKS = {
    "sees everything": lambda T, S: np.ones((T, S), bool),
    "sees the next": lambda T, S: np.tri(T, S, S - T + 1, dtype=bool),
    "does not see itself": lambda T, S: np.tri(T, S, S - T - 1, dtype=bool),
    "mask not moved by the cache": lambda T, S: np.tri(T, S, dtype=bool),
}


def arguments(case):
    """Return queries, keys, values and the scaling of the lineage."""
    named = dict(case.arguments)
    scaling = SCALING[named.pop("scaling")]
    return *named.values(), scaling


def steps(query_TNH, key_SKH, value_SKH, scaling, mask=None):
    """Take the three steps of attention one by one; return scores, probabilities, mixture."""
    T, N, _ = query_TNH.shape
    scores_KGTS = attention_scores(query_TNH, key_SKH, scaling=scaling)
    if mask is None:
        probs_KGTS = attention_probs(scores_KGTS)
    else:
        with np.errstate(invalid="ignore"):
            hidden = np.where(mask, scores_KGTS, -np.inf).astype(scores_KGTS.dtype)
            hidden[..., ~mask.any(-1), :] = 0  # a row that sees nothing, in a port: all alike
            probs_KGTS = softmax(hidden)
    S = len(key_SKH)
    as_heads = scores_KGTS.reshape(N, T, S), probs_KGTS.reshape(N, T, S)
    return *as_heads, attention_mix(probs_KGTS, value_SKH)


def rescaled(factor):
    """Return the mistake of multiplying scores by `factor(H, N)`."""

    def mistake(q, k, v, scaling):
        return steps(q, k, v, lambda scores, H: scores * scores.dtype.type(factor(H, q.shape[1])))

    return mistake


def masked(name):
    def mistake(q, k, v, scaling):
        return steps(q, k, v, scaling, MASKS[name](len(q), len(k)))

    return mistake


def tiled(q, k, v, scaling):
    """Let query head n read key head n mod K."""
    K, N = k.shape[1], q.shape[1]
    order = np.argsort(np.arange(N) % K, kind="stable")
    back = np.argsort(order)
    scores, probs, ctx = steps(q[:, order], k, v, scaling)
    return scores[back], probs[back], ctx[:, back]


def exchanged(q, k, v, scaling):
    """Put the heads of the mixture side by side as (G, K) instead of (K, G)."""
    scores, probs, ctx = steps(q, k, v, scaling)
    T, N, H = ctx.shape
    K = k.shape[1]
    return scores, probs, ctx.reshape(T, K, N // K, H).swapaxes(1, 2).reshape(T, N, H)


def rounded_at_the_end(q, k, v, scaling):
    """Stay in float32 from scores to mixture, as fused kernels do."""
    found = steps(widen(q), widen(k), widen(v), scaling)
    return [array.astype(q.dtype) for array in found]


def scaled_before_rounding(q, k, v, scaling):
    """Scale the float32 product, and round once."""
    scores = attention_scores(widen(q), widen(k), scaling=scaling).astype(q.dtype)
    probs = attention_probs(scores)
    shape = q.shape[1], len(q), len(k)
    return scores.reshape(shape), probs.reshape(shape), attention_mix(probs, v)


def softmax_in_16_bits(q, k, v, scaling):
    scores = attention_scores(q, k, scaling=scaling)
    shape = q.shape[1], len(q), len(k)
    visible = MASKS["sees the next"](len(q), len(k) + 1)[:, 1:]
    probs = np.where(visible, widen(scores), -np.inf)
    exp = np.exp((probs - probs.max(-1, keepdims=True)).astype(q.dtype)).astype(q.dtype)
    total = widen(exp).sum(-1, keepdims=True).astype(q.dtype)
    probs = (widen(exp) / widen(total)).astype(q.dtype)
    return scores.reshape(shape), probs.reshape(shape), attention_mix(probs, v)


def through_float32(q, k, v, scaling):
    found = steps(*(x.astype(np.float32) for x in (q, k, v)), scaling)
    return [array.astype(q.dtype) for array in found]


def first_key_head(q, k, v, scaling):
    return steps(q, np.repeat(k[:, :1], k.shape[1], axis=1), v, scaling)


def mask_of_ten_thousand(q, k, v, scaling):
    """Add -10,000 to hidden scores, in place of replacing them by minus infinity."""
    scores = attention_scores(q, k, scaling=scaling)
    probs = softmax(scores + np.where(np.tri(len(q), len(k), dtype=bool), 0, -1e4).astype(q.dtype))
    shape = q.shape[1], len(q), len(k)
    return scores.reshape(shape), probs.reshape(shape), attention_mix(probs, v)


def largest_not_subtracted(q, k, v, scaling):
    scores = attention_scores(q, k, scaling=scaling)
    with np.errstate(all="ignore"):
        exp = np.exp(scores) * np.tri(len(q), len(k), dtype=q.dtype)
        probs = exp / exp.sum(-1, keepdims=True)
        shape = q.shape[1], len(q), len(k)
        return scores.reshape(shape), probs.reshape(shape), attention_mix(probs, v)


def without_the_last_block(q, k, v, scaling):
    scores, probs, ctx = steps(q, k[:64], v[:64], scaling)
    missing = ((0, 0), (0, 0), (0, len(k) - 64))
    return np.pad(scores, missing), np.pad(probs, missing), ctx


def without_rescaling(q, k, v, scaling):
    """Add up block by block, each relative to the largest so far, and never rescale what was."""
    scores_KGTS = attention_scores(q, k, scaling=scaling)
    largest, total, mixed = -np.inf, 0, 0
    for lo in range(0, len(k), 16):
        block = scores_KGTS[..., lo : lo + 16]
        largest = np.maximum(largest, block.max(-1, keepdims=True))
        exp = np.exp(block - largest)
        total = total + exp.sum(-1, keepdims=True)
        mixed = mixed + attention_mix(exp, v[lo : lo + 16])
    shape = q.shape[1], len(q), len(k)
    probs = (np.exp(scores_KGTS - largest) / total).reshape(shape)
    return scores_KGTS.reshape(shape), probs, mixed / total.reshape(1, -1, 1)


MISTAKES = {
    "not scaled": rescaled(lambda H, N: 1),
    "divided by H": rescaled(lambda H, N: 1 / H),
    "scaled by sqrt(N H)": rescaled(lambda H, N: (N * H) ** -0.5),
    **{name: masked(name) for name in MASKS},
    "key heads tiled": tiled,
    "heads and groups exchanged": exchanged,
    "every head reads the first key head": first_key_head,
    "mask of -10,000 added": mask_of_ten_thousand,
    "largest not subtracted": largest_not_subtracted,
    "positions beyond a multiple of 64 left out": without_the_last_block,
    "blocks summed without rescaling": without_rescaling,
    "rounded once at the end": rounded_at_the_end,
    "scaled before rounding": scaled_before_rounding,
    "softmax in 16 bits": softmax_in_16_bits,
    "through float32": through_float32,
}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_step_is_the_peers(case):
    """Scores, probabilities and the mixture are those of the peer, at its rounding points."""
    for found, expected in zip(steps(*arguments(case)), case.results.values(), strict=True):
        assert_golden(found, expected)


@pytest.mark.parametrize("scores_per_block", [1, 40, 2**22])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_attention_in_blocks_is_the_peers(case, scores_per_block, monkeypatch):
    """However few queries a block holds, the mixture is the peer's."""
    monkeypatch.setattr(attention_file, "SCORES_PER_PIECE", scores_per_block)
    monkeypatch.setattr(attention_file, "FEW_SCORES", 0)
    query_TNH, key_SKH, value_SKH, scaling = arguments(case)
    ctx_TNH = attention(query_TNH, key_SKH, value_SKH, scaling=scaling)
    assert_golden(ctx_TNH, case.results["ctx_TNH"])


@pytest.mark.parametrize("lineage", SCALING)
def test_packed_queries_meet_their_own_goldens(lineage):
    """Queries of several goldens packed end to end each get their own peer's mixture."""
    cases = [case for case in CASES if case.arguments["scaling"] == lineage]
    cases = [case for case in cases if case.arguments["query_TNH"].dtype == np.float32]
    cases = [case for case in cases if case.arguments["query_TNH"].shape[1:] == (6, 6)]
    assert cases
    lengths = [len(case.arguments["query_TNH"]) for case in cases]
    ctx_TNH = packed_attention(
        np.concatenate([case.arguments["query_TNH"] for case in cases]),
        [(case.arguments["key_SKH"], case.arguments["value_SKH"]) for case in cases],
        lengths,
        scaling=SCALING[lineage],
    )
    for found, case in zip(np.split(ctx_TNH, np.cumsum(lengths)[:-1]), cases, strict=True):
        assert_golden(found, case.results["ctx_TNH"])


@pytest.mark.parametrize(("case", "mistake"), caught(CASES), ids=str)
def test_classic_mistakes_are_caught(case, mistake):
    """Attention with this mistake does not meet the last step of this golden, all a port shows."""
    *_, ctx_TNH = MISTAKES[mistake](*arguments(case))
    assert disagreement(ctx_TNH, case.results["ctx_TNH"])


def test_every_mistake_has_a_golden():
    """Each mistake written down here is caught by some golden."""
    assert {mistake for _, mistake in caught(CASES)} == set(MISTAKES)


@pytest.mark.parametrize("scaling", SCALING.values(), ids=SCALING)
def test_scaling_divides_by_the_root_of_the_head_width(scaling):
    """Both scalings divide by sqrt(H) and keep the dtype."""
    for dtype in (np.float64, np.float32, np.float16):
        scores = np.array([16.0, -8.0], dtype)
        assert scaling(scores, 64).dtype == dtype
        assert scaling(scores, 64).tolist() == [2.0, -1.0]


@pytest.mark.parametrize(
    ("query", "key", "value"),
    [
        ((2, 4, 6), (3, 2, 6), (3, 2, 5)),
        ((2, 4, 6), (3, 2, 5), (3, 2, 5)),
        ((2, 4, 6), (3, 3, 6), (3, 3, 6)),
        ((4, 4, 6), (3, 2, 6), (3, 2, 6)),
        ((0, 4, 6), (3, 2, 6), (3, 2, 6)),
        ((1, 2, 4, 6), (1, 3, 2, 6), (1, 3, 2, 6)),
    ],
    ids=["values narrower", "keys narrower", "K not a divisor of N", "T > S", "no query", "batch"],
)
def test_shapes_that_do_not_fit_are_refused(query, key, value):
    """Queries, keys and values of shapes that do not fit are an error with all three."""
    with pytest.raises(BadRequest, match=r"attention shapes.*K divides N, 0 < T <= S"):
        attention(np.ones(query), np.ones(key), np.ones(value), scaling=over_root_width)


def test_threads_that_ask_at_once_share_the_pieces(monkeypatch):
    """A thread that asks for a piece while another is still being given one waits for nobody."""
    rng = np.random.default_rng(0)
    query_TNH, key_SKH = rng.standard_normal((2, 64, 32, 16), np.float32)
    expected = attention(query_TNH, key_SKH, key_SKH, scaling=over_root_width)
    real = attention_file._pieces

    def slowly(*shape):
        for piece in real(*shape):
            time.sleep(1e-3)
            yield piece

    monkeypatch.setattr(attention_file, "_pieces", slowly)
    with threadpool_limits(4, user_api="blas"), single_threaded_blas():
        found = attention(query_TNH, key_SKH, key_SKH, scaling=over_root_width)
    assert np.array_equal(found, expected)
