"""Every tap of a case at once: rows are the ops in dataflow order, columns the layers.

A mistake of one op is a dark row, one of a layer's weights a dark column.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

from llama_ref.golden.rendering.markup import Markup, join, scrolled, tag
from llama_ref.golden.rendering.scales import Palette
from llama_ref.golden.rendering.svg import colours
from llama_ref.golden.rendering.terms import (
    MEANING,
    count,
    measure_of,
    number,
    rho_of,
    short,
    standing,
)
from llama_ref.golden.report import FAIL, Report, Row
from llama_ref.golden.taps import KINDS, kind_of, layer_of, tap_name
from llama_ref.trace import LAYER_TAPS

MOST_CELLS = 12_000
"""Beyond so many, further cases are counted and not drawn."""
MOST_NUMBERS = 10
"""With more layers than this the cells are coloured and hold no numbers."""


def case_grids(report: Report) -> Markup:
    """Return a foldable grid for each case, those with findings first, the first one open."""
    cases: dict[str, list[Row]] = {}
    for row in report.rows:
        cases.setdefault(row.case, []).append(row)
    leading = report.first[0] if report.first else None
    order = sorted(cases, key=lambda case: (case != leading, -_n_failing(cases[case])))
    measure = measure_of(report)
    palette = Palette.over(rho_of(row, measure) for row in report.rows)
    absent = join(tag("span", class_="patch none"), "not compared")
    parts: list[Markup] = []
    n_cells = 0
    for case in order:
        n_cells += len(cases[case])
        if parts and n_cells > MOST_CELLS:
            break
        parts.append(_case(case, cases[case], report, palette, is_open=not parts))
    left = len(order) - len(parts)
    more = tag("p", f"{count(left, 'more case')} not drawn.", class_="muted") if left else None
    return join(colours(palette, absent), *parts, more)


def _n_failing(rows: list[Row]) -> int:
    return sum(row.status == FAIL for row in rows)


def _case(case: str, rows: list[Row], report: Report, palette: Palette, *, is_open: bool) -> Markup:
    found = Counter(standing(row, report.first) for row in rows)
    told = [
        f"{found[state]:,} {meaning}"
        for state, meaning in (("wrong", "wrong"), ("inherits", "inheriting"), ("odd", "warned of"))
        if found[state]
    ]
    state = next((s for s in ("wrong", "inherits", "odd") if found[s]), "right")
    of = f"{', '.join(told) or 'none wrong'} of {count(len(rows), 'tap')}"
    why = report.why.get(case)
    summary = tag(
        "summary",
        tag("b", case),
        tag("span", of, class_=state),
        tag("span", why, class_="muted") if why else None,
    )
    grid = Grid({row.tap: row for row in rows}, measure_of(report), report.first, palette)
    table = scrolled(grid.table(), f"Taps of case {case} by layer")
    return tag("details", summary, table, open=is_open)


@dataclass(frozen=True)
class Grid:
    """The taps of one case, as a table.

    Attributes
    ----------
    rows : dict of str to Row
        By tap.
    measure : {"local", "cumulative"}
        Which ratio the cells show.
    first : tuple of (case, tap) or None
        The first wrong tap: it has a frame.
    palette : Palette
        Its colours, the same for all cases.
    """

    rows: dict[str, Row]
    measure: str
    first: tuple[str, str] | None
    palette: Palette

    @cached_property
    def n_layers(self) -> int:
        """How many columns there are between that of `embed` and that of the head."""
        return 1 + max((layer_of(tap) or 0 for tap in self.rows), default=0)

    @property
    def has_numbers(self) -> bool:
        """Whether there is room for them."""
        return self.n_layers <= MOST_NUMBERS

    @property
    def width(self) -> str:
        """The class of its columns."""
        return "numbered" if self.has_numbers else "narrow" if self.n_layers <= 40 else "thin"

    def table(self) -> Markup:
        """Return the table; `embed` has a column in front of the layers, the head one behind."""
        step = 5 if self.width == "thin" else 1
        layers = [str(i) if i % step == 0 else "" for i in range(self.n_layers)]
        names = ["tap \\ layer", "", *layers, ""]
        present = {kind_of(tap) for tap in self.rows}
        return tag(
            "table",
            tag("thead", tag("tr", *(tag("th", name, scope="col") for name in names))),
            tag("tbody", *(self._line(kind) for kind in KINDS if kind in present)),
            class_=f"grid {self.width}",
        )

    def _line(self, kind: str) -> Markup:
        """Return the cells of one kind of tap: in the layers, in front of them, or behind."""
        blank = tag("td")
        cells = [blank] * (self.n_layers + 2)
        if kind in LAYER_TAPS:
            cells[1:-1] = [self._cell(tap_name(layer, kind)) for layer in range(self.n_layers)]
        else:
            cells[0 if kind == "embed" else -1] = self._cell(kind)
        return tag("tr", tag("th", kind, scope="row", title=MEANING[kind]), *cells)

    def _cell(self, tap: str) -> Markup:
        row = self.rows.get(tap)
        if row is None:
            return tag("td", class_="none", title=f"{tap}: not compared")
        rho = rho_of(row, self.measure)
        is_first = self.first == (row.case, row.tap)
        level = self.palette.level(rho)
        hint = f"{tap}: {number(rho)} × the worst legal error"
        return tag(
            "td",
            short(rho) if self.has_numbers else None,
            class_=f"{level} first" if is_first else level,
            title=f"{hint}, the first that is wrong" if is_first else hint,
        )
