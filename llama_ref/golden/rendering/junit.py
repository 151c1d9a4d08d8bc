"""The report as JUnit XML, which build servers show: a suite for each case, a test for each tap.

A tap that fails is a failure; one that only inherits an error, or was not dumped, is skipped; a
warning passes and says so.
The verdict itself is a test as well, so that its explanation is the first thing shown.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET

from llama_ref.errors import printable
from llama_ref.golden.rendering.terms import in_words, number, place, rho_of
from llama_ref.golden.report import FAIL, INHERITS, WARN, Report, Row


def junit_xml(report: Report) -> str:
    """Return the document.

    Parameters
    ----------
    report : Report

    Returns
    -------
    str
        To be written as UTF-8. XML has no way to hold control characters: they are escaped.
    """
    root = ET.Element("testsuites", name="llama-ref golden check", time=f"{report.seconds:.3f}")
    _add_verdict(root, report)
    cases = list(dict.fromkeys([*(row.case for row in report.rows), *report.absent]))
    for case in cases:
        _add_case(root, report, case)
    for count in ("tests", "failures", "skipped"):
        root.set(count, str(sum(int(suite.get(count, "0")) for suite in root)))
    ET.indent(root)
    body = ET.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{body}\n'


def _add_verdict(root: ET.Element, report: Report) -> None:
    suite = _suite(root, "verdict", n_tests=1, n_failures=int(report.verdict == FAIL))
    test = _test(suite, "verdict", report.candidate)
    lines = [report.explanation]
    if report.cause:
        lines.append(f"cause: {report.cause.id} ({report.confidence}), {report.cause.explanation}")
    if report.verdict == FAIL:
        _add_failure(test, report.headline, lines)
    else:
        ET.SubElement(test, "system-out").text = _joined([report.headline, *lines])


def _add_case(root: ET.Element, report: Report, case: str) -> None:
    rows = [row for row in report.rows if row.case == case]
    absent = report.absent.get(case, [])
    n_failures = sum(row.status == FAIL for row in rows)
    n_skipped = len(absent) + sum(row.status == INHERITS for row in rows)
    suite = _suite(root, case, len(rows) + len(absent), n_failures, n_skipped)
    for row in rows:
        test = _test(suite, case, row.tap)
        if row.status == FAIL:
            first = "first wrong tap, " if report.first == (row.case, row.tap) else ""
            _add_failure(test, f"{first}{_ratios(row)}", _details(row))
        elif row.status == WARN:
            ET.SubElement(test, "system-out").text = _joined(["warning", _ratios(row)])
        elif row.status == INHERITS:
            ET.SubElement(test, "skipped", message=f"its inputs are wrong: {_ratios(row)}")
    for tap in absent:
        test = _test(suite, case, tap)
        ET.SubElement(test, "skipped", message="the candidate has not got this tap")


def _ratios(row: Row) -> str:
    local, summed = number(rho_of(row, "local")), number(rho_of(row, "cumulative"))
    return f"{local} x the worst legal error by this op alone, {summed} x in sum"


def _details(row: Row) -> list[str]:
    at = place(row)
    return [in_words(row.tap), f"largest error at {at}" if at else ""]


def _suite(
    root: ET.Element, name: str, n_tests: int, n_failures: int, n_skipped: int = 0
) -> ET.Element:
    suite = ET.SubElement(root, "testsuite", name=printable(name))
    suite.set("tests", str(n_tests))
    suite.set("failures", str(n_failures))
    suite.set("errors", "0")
    suite.set("skipped", str(n_skipped))
    return suite


def _test(suite: ET.Element, case: str, name: str) -> ET.Element:
    return ET.SubElement(suite, "testcase", classname=printable(case), name=printable(name))


def _add_failure(test: ET.Element, message: str, lines: list[str]) -> None:
    failure = ET.SubElement(test, "failure", message=printable(message))
    failure.text = _joined(lines)


def _joined(lines: list[str]) -> str:
    return "\n".join(printable(line) for line in lines if line)
