"""HTML and SVG from Python, escaped by construction: text is text unless it is `Markup`.

    tag("p", "a < b", class_="note")    ->    <p class="note">a &lt; b</p>

Names in a candidate are foreign. Whatever they hold becomes visible characters of the page, and
none of it an element, an attribute, or a control character.
"""

from __future__ import annotations

import html

from llama_ref.errors import printable

VOID = {"meta", "br"}


class Markup(str):
    """Text that is markup already, and not escaped again."""


Child = str | int | None
"""Text, `Markup`, a number, or nothing."""


def text(value: object) -> Markup:
    r"""Return foreign text, escaped for HTML.

    Examples
    --------
    >>> text("<b>\x1b[31m")
    '&lt;b&gt;\\x1b[31m'
    """
    return Markup(html.escape(printable(str(value))))


def join(*parts: Child) -> Markup:
    """Return parts one after the other: text escaped, markup as it is, None left out."""
    return Markup(
        "".join(
            part if isinstance(part, Markup) else text(part) for part in parts if part is not None
        )
    )


def tag(element: str, /, *children: Child, **attributes: object) -> Markup:
    """Return one element.

    Parameters
    ----------
    element : str
        Its name.
    *children : str, Markup, int or None
        Its content, as for `join`.
    **attributes
        `class_` stands for `class`, `stroke_width` for `stroke-width`. None and False leave an
        attribute out, True gives it no value, a float is written with one decimal.

    Examples
    --------
    >>> tag("p", "a < b", tag("br"), class_="note", hidden=False)
    '<p class="note">a &lt; b<br></p>'
    """
    head = "".join(
        f" {_attribute(key, value)}"
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    opening = f"<{element}{head}>"
    return Markup(opening if element in VOID else f"{opening}{join(*children)}</{element}>")


def _attribute(key: str, value: object) -> str:
    name = key.rstrip("_").replace("_", "-")
    if value is True:
        return name
    shown = f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else text(value)
    return f'{name}="{shown}"'


def with_code(sentences: str) -> Markup:
    """Return sentences with what stands between two backticks as code.

    Examples
    --------
    >>> with_code("reads `type`, not <b>")
    'reads <code>type</code>, not &lt;b&gt;'
    """
    parts = sentences.split("`")
    if len(parts) % 2 == 0:  # a lone one
        return text(sentences)
    return join(*(tag("code", part) if i % 2 else text(part) for i, part in enumerate(parts)))


def scrolled(content: Markup, about: str) -> Markup:
    """Return wide content in a box that scrolls by itself, with the keyboard too."""
    return tag("div", content, class_="scroll", tabindex=0, role="region", aria_label=about)


def bullets(items: list[Markup], style: str | None = None) -> Markup:
    """Return a list."""
    return tag("ul", *(tag("li", item) for item in items), class_=style)


def section(heading: str, *content: Child, name: str, lead: str | None = None) -> Markup:
    """Return a section of the page: its heading, a line that says what is seen, the content."""
    return tag(
        "section",
        tag("h2", heading, id=f"{name}-heading"),
        tag("p", lead, class_="lead") if lead else None,
        *content,
        id=name,
        aria_labelledby=f"{name}-heading",
    )


def card(heading: Child, *content: Child, style: str = "") -> Markup:
    """Return a framed piece of text."""
    return tag("div", tag("h3", heading), *content, class_=f"card {style}".rstrip())
