"""Taps, places and numbers as a person would say them; shared by the page and the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

from llama_ref.golden.report import (
    FAIL_AT,
    INHERITS,
    PASS,
    WARN,
    LogitsSummary,
    Report,
    Row,
    Suspect,
)
from llama_ref.golden.taps import kind_of, layer_of

MEANING = {
    "embed": "the rows of the embedding",
    "attn_norm": "the norm in front of attention",
    "q": "the queries, as projected",
    "k": "the keys, as projected",
    "v": "the values, as projected",
    "q_rope": "the queries, turned by RoPE",
    "k_rope": "the keys, turned by RoPE",
    "scores": "the attention scores (query · key, scaled, before the mask)",
    "probs": "the attention probabilities (mask and softmax)",
    "ctx": "the mix of values that attention reads",
    "attn_out": "the output projection of attention",
    "ffn_inp": "the hidden state after attention is added",
    "ffn_norm": "the norm in front of feed-forward",
    "gate": "the gate projection",
    "up": "the up projection",
    "act": "SwiGLU, silu(gate) · up",
    "ffn_out": "the down projection",
    "out": "the hidden state after feed-forward is added",
    "final_norm": "the last norm",
    "logits": "the scores of the vocabulary",
}
AXES = {
    "T": "token",
    "S": "key",
    "N": "head",
    "K": "key/value head",
    "H": "channel",
    "D": "channel",
    "F": "feed-forward channel",
    "V": "vocabulary entry",
}
CONFIDENCE = {
    "certain": "With this mistake put into the replay the error falls to noise wherever it should, "
    "and with no other.",
    "likely": "This mistake explains the error best, but others explain it as well, or it fits "
    "less well than a certain cause would.",
    "none": "No known mistake brings the error back to noise.",
}


def number(value: float | None) -> str:
    """Return a ratio or a relative error with about three digits.

    Examples
    --------
    >>> [number(v) for v in (0.934, 12.34, 412_034.0, 3.2e9, 2.5e-4, 0.0)]
    ['0.93', '12.3', '412,034', '3.2e+09', '2.5e-04', '0']
    >>> [number(v) for v in (math.inf, math.nan, None)]
    ['∞', 'NaN', '–']
    """
    if value is None:
        return "–"
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    size = abs(value)
    if 0 < size < 0.005 or size >= 999_999.5:
        return f"{value:.1e}"
    if size == 0:
        return "0"
    return f"{value:.2f}" if size < 9.995 else f"{value:.1f}" if size < 99.95 else f"{value:,.0f}"


def divergences(one: LogitsSummary) -> tuple[str, ...]:
    """Return the mean, largest and legal divergence of a case; of a fingerprint nobody knows them.

    Examples
    --------
    >>> divergences(LogitsSummary("far", math.nan, math.nan, math.nan, 2, 1, 1, 1))
    ('–', '–', '–')
    """
    if math.isnan(one.kl_legal):
        return ("–",) * 3
    return number(one.kl_mean), number(one.kl_max), number(one.kl_legal)


def short(value: float | None) -> str:
    """Return a ratio in at most five characters.

    Examples
    --------
    >>> [short(v) for v in (0.934, 8120.0, 39_461.0, 412_034.0, 3.2e7, 3.2e9)]
    ['0.93', '8,120', '39k', '412k', '32M', '3e+09']
    """
    if value is None or not 9_999.5 <= value < math.inf:
        return number(value)
    if value < 999_500:
        return f"{value / 1e3:.0f}k"
    return f"{value / 1e6:.0f}M" if value < 999.5e6 else f"{value:.0e}"


def count(n: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun.

    Examples
    --------
    >>> count(1, "tap"), count(12_000, "tap"), count(2, "mistake fits", "mistakes fit")
    ('1 tap', '12,000 taps', '2 mistakes fit')
    """
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def in_words(tap: str) -> str:
    """Return what a tap is.

    Examples
    --------
    >>> in_words("L07.q_rope")
    'the queries, turned by RoPE, of layer 7'
    """
    layer, meaning = layer_of(tap), MEANING.get(kind_of(tap), tap)
    return meaning if layer is None else f"{meaning}, of layer {layer}"


def place(row: Row, positions: Sequence[int] = ()) -> str:
    """Return where the largest error of a tap is; nothing if that is not known.

    Examples
    --------
    >>> row = Row("far", "L00.q_rope", "fail", None, None, worst_index=(1, 3, 17), axes="T N H")
    >>> place(row, positions=[0, 8191])
    'token 1 (position 8191), head 3, channel 17'
    """
    parts = []
    for axis, index in zip(row.axes.split(), row.worst_index, strict=False):
        at = f" (position {positions[index]})" if axis == "T" and index < len(positions) else ""
        parts.append(f"{AXES.get(axis, axis)} {index}{at}")
    return ", ".join(parts)


def rho_of(row: Row, measure: str) -> float | None:
    """Return a tap's error by this op alone (`local`) or in sum (`cumulative`); None if unknown."""
    ratios = row.local if measure == "local" else row.cumulative
    return ratios.rho if ratios else None


def is_beyond(rho: float | None, gate: float = FAIL_AT) -> bool:
    """Tell whether a ratio has reached a gate; what is not a number has."""
    return rho is not None and not rho < gate


def standing(row: Row | None, first: tuple[str, str] | None) -> str:
    """Return what is to be said of a tap: absent, right, odd, wrong, or that it inherits.

    A tap inherits its error if it is far from the truth, and within rounding of its own inputs. If
    it could not be replayed from those, it counts as wrong only where the first wrong tap is.
    """
    if row is None:
        return "absent"
    if row.status == PASS:
        return "right"
    if row.status in (WARN, INHERITS):
        return "odd" if row.status == WARN else INHERITS
    if row.local is None:
        return "wrong" if first is None or row.tap == first[1] else "inherits"
    return "wrong" if is_beyond(row.local.rho) else "inherits"


def worst(rows: Sequence[Row], measure: str) -> Row | None:
    """Return the row of the largest ratio, one that is not a number above all; None of none."""
    known = [row for row in rows if rho_of(row, measure) is not None]
    return max(known, key=lambda row: _rank(rho_of(row, measure)), default=None)


def _rank(rho: float | None) -> float:
    return math.inf if rho is None or math.isnan(rho) else rho


def measure_of(report: Report) -> str:
    """Return the measure that a report is drawn by: `local` wherever ops could be replayed."""
    return "local" if any(row.local for row in report.rows) else "cumulative"


def first_row(report: Report) -> Row | None:
    """Return the row of the first wrong tap."""
    return next((row for row in report.rows if (row.case, row.tap) == report.first), None)


def positions_of(report: Report, row: Row) -> Sequence[int]:
    """Return where the tokens of a row's case stand, if the report says."""
    profile = report.profile
    return profile.positions if profile and profile.case == row.case else ()


def rivals(report: Report) -> list[Suspect]:
    """Return the other mistakes that were tried and are worth naming: equals, then runner-up."""
    others = [*report.also, *([report.runner_up] if report.runner_up else [])]
    own = report.cause.id if report.cause else None
    return list({one.id: one for one in others if one.id != own}.values())


def prose(report: Report) -> str:
    """Return the explanation without the sentences of the cause, which stand beside the cause."""
    own = report.cause.explanation if report.cause else ""
    return " ".join(report.explanation.replace(own, " ").split() if own else [report.explanation])


def next_step(report: Report) -> str:
    """Return what the author of the port does now."""
    if report.verdict == PASS:
        n_absent = sum(map(len, report.absent.values()))
        more = f"; {count(n_absent, 'tap')} more can be checked, once dumped" if n_absent else ""
        return f"Nothing: every difference that was seen is what legal rounding gives{more}."
    if report.verdict == WARN:
        return "Look at what is warned about; if it grows with another prompt, it is a mistake."
    if report.cause is None:
        return _towards_a_cause(report, first_row(report))
    if report.confidence == "certain":
        return "Correct it, dump again, check again: other mistakes may stand behind it."
    fitting = ", ".join(one.id for one in [report.cause, *report.also])
    return f"Look for these in the code, in this order: {fitting}."


def _towards_a_cause(report: Report, first: Row | None) -> str:
    """Return what would tell more where no mistake is named."""
    if any(one.is_misfit for one in report.unmatched) and first is None:
        return "Dump what is unmatched as the case has it: the reason stands beside each name."
    if first is None:
        return "Make sure that the dump is of one run: each tap has to be what the next step took."
    if first.local is None:
        return "Check against a full bundle: there each op is replayed, and known mistakes tried."
    if first.span != "op":
        return (
            f"Dump the taps between the last right one and {first.tap}: the step was taken over "
            f"a whole {first.span}, and can be narrowed to one op."
        )
    if report.precision != "float32":
        return (
            "Run the port in float32 first, where its noise is small and hides nothing. If that "
            "passes, see that what was dumped is what the next step read, not a rounded copy."
        )
    return (
        f"Compare {first.tap}, number by number, with what llama_ref computes from the same inputs."
    )
