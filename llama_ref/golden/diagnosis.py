"""Diagnosis: what a check amounts to, and the first step that is wrong by itself.

A tap that is off because those before it are is not at fault: it inherits. The tap at fault is the
first in dataflow order whose *local* error is beyond the gate. If every step is right by itself and
the whole is not, errors add up faster than they should, or the dump is not of one pass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from llama_ref.golden import words
from llama_ref.golden.case_check import CaseCheck
from llama_ref.golden.explaining import explained
from llama_ref.golden.judging import FINEST, status_of
from llama_ref.golden.measure import band_of, has_heads, profile
from llama_ref.golden.noise import common_factor
from llama_ref.golden.report import (
    FAIL,
    FAIL_AT,
    INHERITS,
    PASS,
    WARN,
    Profile,
    Report,
    Row,
    Unmatched,
)
from llama_ref.golden.taps import place_of
from llama_ref.golden.trying import Stretch

CLEARLY = 4.0
"""A case shows a wrong step well if its error is no less than the largest by so many times."""


def verdict_of(
    checks: list[CaseCheck], notes: list[str], unmatched: Sequence[Unmatched] = ()
) -> Report:
    """Return the report on cases that were compared: verdict, first wrong step, cause.

    Parameters
    ----------
    checks : list of CaseCheck
    notes : list of str
        What is known already, a sentence each.
    unmatched : sequence of Unmatched
        Tensors that were not compared. One under the name of a tap that it cannot be is a finding.
    """
    first = _first(checks)
    rows = [_with_inheritance(row, first) for check in checks for row in check.rows]
    logits = [check.logits for check in checks if check.logits is not None]
    flipped = sum(one.n_decided - one.n_decided_same for one in logits)
    statuses = {row.status for row in rows}
    verdict = PASS
    is_misfit = any(tensor.is_misfit for tensor in unmatched)
    if first or flipped or is_misfit or statuses & {FAIL, INHERITS}:
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
        unmatched=list(unmatched),
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
    wrong = [(check, row) for check in checks for row in check.rows if row.own_rho >= FAIL_AT]
    if not wrong:
        return None
    earliest = min(place_of(row.tap) for _, row in wrong)
    there = [pair for pair in wrong if place_of(pair[1].tap) == earliest]
    finite = [pair for pair in there if math.isfinite(pair[1].own_rho)] or there
    highest = max(row.own_rho for _, row in finite)
    clear = [pair for pair in finite if pair[1].own_rho >= highest / CLEARLY]
    return max(clear, key=lambda pair: len(pair[0].case.ids))


def _with_inheritance(row: Row, first: tuple[CaseCheck, Row] | None) -> Row:
    """Say of a tap that is off only because those before it are that it inherits."""
    own = status_of(row.own_rho)
    if row.local is None or row.status == own:
        return row
    if first is not None and place_of(first[1].tap) <= place_of(row.tap):
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
    where = _profile(check, row, off, reference)
    right = float(reference[row.worst_index])
    worst = right + float(off[row.worst_index]), right
    leads = _leads(check, off, reference, where)
    report = replace(report, profile=where, worst=worst, leads=leads)
    same_model = [other for other in checks if other.case.model == check.case.model]
    return explained(report, same_model, stretch, row)


def _leads(check: CaseCheck, off: np.ndarray, reference: np.ndarray, where: Profile) -> list[str]:
    """Return what the numbers say by themselves: a factor, or calls behind a cache."""
    said = []
    factor = common_factor(off, reference)
    if factor is not None:
        said.append(f"Every number is {factor:.4g} times what it should be.")
    n_first = check.case.chunks[0]
    is_wrong = [not value < FAIL_AT for value in where.by_token]
    n_all = len(check.case.ids)
    if len(is_wrong) == n_all > n_first and is_wrong == [t >= n_first for t in range(n_all)]:
        said.append(
            "The tokens of the first call are right and all of the later calls are wrong: look at "
            "where keys are written into the cache, which positions the tokens get, and what the "
            "mask lets them see."
        )
    return said


def _profile(check: CaseCheck, row: Row, off: np.ndarray, reference: np.ndarray) -> Profile:
    """Return where the error sits, in units of the envelope of the band that decided."""
    dump = check.source.get(row.tap)
    rows = range(0) if dump is None else dump.rows
    positions = list(check.case.positions[rows.start : rows.stop])
    by_token_TN, by_channel, by_head = profile(off, reference, row.axes, band_of(positions))
    unit = row.envelope_local or FINEST
    return Profile(
        case=row.case,
        tap=row.tap,
        by_token=(np.sqrt(np.mean(by_token_TN**2, axis=1)) / unit).tolist(),
        positions=positions,
        by_head=(by_head / unit).tolist() if has_heads(row.axes) else [],
        by_channel=(by_channel / unit).tolist(),
        token_by_head=(by_token_TN / unit).tolist(),
    )
