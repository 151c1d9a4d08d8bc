"""Where in the first wrong tap the error sits: by token and head, by position, by channel.

The pattern often names the mistake before any replay does: position 0 right and the rest wrong is
RoPE; one head in G right is grouping; a few channels are a gain or a frequency.
"""

from __future__ import annotations

from collections.abc import Iterator

from llama_ref.golden.rendering.markup import Markup, join, scrolled, tag
from llama_ref.golden.rendering.scales import Bin, LogAxis, Palette, bins, largest
from llama_ref.golden.rendering.svg import (
    across,
    box,
    colours,
    drawing,
    lying_bar,
    upright_bar,
    words,
)
from llama_ref.golden.rendering.terms import number
from llama_ref.golden.report import FAIL_AT, Profile

LEFT, TOP, BARS, GAP, SIDE, ROOM = 62, 20, 76, 8, 110, 48
MOST_TOKENS, MOST_HEADS, MOST_CHANNELS = 96, 64, 256


def profile_chart(profile: Profile) -> Markup:
    """Return the token × head map between its bars, and the bars of the channels."""
    cells = [value for row in profile.token_by_head for value in row]
    palette = Palette.over([*cells, *profile.by_token, *profile.by_channel])
    parts = [colours(palette)]
    if profile.by_token:
        parts.append(scrolled(TokenMap(profile, palette).draw(), "Error by token and head"))
    if profile.by_channel:
        parts.append(tag("h3", f"By {profile.last_axis}"))
        parts.append(scrolled(_channels(profile, palette), f"Error by {profile.last_axis}"))
    return join(*parts)


class TokenMap:
    """Tokens from left to right, heads from top to bottom, with bars at two sides.

    Parameters
    ----------
    profile : Profile
        Of a tap without heads only the bars of the tokens are drawn.
    palette : Palette
    """

    def __init__(self, profile: Profile, palette: Palette):
        self.profile, self.palette = profile, palette
        self.tokens = bins(profile.by_token, MOST_TOKENS)
        self.heads = bins(profile.by_head, MOST_HEADS)
        self.cell = max(9.0, min(26.0, 760 / len(self.tokens)))
        self.tall = max(7.0, min(20.0, 240 / max(1, len(self.heads))))
        self.right = LEFT + self.cell * len(self.tokens)
        self.top = TOP + BARS + GAP
        self.bottom = self.top + self.tall * len(self.heads)

    def draw(self) -> Markup:
        """Return the drawing."""
        width = self.right + (GAP + SIDE + ROOM if self.heads else GAP)
        return drawing(
            width,
            self.bottom + 76,
            words("by token", LEFT, 12),
            *self._token_bars(),
            *self._cells(),
            *self._head_bars(),
            *self._positions(),
            kind="chart fixed",
            about=f"Error of {self.profile.tap} by token and head",
        )

    def _token_bars(self) -> Iterator[Markup]:
        axis = LogAxis.over(self.profile.by_token, TOP + BARS, TOP)
        yield _gate(axis, LEFT, self.right)
        for i, token in enumerate(self.tokens):
            hint = f"{self._named(token)}: {number(token.value)}"
            x = LEFT + i * self.cell
            yield upright_bar(token.value, x, self.cell, axis, self.palette, hint)

    def _cells(self) -> Iterator[Markup]:
        """Yield the map; the worst of what is folded into a cell colours it."""
        for i, head in enumerate(self.heads):
            for j, token in enumerate(self.tokens):
                rows = self.profile.token_by_head[token.lo : token.hi]
                rho = largest(value for row in rows for value in row[head.lo : head.hi])
                x, y = LEFT + j * self.cell + 0.5, self.top + i * self.tall + 0.5
                hint = f"{self._named(token)}, head {head.name}: {number(rho)}"
                yield box(x, y, self.cell - 1, self.tall - 1, self.palette.level(rho), hint)

    def _head_bars(self) -> Iterator[Markup]:
        """Yield a bar for each head at the right of the map, and its name at the left."""
        axis = LogAxis.over(self.profile.by_head, self.right + GAP, self.right + GAP + SIDE)
        every = 1 + int(12 / self.tall)
        if self.heads:
            yield words("by head", self.right + GAP, TOP + BARS)
        for i, head in enumerate(self.heads):
            y, hint = self.top + i * self.tall, f"head {head.name}: {number(head.value)}"
            yield lying_bar(head.value, y + 0.5, self.tall - 1, axis, self.palette, hint)
            if i % every == 0:
                line = y + self.tall / 2 + 4
                yield words(f"head {head.lo}", LEFT - 5, line, "small", "end")
                yield words(number(head.value), axis.at(head.value) + 5, line)

    def _positions(self) -> Iterator[Markup]:
        """Yield the position of each token, upright, of as many as have room."""
        every = 1 + int(12 / self.cell)
        y = self.bottom + 8
        for i, token in enumerate(self.tokens):
            if i % every == 0 and token.lo < len(self.profile.positions):
                x = LEFT + (i + 0.5) * self.cell + 4
                yield tag(
                    "text",
                    self.profile.positions[token.lo],
                    transform=f"translate({x:.1f} {y:.1f}) rotate(-90)",
                    class_="small",
                    text_anchor="end",
                )
        yield words("position of each token", LEFT, self.bottom + 70)

    def _named(self, token: Bin) -> str:
        """Return which token, or tokens, and where they stand."""
        own = self.profile.positions[token.lo : token.hi]
        at = f"{own[0]} to {own[-1]}" if len(own) > 1 else str(own[0]) if own else "unknown"
        return f"token {token.name}, position {at}"


def _channels(profile: Profile, palette: Palette) -> Markup:
    """Draw a bar for each channel, or for each few."""
    groups = bins(profile.by_channel, MOST_CHANNELS)
    cell = max(3.0, min(16.0, 800 / len(groups)))
    every = 1 + int(40 / cell)
    axis = LogAxis.over(profile.by_channel, BARS + 8, 8)
    right = LEFT + cell * len(groups)
    parts = [_gate(axis, LEFT, right)]
    for i, group in enumerate(groups):
        hint = f"{profile.last_axis} {group.name}: {number(group.value)}"
        parts.append(upright_bar(group.value, LEFT + i * cell, cell, axis, palette, hint))
        if i % every == 0:
            middle = LEFT + (i + 0.5) * cell
            parts.append(words(str(group.lo), middle, BARS + 22, "small", "middle"))
    about = f"Error by {profile.last_axis}"
    return drawing(right + 12, BARS + 30, *parts, kind="chart fixed", about=about)


def _gate(axis: LogAxis, left: float, right: float) -> Markup:
    """Draw the gate over upright bars, the line they stand on, and the top of their axis."""
    gate = axis.at(FAIL_AT)
    return join(
        across(axis.start, left, right, "grid"),
        across(gate, left, right, "gate"),
        words("3 fails", left - 5, gate + 4, "small", "end"),
        words(number(axis.top), left - 5, axis.end + 5, "small", "end"),
    )
