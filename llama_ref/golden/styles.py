"""Legal ways to round: what right implementations do differently, each as one pass.

Nobody computes a Llama in float64. A right port rounds, and which numbers it gets depends on where:
after every step or after a fused few, in Meta's places or in those of transformers, with a float16
cache or tensor cores that drop mantissa bits. Each style here is one such way. How far they end up
from float64, tap by tap, is the envelope that a candidate is judged by.

    float32        transformers and Meta · sums in a row · angles by repeated products, as in ggml ·
                   exponentials by powers of two, as on GPUs
    float32-kv16   float32 with a float16 cache, as llama.cpp has by default
    tf32           float32 whose matrix units read 10 mantissa bits
    float16        transformers and Meta · one rounding a tap · flash attention · attention in
                   float32 · float32 residual · float32 whose products read float16, as on TPUs
    bfloat16       the same · float32 whose matrices alone read bfloat16, as in ggml

A style is a model of some dtype and lineage, the taps it computes otherwise, and the taps whose
readers see rounded numbers while the tap itself, as a backend would dump it, is not rounded. What
is legal in float32 is legal in every class.

Source: Tri Dao 2023, arXiv:2307.08691, for where flash attention rounds; ggml_vec_dot and
ggml_rope_cache_init in ggml-org/llama.cpp; CUDA C++ Programming Guide, intrinsic functions, for
`__expf`, which is what fast math makes of `expf`; the rest as in `lineage.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from llama_ref.golden.grids import Grid, cut_to_tf32, to_bfloat16, to_float16, to_tf32
from llama_ref.golden.passes import Change, Moment, Watch
from llama_ref.golden.summing import IN_A_ROW
from llama_ref.golden.taps import BY_HEAD, KINDS
from llama_ref.model import ROTATE


@dataclass(frozen=True)
class Style:
    """One legal way to round.

    Attributes
    ----------
    name : str
    precision : str
        The class it belongs to; a candidate is judged by the worst style of its class.
    dtype, lineage : str
        The model that runs.
    changes : mapping of str to Change
        Taps by kind that are computed otherwise.
    operands : mapping of str to Grid
        Taps by kind whose readers see them rounded; the tap itself is not.
    """

    name: str
    precision: str
    dtype: str
    lineage: str
    changes: Mapping[str, Change] = field(default_factory=dict)
    operands: Mapping[str, Grid] = field(default_factory=dict)

    def watching(self, keep: Callable[[Moment], None]) -> Watch:
        """Return the watch that makes a pass one of this style, and shows every tap to `keep`."""

        def watch(moment: Moment) -> None:
            if moment.kind in self.changes:
                moment.computed[...] = self.changes[moment.kind](moment)
            keep(moment)
            if moment.kind in self.operands:
                moment.computed[...] = self.operands[moment.kind](moment.computed)

        return watch


def rounded(grid: Grid) -> Change:
    """Return a change that computes a tap as the model does, and rounds it."""
    return lambda moment: grid(moment.computed)


def flash(grid: Grid) -> Change:
    """Return a change of `ctx`: probabilities are rounded before they are normalised, sums after.

    The running maximum of a blocked kernel rescales what it has, exactly but for float32 rounding,
    so one maximum for the whole row stands for it.
    """

    def ctx(moment: Moment) -> np.ndarray:
        scores_NTS, value_SKH = moment.taps["scores"], moment.taps["v"]
        visible_NTS = np.tril(np.ones(scores_NTS.shape, bool))
        largest_NT1 = np.max(scores_NTS, axis=-1, keepdims=True, where=visible_NTS, initial=-np.inf)
        exp_NTS = np.where(visible_NTS, np.exp(scores_NTS - largest_NT1), 0).astype(np.float32)
        G = exp_NTS.shape[0] // value_SKH.shape[1]
        value_NSH = np.repeat(value_SKH, G, axis=1).transpose(1, 0, 2)
        mixed_NTH = grid(exp_NTS) @ value_NSH / exp_NTS.sum(axis=-1, keepdims=True)
        return grid(mixed_NTH.transpose(1, 0, 2))

    return ctx


def exp_by_exp2(x: np.ndarray) -> np.ndarray:
    """Return exp(x) as GPUs compute it: 2 to the power of x log2(e), a product that is rounded.

    Of a relative error of half a step in the exponent, x times as much is left in the result.
    """
    return np.exp2(x * np.float32(np.log2(np.e)))


def probs_by_exp2(moment: Moment) -> np.ndarray:
    """Normalise scores, their exponentials being powers of two."""
    visible_TS = np.tril(np.ones(moment.input.shape[1:], bool))
    scores_NTS = np.where(visible_TS, moment.input, np.float32(-np.inf))
    exp_NTS = exp_by_exp2(scores_NTS - scores_NTS.max(axis=-1, keepdims=True))
    return exp_NTS / exp_NTS.sum(axis=-1, keepdims=True)


def act_by_exp2(moment: Moment) -> np.ndarray:
    """Gate, the sigmoid's exponential being a power of two."""
    gate_TF, up_TF = moment.taps["gate"], moment.taps["up"]
    return gate_TF / (1 + exp_by_exp2(-gate_TF)) * up_TF


def rotated_as_ggml(moment: Moment) -> np.ndarray:
    """Turn queries or keys by angles found as ggml does: each is the one before times a constant.

    The factor of a stretched pair divides the angle, as its `rope_freqs` do.
    """
    config, position_T = moment.model.config, np.array(moment.case.positions, np.float32)
    step = np.float32(np.float32(config.rope_theta) ** np.float32(-2 / config.head_dim))
    plain_P = step ** np.arange(config.head_dim // 2, dtype=np.float64)
    divisor_P = (plain_P / moment.model.frequency_P.astype(np.float64)).astype(np.float32)
    angle_TP = np.empty((len(position_T), len(plain_P)), np.float32)
    angle_T = position_T
    for pair in range(len(plain_P)):
        angle_TP[:, pair] = angle_T
        angle_T = angle_T * step
    # Unstretched pairs have a divisor of 1 but for rounding in this quotient.
    angle_TP /= np.where(np.abs(divisor_P - 1) < 1e-4, np.float32(1), divisor_P)
    rotate = ROTATE[moment.model.weights.pairing]
    return rotate(moment.input, np.cos(angle_TP), np.sin(angle_TP))


OPERANDS = ("attn_norm", "q_rope", "k_rope", "probs", "v", "ctx", "ffn_norm", "act", "final_norm")
"""What matrix products read besides weights."""
WEIGHT_OPERANDS = ("attn_norm", "ctx", "ffn_norm", "act", "final_norm")
BY_EXP2: dict[str, Change] = {"probs": probs_by_exp2, "act": act_by_exp2}
RESIDUALS = ("embed", "ffn_inp", "out")


def _float32() -> list[Style]:
    hf = Style("float32, transformers", "float32", "float32", "hf")
    angles = dict.fromkeys(("q_rope", "k_rope"), rotated_as_ggml)
    return [
        hf,
        replace(hf, name="float32, Meta", lineage="meta"),
        replace(hf, name="float32, sums in a row", changes=IN_A_ROW),
        replace(hf, name="float32, angles of ggml", changes=angles),
        replace(hf, name="float32, exponentials by exp2", changes=BY_EXP2),
    ]


def _float32_kv16() -> list[Style]:
    cache = {"k_rope": to_float16, "v": to_float16}
    products = cache | {"q_rope": to_float16, "probs": to_float16}
    angles = dict.fromkeys(("q_rope", "k_rope"), rotated_as_ggml)
    plain = Style("float16 cache", "float32-kv16", "float32", "hf", operands=cache)
    return [
        plain,
        replace(plain, name="float16 cache of ggml", changes=angles, operands=products),
    ]


def _tf32() -> list[Style]:
    return [
        Style(f"tf32, {how}", "tf32", "float32", "hf", operands=dict.fromkeys(OPERANDS, grid))
        for how, grid in (("rounded", to_tf32), ("cut", cut_to_tf32))
    ]


def _in_16_bits(precision: str, grid: Grid) -> list[Style]:
    """Return the styles of a 16-bit dtype."""
    once = dict.fromkeys(KINDS, rounded(grid))
    inside = {kind: once[kind] for kind in KINDS if kind not in BY_HEAD}
    wide_residual = {kind: once[kind] for kind in KINDS if kind not in RESIDUALS}
    operands = dict.fromkeys(OPERANDS, grid)
    fused = Style(f"{precision}, one rounding a tap", precision, "float32", "meta", once)
    return [
        Style(f"{precision}, transformers", precision, precision, "hf"),
        Style(f"{precision}, Meta", precision, precision, "meta"),
        fused,
        replace(fused, name=f"{precision}, flash", changes=inside | {"ctx": flash(grid)}),
        replace(fused, name=f"{precision}, float32 attention", changes=inside),
        replace(fused, name=f"{precision}, float32 residual", changes=wide_residual),
        Style(f"{precision}, operands alone", precision, "float32", "hf", operands=operands),
    ]


def _ggml_operands() -> Style:
    operands = dict.fromkeys(WEIGHT_OPERANDS, to_bfloat16)
    return Style("bfloat16, operands of ggml", "bfloat16", "float32", "hf", operands=operands)


STYLES: tuple[Style, ...] = (
    *_float32(),
    *_float32_kv16(),
    *_tf32(),
    *_in_16_bits("float16", to_float16),
    *_in_16_bits("bfloat16", to_bfloat16),
    _ggml_operands(),
)
PRECISIONS = tuple(dict.fromkeys(style.precision for style in STYLES))
"""The classes that a candidate can be judged by, finest first."""
