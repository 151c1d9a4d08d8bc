"""The gates' margin without any peer: each legal style, judged by an envelope made of the others.

A style that has siblings, which round in other places by as much, has to pass: its rho is what a
right port would get that nobody thought of. One that stands for a way of its own, as the angles of
ggml do, shows by how much ports of its kind would fail without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from llama_ref.golden.cases import Case
from llama_ref.golden.envelope import MODEL, OP, Stage, record
from llama_ref.golden.judging import counted, floor_of, judge
from llama_ref.golden.measure import band_of, rows_first
from llama_ref.golden.models import ModelSpec, held, weights_of
from llama_ref.golden.styles import PRECISIONS, STYLES, Style
from llama_ref.golden.taps import NORMS, axes_of, tap_name, visible_parts
from weights_tools.validate_tally import Tally


def left_out(
    jobs: Iterable[tuple[ModelSpec, Case]], advance: Callable[[int], object] = lambda n: None
) -> list[Tally]:
    """Judge each style by the others of its class.

    Parameters
    ----------
    jobs : iterable of (ModelSpec, Case)
        What is run.
    advance : function of int
        Told the tokens that are done.

    Returns
    -------
    list of Tally
        One for each style, without counts: nothing here passes or fails.
    """
    tallies = {style.name: Tally(style.name, style.precision) for style in STYLES}
    for spec, case in jobs:
        weights = held(weights_of(spec), spec.config)
        for stage in record(case, spec, weights):
            for kind, truth in stage.truth.items():
                where = f"{case.name}/{tap_name(stage.layer, kind)} seed {spec.seed}"
                for style in STYLES:
                    rhos = _judged(stage, kind, truth, style, case)
                    tallies[style.name].add(where, *rhos)
        advance(len(case.ids))
    return list(tallies.values())


def _judged(
    stage: Stage, kind: str, truth: np.ndarray, style: Style, case: Case
) -> tuple[float, float]:
    """Return the rho of one style at one tap: of the step, and of everything up to there."""
    legal = {style.precision, PRECISIONS[0]}  # what float32 may, every class may
    others = [s.name for s in STYLES if s.precision in legal and s is not style]
    envelope = np.fmax.reduce([stage.by_style[name, kind] for name in others])
    band_T = band_of(case.positions)
    reference = rows_first(axes_of(kind), visible_parts(kind, truth))
    rhos = []
    for span in (OP, MODEL):
        n_in_band = counted(reference, band_T, inherited=span != OP or kind in NORMS)
        found, floor = stage.by_style[style.name, kind][span], floor_of(kind, style.precision)
        rhos.append(judge(found, envelope[span], n_in_band, floor).ratios.rho)
    return rhos[0], rhos[1]
