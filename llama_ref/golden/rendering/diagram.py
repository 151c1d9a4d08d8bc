"""One layer as a drawing, top to bottom, each op with its verdict; the first wrong one stands out.

At the left runs the hidden state, to which attention and feed-forward add; above the layer stands
the embedding, below it the head. `docs/architecture.md` draws the same dataflow.
"""

from __future__ import annotations

from collections.abc import Mapping

from llama_ref.golden.rendering.markup import Markup, bullets, join, tag
from llama_ref.golden.rendering.svg import box, drawing, path, words
from llama_ref.golden.rendering.terms import MEANING, number, rho_of, short, standing
from llama_ref.golden.report import Row

WIDTH, PITCH, HEIGHT, TRUNK = 456, 40, 28, 24
SIGNS = {"right": "✓", "odd": "▲", "wrong": "✕", "inherits": "↓", "absent": "·"}
STANDINGS = {
    "right": "within legal rounding",
    "odd": "warned about",
    "wrong": "wrong",
    "inherits": "its inputs are wrong already",
    "absent": "not compared",
}

BOXES = {
    "embed": (0, 4, 386, "rows of the embedding"),
    "attn_norm": (1, 60, 330, "RMS norm"),
    "q": (2, 60, 106, ""),
    "k": (2, 172, 106, ""),
    "v": (2, 284, 106, ""),
    "q_rope": (3, 60, 106, ""),
    "k_rope": (3, 172, 106, ""),
    "scores": (4, 60, 218, "q · k / √H"),
    "probs": (5, 60, 218, "softmax"),
    "ctx": (6, 60, 330, "probs · values"),
    "attn_out": (7, 60, 330, "linear"),
    "ffn_inp": (8, 4, 386, "hidden + attention"),
    "ffn_norm": (9, 60, 330, "RMS norm"),
    "gate": (10, 60, 162, ""),
    "up": (10, 228, 162, ""),
    "act": (11, 60, 330, "silu(gate) · up"),
    "ffn_out": (12, 60, 330, "linear"),
    "out": (13, 4, 386, "hidden + feed-forward"),
    "final_norm": (14, 4, 386, "RMS norm"),
    "logits": (15, 4, 386, "linear"),
}
"""Row, left edge, width and formula of each box."""

LANES = {"q": 113, "k": 225, "v": 337, "gate": 141, "up": 309}
MIDDLE = 225
EDGES = (
    ("embed", "ffn_inp", TRUNK),
    ("embed", "attn_norm", MIDDLE),
    *(("attn_norm", name, LANES[name]) for name in "qkv"),
    ("q", "q_rope", LANES["q"]),
    ("k", "k_rope", LANES["k"]),
    ("q_rope", "scores", LANES["q"]),
    ("k_rope", "scores", LANES["k"]),
    ("scores", "probs", 169),
    ("probs", "ctx", 169),
    ("v", "ctx", LANES["v"]),
    ("ctx", "attn_out", MIDDLE),
    ("attn_out", "ffn_inp", MIDDLE),
    ("ffn_inp", "out", TRUNK),
    ("ffn_inp", "ffn_norm", MIDDLE),
    *(("ffn_norm", name, LANES[name]) for name in ("gate", "up")),
    *((name, "act", LANES[name]) for name in ("gate", "up")),
    ("act", "ffn_out", MIDDLE),
    ("ffn_out", "out", MIDDLE),
    ("out", "final_norm", TRUNK),
    ("final_norm", "logits", TRUNK),
)
"""From the bottom of one box to the top of another, at an abscissa."""


def diagram(
    rows: Mapping[str, Row], measure: str, first: tuple[str, str] | None, title: str
) -> Markup:
    """Return the drawing.

    Parameters
    ----------
    rows : mapping of str to Row
        What is known of each kind of tap.
    measure : {"local", "cumulative"}
        Which ratio the boxes show.
    first : tuple of (case, tap) or None
        What is wrong first.
    title : str
        Of the frame around the layer.
    """
    return drawing(
        WIDTH,
        _top(16),
        box(50, _top(1) - 19, 348, 13 * PITCH + 12, "frame"),
        words(title, 392, _top(1) - 6, "small", "end"),
        *(_edge(*edge) for edge in EDGES),
        *(_op(kind, rows.get(kind), measure, first) for kind in BOXES),
        kind="diagram",
        about="The ops of one layer in dataflow order, each with its verdict",
    )


def legend() -> Markup:
    """Return what the signs in the boxes mean."""
    items = [
        join(tag("span", SIGNS[name], class_=f"sign {name}"), meaning)
        for name, meaning in STANDINGS.items()
    ]
    return bullets(items, "legend")


def _top(row: int) -> int:
    """Return the upper edge of a row; the layer stands apart, for its title."""
    return 8 + row * PITCH + (16 if row > 0 else 0)


def _edge(source: str, target: str, x: int) -> Markup:
    start, end = _top(BOXES[source][0]) + HEIGHT, _top(BOXES[target][0])
    return path(f"M{x} {start}V{end}M{x - 3} {end - 5}L{x} {end}L{x + 3} {end - 5}", "edge")


def _op(kind: str, row: Row | None, measure: str, first: tuple[str, str] | None) -> Markup:
    """Draw one op: its sign and name at the left, its formula, its ratio at the right."""
    order, x, width, formula = BOXES[kind]
    top, state = _top(order), standing(row, first)
    is_first = row is not None and (row.case, row.tap) == first
    line = top + 18
    rho = rho_of(row, measure) if row else None
    where = f"{row.tap}, case {row.case}: {number(rho)} × the worst legal error, " if row else ""
    parts = [
        tag("title", f"{MEANING[kind]}: {where}{STANDINGS[state]}"),
        box(x, top, width, HEIGHT, "op"),
        words(f"{SIGNS[state]} {kind}", x + 7, line, "name"),
        words(formula, x + width / 2 + (14 if width < 200 else 8), line, "formula", "middle"),
        words(short(rho) if row else "", x + width - 7, line, "ratio", "end"),
    ]
    if is_first:
        parts.append(words("◀ first", 402, line - 5, "flag"))
        parts.append(words("wrong", 415, line + 8, "flag"))
    return tag("g", *parts, class_=f"{state} first" if is_first else state)
