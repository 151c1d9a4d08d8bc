"""What came out of a run of the suite: as lines for a terminal, as JSON, as an exit code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from llama_ref.golden.suite.case import FLAGS

LEGAL = "rounding-points"
PASS, FAIL, MISSING, OFF = "pass", "fail", "missing", "off"


@dataclass(frozen=True)
class OpResult:
    """What one golden case found.

    Attributes
    ----------
    op, function, case : str
        The op, which of its functions, and the name of the case.
    status : {"pass", "fail", "missing", "off"}
        `missing`: there is no such function; `off`: left out, as asked.
    problem : str
        What is wrong; empty unless it failed.
    why : str
        What the case is for.
    catches : list of str
        The classic mistakes that it catches.
    flags : list of str
    """

    op: str
    function: str
    case: str
    status: str
    problem: str
    why: str
    catches: list[str] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)


def exit_code(results: Sequence[OpResult]) -> int:
    """Return 0 if all that ran passed, 1 if something failed, 2 if nothing ran at all."""
    statuses = {result.status for result in results}
    if FAIL in statuses:
        return 1
    return 0 if PASS in statuses else 2


def ops_report(results: Sequence[OpResult]) -> dict[str, Any]:
    """Return plain values for JSON.

    Returns
    -------
    dict
        `verdict` is "pass", "fail" or "nothing ran"; `counts` how many cases have each status;
        `missing` the functions that there are not; `cases` one entry per case.
    """
    counts = Counter(result.status for result in results)
    return {
        "verdict": ("pass", "fail", "nothing ran")[exit_code(results)],
        "counts": {status: counts[status] for status in (PASS, FAIL, MISSING, OFF)},
        "missing": list(dict.fromkeys(r.function for r in results if r.status == MISSING)),
        "cases": [asdict(result) for result in results],
    }


def ops_report_lines(results: Sequence[OpResult]) -> list[str]:
    """Return the report: a line for each function, then every failure with its reason, then a sum.

    A function that is missing has a line as well, and is counted in the sum.
    """
    lines = [
        _line(name, [r for r in results if r.function == name]) for name in _functions(results)
    ]
    for result in results:
        if result.status == FAIL:
            lines += ["", f"FAIL  {result.op}/{result.case}", f"      {result.problem}"]
            lines += [f"      this case exists because: {result.why}"]
            if result.catches:
                lines += ["      classic mistakes that it catches: " + ", ".join(result.catches)]
            if LEGAL in result.flags:  # so that nobody takes a good fused kernel apart
                lines += [f"      it has the flag {LEGAL}: {FLAGS[LEGAL]}"]
    return [*lines, "", _sum(results)]


def _functions(results: Sequence[OpResult]) -> list[str]:
    return list(dict.fromkeys(result.function for result in results))


def _line(name: str, results: Sequence[OpResult]) -> str:
    counts = Counter(result.status for result in results)
    ran = counts[PASS] + counts[FAIL]
    said = []
    if ran:
        said.append(f"{counts[PASS]} of {ran} passed" if counts[FAIL] else f"{ran} passed")
    if counts[MISSING]:
        said.append(f"missing: no function of this name, {counts[MISSING]} cases not run")
    if counts[OFF]:
        said.append(f"{counts[OFF]} left out")
    mark = "FAIL" if counts[FAIL] else ("ok" if ran else "-")
    return f"{mark:5} {name:22} {', '.join(said)}"


def _sum(results: Sequence[OpResult]) -> str:
    counts = Counter(result.status for result in results)
    parts = [f"{counts[PASS]} passed", f"{counts[FAIL]} failed"]
    if counts[MISSING]:
        n_functions = len(_functions([r for r in results if r.status == MISSING]))
        parts.append(f"{counts[MISSING]} not run for want of {n_functions} functions")
    if counts[OFF]:
        parts.append(f"{counts[OFF]} left out as asked")
    nothing = " Nothing was compared." if exit_code(results) == 2 else ""
    return f"{len(results)} cases: {', '.join(parts)}.{nothing}"
