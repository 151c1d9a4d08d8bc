"""The cause: which known mistake explains the first step that is wrong by itself.

1. Every known mistake that distorts this tap, or one that is missing before it, is tried: the step
   is replayed with the mistake in it. One that leaves no more than legal rounding explains it.
2. Those that do have to explain the other cases too, and the other taps of the layer that they or
   their rivals distort. What cannot be told apart even then is named together.
3. What no mistake explains may be rounding that is coarser than legal. It is recognised by having
   no shape, and named by its size where the step is a single matrix.
"""

from __future__ import annotations

import math
from dataclasses import replace

from llama_ref.golden.case_check import CaseCheck
from llama_ref.golden.measure import rows_first
from llama_ref.golden.mistake import Mistake
from llama_ref.golden.mistakes import MISTAKES
from llama_ref.golden.noise import is_noise, size_of
from llama_ref.golden.report import FAIL_AT, Report, Row, Suspect
from llama_ref.golden.taps import LINEARS, axes_of, kind_of, layer_of
from llama_ref.golden.trying import Evidence, Stretch, evidence, in_view_of

EXPLAINED = 0.5
"""A mistake has to take away half of an error: what takes a tenth explains nothing."""
SCATTER = 10.0
"""Of two mistakes within the gate, one that leaves more by so many parts in sqrt(n) is not it."""
SIMILAR_NOISE = 3.0
"""Noise of a kind is recognised within this factor of its size."""
EXACT_AT_TIMES = ("q_rope", "k_rope", "probs", "ctx")
"""Taps without rounding at position 0, or where a token sees itself alone."""


def explained(report: Report, checks: list[CaseCheck], stretch: Stretch, row: Row) -> Report:
    """Add to a report the mistake that explains the first wrong step, if one does.

    Parameters
    ----------
    report : Report
    checks : list of CaseCheck
        All cases that run the same model.
    stretch : Stretch
        What leads to the wrong tap.
    row : Row
        Its row.
    """
    own = row.local.rho if row.local else math.inf
    tried = _tried(stretch)
    left = {mistake.id: rho for mistake, rho in tried}
    fitting = {
        mistake.id: mistake
        for mistake, rho in tried
        if in_view_of(rho, own) <= FAIL_AT and rho <= EXPLAINED * own
    }
    if fitting:
        kinds = {kind for m in fitting.values() for kind in m.changes} | {kind_of(row.tap)}
        return _ranked(report, left, _everywhere(checks, layer_of(row.tap), fitting, kinds))
    noise = _coarse_rounding(stretch, own)
    if noise is None:
        nearest = min(left, key=lambda name: left[name], default=None)
        if nearest is None or not left[nearest] <= EXPLAINED * own < math.inf:
            return report
        return replace(report, runner_up=_suspect(nearest, left[nearest]))
    report = replace(report, is_noise=True)
    if kind_of(row.tap) not in LINEARS or row.span != "op" or not noise:
        return report
    return replace(report, cause=noise[0], also=noise[1:], confidence="likely")


def _tried(stretch: Stretch) -> list[tuple[Mistake, float]]:
    """Try every deterministic mistake that can show at the end of a stretch."""
    kinds = stretch.computed_kinds()
    possible = [
        mistake
        for mistake in MISTAKES.values()
        if kinds & set(mistake.changes)
        and not mistake.is_noise
        and mistake.applies(stretch.session)
    ]
    return [
        (mistake, stretch.residuals(mistake, set())[stretch.tap].ratios.rho) for mistake in possible
    ]


def _everywhere(
    checks: list[CaseCheck], layer: int | None, fitting: dict[str, Mistake], kinds: set[str]
) -> dict[str, Evidence]:
    """Return what mistakes leave in this layer; in all of them, where that does not decide."""
    everywhere = evidence(checks, [layer], fitting, kinds)
    ties = _ties(everywhere)
    model = checks[0].model
    if len(ties) > 1 and layer is not None and model is not None:
        # In the second layer, weights of the first layer and of the previous one are the same.
        layers = range(model.config.n_layers)
        again = evidence(checks, layers, {name: fitting[name] for name in ties}, kinds)
        if min(found.worst for found in again.values()) <= FAIL_AT:
            return again
    return everywhere


def _ties(everywhere: dict[str, Evidence]) -> list[str]:
    """Return the mistakes that explain everything and cannot be told apart, best first."""
    within = [name for name, found in everywhere.items() if found.worst <= FAIL_AT]
    order = sorted(within, key=lambda name: everywhere[name].pooled)
    if not order:
        return []
    best = everywhere[order[0]]
    limit = best.pooled * (1 + SCATTER / math.sqrt(max(best.n, 1)))
    return [name for name in order if everywhere[name].pooled <= limit]


def _ranked(report: Report, left: dict[str, float], everywhere: dict[str, Evidence]) -> Report:
    """Choose among mistakes that explain the first wrong tap by what they leave elsewhere."""
    ties = _ties(everywhere)
    best = ties[0] if ties else min(everywhere, key=lambda name: everywhere[name])
    by_residual = sorted(left, key=lambda name: left[name])
    rivals = [name for name in by_residual if name not in (best, *ties)]
    return replace(
        report,
        cause=_suspect(best, left[best]),
        confidence="certain" if len(ties) == 1 else "likely",
        also=[_suspect(name, left[name]) for name in ties[1:]],
        runner_up=_suspect(rivals[0], left[rivals[0]]) if rivals else None,
    )


def _coarse_rounding(stretch: Stretch, own: float) -> list[Suspect] | None:
    """Return the ways of rounding too coarsely that give an error of this size, the nearest first.

    None if the error is no noise.
    """
    off, reference = stretch.error()
    kind, axes = kind_of(stretch.tap), axes_of(stretch.tap)
    by_token = rows_first(axes, off), rows_first(axes, reference)
    if not is_noise(*by_token, can_be_exact=kind in EXACT_AT_TIMES):
        return None
    kinds, found = stretch.computed_kinds(), []
    for mistake in MISTAKES.values():
        if mistake.is_noise and kinds & set(mistake.changes):
            expected = size_of(stretch.predicted(mistake) - reference)
            distance = abs(math.log(size_of(off) / expected)) if expected else math.inf
            if distance <= math.log(SIMILAR_NOISE):
                found.append((distance, mistake))
    found.sort(key=lambda pair: pair[0])
    return [Suspect(m.id, m.title, m.explanation, own) for _, m in found]


def _suspect(name: str, left: float) -> Suspect:
    mistake = MISTAKES[name]
    return Suspect(name, mistake.title, mistake.explanation, left)
