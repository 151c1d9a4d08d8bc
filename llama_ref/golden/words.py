"""What a report says in sentences: for the author of a port, who wants to know where to look."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from llama_ref.golden.passes import INPUTS, kind_of
from llama_ref.golden.report import FAIL, INHERITS, WARN, Profile, Report, Row


def described(report: Report, *, has_replay: bool) -> Report:
    """Return a report with its headline and its explanation."""
    if report.verdict == FAIL and report.first is not None:
        return replace(report, headline=_headline(report), explanation=_explanation(report, has_replay))
    if report.verdict == FAIL:
        return replace(report, headline="Every step is right, the whole is not.", explanation=_drift(report))
    n_taps, worst = len(report.rows), _worst(report)
    if report.verdict == WARN:
        headline = f"Nothing fails, but {worst.tap} of {worst.case} is off by {_rho(worst):.1f} x legal rounding."
        return replace(report, headline=headline, explanation=_passing(report, has_replay))
    headline = f"All {n_taps:,} taps are what legal {report.precision} rounding gives."
    return replace(report, headline=headline, explanation=_passing(report, has_replay))


def _headline(report: Report) -> str:
    case, tap = report.first or ("", "")
    if report.cause is None:
        return f"{tap} of case {case} is the first wrong step; no known mistake explains it."
    likely = {"certain": "", "likely": "probably "}[report.confidence]
    return f"{tap} of case {case} is the first wrong step: {likely}{report.cause.title}."


def _explanation(report: Report, has_replay: bool) -> str:
    row = _row_of_first(report)
    said = [_first_sentence(report, row, has_replay), *_where(report.profile, row), *_spread(report)]
    if report.cause is not None:
        said.append(report.cause.explanation)
        said.append(_how_sure(report))
    elif row.tap == "embed":
        said.append(
            "An embedding is a copy of table rows, so this is no matter of arithmetic: other token "
            "ids, other weights, or a dumper that reads the wrong memory. Look at the dumper first."
        )
    elif has_replay:
        said.append(
            "None of the known mistakes brings the error of this step back to rounding; compare the "
            "code of this step line by line."
        )
    n_inherit = sum(r.status == INHERITS for r in report.rows)
    if n_inherit:
        said.append(f"{n_inherit:,} later taps are right by themselves and inherit the error.")
    return " ".join(said)


def _first_sentence(report: Report, row: Row, has_replay: bool) -> str:
    if not has_replay:
        return (
            f"{row.tap} of case {row.case} is {_times(_rho(row))} what legal {report.precision} rounding "
            "gives up to there. Without the weights no step is replayed, so an earlier tap that was not "
            "dumped may be at fault."
        )
    since = {
        "op": f"from the inputs that were dumped ({', '.join(_inputs(row.tap))})",
        "attention": "from the queries, keys and values that were dumped",
        "layer": "from what entered the layer, since taps in between were not dumped",
        "model": "from the last tap that was dumped before it, or from the token ids",
    }[row.span]
    return (
        f"Taken {since}, {row.tap} of case {row.case} is {_times(_rho(row))} what legal "
        f"{report.precision} rounding gives."
    )


def _inputs(tap: str) -> list[str]:
    names = {"hidden": "what enters the layer"}
    return [names.get(name, name) for name in INPUTS[kind_of(tap)]] or ["the token ids"]


def _times(rho: float) -> str:
    if not np.isfinite(rho):
        return "not a number, or infinite, against"
    return f"off by {rho:,.0f} times" if rho >= 10 else f"off by {rho:.1f} times"


def _where(profile: Profile | None, row: Row) -> list[str]:
    """Say which tokens, heads or channels are wrong, if it is some of them only."""
    if profile is None:
        return []
    said = []
    for what, values, labels in (
        ("token", profile.by_token, profile.positions),
        ("head", profile.by_head, list(range(len(profile.by_head)))),
        ("channel", profile.by_channel, list(range(len(profile.by_channel)))),
    ):
        wrong = [label for label, value in zip(labels, values, strict=True) if not value < 3]
        if 0 < len(wrong) < len(values):
            name = "position" if what == "token" else what
            said.append(f"{len(wrong)} of {len(values)} {what}s are wrong ({name} {_some(wrong)}).")
    return said


def _some(numbers: list[int]) -> str:
    """Return a few numbers, or the ends of a run."""
    if len(numbers) > 2 and numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]} to {numbers[-1]}"
    return ", ".join(map(str, numbers[:6])) + (", ..." if len(numbers) > 6 else "")


def _spread(report: Report) -> list[str]:
    """Say in which cases and layers the same step is wrong."""
    assert report.first is not None
    kind = kind_of(report.first[1])
    same = [r for r in report.rows if kind_of(r.tap) == kind and r.local is not None]
    wrong = [r for r in same if r.local is not None and not r.local.rho < 3]
    if len(same) < 2:
        return []
    if len(wrong) == len(same):
        return [f"The same step is wrong wherever it was dumped ({len(same)} taps)."]
    cases = sorted({r.case for r in wrong})
    layers = sorted({r.tap.partition(".")[0] for r in wrong})
    places = f"in {', '.join(layers[:6])}{' and others' if len(layers) > 6 else ''}"
    return [
        f"The same step is wrong in {len(wrong)} of {len(same)} taps: {places}, "
        f"in the cases {', '.join(cases)}."
    ]


def _how_sure(report: Report) -> str:
    assert report.cause is not None
    left = f"Replayed with this mistake, the step is within {report.cause.residual:.1f} x legal rounding"
    if report.confidence == "certain":
        rival = report.runner_up
        return f"{left}; the next best guess, {rival.id}, leaves {rival.residual:,.0f}." if rival else f"{left}."
    if report.also:
        return f"{left}, and so it is with {', '.join(s.id for s in report.also)}: here they look alike."
    if report.cause.residual >= 3:
        return "The size of the error is that of such rounding, and it has no other shape."
    return f"{left}, but it does not explain everything that is wrong in this layer."


def _drift(report: Report) -> str:
    row = next((r for r in report.rows if r.status in (FAIL, INHERITS)), None)
    if row is None:
        return "The most likely token is another one where the truth is clearly decided."
    return (
        f"{row.tap} of case {row.case} is {_times(_cumulative(row))} what legal {report.precision} rounding "
        "gives up to there, though each dumped step is right by itself: errors add up faster than they "
        "should, or the steps were not taken from what was dumped."
    )


def _passing(report: Report, has_replay: bool) -> str:
    if not has_replay:
        return (
            "Compared with the truth as a whole; without the weights no step was replayed, so a mistake "
            "smaller than the accumulated rounding would not show."
        )
    absent = sum(map(len, report.absent.values()))
    taken = "Each step was taken again in float64 from the candidate's own numbers."
    if not absent:
        return taken
    return f"{taken} {absent:,} taps were not dumped; the steps around them were judged together."


def _row_of_first(report: Report) -> Row:
    return next(r for r in report.rows if (r.case, r.tap) == report.first)


def _worst(report: Report) -> Row:
    return max(report.rows, key=lambda r: max(_rho(r), _cumulative(r)))


def _rho(row: Row) -> float:
    judged = row.local or row.cumulative
    return judged.rho if judged is not None and not np.isnan(judged.rho) else 0.0


def _cumulative(row: Row) -> float:
    return row.cumulative.rho if row.cumulative and not np.isnan(row.cumulative.rho) else 0.0
