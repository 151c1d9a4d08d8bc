"""The few shapes that the charts are made of. Colours and fonts are the style sheet's."""

from __future__ import annotations

from llama_ref.golden.rendering.markup import Child, Markup, bullets, join, tag
from llama_ref.golden.rendering.scales import FLOOR, LogAxis, Palette


def drawing(width: float, height: float, *children: Child, kind: str, about: str) -> Markup:
    """Return a drawing of so many pixels; `kind` is its class, `about` is read out for it."""
    return tag(
        "svg",
        *children,
        viewBox=f"0 0 {width:.0f} {height:.0f}",
        width=f"{width:.0f}",
        class_=kind,
        role="img",
        aria_label=about,
    )


def words(text: str, x: float, y: float, style: str = "small", anchor: str = "start") -> Markup:
    """Return text that starts, ends or has its middle at a point of its base line."""
    return tag("text", text, x=float(x), y=float(y), class_=style, text_anchor=anchor)


def path(d: str, style: str, hint: str | None = None) -> Markup:
    """Return a line; the hint is shown when it is pointed at."""
    return tag("path", _hint(hint), d=d, class_=style)


def across(y: float, left: float, right: float, style: str) -> Markup:
    """Return a horizontal line."""
    return path(f"M{left:.1f} {y:.1f}H{right:.1f}", style)


def box(
    x: float, y: float, width: float, height: float, style: str, hint: str | None = None
) -> Markup:
    """Return a rectangle; the hint is shown when it is pointed at."""
    return tag(
        "rect",
        _hint(hint),
        x=float(x),
        y=float(y),
        width=float(width),
        height=float(height),
        class_=style,
    )


def upright_bar(
    rho: float, x: float, width: float, axis: LogAxis, palette: Palette, hint: str
) -> Markup:
    """Return a bar that stands on the start of an upright axis; the smallest can still be seen."""
    top = axis.at(max(rho, 1.3 * FLOOR))
    return box(x + 0.5, top, max(1.0, width - 1.0), axis.start - top, palette.level(rho), hint)


def lying_bar(
    rho: float, y: float, height: float, axis: LogAxis, palette: Palette, hint: str
) -> Markup:
    """Return a bar that lies from the start of a horizontal axis."""
    end = axis.at(max(rho, 1.3 * FLOOR))
    return box(axis.start, y, end - axis.start, height, palette.level(rho), hint)


def _hint(text: str | None) -> Markup | None:
    return tag("title", text) if text else None


def colours(palette: Palette, *more: Markup) -> Markup:
    """Return the legend of a chart: what each colour means, and more."""
    patches = [
        join(tag("span", class_=f"patch v{i}"), name) for i, name in enumerate(palette.names)
    ]
    return bullets([*patches, *more], "legend")
