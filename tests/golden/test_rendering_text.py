"""The terminal, the JUnit file and the JSON say what the report says, whatever is in it."""

import io
import json
import math
import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from llama_ref.cli.golden_report import report_lines
from llama_ref.cli.terminal import UNSAFE, Paint
from llama_ref.golden.rendering import junit_xml
from llama_ref.golden.rendering.terms import next_step, number, standing
from llama_ref.golden.report import FAIL, INHERITS, WARN, LogitsSummary, Report, Row, Unmatched
from llama_ref.golden.taps import kind_of
from llama_ref.trace import tap_names
from tests.golden import reports

PLAIN = Paint(io.StringIO())


@pytest.fixture(params=reports.ALL)
def report(request):
    return reports.ALL[request.param]()


@pytest.mark.parametrize("name", ["passing", "certain", "logits-only", "fingerprint", "hostile"])
def test_junit_counts_what_the_report_counts(name):
    """Suites are the cases, failures the failing taps, skipped those not dumped or inheriting."""
    report = reports.ALL[name]()
    xml = junit_xml(report)
    root = ET.fromstring(xml.encode("utf-8"))
    n_absent = sum(map(len, report.absent.values()))
    n_skipped = n_absent + sum(row.status == INHERITS for row in report.rows)
    n_failing = sum(row.status == FAIL for row in report.rows)
    assert len(root) == 1 + len({row.case for row in report.rows} | set(report.absent))
    assert root.get("tests") == str(len(root.findall("*/testcase")))
    assert len(root.findall("*/testcase")) == 1 + len(report.rows) + n_absent
    assert len(root.findall("testsuite/testcase/failure")) == n_failing + report.exit_code
    assert root.get("failures") == str(n_failing + report.exit_code)
    assert root.get("skipped") == str(len(root.findall("*/*/skipped"))) == str(n_skipped)
    for suite in root:
        assert suite.get("tests") == str(len(suite.findall("testcase")))
        assert suite.get("failures") == str(len(suite.findall("testcase/failure")))


def test_junit_explains_the_verdict_and_the_first_wrong_tap():
    """The first test is the verdict with its cause; the first wrong tap says that it is."""
    root = ET.fromstring(junit_xml(reports.certain()).encode())
    failure = root.find("testsuite/testcase/failure")
    assert failure.get("message") == reports.certain().headline
    assert "rope-scaling-missing (certain)" in failure.text
    [marked] = [one for one in root.iter("failure") if "first wrong tap" in one.get("message")]
    rows = {(row.case, row.tap): row for row in reports.certain().rows}
    assert f"{number(rows['far', 'L00.q_rope'].local.rho)} x" in marked.get("message")


def test_junit_mentions_warnings_without_failing():
    """A warning is a passing test with a word about it."""
    report = reports.warned()
    assert [row.tap for row in report.rows if row.status == WARN] == ["L02.act"]
    root = ET.fromstring(junit_xml(report).encode())
    assert root.get("failures") == "0"
    told = [
        test.get("name") for test in root.iter("testcase") if test.find("system-out") is not None
    ]
    assert told == [report.candidate, "L02.act"]


def test_terminal_fits_80_columns_and_one_or_two_screens(report):
    """No line is longer than 80 characters, none holds a control, and there are at most 80."""
    lines = report_lines(report, PLAIN)
    assert max(map(len, lines)) <= 80
    assert not any(UNSAFE.search(line) or "\n" in line for line in lines)
    assert len(lines) <= 80


def test_terminal_says_what_the_report_says():
    """Verdict, headline, cause, confidence, rival, worst ratios and the next step are there."""
    report = reports.certain()
    text = " ".join(" ".join(report_lines(report, PLAIN)).split())
    assert text.startswith(f"FAIL {report.headline}")
    told = [report.cause.id, report.cause.explanation, "certain: it leaves 0.93", *report.notes]
    told += ["rope-factor-32 leaves 212", "far/L00.q_rope", next_step(report)]
    for part in told:
        assert part in text
    assert text.count(report.cause.explanation) == 1
    rows = [row for row in report.rows if kind_of(row.tap) == "k_rope"]
    worst = max(row.local.rho for row in rows)
    assert f"✕ k_rope {len(rows)} {number(worst)} far L00" in text


def test_terminal_folds_what_is_long():
    """Of 300 tensors, 40 cases and 3000 wrong taps a few are named, and the rest counted."""
    cases = [f"case-{i:02d}" for i in range(40)]
    errors = {(case, tap): (50.0, 50.0) for case in cases for tap in tap_names(4)}
    report = replace(
        reports.certain(), rows=reports.rows(4, cases, errors=errors),
        unmatched=[Unmatched(f"tensor.{i}", (i,), "unknown") for i in range(300)],
        absent={case: ["embed"] for case in cases},
        logits=[LogitsSummary(case, 0.1, 0.1 * i, 0.1, 1, 1, 1, 1) for i, case in enumerate(cases)],
    )  # fmt: skip
    lines = report_lines(report, PLAIN)
    text = "\n".join(lines)
    assert len(lines) <= 90
    for part in ("and 292 more tensors", "and 32 more cases", f"{40 * 71 - 8:,} more", "40 taps"):
        assert part in " ".join(text.split())
    assert "case-39" in next(lines[i + 1] for i, x in enumerate(lines) if x.startswith("logits of"))


def test_terminal_colours_only_where_it_is_wanted():
    """On a terminal the verdict is coloured; the words are the same as without colour."""
    paint = Paint(io.StringIO())
    paint.on = True
    coloured = report_lines(reports.certain(), paint)
    assert coloured[0].startswith("\x1b[")
    bare = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in coloured]
    assert bare == report_lines(reports.certain(), PLAIN)


def test_json_has_no_numbers_that_json_has_not(report):
    """The report as JSON is strict JSON, NaN and infinity included."""
    text = json.dumps(report.as_dict(), allow_nan=False)
    assert json.loads(text)["verdict"] == report.verdict


def test_empty_report_is_a_few_lines():
    """A report of nothing is a verdict, one test and a few lines."""
    report = Report("pass", "Nothing was compared.", "bundle", "candidate", "float32")
    assert ET.fromstring(junit_xml(report).encode()).get("tests") == "1"
    assert report_lines(report, PLAIN)[0] == "PASS  Nothing was compared."


def test_standing_tells_own_from_inherited_errors():
    """A tap right by itself inherits; without replay only the first wrong tap counts as wrong."""
    one, ten = reports.Ratios(1.0), reports.Ratios(10.0)
    first = ("a", "L00.q")
    assert standing(None, first) == "absent"
    assert standing(Row("a", "L00.k", "pass", one, one), first) == "right"
    assert standing(Row("a", "L00.k", WARN, one, one), first) == "odd"
    assert standing(Row("a", "L00.k", INHERITS, one, ten), first) == "inherits"
    assert standing(Row("a", "L00.k", FAIL, one, ten), first) == "inherits"
    assert standing(Row("a", "L00.k", FAIL, ten, ten), first) == "wrong"
    assert standing(Row("a", "L00.k", FAIL, reports.Ratios(math.nan), one), first) == "wrong"
    assert standing(Row("a", "L00.k", FAIL, None, ten), first) == "inherits"
    assert standing(Row("b", "L00.q", FAIL, None, ten), first) == "wrong"
    assert standing(Row("a", "L00.k", FAIL, None, ten), None) == "wrong"
