"""The page says what the report says, whatever is in it, and needs nothing but itself."""

import base64
import hashlib
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files

import pytest

from llama_ref.cli.terminal import UNSAFE
from llama_ref.golden.rendering import html_page
from llama_ref.golden.rendering.diagram import BOXES, EDGES
from llama_ref.golden.rendering.scales import LogAxis, Palette, bins
from llama_ref.golden.rendering.terms import MEANING, next_step, number
from llama_ref.golden.report import Report
from llama_ref.golden.taps import KINDS, kind_of
from llama_ref.trace import tap_names
from tests.golden import reports


class Reader(HTMLParser):
    """Reads a page strictly: elements are closed in order; keeps all text and attributes."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"{tag} has an attribute twice"
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)


def read(page):
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


def shown(page):
    """Return the words of a page, titles that appear on pointing included."""
    return " ".join(read(page).text)


@pytest.fixture(params=reports.ALL)
def report(request):
    return reports.ALL[request.param]()


def test_page_is_well_formed_and_loads_nothing(report):
    """Every element of a page is closed, none runs or fetches anything, no id is used twice."""
    page = html_page(report)
    assert page.startswith("<!doctype html>\n<html")
    elements = read(page).elements
    assert not {tag for tag, _ in elements} & {
        "script", "link", "img", "iframe", "object", "embed", "form", "base", "image", "use", "a",
        "foreignobject", "video", "audio", "source", "animate", "set",
    }  # fmt: skip
    for tag, attributes in elements:
        for name, value in attributes.items():
            assert not name.startswith("on"), f"{tag} {name}"
            assert name not in ("href", "src", "srcset", "style", "action", "xlink:href"), tag
            assert "http:" not in (value or "") and "https:" not in (value or "")
    ids = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in elements:
        assert attributes.get("aria-labelledby", ids[0]) in ids


def test_policy_allows_the_style_sheet_of_the_page_and_nothing_else(report):
    """The hash in the policy is that of the style element; everything else is forbidden."""
    page = html_page(report)
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)[1]
    policies = [a["content"] for _, a in read(page).elements if "http-equiv" in a]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    expected = (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    assert policies == [expected]
    assert not re.search(r"url\(|@import|@font-face|https?:", style)


def test_style_sheet_is_part_of_the_package():
    """The style sheet is found beside the modules, dark and narrow and print included."""
    style = files("llama_ref.golden.rendering").joinpath("page.css").read_text(encoding="utf-8")
    for query in ("prefers-color-scheme: dark", "max-width: 820px", "@media print"):
        assert query in style
    assert style.count("{") == style.count("}")


def test_every_class_of_a_drawing_has_a_style():
    """A class that Python puts on a page is one that the style sheet knows, with few exceptions."""
    style = files("llama_ref.golden.rendering").joinpath("page.css").read_text(encoding="utf-8")
    used = {
        name
        for make in reports.ALL.values()
        for _, attributes in read(html_page(make())).elements
        for name in (attributes.get("class") or "").split()
    }
    used = {name for name in used if re.fullmatch("[a-z][a-z0-9-]*", name)}
    unstyled = {name for name in used if f".{name}" not in style}
    assert unstyled <= {"op", "sample", "fixed", "certain", "narrow"}


def test_verdict_cause_and_explanations_are_on_the_page():
    """The page of a failure has its headline, cause, both sentences, confidence and runner-up."""
    report = reports.certain()
    text = shown(html_page(report))
    for part in (report.headline, report.cause.title, report.cause.id, report.cause.explanation,
                 "certain", report.runner_up.id, "0.93", "212", "the queries, turned by RoPE",
                 *report.notes, *(u.name for u in report.unmatched), next_step(report),
                 *report.why.values()):  # fmt: skip
        assert part in text
    assert text.count(report.cause.explanation) == 1


@pytest.mark.parametrize("make", [reports.certain, reports.passing, reports.without_cause])
def test_numbers_on_the_page_are_those_of_the_report(make):
    """The row of each tap holds the ratios and errors of the report, and so does its cell."""
    report = make()
    page = html_page(report)
    table = page[page.index('<section id="numbers"') :]
    lines = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", line) for line in table.split("<tr>")[2:]]
    assert len(lines) == len(report.rows)
    for cells, row in zip(lines, report.rows, strict=True):
        ratios = [number(row.local.rho), number(row.cumulative.rho)]
        errors = [row.local_error, row.envelope_local, row.cumulative_error]
        assert cells[:8] == [row.tap, row.case, row.status, *ratios, *map(number, errors)]
    hints = {a["title"] for tag, a in read(page).elements if tag == "td" and "title" in a}
    for row in report.rows:
        hint = f"{row.tap}: {number(row.local.rho)} × the worst legal error"
        assert any(found.startswith(hint) for found in hints)


def test_map_holds_every_number_of_the_profile():
    """Each token and head is a cell with its number and position; bars have theirs."""
    report = reports.certain()
    profile, text = report.profile, shown(html_page(report))
    for t, position in enumerate(profile.positions):
        assert f"token {t}, position {position}: {number(profile.by_token[t])}" in text
        for n, value in enumerate(profile.token_by_head[t]):
            assert f"token {t}, position {position}, head {n}: {number(value)}" in text
    for c, value in enumerate(profile.by_channel):
        assert f"channel {c}: {number(value)}" in text


def test_long_axes_are_folded_by_their_worst():
    """Of 5000 tokens, 128 heads and 16384 channels the page draws fewer, and the worst survives."""
    n_tokens, n_heads = 5000, 128
    row = [0.5] * n_heads
    heads = [row] * 4321 + [[0.5] * 77 + [987.0] + [0.5] * 50] + [row] * (n_tokens - 4322)
    profile = replace(
        reports.profile(), by_token=[0.5] * 4321 + [987.0] + [0.5] * (n_tokens - 4322),
        positions=list(range(n_tokens)), by_head=[0.5] * 77 + [987.0] + [0.5] * 50,
        by_channel=[0.5] * 16383 + [654.0], token_by_head=heads,
    )  # fmt: skip
    page = html_page(replace(reports.certain(), profile=profile))
    text = shown(page)
    assert re.search(r"token 4293 to 4345, position 4293 to 4345, head 76 to 77: 987", text)
    assert "channel 16320 to 16383: 654" in text
    assert page.count("<rect") < 9000


def test_first_wrong_tap_is_marked_in_every_drawing():
    """The diagram, the depth curve and the grid each mark the first wrong tap, once."""
    page = html_page(reports.certain())
    assert page.count('class="wrong first"') == 1
    assert len(re.findall(r'<td class="v\d first"', page)) == 1
    assert "first wrong: L00.q_rope" in shown(page)


def test_grid_of_a_fingerprint_shows_errors_in_sum():
    """Without replay the page shows cumulative ratios, and does not call their heirs wrong."""
    report = reports.fingerprint()
    page = html_page(report)
    text = shown(page)
    assert "this candidate cannot be replayed op by op" in text
    assert "1 wrong, 179 inheriting of 275 taps" in text
    assert "by this op alone" not in text
    assert "full bundle" in next_step(report)


def test_deep_models_fold_the_curve_and_the_cells():
    """With 32 layers a layer is a step of the curve, and cells are coloured without numbers."""
    page = html_page(reports.deep())
    assert 'class="grid narrow"' in page
    assert 'class="grid thin"' in html_page(reports.deep(126))
    curves = [
        attributes["d"]
        for tag, attributes in read(page).elements
        if tag == "path" and attributes["class"] == "line" and attributes["d"].count("L") > 1
    ]
    assert [curve.count("L") for curve in curves] == [32 + 2] * len(reports.WHY)


def test_foreign_text_is_only_ever_text():
    """Nothing in a name becomes an element, an attribute, or a control character."""
    page = html_page(reports.hostile())
    assert not UNSAFE.search(page)
    assert "\ud800" not in page
    page.encode("utf-8")
    reader = read(page)
    assert "script" not in {tag for tag, _ in reader.elements}
    assert "alert(1)" not in {name for _, a in reader.elements for name in a}
    assert "<script>alert(1)</script>\\x1b[31m\\x00" in "".join(reader.text)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 0.0, 1e300, -1.0])
def test_odd_numbers_have_a_place(bad):
    """No ratio, however odd, puts a coordinate off the page or NaN into a drawing."""
    report = reports.certain()
    profile = replace(
        report.profile, by_token=[bad] * 64, by_head=[bad] * 8, by_channel=[bad] * 32,
        token_by_head=[[bad] * 8] * 64,
    )  # fmt: skip
    ratios = reports.Ratios(bad, bad, bad, bad, bad)
    rows = [replace(row, local=ratios, cumulative=ratios) for row in report.rows]
    cause = replace(report.cause, residual=bad)
    page = html_page(replace(report, rows=rows, profile=profile, cause=cause))
    for tag, attributes in read(page).elements:
        for name in ("x", "y", "width", "height", "cx", "cy", "d", "viewBox"):
            value = attributes.get(name) or ""
            assert "nan" not in value and "inf" not in value, f"{tag} {name}={value}"
            assert name in ("d", "viewBox") or not value or -1 <= float(value) < 2000


def test_empty_report_is_a_page():
    """A report of nothing is a page."""
    report = Report("pass", "Nothing was compared.", "bundle", "candidate", "float32")
    assert "Nothing was compared." in shown(html_page(report))


def test_every_kind_of_tap_has_words_and_a_box():
    """Taps, their words and the boxes of the diagram are the same set in the same order."""
    assert list(MEANING) == list(KINDS) == list(BOXES) == [kind_of(tap) for tap in tap_names(1)]
    assert {name for edge in EDGES for name in edge[:2]} == set(KINDS)
    for source, target, x in EDGES:
        for name in (source, target):
            _, left, width, _ = BOXES[name]
            assert left < x < left + width
        assert BOXES[source][0] < BOXES[target][0]


def test_levels_change_at_the_gates():
    """Colour changes at 1, 2, 3 and powers of ten: what reaches a gate is beyond it."""
    edges, level = Palette().edges, Palette().level
    assert edges == (1.0, 2.0, 3.0, 10.0, 100.0, 1000.0)
    assert [level(math.nextafter(edge, 0.0)) for edge in edges] == [f"v{i}" for i in range(6)]
    assert [level(edge) for edge in edges] == [f"v{i + 1}" for i in range(6)]


@pytest.mark.parametrize("largest", [0.0, 2.5, 1e3, 1e6, 1e12, 1e300])
def test_levels_reach_to_the_largest(largest):
    """Whatever the largest ratio, the gates stay, levels rise, and the last is made use of."""
    palette = Palette.over([0.5, largest, math.nan, math.inf, None])
    assert palette.edges[:3] == (1.0, 2.0, 3.0)
    assert list(palette.edges) == sorted(set(palette.edges))
    assert len(palette.names) == 7
    assert palette.level(largest) == ("v6" if largest >= 1e3 else Palette().level(largest))


def test_axis_is_logarithmic_and_holds_everything():
    """Each power of ten is as long as the next; what is too small or too large is at an end."""
    axis = LogAxis.over([0.5, 812.0, math.nan, None], 200.0, 0.0)
    assert axis.top == 10_000.0
    assert [axis.at(10.0**p) for p in range(-1, 5)] == pytest.approx([200, 160, 120, 80, 40, 0])
    assert (axis.at(0.0), axis.at(-5.0), axis.at(1e9), axis.at(math.nan)) == (
        200.0,
        200.0,
        0.0,
        0.0,
    )
    assert len(LogAxis.over([1e300], 0, 100).ticks) <= 8


def test_bins_keep_order_and_the_worst():
    """Groups are neighbours, cover everything once, and hold the largest or what is no number."""
    values = [float(i % 7) for i in range(100)]
    groups = bins(values, 9)
    assert len(groups) <= 9
    assert [i for g in groups for i in range(g.lo, g.hi)] == list(range(100))
    assert all(g.value == max(values[g.lo : g.hi]) for g in groups)
    assert math.isnan(bins([1.0, math.nan, math.inf], 1)[0].value)
    assert bins([], 5) == []
