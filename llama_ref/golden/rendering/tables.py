"""The parts of the page that are tables and lists: logits, numbers, what was left out, notes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from llama_ref.golden.rendering.markup import (
    Child,
    Markup,
    bullets,
    scrolled,
    section,
    tag,
    with_code,
)
from llama_ref.golden.rendering.terms import (
    count,
    divergences,
    number,
    place,
    positions_of,
    rho_of,
)
from llama_ref.golden.report import PASS, LogitsSummary, Report, Row

NUMBERS = (
    "tap",
    "case",
    "verdict",
    "ratio, this op",
    "ratio, in sum",
    "error, this op",
    "legal",
    "error, in sum",
    "legal",
    "taken over one",
    "largest error at",
)
MOST_ROWS, MOST_NAMES = 600, 200
"""Longer tables are cut, and say so; the JSON report has everything."""


def logits_table(report: Report) -> Markup | None:
    """Return what the logits of each case amount to."""
    if not report.logits:
        return None
    heads = ("case", "KL, mean", "KL, largest", "legal, largest", "same choice", "of the decided")
    lead = (
        "KL is how far your probabilities of the next token are from the true ones, in nats. A "
        "choice is decided where the truth's leads by more than twice the legal noise; there, the "
        "same token must come first."
    )
    table = _table(heads, map(_logits, report.logits))
    return section("Logits", table, name="logits", lead=lead)


def _logits(one: LogitsSummary) -> tuple[str, ...]:
    decided = f"{one.n_decided_same} of {one.n_decided}"
    if one.n_decided_same < one.n_decided:
        decided = tag("b", decided, class_="wrong")
    return (
        one.case,
        *divergences(one),
        f"{one.n_same_choice} of {one.n_tokens}",
        decided,
    )


def numbers_table(report: Report) -> Markup | None:
    """Return every tap that was compared; of very many, those with findings."""
    if not report.rows:
        return None
    rows: Sequence[Row] = report.rows
    if len(rows) > MOST_ROWS:
        rows = [row for row in rows if row.status != PASS][:MOST_ROWS]
    left = len(report.rows) - len(rows)
    table = tag(
        "details",
        tag("summary", count(len(rows), "tap")),
        _table(NUMBERS, (_numbers(report, row) for row in rows)),
        tag("p", f"{count(left, 'more tap')}: see the JSON report.") if left else None,
    )
    lead = "A ratio is a relative error (root mean square) in units of the legal one."
    return section("Numbers", table, name="numbers", lead=lead)


def _numbers(report: Report, row: Row) -> tuple[str, ...]:
    return (
        row.tap,
        row.case,
        row.status,
        number(rho_of(row, "local")),
        number(rho_of(row, "cumulative")),
        number(row.local_error),
        number(row.envelope_local),
        number(row.cumulative_error),
        number(row.envelope_cumulative),
        row.span,
        place(row, positions_of(report, row)),
    )


def left_out(report: Report) -> Markup | None:
    """Return the tensors that matched nothing, and the taps that were not dumped."""
    parts: list[Child] = []
    if report.unmatched:
        rows = [(u.name, " × ".join(map(str, u.shape)), u.reason) for u in report.unmatched]
        parts.append(tag("h3", f"{count(len(rows), 'tensor')} of the candidate"))
        parts.append(_table(("tensor", "shape", "why"), rows[:MOST_NAMES]))
        more = len(rows) - MOST_NAMES
        parts.append(tag("p", f"… and {count(more, 'more tensor')}") if more > 0 else None)
    gaps = {case: taps for case, taps in report.absent.items() if taps}
    if gaps:
        n_absent = sum(map(len, gaps.values()))
        parts.append(tag("h3", f"{count(n_absent, 'tap')} that the candidate has not got"))
        lines = [(case, count(len(taps), "tap"), _names(taps)) for case, taps in gaps.items()]
        parts.append(_table(("case", "", "which"), lines))
    return section("Not compared", *parts, name="left-out") if parts else None


def _names(taps: Sequence[str], most: int = 24) -> str:
    more = f" … and {len(taps) - most} more" if len(taps) > most else ""
    return ", ".join(taps[:most]) + more


def notes(report: Report) -> Markup | None:
    """Return what else is worth knowing."""
    if not report.notes:
        return None
    return section("Notes", bullets([with_code(note) for note in report.notes]), name="notes")


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Markup:
    """Return a plain table; the first cell of each row is its heading."""
    body = (
        tag("tr", tag("th", first, scope="row"), *(tag("td", cell) for cell in rest))
        for first, *rest in rows
    )
    table = tag(
        "table",
        tag("thead", tag("tr", *(tag("th", name, scope="col") for name in heads))),
        tag("tbody", *body),
        class_="plain",
    )
    return scrolled(table, ", ".join(filter(None, heads)))
