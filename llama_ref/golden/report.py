"""What a check found: one row for each tap, and the verdict that follows from them.

Errors are in units of the worst that legal rounding makes of the same tap at the same positions
(`rho`): 1 is what a right implementation has, 2 is warned about, 3 fails.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from llama_ref.golden.taps import BY_HEAD, kind_of

PASS, WARN, FAIL, INHERITS = "pass", "warn", "fail", "inherits"
WARN_AT, FAIL_AT = 2.0, 3.0
"""The gates: from which rho on a tap is warned about, and fails."""
LARGEST_GATE = 5.0
"""The largest single error scatters more than a mean does: it fails at 5 where others fail at 3."""


@dataclass(frozen=True)
class Ratios:
    """The error of one tap in units of its envelope, by five measures.

    Attributes
    ----------
    whole : float
        Root mean square over the tap, in the worst band of positions.
    token, head, channel : float
        The same of the worst single token, head and channel, each against the worst single one
        that legal rounding makes. `head` is nan where a tap has no heads; what only a sketch is
        known of has `whole` alone.
    largest : float
        The largest single error.
    """

    whole: float
    token: float = math.nan
    head: float = math.nan
    channel: float = math.nan
    largest: float = math.nan

    @property
    def rho(self) -> float:
        """The one number of the report: the worst measure, the largest error as its gate has it."""
        largest = self.largest * (FAIL_AT / LARGEST_GATE)
        scaled = [self.whole, self.token, self.head, self.channel, largest]
        known = [r for r in scaled if not math.isnan(r)]
        return max(known) if known else math.nan


@dataclass(frozen=True)
class Row:
    """What was found at one tap of one case.

    Attributes
    ----------
    case, tap : str
    status : {"pass", "warn", "fail", "inherits"}
        `inherits`: the step is right, and what it was taken from was not.
    local : Ratios or None
        Against the same step taken in float64 from the candidate's own inputs.
    cumulative : Ratios or None
        Against the truth.
    span : str
        From how far back the local step was taken, for want of taps in between: `op`, `attention`,
        `layer`, `model`.
    local_error, cumulative_error : float
        Relative errors (root mean square), without units.
    envelope_local, envelope_cumulative : float
        Those of legal rounding, in the band of positions that decided.
    worst_index : tuple of int
        Where the largest error is, in our axes.
    axes : str
        Their letters, `T N H`.
    """

    case: str
    tap: str
    status: str
    local: Ratios | None
    cumulative: Ratios | None
    span: str = "op"
    local_error: float = math.nan
    cumulative_error: float = math.nan
    envelope_local: float = math.nan
    envelope_cumulative: float = math.nan
    worst_index: tuple[int, ...] = ()
    axes: str = ""

    @property
    def own_rho(self) -> float:
        """The error of the step itself, up to there where nothing was replayed; 0 if unknown."""
        judged = self.local or self.cumulative
        return 0.0 if judged is None or math.isnan(judged.rho) else judged.rho


@dataclass(frozen=True)
class Profile:
    """Where in the first failing tap the error sits; each entry in units of the envelope.

    Attributes
    ----------
    case, tap : str
    by_token : list of float
        One for each of the T tokens (`positions` says where they stand).
    positions : list of int
    by_head : list of float
        Empty where the tap has no heads.
    by_channel : list of float
        One for each channel of the last axis; for each key position of scores and probabilities.
    token_by_head : list of list of float
        T rows of N heads; T rows of one number where the tap has no heads.
    """

    case: str
    tap: str
    by_token: list[float]
    positions: list[int]
    by_head: list[float]
    by_channel: list[float]
    token_by_head: list[list[float]]

    @property
    def last_axis(self) -> str:
        """What the last axis counts: `key` or `channel`."""
        return "key" if kind_of(self.tap) in BY_HEAD else "channel"


@dataclass(frozen=True)
class Suspect:
    """A mistake tried on the failing tap, and how much of the error it leaves unexplained.

    Attributes
    ----------
    id : str
        Kebab-case: `rope-scaling-missing`.
    title : str
        In a few words.
    explanation : str
        Two sentences: what the mistake is, and where such code usually has it.
    residual : float
        The rho that is left when the step is replayed with this mistake in it.
    """

    id: str
    title: str
    explanation: str
    residual: float


@dataclass(frozen=True)
class LogitsSummary:
    """What the logits of one case amount to.

    Attributes
    ----------
    case : str
    kl_mean, kl_max : float
        Kullback-Leibler divergence of the candidate from the truth, in nats, over the tokens.
    kl_legal : float
        The largest that legal rounding gives.
    n_tokens, n_same_choice : int
        At how many tokens both choose the same next one.
    n_decided, n_decided_same : int
        The same, where the truth's choice leads by more than twice the legal noise.
    """

    case: str
    kl_mean: float
    kl_max: float
    kl_legal: float
    n_tokens: int
    n_same_choice: int
    n_decided: int
    n_decided_same: int


@dataclass(frozen=True)
class Unmatched:
    """A tensor of the candidate that was not compared, and why.

    Attributes
    ----------
    name, shape, reason
    is_misfit : bool
        Whether it has the name of a tap and cannot be that tap: the dump contradicts the case.
    """

    name: str
    shape: tuple[int, ...]
    reason: str
    is_misfit: bool = False


@dataclass(frozen=True)
class Report:
    """The outcome of a check.

    Attributes
    ----------
    verdict : {"pass", "warn", "fail"}
    headline : str
        The verdict in one sentence.
    bundle, candidate : str
        What was compared, as it was named.
    precision : str
        The class of legal rounding it was judged by: `float32`, `bfloat16`, ...
    first : tuple of (case, tap) or None
        The first tap in dataflow order that is wrong by itself.
    cause : Suspect or None
        The mistake that explains it.
    confidence : {"certain", "likely", "none"}
        `certain`: this mistake brings the error back to noise wherever it should, and no other
        does. `likely`: it does, and others do as well (`also`), or it fits less well.
    is_noise : bool
        No mistake explains the error, and it has no shape: it is rounding coarser than legal.
    runner_up : Suspect or None
    also : list of Suspect
        Others that explain as much.
    explanation : str
        Some sentences for the author of the port.
    rows : list of Row
        By case, in dataflow order.
    unmatched : list of Unmatched
    absent : dict of str to list of str
        For each case that was looked at, the taps that the candidate has not got.
    notes : list of str
        What else is worth knowing, a sentence each.
    profile : Profile or None
        Of the first failing tap.
    worst : tuple of float or None
        The worst number of that tap, and what is right there.
    leads : list of str
        What its numbers say by themselves, a sentence each; part of the explanation where no
        cause is found.
    logits : list of LogitsSummary
    why : dict of str to str
        For each case, what it is for.
    seconds : float
        How long the check took.
    """

    verdict: str
    headline: str
    bundle: str
    candidate: str
    precision: str
    first: tuple[str, str] | None = None
    cause: Suspect | None = None
    confidence: str = "none"
    is_noise: bool = False
    runner_up: Suspect | None = None
    also: list[Suspect] = field(default_factory=list)
    explanation: str = ""
    rows: list[Row] = field(default_factory=list)
    unmatched: list[Unmatched] = field(default_factory=list)
    absent: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    profile: Profile | None = None
    worst: tuple[float, float] | None = None
    leads: list[str] = field(default_factory=list)
    logits: list[LogitsSummary] = field(default_factory=list)
    why: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """0 if it passes, 1 if anything is wrong; a warning is no failure."""
        return int(self.verdict == FAIL)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON: no NaN, no infinity (they become null and a string)."""
        return {
            "verdict": self.verdict,
            "headline": self.headline,
            "bundle": self.bundle,
            "candidate": self.candidate,
            "precision": self.precision,
            "first": self.first and "/".join(self.first),
            "cause": self.cause and self.cause.id,
            "confidence": self.confidence,
            "is_noise": self.is_noise,
            "residual": self.cause and _plain(self.cause.residual),
            "runner_up": self.runner_up and _suspect(self.runner_up),
            "also": [_suspect(one) for one in self.also],
            "explanation": self.explanation,
            "taps": [_row(row) for row in self.rows],
            "unmatched": [
                {
                    "name": u.name,
                    "shape": list(u.shape),
                    "reason": u.reason,
                    "is_misfit": u.is_misfit,
                }
                for u in self.unmatched
            ],
            "absent": self.absent,
            "notes": self.notes,
            "logits": [
                {key: _plain(value) for key, value in vars(one).items()} for one in self.logits
            ],
            "seconds": round(self.seconds, 3),
        }


def _suspect(suspect: Suspect) -> dict[str, Any]:
    return {"cause": suspect.id, "title": suspect.title, "residual": _plain(suspect.residual)}


def _row(row: Row) -> dict[str, Any]:
    return {
        "case": row.case,
        "tap": row.tap,
        "status": row.status,
        "span": row.span,
        "local_rho": _plain(row.local.rho) if row.local else None,
        "cumulative_rho": _plain(row.cumulative.rho) if row.cumulative else None,
        "local_error": _plain(row.local_error),
        "cumulative_error": _plain(row.cumulative_error),
        "worst_index": list(row.worst_index),
        "axes": row.axes,
    }


def _plain(value: Any) -> Any:
    """Return a number as JSON has it: nan is null, infinity a string."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else ("inf" if value > 0 else "-inf")
    return value
