"""Trying a mistake: a stretch of the candidate's pass once more, with the mistake in it.

The stretch is the shortest one that leads to the wrong tap from taps that the candidate has: the op
alone if it dumped everything, the whole model if it dumped logits alone. On the way everything it
has replaces what is computed, so what is left at a tap is what this mistake does not explain.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from llama_ref.golden.case_check import CaseCheck, difference
from llama_ref.golden.judging import Judged
from llama_ref.golden.mistake import Mistake
from llama_ref.golden.passes import Moment, Session, Watch
from llama_ref.golden.replay import SPANS, Dump, replaying
from llama_ref.golden.report import FAIL_AT
from llama_ref.golden.taps import INPUTS, kind_of, layer_of, rows_of_tap, tap_name, visible_parts
from llama_ref.trace import LAYER_TAPS

HEAD = ("final_norm", "logits")
EXPLAINS = 1e-4
"""A mistake that leaves this share of an error explains it, whatever that is in legal rounding."""


@dataclass
class Stretch:
    """The part of a candidate's pass that leads to one tap.

    Attributes
    ----------
    check : CaseCheck
        The case, its candidate and its model.
    tap : str
        Where the stretch ends.
    session : Session
        The case in float64, which knows what the candidate has.
    first, last : int
        The layers that run; before layer 0 the embedding does, and `last` is -1 where nothing else.
    """

    check: CaseCheck
    tap: str
    session: Session = field(init=False)
    first: int = field(init=False)
    last: int = field(init=False)

    def __post_init__(self) -> None:
        assert self.check.model is not None
        self.session = Session(self.check.model, self.check.case, self._dumped)
        n_layers, layer = self.check.model.config.n_layers, layer_of(self.tap)
        in_head = self.tap in HEAD
        self.last = n_layers - 1 if in_head else (-1 if layer is None else layer)
        has = set(self.check.source.taps)
        whole = range(len(self.check.case.ids))

        def is_there(tap: str) -> bool:
            dump = self.check.source.get(tap) if tap in has else None
            return dump is not None and len(dump.rows) == len(whole)

        # The layer to begin with: the last one that is entered by what the candidate has.
        latest = n_layers if in_head else self.last
        self.first = next((i for i in range(latest, 0, -1) if is_there(tap_name(i - 1, "out"))), 0)

    def computed_kinds(self) -> set[str]:
        """Return the kinds of taps that are computed in it: its end, and what is missing before."""
        has = set(self.check.source.taps)
        kinds = {kind_of(self.tap)}
        for layer in range(self.first, self.last + 1):
            kinds |= {kind for kind in LAYER_TAPS if tap_name(layer, kind) not in has}
        if self.first == 0 and self.last >= 0:
            kinds |= {"embed"} - has
        if self.tap == "logits":
            kinds |= {"final_norm"} - has
        if self.first < self.last or self.tap in HEAD:
            return kinds
        return kinds & (upstream(kind_of(self.tap)) | {"embed"})

    def residuals(self, mistake: Mistake | None, at: set[str]) -> dict[str, Judged]:
        """Return what a mistake leaves unexplained at some taps of the stretch, and at its end.

        Parameters
        ----------
        mistake : Mistake or None
            None tries the right arithmetic.
        at : set of str
            Kinds of taps to look at, in the layer of the end.
        """
        found: dict[str, Judged] = {}

        def compare(moment: Moment, dump: Dump, span: str) -> None:
            if moment.name == self.tap or (moment.kind in at and moment.layer == self.last):
                reference = rows_of_tap(moment.kind, moment.computed, dump.rows)
                found[moment.name], _ = self.check.judged(
                    moment.name, dump, reference, SPANS.index(span), is_right=mistake is None
                )

        self.run(mistake, replaying(self.check.source, compare))
        return found

    def error(self) -> tuple[np.ndarray, np.ndarray]:
        """Return what the end of the stretch is off by, and what it should be."""
        right = self.predicted(None)
        dump = self.check.source.get(self.tap)
        assert dump is not None
        return difference(kind_of(self.tap), dump, right), right

    def predicted(self, mistake: Mistake | None) -> np.ndarray:
        """Return what a port with this mistake, or none, would have at the end of the stretch."""
        found: list[np.ndarray] = []

        def keep(moment: Moment, dump: Dump, span: str) -> None:
            if moment.name == self.tap:
                computed = rows_of_tap(moment.kind, moment.computed, dump.rows)
                found.append(visible_parts(moment.kind, computed.copy(), dump.rows))

        self.run(mistake, replaying(self.check.source, keep))
        return found[0]

    def run(self, mistake: Mistake | None, replay: Watch) -> None:
        """Run the stretch as a replay, with the mistake in it where it can be made at all."""
        changes = mistake.changes if mistake and mistake.applies(self.session) else {}

        def watch(moment: Moment) -> None:
            change = changes.get(moment.kind)
            if change is not None:
                moment.computed[...] = change(moment)
            replay(moment)

        hidden_TD = self.session.embed(watch) if self.first == 0 else self._enter(replay)
        for index in range(self.first, self.last + 1):
            hidden_TD = self.session.layer(index, hidden_TD, watch)
        if self.tap in HEAD:
            self.session.head(hidden_TD, watch)

    def _enter(self, replay: Watch) -> np.ndarray:
        """Return what enters the first layer of the stretch, and show it to the replay."""
        dump = self.check.source.get(tap_name(self.first - 1, "out"))
        assert dump is not None
        hidden_TD = dump.array.astype(np.float64)
        replay(Moment("out", self.first - 1, hidden_TD, {}, self.session))
        return hidden_TD

    def _dumped(self, tap: str) -> np.ndarray | None:
        dump = self.check.source.get(tap)
        return None if dump is None else dump.array.astype(np.float64)


def upstream(kind: str) -> set[str]:
    """Return a kind of tap and everything in its layer that it is computed from."""
    found = {kind}
    for name in INPUTS[kind]:
        if name != "hidden":
            found |= upstream(name)
    return found


def in_view_of(left: float, before: float) -> float:
    """Return what is left of an error beside what there was: beyond the gate if unexplained.

    A mistake may round worse than the right step does. What has taken an error of a million down to
    six explains it all the same.

    Examples
    --------
    >>> in_view_of(1.2, 50.0), in_view_of(6.0, 50.0), in_view_of(6.0, 2e6)
    (1.2, 6.0, 0.09)
    """
    return left * FAIL_AT / max(FAIL_AT, EXPLAINS * before)


class Evidence(NamedTuple):
    """What a mistake leaves unexplained over many taps; see `in_view_of`.

    Attributes
    ----------
    worst : float
        Of any tap, by any measure.
    pooled : float
        The root mean square over the taps, by their whole alone: what tells two mistakes apart that
        are both within the gate.
    n : int
        How many numbers that is made of.
    """

    worst: float
    pooled: float
    n: int


def evidence(
    checks: list[CaseCheck],
    layers: Iterable[int | None],
    mistakes: Mapping[str, Mistake],
    kinds: set[str],
) -> dict[str, Evidence]:
    """Return what each mistake leaves unexplained in these layers, over all cases.

    Parameters
    ----------
    checks : list of CaseCheck
    layers : iterable of int or None
    mistakes : mapping of str to Mistake
    kinds : set of str
        The taps to look at.
    """
    left: dict[str, list[tuple[float, float, int]]] = {name: [] for name in mistakes}
    for check in checks:
        for layer in layers:
            stretch = _through(check, layer, kinds)
            if stretch is None:
                continue
            before = stretch.residuals(None, kinds)
            for name, mistake in mistakes.items():
                for tap, judged in stretch.residuals(mistake, kinds).items():
                    own, was = judged.ratios, before[tap].ratios
                    worst, whole = in_view_of(own.rho, was.rho), in_view_of(own.whole, was.whole)
                    left[name].append((worst, whole, judged.n))
    return {name: _summed(pairs) for name, pairs in left.items()}


def _summed(parts: list[tuple[float, float, int]]) -> Evidence:
    if not parts:
        return Evidence(0.0, 0.0, 0)
    worst, whole, n = np.array(parts).T
    pooled = np.sqrt(np.sum(n * whole**2) / np.sum(n))
    return Evidence(float(worst.max()), float(pooled), int(np.sum(n)))


def _through(check: CaseCheck, layer: int | None, kinds: set[str]) -> Stretch | None:
    """Return a stretch that goes through every tap of these kinds in a layer."""
    if check.model is None:
        return None
    own = [t for t in check.source.taps if layer_of(t) == layer and kind_of(t) in kinds]
    return Stretch(check, own[-1]) if own else None
