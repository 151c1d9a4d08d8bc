"""Diagnosis: the first step that is wrong by itself, and the known mistake that explains it.

1. The first tap in dataflow order whose local error is beyond the gate, in the case where it is
worst. 2. Every known mistake that distorts this tap, or one that is missing before it, is tried:
the step
   is replayed with the mistake. One that leaves no more than legal rounding explains it.
3. Those that do have to explain the other cases, and the other taps of the layer that they or their
   rivals distort. What is left is the cause, if it is one; several are named as several.
4. What no mistake explains may be rounding that is coarser than legal: recognised by its size and
by
   its being noise. Else the cause is unknown, and the report describes what is seen.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from llama_ref.golden import words
from llama_ref.golden.case_check import CaseCheck, difference
from llama_ref.golden.judging import status_of
from llama_ref.golden.measure import band_of, profile
from llama_ref.golden.mistake import Mistake
from llama_ref.golden.mistakes import MISTAKES
from llama_ref.golden.noise import is_noise, size_of
from llama_ref.golden.passes import INPUTS, Moment, kind_of
from llama_ref.golden.replay import Dump, replaying, rows_of_tap
from llama_ref.golden.report import (
    FAIL,
    FAIL_AT,
    INHERITS,
    PASS,
    WARN,
    Profile,
    Report,
    Row,
    Suspect,
)
from llama_ref.golden.trying import Evidence, Stretch, evidence, in_view_of, layer_of

EXPLAINED = 0.5
"""A mistake has to take away this much of the error, as a share: a tenth less is no explanation."""
SCATTER = 10.0
"""Of two mistakes within the gate, one that leaves more by so many parts in sqrt(n) is not it."""
SIMILAR_NOISE = 3.0
ORDER = list(INPUTS)


def verdict_of(checks: list[CaseCheck], notes: list[str]) -> Report:
    """Return the report on cases that were compared: verdict, first wrong step, cause.

    Parameters
    ----------
    checks : list of CaseCheck
    notes : list of str
        What is known already, a sentence each.
    """
    first = _first(checks)
    rows = [_with_inheritance(row, first) for check in checks for row in check.rows]
    logits = [check.logits for check in checks if check.logits is not None]
    flipped = sum(one.n_decided - one.n_decided_same for one in logits)
    statuses = {row.status for row in rows}
    verdict = PASS
    if first or flipped or statuses & {FAIL, INHERITS}:
        verdict = FAIL
    elif WARN in statuses:
        verdict = WARN
    report = Report(
        verdict=verdict,
        headline="",
        bundle="",
        candidate="",
        precision=checks[0].precision,
        rows=rows,
        absent=_absent(checks),
        why={check.case.name: check.case.why for check in checks},
        notes=notes,
        logits=logits,
    )
    if first is not None:
        report = _explained(report, checks, first)
    return words.described(report, has_replay=checks[0].model is not None)


def _first(checks: list[CaseCheck]) -> tuple[CaseCheck, Row] | None:
    """Return the first tap that is wrong by itself, in the longest case in which it shows well."""
    wrong = [(check, row) for check in checks for row in check.rows if _own_rho(row) >= FAIL_AT]
    if not wrong:
        return None
    earliest = min(_place(row.tap) for _, row in wrong)
    there = [pair for pair in wrong if _place(pair[1].tap) == earliest]
    finite = [pair for pair in there if math.isfinite(_own_rho(pair[1]))] or there
    highest = max(_own_rho(row) for _, row in finite)
    clear = [pair for pair in finite if _own_rho(pair[1]) >= highest / 4]
    return max(clear, key=lambda pair: len(pair[0].case.ids))


def _own_rho(row: Row) -> float:
    """Return the error of the step itself; of everything up to there, where nothing is replayed."""
    judged = row.local or row.cumulative
    return -1.0 if judged is None or math.isnan(judged.rho) else judged.rho


def _place(tap: str) -> tuple[float, int]:
    """Return where a tap stands in the order of the data flow."""
    layer, kind = layer_of(tap), kind_of(tap)
    before = -1.0 if kind == "embed" else math.inf
    return (before if layer is None else float(layer)), ORDER.index(kind)


def _with_inheritance(row: Row, first: tuple[CaseCheck, Row] | None) -> Row:
    """Say of a tap that is off only because those before it are that it inherits."""
    own = status_of(_own_rho(row))
    if row.local is None or row.status == own:
        return row
    if first is not None and _place(first[1].tap) <= _place(row.tap):
        return replace(row, status=INHERITS if row.status == FAIL and own == PASS else own)
    return row


def _absent(checks: list[CaseCheck]) -> dict[str, list[str]]:
    """Return the taps that a bundle has and the candidate has not."""
    return {
        check.case.name: missing
        for check in checks
        if (missing := [t for t in check.bundle.taps(check.case) if t not in check.source.taps])
    }


def _explained(report: Report, checks: list[CaseCheck], first: tuple[CaseCheck, Row]) -> Report:
    """Add the first wrong tap, its profile, and the cause if there is one to be found."""
    check, row = first
    report = replace(report, first=(row.case, row.tap))
    if check.model is None:
        return report
    stretch = Stretch(check, row.tap)
    off, reference = _error(stretch)
    report = replace(report, profile=_profile(stretch, off, reference, row))
    own = _own_rho(row)
    tried = _tried(stretch)
    left = {m.id: rho for m, rho in tried}
    fitting = {
        m.id: m for m, rho in tried if in_view_of(rho, own) <= FAIL_AT and rho <= EXPLAINED * own
    }
    ranked = sorted(left, key=lambda name: left[name])
    if not fitting:
        noisy = _coarse_rounding(stretch, off, reference, own)
        if noisy is not None:
            return replace(report, cause=noisy, confidence="likely")
        runner_up = _suspect(ranked[0], left[ranked[0]]) if ranked else None
        return replace(report, runner_up=runner_up)
    kinds = {kind for m in fitting.values() for kind in m.changes} | {kind_of(row.tap)}
    same = _of_same_model(checks, check)
    layer = layer_of(row.tap)
    everywhere = evidence(same, [layer], fitting, kinds)
    ties = _ties(everywhere)
    if len(ties) > 1 and layer is not None:  # first and previous are alike in the second layer
        layers = range(check.model.config.n_layers)
        again = evidence(same, layers, {name: fitting[name] for name in ties}, kinds)
        if min(found.worst for found in again.values()) <= FAIL_AT:
            everywhere = again
    return _ranked(report, left, everywhere)


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
    rivals = [
        name for name in sorted(left, key=lambda name: left[name]) if name not in (best, *ties)
    ]
    return replace(
        report,
        cause=_suspect(best, left[best]),
        confidence="certain" if len(ties) == 1 else "likely",
        also=[_suspect(name, left[name]) for name in ties[1:]],
        runner_up=_suspect(rivals[0], left[rivals[0]]) if rivals else None,
    )


def _tried(stretch: Stretch) -> list[tuple[Mistake, float]]:
    """Try every deterministic mistake that can show at the end of a stretch."""
    kinds = stretch.computed_kinds()
    return [
        (mistake, stretch.residuals(mistake, set())[stretch.tap].ratios.rho)
        for mistake in MISTAKES.values()
        if not mistake.is_noise
        and kinds & set(mistake.changes)
        and mistake.applies(stretch.session)
    ]


def _coarse_rounding(
    stretch: Stretch, off: np.ndarray, reference: np.ndarray, own: float
) -> Suspect | None:
    """Return the mistake of rounding too coarsely whose size the error has, if it is noise."""
    if not is_noise(off, reference):
        return None
    kinds = stretch.computed_kinds()
    sizes = []
    for mistake in MISTAKES.values():
        if mistake.is_noise and kinds & set(mistake.changes):
            ratio = size_of(off) / max(size_of(stretch.predicted(mistake) - reference), 1e-300)
            sizes.append((abs(math.log(max(ratio, 1e-300))), mistake))
    sizes = [(distance, m) for distance, m in sizes if distance <= math.log(SIMILAR_NOISE)]
    if not sizes:
        return None
    _, best = min(sizes, key=lambda pair: pair[0])
    return Suspect(best.id, best.title, best.explanation, own)


def _error(stretch: Stretch) -> tuple[np.ndarray, np.ndarray]:
    """Return what the end of a stretch is off by, and what it should be."""
    found: list[tuple[np.ndarray, np.ndarray]] = []

    def keep(moment: Moment, dump: Dump, span: str) -> None:
        if moment.name == stretch.tap:
            reference = rows_of_tap(moment.kind, moment.computed, dump.rows).copy()
            found.append((difference(moment.kind, dump, reference), reference))

    stretch.run(None, replaying(stretch.check.source, keep))
    return found[0]


def _profile(stretch: Stretch, off: np.ndarray, reference: np.ndarray, row: Row) -> Profile:
    """Return where the error sits, in units of the envelope of its band."""
    check = stretch.check
    rows = check.source.get(stretch.tap).rows  # type: ignore[union-attr]
    positions = list(check.case.positions[rows.start : rows.stop])
    by_token_TN, by_channel, by_head = profile(off, reference, row.axes, band_of(positions))
    unit = row.envelope_local or 2.0**-24
    return Profile(
        case=row.case,
        tap=row.tap,
        by_token=(np.sqrt(np.mean(by_token_TN**2, axis=1)) / unit).tolist(),
        positions=positions,
        by_head=(by_head / unit).tolist() if len(row.axes.split()) == 3 else [],
        by_channel=(by_channel / unit).tolist(),
        token_by_head=(by_token_TN / unit).tolist(),
    )


def _of_same_model(checks: list[CaseCheck], check: CaseCheck) -> list[CaseCheck]:
    return [other for other in checks if other.case.model == check.case.model]


def _suspect(name: str, left: float) -> Suspect:
    mistake = MISTAKES[name]
    return Suspect(name, mistake.title, mistake.explanation, left)
