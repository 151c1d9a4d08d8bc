"""The report of a check on a terminal: a screen or two, whatever the number of layers and cases.

The verdict, why, and what to do; a line for each kind of tap with its worst layer and case; then
what was not compared. Everything that is left out here is counted here, and is in the JSON report.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence

from llama_ref.cli.terminal import Paint, table
from llama_ref.errors import printable
from llama_ref.golden.rendering.terms import (
    count,
    divergences,
    first_row,
    in_words,
    next_step,
    number,
    place,
    positions_of,
    prose,
    rho_of,
    rivals,
    standing,
    worst,
)
from llama_ref.golden.report import Report, Row
from llama_ref.golden.taps import KINDS, kind_of, layer_of

COLUMNS, INDENT = 80, 12
LONGEST_NAME, MOST_LISTED = 16, 8
STYLES = {"pass": "green", "warn": "yellow", "fail": "red"}
SIGNS = {"right": " ", "odd": "▲", "wrong": "✕", "inherits": "↓"}
COLOURS = {"right": "", "odd": "yellow", "wrong": "red", "inherits": "dim"}
GRAVITY = ("right", "odd", "inherits", "wrong")


def report_lines(report: Report, paint: Paint) -> list[str]:
    """Return the lines of a report, none longer than 80 characters.

    Parameters
    ----------
    report : Report
    paint : Paint
        Of the stream that they are for.
    """
    word = f"{report.verdict.upper():6}"
    head = _wrapped(report.headline, indent=6)
    style = STYLES.get(report.verdict, "")
    lines = [paint("bold", paint(style, word)) + head[0].lstrip(), *head[1:]]
    if told := prose(report):
        lines += ["", *_wrapped(told, indent=6)]
    for part in (_why(report), _taps(report, paint), _logits(report), _left_out(report)):
        lines += ["", *part] if part else []
    lines += [""] + [line for note in report.notes for line in _item("note", note)]
    lines += _item("next", next_step(report))
    return lines


def _wrapped(text: str, indent: int) -> list[str]:
    """Return foreign text as lines behind an indent; at least one."""
    return textwrap.wrap(
        printable(text),
        COLUMNS,
        initial_indent=" " * indent,
        subsequent_indent=" " * indent,
        break_on_hyphens=False,
    ) or [""]


def _item(name: str, text: str) -> list[str]:
    """Return text behind a name in the margin."""
    first, *rest = _wrapped(text, INDENT)
    return [f"{name:{INDENT}}{first.lstrip()}".rstrip(), *rest]


def _cut(name: str) -> str:
    """Return a foreign name for a column."""
    text = printable(name[: LONGEST_NAME + 1])
    return text if len(text) <= LONGEST_NAME else text[: LONGEST_NAME - 1] + "…"


def _why(report: Report) -> list[str]:
    """Return the first wrong tap, the cause, how sure it is, and its rivals."""
    lines: list[str] = []
    first, cause = first_row(report), report.cause
    if first:
        at = place(first, positions_of(report, first))
        where = f"{first.case}/{first.tap}: {in_words(first.tap)}"
        lines += _item("first wrong", where + (f"; largest error at {at}" if at else ""))
    if cause:
        lines += _item("cause", f"{cause.id}: {cause.title}. {cause.explanation}")
        left = f"it leaves {number(cause.residual)} × the worst legal error"
        lines += _item("confidence", f"{report.confidence}: {left}")
    if others := rivals(report)[:MOST_LISTED]:
        left = "; ".join(f"{one.id} leaves {number(one.residual)}" for one in others)
        lines += _item("runner-up" if cause else "closest", left)
    return lines


def _taps(report: Report, paint: Paint) -> list[str]:
    """Return a line for each kind of tap, then the taps that are wrong by themselves, by name."""
    if not report.rows:
        return []
    groups = {kind: [row for row in report.rows if kind_of(row.tap) == kind] for kind in KINDS}
    present = {kind: rows for kind, rows in groups.items() if rows}
    states = {kind: _gravest(report, rows) for kind, rows in present.items()}
    heads = ("", "tap", "n", "this op", "at", "in sum", "at")
    body = [(SIGNS[states[kind]], kind, *_worst_cells(rows)) for kind, rows in present.items()]
    head, *lines = table([heads, *body], "<<>><><")
    painted = [
        paint(COLOURS[state], line) for state, line in zip(states.values(), lines, strict=True)
    ]
    wrong = [row for row in report.rows if standing(row, report.first) == "wrong"]
    told = [f"{row.case}/{row.tap} {_decisive(row)}" for row in wrong[:MOST_LISTED]]
    more = [f"{len(wrong) - MOST_LISTED:,} more"] if len(wrong) > MOST_LISTED else []
    legend = (
        "1 is the worst that legal rounding does, 2 is warned about (▲), 3 fails (✕); ↓: its "
        "inputs are wrong already. “This op” is measured from the candidate's own inputs, “in "
        "sum” against the truth."
    )
    return [
        paint("dim", head),
        *painted,
        *_wrapped(legend, 0),
        *(_item("wrong", ", ".join([*told, *more])) if wrong else []),
    ]


def _decisive(row: Row) -> str:
    return number(rho_of(row, "local" if row.local else "cumulative"))


def _gravest(report: Report, rows: Sequence[Row]) -> str:
    return max((standing(row, report.first) for row in rows), key=GRAVITY.index)


def _worst_cells(rows: Sequence[Row]) -> Iterable[str]:
    """Yield how many taps there are, and the worst ratio of each measure with its place."""
    yield f"{len(rows):,}"
    for measure in ("local", "cumulative"):
        row = worst(rows, measure)
        layer = layer_of(row.tap) if row else None
        yield number(rho_of(row, measure)) if row else "–"
        yield f"{_cut(row.case)}{'' if layer is None else f' L{layer:02d}'}" if row else ""


def _logits(report: Report) -> list[str]:
    """Return a line for each case; of many, for those of the largest divergence."""
    if not report.logits:
        return []
    ranked = sorted(report.logits, key=lambda one: one.kl_max, reverse=True)
    ranked.sort(key=lambda one: not math.isnan(one.kl_max))
    heads = ("logits of", "KL mean", "largest", "legal", "same choice", "of the decided")
    body = [
        (
            _cut(one.case),
            *divergences(one),
            f"{one.n_same_choice} of {one.n_tokens}",
            f"{one.n_decided_same} of {one.n_decided}",
        )
        for one in ranked[:MOST_LISTED]
    ]
    left = len(ranked) - MOST_LISTED
    more = [f"and {count(left, 'more case')} of smaller divergence"] if left > 0 else []
    return table([heads, *body], "<>>>>>") + more


def _left_out(report: Report) -> list[str]:
    """Return what was not compared: tensors by name, absent taps by number."""
    lines: list[str] = []
    for tensor in report.unmatched[:MOST_LISTED]:
        shape = " × ".join(map(str, tensor.shape)) or "scalar"
        lines += _item("unmatched", f"{tensor.name} ({shape}): {tensor.reason}")
    if (left := len(report.unmatched) - MOST_LISTED) > 0:
        lines += _item("", f"and {count(left, 'more tensor')}")
    gaps = {case: len(taps) for case, taps in report.absent.items() if taps}
    if gaps:
        most = ", ".join(f"{n:,} of {case}" for case, n in list(gaps.items())[:MOST_LISTED])
        more = f", and of {len(gaps) - MOST_LISTED} more cases" if len(gaps) > MOST_LISTED else ""
        lines += _item("not dumped", f"{count(sum(gaps.values()), 'tap')}: {most}{more}")
    return lines
