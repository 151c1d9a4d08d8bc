"""The report as one HTML page that needs nothing else: no script, no font, no network.

It reads from the verdict to the numbers: what is wrong and why, where in the model, where in the
tap, then everything that was looked at. A policy in its head forbids whatever it does not contain.
"""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

from llama_ref.golden.rendering.cause import findings
from llama_ref.golden.rendering.depth import depth_curve
from llama_ref.golden.rendering.diagram import diagram, legend
from llama_ref.golden.rendering.grid import case_grids
from llama_ref.golden.rendering.markup import Markup, section, tag, with_code
from llama_ref.golden.rendering.profile import profile_chart
from llama_ref.golden.rendering.tables import left_out, logits_table, notes, numbers_table
from llama_ref.golden.rendering.terms import count, first_row, in_words, measure_of, prose, worst
from llama_ref.golden.report import Report, Row
from llama_ref.golden.taps import kind_of, layer_of
from llama_ref.trace import LAYER_TAPS

SIGNS = {"pass": "✓ Pass", "warn": "▲ Warning", "fail": "✕ Fail"}


def html_page(report: Report) -> str:
    """Return the page.

    Parameters
    ----------
    report : Report

    Returns
    -------
    str
        A whole document, to be written as UTF-8. Names from the candidate are escaped.
    """
    style = files(__package__).joinpath("page.css").read_text(encoding="utf-8")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_policy(style)),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{report.verdict}: {report.candidate}"),
        tag("style", Markup(style)),
    )
    main = tag(
        "main",
        _verdict(report),
        _what_and_where(report),
        _depth(report),
        _inside(report),
        _taps(report),
        logits_table(report),
        left_out(report),
        notes(report),
        numbers_table(report),
    )
    return f"<!doctype html>\n{tag('html', head, tag('body', main), lang='en')}\n"


def _policy(style: str) -> str:
    """Allow this style sheet, by its hash, and nothing else from anywhere."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def _verdict(report: Report) -> Markup:
    """Return the top of the page: the verdict, and what was compared with what."""
    n_cases = len({row.case for row in report.rows})
    facts = {
        "candidate": report.candidate,
        "bundle": report.bundle,
        "judged as": report.precision,
        "compared": f"{count(len(report.rows), 'tap')} in {count(n_cases, 'case')}",
        "took": f"{report.seconds:.1f} s",
    }
    told = prose(report)
    return tag(
        "header",
        tag("p", SIGNS.get(report.verdict, report.verdict), class_=f"badge {report.verdict}"),
        tag("h1", report.headline),
        tag("p", with_code(told), class_="explanation") if told else None,
        tag("dl", *(tag("div", tag("dt", k), tag("dd", v)) for k, v in facts.items())),
    )


def _what_and_where(report: Report) -> Markup:
    """Return what was found beside the drawing of a layer."""
    first = first_row(report)
    rows, layer = _drawn(report, first)
    title = "one of the layers" if layer is None else f"layer {layer}"
    drawing = diagram(rows, measure_of(report), report.first, title)
    lead = (
        "Each box is one op, with the worst of its errors over all layers and cases."
        if layer is None or first is None
        else f"Each box is one op, with its error in layer {layer} of case {first.case}."
    )
    return section(
        "What is wrong, and where" if first else "The worst of every op",
        tag(
            "div",
            tag("div", findings(report)),
            tag("div", drawing, legend()),
            class_="columns",
        ),
        name="where",
        lead=lead,
    )


def _drawn(report: Report, first: Row | None) -> tuple[dict[str, Row], int | None]:
    """Return the row behind each box: of the layer that is wrong first, else the worst of all."""
    layer = layer_of(first.tap) if first else None
    if first is not None and layer is not None:
        rows = [row for row in report.rows if row.case == first.case]
        kept = [
            row for row in rows if layer_of(row.tap) == layer or kind_of(row.tap) not in LAYER_TAPS
        ]
        return {kind_of(row.tap): row for row in kept}, layer
    groups: dict[str, list[Row]] = {}
    for row in report.rows:
        groups.setdefault(kind_of(row.tap), []).append(row)
    found = {kind: worst(rows, measure_of(report)) or rows[0] for kind, rows in groups.items()}
    return found | ({kind_of(first.tap): first} if first else {}), None


def _depth(report: Report) -> Markup | None:
    curve = depth_curve(report)
    lead = (
        "Each line is a case. A right port stays in the blue band at any depth; a step out of it "
        "is where an error enters. The scale is logarithmic."
    )
    return section("Error in sum, over depth", curve, name="depth", lead=lead) if curve else None


def _inside(report: Report) -> Markup | None:
    profile = report.profile
    if profile is None:
        return None
    meaning = in_words(profile.tap)
    lead = (
        f"{meaning[:1].upper()}{meaning[1:]}, case {profile.case}, in units of the worst legal "
        "error. The pattern tells mistakes apart."
    )
    return section(f"Inside {profile.tap}", profile_chart(profile), name="inside", lead=lead)


def _taps(report: Report) -> Markup | None:
    if not report.rows:
        return None
    lead = (
        "Errors by each op alone, so that an error shows where it is made, not where it arrives."
        if measure_of(report) == "local"
        else "Errors in sum: this candidate cannot be replayed op by op."
    )
    return section("Every tap", case_grids(report), name="taps", lead=lead)
