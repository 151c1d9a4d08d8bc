"""Mistakes of attention: how scores are scaled, which key head is read, how probabilities are made.

Who sees whom is in `masks.py`.
"""

from __future__ import annotations

import math

import numpy as np

from llama_ref.golden.grids import to_bfloat16, to_float8
from llama_ref.golden.mistake import Mistake
from llama_ref.golden.mistakes.common import (
    both,
    causal,
    distribution,
    exponentials,
    flat,
    mixed,
    project,
    scored,
    several_chunks,
    several_heads,
    several_tokens,
)
from llama_ref.golden.passes import Moment, Session


def tiled(x_SKH: np.ndarray, n_heads: int) -> np.ndarray:
    """Repeat heads as 0 1 2 0 1 2, where 0 0 1 1 2 2 is right."""
    return x_SKH[:, np.arange(n_heads) % x_SKH.shape[1]]


def _scores_tiled(m: Moment) -> np.ndarray:
    return scored(m.taps["q_rope"], tiled(m.taps["k_rope"], m.model.config.n_heads))


def _ctx_tiled(m: Moment) -> np.ndarray:
    return mixed(m.taps["probs"], tiled(m.taps["v"], m.model.config.n_heads))


def _tiling_shows(session: Session) -> bool:
    return 1 < session.model.config.n_kv_heads < session.model.config.n_heads


def _scores_of_unrotated_cache(m: Moment) -> np.ndarray:
    S = m.computed.shape[-1]
    from_cache_TS = np.arange(S) < m.case.chunk_start_T[:, None]
    return np.where(from_cache_TS, scored(m.taps["q_rope"], m.taps["k"]), m.computed)


def _cache_is_rotated(session: Session) -> bool:
    last_start = int(session.case.chunk_start_T[-1])
    return any(session.case.positions[:last_start])


def _over_queries(m: Moment) -> np.ndarray:
    probs_NTS, ends = np.zeros_like(m.input), np.cumsum(m.case.chunks)
    for lo, hi in zip([0, *ends[:-1]], ends, strict=True):  # a call knows its own queries alone
        exp = exponentials(m.input[:, lo:hi, :hi], causal(m)[lo:hi, :hi], axis=1)
        probs_NTS[:, lo:hi, :hi] = exp / exp.sum(axis=1, keepdims=True)
    return probs_NTS


def _in_bfloat16(m: Moment) -> np.ndarray:
    exp_NTS = to_bfloat16(exponentials(m.input, causal(m)))
    return to_bfloat16(exp_NTS / exp_NTS.sum(axis=-1, keepdims=True))


def _context_transposed(m: Moment) -> np.ndarray:
    return project(m, x=flat(m.input.swapaxes(1, 2)))


MISTAKES = (
    Mistake(
        "scale-missing",
        "scores not scaled",
        "Scores are not divided by sqrt(H).",
        "The attention function expects scaled queries, or the other way round; ggml's kq is taken"
        " before its softmax scales it.",
        {"scores": lambda m: m.computed * math.sqrt(m.model.config.head_dim)},
    ),
    Mistake(
        "scale-by-width",
        "scores scaled by 1/H",
        "Scores are divided by H in place of sqrt(H).",
        "They are scaled twice: the queries before the product, and the attention function once"
        " more.",
        {"scores": lambda m: m.computed / math.sqrt(m.model.config.head_dim)},
    ),
    Mistake(
        "scale-of-model-width",
        "scores scaled by the model's width",
        "Scores are divided by sqrt(D) in place of sqrt(H).",
        "`dim` is the width of the model in the one place where that of a head is meant.",
        {
            "scores": lambda m: (
                m.computed * math.sqrt(m.model.config.head_dim / m.model.config.d_model)
            )
        },
        lambda session: session.model.config.head_dim != session.model.config.d_model,
    ),
    Mistake(
        "scores-softcapped",
        "scores soft-capped",
        "Scores s are replaced by 50 tanh(s / 50).",
        "Gemma 2 does this (attn_logit_softcapping); Llama does not.",
        {"scores": lambda m: 50 * np.tanh(m.computed / 50)},
    ),
    Mistake(
        "key-value-heads-tiled",
        "key and value heads tiled",
        "Query head n reads key and value head n % K in place of n // G.",
        "`repeat` in torch, `tile` in NumPy and broadcasting in ggml give 0 1 0 1;"
        " `repeat_interleave` and `np.repeat` give the 0 0 1 1 that is needed.",
        {"scores": _scores_tiled, "ctx": _ctx_tiled},
        _tiling_shows,
    ),
    Mistake(
        "key-heads-tiled",
        "key heads tiled",
        "Query head n reads key head n % K in place of n // G, and the right value head.",
        "`repeat` or `tile` was used for the keys and `repeat_interleave` for the values.",
        {"scores": _scores_tiled},
        _tiling_shows,
    ),
    Mistake(
        "cache-in-float8",
        "cache in float8",
        "Keys and values are rounded to float8 e4m3 before they are read.",
        "The cache was given a narrow type, such as `kv_cache_dtype=fp8` in vLLM, with scales of"
        " 1.",
        {
            "scores": lambda m: scored(m.taps["q_rope"], to_float8(m.taps["k_rope"])),
            "ctx": lambda m: mixed(m.taps["probs"], to_float8(m.taps["v"])),
        },
    ),
    Mistake(
        "cache-holds-unrotated-keys",
        "cached keys not rotated",
        "Keys of earlier calls are read from the cache as they were before RoPE.",
        "Keys are written to the cache before the rotation and only those of the current call are"
        " turned.",
        {"scores": _scores_of_unrotated_cache},
        both(several_chunks, _cache_is_rotated),
    ),
    Mistake(
        "softmax-over-queries",
        "softmax along the wrong axis",
        "Probabilities sum to one over the queries of a call, not over the keys of a query.",
        "The softmax got the other axis: it is the last one of (N, T, S), and the first but one"
        " where the product was made transposed.",
        {"probs": _over_queries},
        several_tokens,
    ),
    Mistake(
        "softmax-not-normalised",
        "softmax not normalised",
        "The exponentials, of scores less their largest, are not divided by their sum.",
        "A blocked kernel leaves out the division at its end, or divides what it has written"
        " somewhere else.",
        {"probs": lambda m: exponentials(m.input, causal(m))},
        several_tokens,
    ),
    Mistake(
        "softmax-base-2",
        "softmax to the base 2",
        "Probabilities are powers of 2 of the scores and not of e.",
        "Kernels compute exp(x) as exp2(x * log2(e)); the factor, usually folded into the scale, is"
        " missing.",
        {"probs": lambda m: distribution(m.input * math.log(2), causal(m))},
        several_tokens,
    ),
    Mistake(
        "softmax-in-bfloat16",
        "softmax in bfloat16",
        "Exponentials and probabilities are rounded to bfloat16.",
        "The softmax runs in the dtype of the scores; the released codes widen it to float32.",
        {"probs": _in_bfloat16},
        several_tokens,
    ),
    Mistake(
        "value-heads-tiled",
        "value heads tiled",
        "Query head n mixes value head n % K in place of n // G, with the right probabilities.",
        "`repeat` or `tile` was used for the values and `repeat_interleave` for the keys.",
        {"ctx": _ctx_tiled},
        _tiling_shows,
    ),
    Mistake(
        "context-heads-transposed",
        "heads joined in the wrong order",
        "The heads of a token are laid side by side as (H, N) where (N, H) is right.",
        "A transpose is missing or one too many before the reshape that joins the heads.",
        {"attn_out": _context_transposed},
        several_heads,
    ),
)
