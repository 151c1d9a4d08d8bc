"""How the error grows through the model: a line for each case over the band of legal rounding.

A right port runs along inside the band, whatever its depth, for the band grows as legal errors do.
A wrong op is a step out of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from llama_ref.golden.rendering.markup import Markup, bullets, join, scrolled, tag
from llama_ref.golden.rendering.scales import LogAxis
from llama_ref.golden.rendering.svg import across, box, drawing, path, words
from llama_ref.golden.rendering.terms import count, number, rho_of, worst
from llama_ref.golden.report import FAIL_AT, WARN_AT, Report, Row
from llama_ref.golden.taps import KINDS, kind_of, layer_of

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 1000, 320, 56, 904, 26, 278
MOST_STEPS = 120
"""With more taps than this, a layer is one step: its worst tap."""
MOST_COLOURS = 4
MOST_NAMED_LAYERS = 12
BEFORE, AFTER = -1, 10**9

Step = tuple[int, int]
"""A place in dataflow order: layer (`BEFORE` and `AFTER` outside of them), and op in it."""


def step_of(tap: str, *, by_layer: bool = False) -> Step:
    """Return where a tap stands in dataflow order, or where its layer does.

    Examples
    --------
    >>> step_of("embed") < step_of("L00.q") < step_of("L00.out") < step_of("L01.q")
    True
    """
    kind, layer = KINDS.index(kind_of(tap)), layer_of(tap)
    if layer is None:
        return (BEFORE if kind == 0 else AFTER), kind
    return layer, 0 if by_layer else kind


def depth_curve(report: Report) -> Markup | None:
    """Return the chart and its legend; None if there are not two taps to join."""
    rows = [row for row in report.rows if row.cumulative]
    curves = Curves(rows, report.first)
    return curves.draw() if len(curves.x_of) > 1 else None


class Curves:
    """The chart of some taps.

    Parameters
    ----------
    rows : list of Row
        Of any cases, each with a cumulative ratio.
    first : tuple of (case, tap) or None
        The first wrong tap, to be pointed at.
    """

    def __init__(self, rows: list[Row], first: tuple[str, str] | None):
        self.first = first
        self.by_layer = len({row.tap for row in rows}) > MOST_STEPS
        self.curves = self._curves(rows)
        steps = sorted({step for curve in self.curves.values() for step in curve})
        room = (RIGHT - LEFT - 24) / max(1, len(steps) - 1)
        self.x_of = {step: LEFT + 12 + room * i for i, step in enumerate(steps)}
        self.axis = LogAxis.over(
            (row.cumulative.rho for row in rows if row.cumulative), BOTTOM, TOP
        )
        self.coloured = self._coloured()

    def _curves(self, rows: list[Row]) -> dict[str, dict[Step, Row]]:
        """Return for each case the worst tap of each step, in order."""
        groups: dict[str, dict[Step, list[Row]]] = {}
        for row in rows:
            steps = groups.setdefault(row.case, {})
            steps.setdefault(step_of(row.tap, by_layer=self.by_layer), []).append(row)
        return {
            case: {
                step: worst(steps[step], "cumulative") or steps[step][0] for step in sorted(steps)
            }
            for case, steps in groups.items()
        }

    def _coloured(self) -> list[str]:
        """Return the cases that stand out: that of the first wrong tap, then the worst."""
        peaks = sorted(self._peaks().items(), key=lambda item: -_finite(item[1]))
        leading = [self.first[0]] if self.first and self.first[0] in self.curves else []
        return list(dict.fromkeys([*leading, *(case for case, _ in peaks)]))[:MOST_COLOURS]

    def _peaks(self) -> dict[str, Row]:
        """Return the worst tap of each case."""
        found = {
            case: worst(list(curve.values()), "cumulative") for case, curve in self.curves.items()
        }
        return {case: row for case, row in found.items() if row}

    def draw(self) -> Markup:
        """Return the chart, the coloured lines over the others, and the legend."""
        grey = [case for case in self.curves if case not in self.coloured]
        chart = drawing(
            WIDTH,
            HEIGHT,
            *_backdrop(self.axis),
            *self._layers(),
            *(self._line(case, "rest") for case in grey),
            *(self._line(case, f"k{i}") for i, case in reversed(list(enumerate(self.coloured)))),
            *self._mark(),
            kind="chart wide",
            about="Error in sum, in units of the worst legal error, over the depth of the model",
        )
        return join(scrolled(chart, "Error over depth"), self._legend(len(grey)))

    def _layers(self) -> Iterator[Markup]:
        """Yield a line where each layer begins, and the names of as many as have room."""
        begins: dict[int, float] = {}
        for (layer, _), x in self.x_of.items():
            begins.setdefault(layer, x)
        layers = [layer for layer in begins if BEFORE < layer < AFTER]
        every = 1
        while len(layers) > every * MOST_NAMED_LAYERS:
            every *= 2
        for layer, x in begins.items():
            yield path(f"M{x:.1f} {TOP}V{BOTTOM}", "grid")
            if layer == AFTER:
                yield words("head", RIGHT, BOTTOM + 16, "small", "end")
            elif layer > BEFORE and layer % every == 0 and x < RIGHT - 70:
                yield words(f"layer {layer}", x, BOTTOM + 16)
        yield words("in dataflow order →", (LEFT + RIGHT) / 2, HEIGHT - 8, "small", "middle")

    def _line(self, case: str, style: str) -> Markup:
        """Draw one case; a coloured one has a dot at each step, with a hint."""
        parts, points = [], []
        for step, row in self.curves[case].items():
            rho = rho_of(row, "cumulative")
            x, y = self.x_of[step], self.axis.at(math.nan if rho is None else rho)
            points.append(f"{x:.1f} {y:.1f}")
            hint = tag("title", f"{case}, {row.tap}: {number(rho)} × the worst legal error")
            parts.append(tag("circle", hint, cx=x, cy=y, r=2.2))
        line = path("M" + "L".join(points), "line", f"case {case}")
        return tag("g", line, *(parts if style != "rest" or len(parts) == 1 else []), class_=style)

    def _mark(self) -> Iterator[Markup]:
        """Point at the first wrong tap."""
        if self.first is None:
            return
        x = self.x_of.get(step_of(self.first[1], by_layer=self.by_layer))
        if x is not None:
            anchor = "start" if x < WIDTH / 2 else "end"
            yield path(f"M{x:.1f} {TOP - 6}V{BOTTOM}", "mark")
            yield words(f"first wrong: {self.first[1]}", x, TOP - 11, "flag", anchor)

    def _legend(self, n_grey: int) -> Markup:
        """Name the coloured cases, with how far each gets."""
        peaks = self._peaks()
        items = []
        for i, case in enumerate(self.coloured):
            reach = f"{number(rho_of(peaks[case], 'cumulative'))} at {peaks[case].tap}"
            items.append(join(_swatch(f"k{i}"), f"{case}: at most {reach}"))
        if n_grey:
            items.append(join(_swatch("rest"), count(n_grey, "other case")))
        return bullets(items, "legend")


def _swatch(style: str) -> Markup:
    line = drawing(26, 12, path("M0 6H26", "line"), kind="sample", about="")
    return tag("span", line, class_=style, aria_hidden="true")


def _finite(row: Row) -> float:
    rho = rho_of(row, "cumulative")
    return math.inf if rho is None or math.isnan(rho) else rho


def _backdrop(axis: LogAxis) -> Iterator[Markup]:
    """Yield the legal band, the zone of warnings, the gate, and the powers of ten."""
    one, warn, fail = (axis.at(rho) for rho in (1.0, WARN_AT, FAIL_AT))
    for top, bottom, name in ((one, BOTTOM, "legal"), (warn, one, "near"), (fail, warn, "warn")):
        yield box(LEFT, top, RIGHT - LEFT, bottom - top, f"band {name}")
    for tick in axis.ticks:
        y = axis.at(tick)
        name = f"{tick:,.0f}" if 1 <= tick < 1e6 else f"{tick:g}"
        yield across(y, LEFT, RIGHT, "grid")
        yield words(f"≤ {name}" if y == axis.start else name, LEFT - 6, y + 4, "small", "end")
    yield across(one, LEFT, RIGHT, "unit")
    yield across(fail, LEFT, RIGHT, "gate")
    yield words("above 3: wrong", RIGHT + 6, fail)
    yield words("1: worst legal", RIGHT + 6, one + 11)
