"""What is wrong, in words and bars: the likely mistake, the place, what to do, what 1 means."""

from __future__ import annotations

from llama_ref.golden.rendering.markup import Child, Markup, card, join, tag, with_code
from llama_ref.golden.rendering.scales import LogAxis, Palette
from llama_ref.golden.rendering.svg import box, drawing, lying_bar, path, words
from llama_ref.golden.rendering.terms import (
    CONFIDENCE,
    first_row,
    in_words,
    measure_of,
    next_step,
    number,
    place,
    positions_of,
    rho_of,
    rivals,
)
from llama_ref.golden.report import FAIL_AT, Report, Row

MOST_RIVALS = 6
LENGTH, PITCH = 330, 36


def findings(report: Report) -> Markup:
    """Return the cards in reading order."""
    first = first_row(report)
    return join(
        _cause(report, first) if first else None,
        _place(report, first) if first else None,
        card("What to do now", tag("p", next_step(report))),
        _units(report),
    )


def _cause(report: Report, first: Row) -> Markup:
    """Return the likely mistake, and how well it and its rivals explain the error."""
    cause = report.cause
    bars = _bars(report, first)
    if cause is None:
        told = CONFIDENCE["none"]
        if first.local is None:
            told = "No step could be replayed, so no mistake was tried."
        return card("Cause unknown", tag("p", told), bars, style="cause")
    confidence = tag("b", report.confidence, class_="chip")
    return card(
        join("Cause: ", cause.title),
        tag("p", tag("code", cause.id), " ", confidence),
        tag("p", with_code(cause.explanation)),
        tag("p", CONFIDENCE.get(report.confidence), class_="muted"),
        bars,
        style="cause",
    )


def _bars(report: Report, first: Row) -> Markup | None:
    """Draw how much of the error is left with each mistake put into the replay."""
    own = rho_of(first, measure_of(report))
    bars = [(f"your {first.tap}", own)] if own is not None else []
    tried = [*([report.cause] if report.cause else []), *rivals(report)[:MOST_RIVALS]]
    bars += [(f"left with {one.id}", one.residual) for one in tried]
    if not bars:
        return None
    axis = LogAxis.over((rho for _, rho in bars), 0, LENGTH)
    palette = Palette.over(rho for _, rho in bars)
    gate, height = axis.at(FAIL_AT), PITCH * len(bars)
    parts = [
        box(0, 0, axis.at(1.0), height, "band legal"),
        words("legal", 2, height + 12),
        words("3 fails", gate + 4, height + 12),
    ]
    for i, (name, rho) in enumerate(bars):
        y, hint = PITCH * i, f"{name}: {number(rho)} × the worst legal error"
        parts.append(words(name, 2, y + 13, "name"))
        parts.append(lying_bar(rho, y + 18, 12, axis, palette, hint))
        parts.append(path(f"M{gate:.1f} {y + 16}v16", "gate"))
        parts.append(words(number(rho), axis.at(rho) + 8, y + 29, "ratio"))
    about = "Error left with each mistake"
    return drawing(LENGTH + 70, height + 16, *parts, kind="chart residuals", about=about)


def _place(report: Report, first: Row) -> Markup:
    """Return the first wrong tap in words, and its numbers."""
    at = place(first, positions_of(report, first))
    span = "" if first.span == "op" else f" The step was taken over a whole {first.span}."
    sizes = [
        f"{number(rho_of(first, measure))} × the worst legal one {how}"
        for measure, how in (
            ("local", f"by this {'op' if first.span == 'op' else 'step'} alone"),
            ("cumulative", "in sum"),
        )
        if rho_of(first, measure) is not None
    ]
    lines: list[Child] = [
        tag("p", tag("code", first.tap), f": {in_words(first.tap)}, in case {first.case}.{span}"),
        tag("p", report.why[first.case], class_="muted") if first.case in report.why else None,
        tag("p", f"Its error is {', '.join(sizes)}."),
        tag("p", f"Largest at {at}.") if at else None,
    ]
    return card("First wrong tap", *lines)


def _units(report: Report) -> Markup:
    """Return what the numbers mean."""
    what = (
        "“By this op alone” compares a tap with the same op computed in float64 from your own "
        "inputs, so that earlier errors do not count; “in sum” compares it with the truth."
        if measure_of(report) == "local"
        else "Taps are compared with the truth, “in sum”: errors of earlier ops count."
    )
    scale = (
        " at the same tap and precision. Up to 2 is right, 2 to 3 is a warning; above 3, no legal "
        "way to round explains it."
    )
    one = tag("b", "1 is the worst that legal rounding does")
    return card("How to read the numbers", tag("p", one, scale), tag("p", what), style="muted")
