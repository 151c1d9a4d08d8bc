"""Ratios over many powers of ten: a log axis, seven levels of colour, and long axes folded.

A right port lies between 0 and 1, a wrong one anywhere up to infinity. What is not a number is
drawn as the worst there is, never left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from llama_ref.golden.report import FAIL_AT, WARN_AT

FLOOR = 0.1
"""Ratios below are drawn here: how much better than legal a port is matters to no one."""

LEGAL = ((1.0, "as legal rounding"), (WARN_AT, "still legal"), (FAIL_AT, "warned about"))
N_WRONG = 4
"""Levels of colour beyond the gate."""


@dataclass(frozen=True)
class Palette:
    """Seven levels of colour, the classes v0 to v6 of the page: three to the gate, four beyond.

    Attributes
    ----------
    edges : tuple of float
        Where each level ends and the next begins; the last has no end.
    """

    edges: tuple[float, ...] = (1.0, WARN_AT, FAIL_AT, 10.0, 100.0, 1000.0)

    @classmethod
    def over(cls, ratios: Iterable[float | None]) -> Palette:
        """Return levels that a chart makes use of up to its largest ratio.

        Examples
        --------
        >>> Palette.over([500_000.0]).edges
        (1.0, 2.0, 3.0, 30.0, 700.0, 20000.0)
        """
        finite = [r for r in ratios if r is not None and math.isfinite(r)]
        power = max(1.0, math.log10(max([*finite, 1.0])) / N_WRONG)
        beyond = [float(f"{10.0 ** (power * i):.0e}") for i in range(1, N_WRONG)]
        return cls((*(top for top, _ in LEGAL), *beyond))

    def level(self, rho: float | None) -> str:
        """Return the class of a ratio; what is not a number is as bad as can be.

        Examples
        --------
        >>> [Palette().level(rho) for rho in (0.9, 2.5, 812.0, math.inf, math.nan, None)]
        ['v0', 'v2', 'v5', 'v6', 'v6', 'none']
        """
        if rho is None:
            return "none"
        return f"v{next((i for i, edge in enumerate(self.edges) if rho < edge), len(self.edges))}"

    @property
    def names(self) -> list[str]:
        """What each level holds, in words."""
        legal = [f"to {edge:g}: {meaning}" for edge, meaning in LEGAL]
        first, *more = (f"to {edge:,.0f}" for edge in self.edges[len(LEGAL) :])
        return [*legal, f"{first}: wrong", *more, "above"]


@dataclass(frozen=True)
class LogAxis:
    """Ratios from `FLOOR` to a power of ten above the largest, on pixels from `start` to `end`.

    Attributes
    ----------
    top : float
        The ratio drawn at `end`.
    start, end : float
        Pixels; of a vertical axis the start is the larger.
    """

    top: float
    start: float
    end: float

    @classmethod
    def over(cls, ratios: Iterable[float | None], start: float, end: float) -> LogAxis:
        """Return the axis that holds these ratios, and the gates with room above them."""
        finite = [r for r in ratios if r is not None and math.isfinite(r)]
        largest = max([*finite, FAIL_AT])
        return cls(10.0 ** max(1, math.ceil(math.log10(1.3 * largest))), start, end)

    def at(self, rho: float) -> float:
        """Return the pixel of a ratio; infinity and what is not a number lie at the end."""
        if not math.isfinite(rho):
            return self.end
        share = math.log10(max(rho, FLOOR) / FLOOR) / math.log10(self.top / FLOOR)
        return self.start + min(share, 1.0) * (self.end - self.start)

    @property
    def ticks(self) -> list[float]:
        """At most seven powers of ten."""
        low, high = round(math.log10(FLOOR)), round(math.log10(self.top))
        step = max(1, math.ceil((high - low) / 6))
        return [10.0**power for power in range(low, high + 1, step)]


@dataclass(frozen=True)
class Bin:
    """Neighbours on a long axis, drawn as one: indexes from `lo` up to `hi`, and their worst."""

    lo: int
    hi: int
    value: float

    @property
    def name(self) -> str:
        """The index, or the first and the last."""
        return str(self.lo) if self.hi - self.lo == 1 else f"{self.lo} to {self.hi - 1}"


def bins(values: Sequence[float], most: int) -> list[Bin]:
    """Return values in at most so many groups of neighbours, each with its largest.

    Examples
    --------
    >>> bins([1.0, 5.0, 2.0], most=2)
    [Bin(lo=0, hi=2, value=5.0), Bin(lo=2, hi=3, value=2.0)]
    """
    size = max(1, math.ceil(len(values) / most))
    return [
        Bin(lo, min(lo + size, len(values)), largest(values[lo : lo + size]))
        for lo in range(0, len(values), size)
    ]


def largest(values: Iterable[float]) -> float:
    """Return the largest value; what is not a number is larger than any."""
    return max(values, key=lambda value: math.inf if math.isnan(value) else value)
