"""One case of a candidate, compared tap by tap: the step by itself, and everything up to there."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from llama_ref.checkpoint.readahead import let_go
from llama_ref.errors import BadFile
from llama_ref.golden.bundle import Bundle
from llama_ref.golden.candidate import Candidate
from llama_ref.golden.cases import Case
from llama_ref.golden.judging import SOURCES, Judged, counted, floor_of, judge, status_of
from llama_ref.golden.logits import summary, summary_of_top
from llama_ref.golden.measure import WHOLE, band_of, measure, rows_first
from llama_ref.golden.passes import Moment, Session
from llama_ref.golden.replay import SPANS, Dump, replaying
from llama_ref.golden.report import LogitsSummary, Row
from llama_ref.golden.sketch import sketch, sketched_error
from llama_ref.golden.styles import PRECISIONS
from llama_ref.golden.taps import NORMS, axes_of, kind_of, layer_of, rows_of_tap, visible_parts
from llama_ref.model import Model


class OfCase:
    """One case of a candidate as the source of a replay: of its taps those that the bundle has."""

    def __init__(self, candidate: Candidate, case: Case, bundle: Bundle):
        self.candidate, self.case = candidate, case
        self._held = set(bundle.taps(case))
        self.taps = [tap for tap in candidate.taps(case.name) if tap in self._held]
        self._held &= set(self.taps)

    def get(self, tap: str) -> Dump | None:
        """Return a tap by its full name."""
        return self.candidate.read(self.case.name, tap) if tap in self._held else None


@dataclass
class CaseCheck:
    """One case of a candidate while it is checked.

    Attributes
    ----------
    bundle : Bundle
    case : Case
    source : OfCase
    precision : str
    model : Model or None
        In float64; None if the weights are not to be had, and then no step is replayed.
    rows : list of Row
    unjudged : list of str
        Taps of which nothing can be told: no step is replayed, and what the bundle has is a sketch
        of all rows while these are fewer; or legal rounding overflows.
    logits : LogitsSummary or None
    """

    bundle: Bundle
    case: Case
    source: OfCase
    precision: str
    model: Model | None
    rows: list[Row] = field(default_factory=list)
    unjudged: list[str] = field(default_factory=list)
    logits: LogitsSummary | None = None

    def run(self) -> None:
        """Compare every tap that the candidate has."""
        if self.model is not None:
            session, hidden_TD = Session(self.model, self.case), np.empty(0)
            watch = replaying(self.source, self.compare)
            for stage in range(-1, self._n_stages(self.model)):
                hidden_TD = session.stage(stage, hidden_TD, watch)
            return
        for tap in self.source.taps:
            dump = self.source.candidate.read(self.case.name, tap)
            self._add_row(tap, dump, None, "model", None)

    def _n_stages(self, model: Model) -> int:
        """Return the stage of the pass from which on the candidate has nothing."""
        last = self.source.taps[-1] if self.source.taps else "embed"
        layer = layer_of(last)
        if layer is not None:
            return layer + 1
        return 0 if last == "embed" else model.config.n_layers + 1

    def compare(self, moment: Moment, dump: Dump, span: str) -> None:
        """Compare one step with what was computed from the candidate's own inputs."""
        reference = rows_of_tap(moment.kind, moment.computed, dump.rows)
        judged, index = self.judged(moment.name, dump, reference, SPANS.index(span))
        self._add_row(moment.name, dump, judged, span, index)

    def judged(
        self, tap: str, dump: Dump, reference: np.ndarray, span: int, *, is_right: bool = True
    ) -> tuple[Judged, tuple[int, ...]]:
        """Judge the difference between a tap and a reference for the same rows.

        Parameters
        ----------
        tap : str
        dump : Dump
        reference : ndarray
            In our axes, of the rows that were dumped.
        span : int
            Over which of `SPANS` the reference was computed.
        is_right : bool
            Whether the reference is what a right port computes. One with a mistake in it may have
            to be rounded where the right one is exact.

        Returns
        -------
        Judged
        tuple of int
            Where the largest error is.
        """
        axes = axes_of(tap)
        kind = kind_of(tap)
        off = difference(kind, dump, reference)
        band_R = self.bands(dump.rows)
        seen = visible_parts(kind, reference, dump.rows)
        if not np.isfinite(seen).all():
            seen = np.nan_to_num(seen, nan=0, posinf=0, neginf=0)
        found = measure(off, seen, axes, band_R)
        envelope = self.envelope(tap)[span:]
        # Scores have none of the span of attention: the next longer one is that of a layer.
        envelope = envelope[np.argmin(np.isnan(envelope[..., WHOLE]).all(axis=1))]
        n_in_band = counted(rows_first(axes, seen), band_R, inherited=span > 0 or kind in NORMS)
        size = np.where(np.isnan(off), np.inf, np.abs(off))
        index = np.unravel_index(int(size.argmax()), off.shape)
        floor = floor_of(kind if is_right else "", self.precision)
        return judge(found, envelope, n_in_band, floor), tuple(map(int, index))

    def envelope(self, tap: str) -> np.ndarray:
        """Return (spans, bands, measures) of a tap for the precision of the candidate."""
        own = self.bundle.envelope(self.case, tap)
        if own is None:
            raise BadFile(f"envelope {self.case.name}/{tap}", found="none", file=self.bundle.path)
        return own[PRECISIONS.index(self.precision)].astype(np.float64)

    def bands(self, rows: range) -> np.ndarray:
        """Return the band of each of some tokens."""
        return band_of(self.case.positions[rows.start : rows.stop])

    def _add_row(
        self, tap: str, dump: Dump, local: Judged | None, span: str, index: tuple[int, ...] | None
    ) -> None:
        """Add the row of a tap, with its error against the truth as well, if either is known."""
        cumulative = self._cumulative(tap, dump)
        rhos = [judged.ratios.rho for judged in (local, cumulative) if judged is not None]
        known = [rho for rho in rhos if not math.isnan(rho)]
        if not known:
            self.unjudged.append(tap)
            return
        row = Row(
            case=self.case.name,
            tap=tap,
            status=status_of(max(known)),
            local=local and local.ratios,
            cumulative=cumulative and cumulative.ratios,
            span=span,
            local_error=local.error if local else math.nan,
            cumulative_error=cumulative.error if cumulative else math.nan,
            envelope_local=local.envelope if local else math.nan,
            envelope_cumulative=cumulative.envelope if cumulative else math.nan,
            worst_index=index or (),
            axes=axes_of(tap),
        )
        self.rows.append(row)

    def _cumulative(self, tap: str, dump: Dump) -> Judged | None:
        """Judge a tap against the truth, or the sketch of it; None if the bundle has neither."""
        truth = self.bundle.truth(self.case, tap)
        if truth is not None:
            reference = rows_of_tap(kind_of(tap), truth, dump.rows)
            if tap == "logits":
                self._sum_up(reference, dump)
            judged, _ = self.judged(tap, dump, reference, SPANS.index("model"))
            let_go(truth)
            return judged
        stored = self.bundle.sketch(self.case, tap)
        if stored is None or len(dump.rows) != len(self.case.ids):
            return None
        if tap == "logits":
            self._sum_up_top(dump)
        return self._judged_by_sketch(tap, dump, stored)

    def _judged_by_sketch(self, tap: str, dump: Dump, stored: np.ndarray) -> Judged:
        """Estimate the error of a whole tap, and judge it by what its rows may have together."""
        array = visible_parts(kind_of(tap), dump.array.astype(np.float64))
        envelope = self.envelope(tap)[SPANS.index("model")]
        band_R = self.bands(dump.rows)
        found = np.full(envelope.shape, np.nan)
        found[0, WHOLE] = sketched_error(sketch(array), stored)
        together = np.full(envelope.shape, np.nan)
        together[0, WHOLE] = np.sqrt(np.mean(np.square(envelope[band_R, WHOLE])))
        n_in_band = np.zeros(len(found))
        n_in_band[0] = SOURCES * len(band_R)
        return judge(found, together, n_in_band)

    def _sum_up(self, truth_TV: np.ndarray, dump: Dump) -> None:
        legal = self.bundle.manifest.legal_logits[self.case.name][self.precision]
        logits_TV = dump.array.astype(np.float64)
        name = self.case.name
        self.logits = summary(name, truth_TV, logits_TV, legal["kl"], legal["largest"])

    def _sum_up_top(self, dump: Dump) -> None:
        legal = self.bundle.manifest.legal_logits[self.case.name][self.precision]
        top_ids, top = (self.bundle.extra(self.case, "logits", w) for w in ("top_ids", "top"))
        if top_ids is not None and top is not None:
            name, logits_TV = self.case.name, dump.array.astype(np.float64)
            self.logits = summary_of_top(name, top_ids, top, logits_TV, legal["largest"])


def difference(kind: str, dump: Dump, reference: np.ndarray) -> np.ndarray:
    """Return what a tap is off by, in float64, and nothing where scores may not be seen.

    Numbers that are none on both sides differ by nothing: a mistake may produce them.
    """
    found = dump.array.astype(np.float64)
    with np.errstate(invalid="ignore"):
        off = found - reference
    if not np.isfinite(off).all():
        off[~np.isfinite(found) & ~np.isfinite(reference)] = 0
    return visible_parts(kind, off, dump.rows)
