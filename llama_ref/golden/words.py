"""What a report says in sentences: for the author of a port, who wants to know where to look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from llama_ref.golden.report import FAIL, FAIL_AT, INHERITS, WARN, Profile, Report, Row, Unmatched
from llama_ref.golden.taps import INPUTS, kind_of

SINCE = {
    "attention": "from the queries, keys and values that were dumped",
    "layer": "from what entered the layer, since taps in between were not dumped",
    "model": "from the last tap that was dumped before it, or from the token ids",
}


def described(report: Report, *, has_replay: bool) -> Report:
    """Return a report with its headline and its explanation.

    Parameters
    ----------
    report : Report
        With everything else in it.
    has_replay : bool
        Whether steps were replayed, or taps compared with the truth alone.
    """
    if report.verdict == FAIL and report.first is not None:
        said = _explanation(report, has_replay)
        return replace(report, headline=_headline(report), explanation=said)
    if report.verdict == FAIL and not _is_off(report):
        misfits = [one for one in report.unmatched if one.is_misfit]
        names = _listed([one.name for one in misfits])
        headline = f"What was compared is right, but not all could be compared: {names}."
        return replace(report, headline=headline, explanation=_misfitting(misfits))
    if report.verdict == FAIL:
        headline = "Every step is right, the whole is not."
        return replace(report, headline=headline, explanation=_drift(report))
    headline = f"All {len(report.rows):,} taps are what legal {report.precision} rounding gives."
    if report.verdict == WARN:
        worst = max(report.rows, key=lambda row: max(row.own_rho, _summed(row)))
        off = max(worst.own_rho, _summed(worst))
        headline = (
            f"Nothing fails, but {worst.tap} of case {worst.case} is {off:.1f} times the worst "
            f"that legal {report.precision} rounding gives."
        )
    return replace(report, headline=headline, explanation=_passing(report, has_replay))


def _is_off(report: Report) -> bool:
    """Tell whether anything that was compared is wrong."""
    is_flipped = any(one.n_decided_same < one.n_decided for one in report.logits)
    return is_flipped or any(row.status in (FAIL, INHERITS) for row in report.rows)


def _misfitting(misfits: Sequence[Unmatched]) -> str:
    """Say why tensors under the names of taps cannot be those taps."""
    said = [f"{one.name} has the name of a tap, but: {one.reason}." for one in misfits[:3]]
    more = [f"And {len(misfits) - 3:,} more."] if len(misfits) > 3 else []
    return " ".join([*said, *more])


def _headline(report: Report) -> str:
    assert report.first is not None
    case, tap = report.first
    if report.cause is None and report.is_noise:
        row = next(row for row in report.rows if (row.case, row.tap) == report.first)
        or_what = "" if row.span == "op" else ", or a mistake that is not known"
        return (
            f"{tap} of case {case} is the first wrong step: rounding that is too coarse{or_what}."
        )
    if report.cause is None:
        return f"{tap} of case {case} is the first wrong step; no known mistake explains it."
    likely = "" if report.confidence == "certain" else "probably "
    return f"{tap} of case {case} is the first wrong step: {likely}{report.cause.title}."


def _explanation(report: Report, has_replay: bool) -> str:
    """Say what is wrong, where, how widely, why, and how sure that is."""
    row = next(r for r in report.rows if (r.case, r.tap) == report.first)
    said = [_first_sentence(report, row, has_replay), *_where(report.profile)]
    if report.worst is not None:
        found, right = report.worst
        said.append(f"At its worst it is {found:.6g}, and {right:.6g} is right.")
    said += _spread(report) if report.cause is not None else [*report.leads, *_spread(report)]
    if report.cause is not None:
        said += [report.cause.explanation, _how_sure(report)]
    elif row.tap == "embed":
        said.append(
            "An embedding is a copy of table rows, so this is no matter of arithmetic: other token "
            "ids, other weights, or a dumper that reads the wrong memory. Look at the dumper first."
        )
    elif report.is_noise:
        said.append(
            "The error has no shape: it is rounding, coarser than any that is legal here. Say with "
            "--dtype what the port computes in, if it is not what was dumped."
            if row.span == "op"
            else "The error has no shape. That is how rounding looks that is coarser than any that "
            "is legal here; but over so many operations a wrong formula may look the same. Dump "
            "more taps to see in which step it is made, or say with --dtype what the port computes "
            "in."
        )
    elif has_replay:
        said.append(
            "None of the known mistakes brings the error of this step back to rounding. Compare "
            "the code of this step line by line."
        )
    n_inherit = sum(r.status == INHERITS for r in report.rows)
    if n_inherit:
        said.append(f"{n_inherit:,} later taps are right by themselves and inherit the error.")
    return " ".join(said)


def _first_sentence(report: Report, row: Row, has_replay: bool) -> str:
    off = f"{row.tap} of case {row.case} is {_times(row.own_rho)} legal {report.precision} rounding"
    if not has_replay:
        return (
            f"{off} up to there. Without the weights no step is replayed, so an earlier tap that "
            "was not dumped may be at fault."
        )
    names = {"hidden": "what enters the layer"}
    inputs = [names.get(name, name) for name in INPUTS[kind_of(row.tap)]] or ["the token ids"]
    since = SINCE.get(row.span, f"from its inputs as they were dumped ({', '.join(inputs)})")
    return f"Taken {since}, {off}."


def _times(rho: float) -> str:
    if not np.isfinite(rho):
        return "not a number or infinite, which is beyond any"
    return f"off by {rho:,.0f} times" if rho >= 10 else f"off by {rho:.1f} times"


def _where(profile: Profile | None) -> list[str]:
    """Say which tokens, heads or channels are wrong, if it is some of them only."""
    if profile is None:
        return []
    heads, channels = range(len(profile.by_head)), range(len(profile.by_channel))
    by: list[tuple[str, str, list[float], Sequence[int]]] = [
        ("token", "position", profile.by_token, profile.positions),
        ("head", "head", profile.by_head, heads),
        (profile.last_axis, profile.last_axis, profile.by_channel, channels),
    ]
    said = []
    for what, name, values, labels in by:
        wrong = [label for label, value in zip(labels, values, strict=True) if not value < FAIL_AT]
        if 0 < len(wrong) < len(values):
            verb = "is" if len(wrong) == 1 else "are"
            said.append(
                f"{len(wrong)} of {len(values)} {what}s {verb} wrong ({name} {_some(wrong)})."
            )
    return said


def _some(numbers: list[int]) -> str:
    """Return a few numbers, or the ends of a run.

    Examples
    --------
    >>> _some([3, 4, 5, 6]), _some([1, 5])
    ('3 to 6', '1, 5')
    """
    if len(numbers) > 2 and numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]} to {numbers[-1]}"
    return ", ".join(map(str, numbers[:6])) + (", …" if len(numbers) > 6 else "")


def _spread(report: Report) -> list[str]:
    """Say in which cases and layers the same step is wrong."""
    assert report.first is not None
    kind = kind_of(report.first[1])
    same = [r for r in report.rows if kind_of(r.tap) == kind and r.local is not None]
    wrong = [r for r in same if not r.own_rho < FAIL_AT]
    if len(same) < 2 or not wrong:
        return []
    if len(wrong) == len(same):
        return [f"The same step is wrong wherever it was dumped, {len(same)} times."]
    layers = sorted({r.tap.partition(".")[0] for r in wrong})
    cases = list(dict.fromkeys(r.case for r in wrong))
    places = f"in {_listed(layers)}, " if "." in report.first[1] else ""
    return [
        f"The same step is wrong in {len(wrong)} of {len(same)} places: {places}"
        f"in the {'case' if len(cases) == 1 else 'cases'} {_listed(cases)}."
    ]


def _listed(names: list[str]) -> str:
    """Return some of the names."""
    return ", ".join(names[:8]) + (" and others" if len(names) > 8 else "")


def _how_sure(report: Report) -> str:
    """Say what speaks for the cause, and what against."""
    assert report.cause is not None
    if report.is_noise:
        also = ", ".join(suspect.id for suspect in report.also)
        size = "The error has the size of such rounding, and no shape that would say more"
        return f"{size}; {also} has about that size too." if also else f"{size}."
    left = (
        f"Replayed with this mistake in it, the step is {report.cause.residual:.1f} times legal "
        "rounding"
    )
    if report.also:
        also = ", ".join(suspect.id for suspect in report.also)
        return f"{left}, and so it is with {also}: here these cannot be told apart."
    rival = report.runner_up
    if report.confidence == "certain" and rival is not None and rival.residual <= FAIL_AT:
        return f"{left}; {rival.id} would explain this step too, but not the others."
    if report.confidence == "certain":
        next_best = (
            f"; with the next best guess, {rival.id}, {rival.residual:,.0f}" if rival else ""
        )
        return f"{left}{next_best}."
    return f"{left}, but it does not explain everything that is wrong around it."


def _drift(report: Report) -> str:
    row = next((r for r in report.rows if r.status in (FAIL, INHERITS)), None)
    if row is None:
        return "The most likely token is another one where the truth is clearly decided."
    return (
        f"{row.tap} of case {row.case} is {_times(_summed(row))} legal {report.precision} rounding "
        "up to there, though each step that was dumped is right by itself: errors add up faster "
        "than they should, or the steps were not taken from what was dumped."
    )


def _passing(report: Report, has_replay: bool) -> str:
    if not has_replay:
        return (
            "Taps were compared with the truth as a whole. Without the weights no step was "
            "replayed, and a mistake smaller than the accumulated rounding would not show."
        )
    taken = "Each step was taken again in float64 from the candidate's own numbers."
    absent = sum(map(len, report.absent.values()))
    if not absent:
        return taken
    return f"{taken} {absent:,} taps were not dumped; the steps around them were judged together."


def _summed(row: Row) -> float:
    """Return the error of everything up to there."""
    return row.cumulative.rho if row.cumulative and not np.isnan(row.cumulative.rho) else 0.0
