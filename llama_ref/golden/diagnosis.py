"""Diagnosis: what a check amounts to, and the first step that is wrong by itself.

A tap that is off because those before it are is not at fault: it inherits. The tap at fault is the
first in dataflow order whose *local* error is beyond the gate. If every step is right by itself and
the whole is not, errors add up faster than they should, or the dump is not of one pass.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from llama_ref.golden import words
from llama_ref.golden.case_check import CaseCheck
from llama_ref.golden.explaining import explained
from llama_ref.golden.judging import status_of
from llama_ref.golden.measure import band_of, has_heads, profile
from llama_ref.golden.passes import INPUTS, kind_of
from llama_ref.golden.report import FAIL, FAIL_AT, INHERITS, PASS, WARN, Profile, Report, Row
from llama_ref.golden.trying import Stretch, layer_of

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
        report = _with_first(report, checks, *first)
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


def _with_first(report: Report, checks: list[CaseCheck], check: CaseCheck, row: Row) -> Report:
    """Add the first wrong tap, where the error sits in it, and the cause if one is found."""
    report = replace(report, first=(row.case, row.tap))
    if check.model is None:
        return report
    stretch = Stretch(check, row.tap)
    off, reference = stretch.error()
    report = replace(report, profile=_profile(check, row, off, reference))
    same_model = [other for other in checks if other.case.model == check.case.model]
    return explained(report, same_model, stretch, row)


def _profile(check: CaseCheck, row: Row, off: np.ndarray, reference: np.ndarray) -> Profile:
    """Return where the error sits, in units of the envelope of the band that decided."""
    dump = check.source.get(row.tap)
    rows = range(0) if dump is None else dump.rows
    positions = list(check.case.positions[rows.start : rows.stop])
    by_token_TN, by_channel, by_head = profile(off, reference, row.axes, band_of(positions))
    unit = row.envelope_local or 2.0**-24
    return Profile(
        case=row.case,
        tap=row.tap,
        by_token=(np.sqrt(np.mean(by_token_TN**2, axis=1)) / unit).tolist(),
        positions=positions,
        by_head=(by_head / unit).tolist() if has_heads(row.axes) else [],
        by_channel=(by_channel / unit).tolist(),
        token_by_head=(by_token_TN / unit).tolist(),
    )
