"""What was seen of one implementation: how many taps, how many beyond the gates, the worst."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from llama_ref.golden.report import FAIL, INHERITS, WARN, Report


@dataclass
class Tally:
    """What was seen of one implementation, over all its cases and seeds.

    Attributes
    ----------
    name : str
    precision : str
        The class of rounding it is judged by.
    n_taps, n_failed, n_warned : int
        All 0 where nothing is to pass or to fail. Failed are those that inherit a failure as well,
        and tokens whose choice is another one although the truth leads by more than legal rounding
        can move.
    local, cumulative : tuple of (float, str)
        The largest rho of a single step and of everything up to one, and where it is.
    """

    name: str
    precision: str
    n_taps: int = 0
    n_failed: int = 0
    n_warned: int = 0
    local: tuple[float, str] = (0.0, "")
    cumulative: tuple[float, str] = (0.0, "")

    def add(self, where: str, local: float, cumulative: float) -> None:
        """Remember the rho of one tap, NaN where there is none, if they are the worst so far.

        Examples
        --------
        >>> tally = Tally("mine", "float32")
        >>> tally.add("far/L00.q", 1.5, 0.5)
        >>> tally.add("far/L00.k", 1.25, float("nan"))
        >>> tally.local, tally.cumulative
        ((1.5, 'far/L00.q'), (0.5, 'far/L00.q'))
        """
        self.local = max(self.local, (-1.0 if math.isnan(local) else local, where))
        self.cumulative = max(
            self.cumulative, (-1.0 if math.isnan(cumulative) else cumulative, where)
        )

    def add_report(self, report: Report, seed: int) -> None:
        """Add what a check found."""
        for row in report.rows:
            rhos = (r.rho if r is not None else math.nan for r in (row.local, row.cumulative))
            self.add(f"{row.case}/{row.tap} seed {seed}", *rhos)
        statuses = [row.status for row in report.rows]
        self.n_taps += len(statuses)
        self.n_failed += statuses.count(FAIL) + statuses.count(INHERITS)
        self.n_failed += sum(one.n_decided - one.n_decided_same for one in report.logits)
        self.n_warned += statuses.count(WARN)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        worst = {
            name: {"rho": str(rho) if math.isinf(rho) else round(rho, 3), "where": where}
            for name, (rho, where) in (("local", self.local), ("cumulative", self.cumulative))
        }
        counts = {"taps": self.n_taps, "failed": self.n_failed, "warned": self.n_warned}
        named = {"implementation": self.name, "class": self.precision}
        return named | (counts if self.n_taps else {}) | worst
