"""Replay: each step taken in float64 from a candidate's own numbers.

An error made in one layer spoils every layer after it, and in bfloat16 even a right port has
drifted a fifth away from the truth after a hundred layers. So a candidate is not only compared with
the truth. Every step it took is taken again from what it had before that step; what is left is the
error of that step alone, as small in the last layer as in the first.

Where a candidate has not got the inputs of a step, they are computed from the nearest taps it has,
and the step is compared over that longer span:

    op          from the inputs themselves
    attention   from queries, keys and values: a fused kernel shows nothing in between
    layer       from what entered the layer
    model       from further back, at worst the token ids

Source: teacher forcing; the layer-wise comparison of accelerator tool kits, made exact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import numpy as np

from llama_ref.golden.passes import Moment, Watch
from llama_ref.golden.taps import INPUTS, rows_of_tap
from llama_ref.trace import LAYER_TAPS

SPANS = ("op", "attention", "layer", "model")
INSIDE = {
    "op": frozenset[str](),
    "attention": frozenset({"q_rope", "k_rope", "scores", "probs"}),
    "layer": frozenset(LAYER_TAPS) | {"final_norm"},
}
"""Which taps may be missing on the way to a tap for a span to be long enough."""

WHOLE_SEQUENCE = {("scores", "k_rope"), ("ctx", "v")}
"""(tap, input): every token of the input enters every token of the tap."""


class Dump(NamedTuple):
    """What a candidate has at one tap.

    Attributes
    ----------
    array : ndarray
        In our axes and the bundle's pairing, of the dtype it was stored in.
    rows : range
        Which of the T tokens it covers: all of them, or the last ones.
    """

    array: np.ndarray
    rows: range


class Source(Protocol):
    """Whatever has taps."""

    def get(self, tap: str) -> Dump | None:
        """Return a tap by its full name; None if it is not there."""
        ...


Compare = Callable[[Moment, Dump, str], None]
"""Called at every tap that the candidate has: what was computed, what it dumped, which span."""


def replaying(source: Source, compare: Compare) -> Watch:
    """Return a watch under which a pass is a replay of a candidate, in any layer order upwards.

    Parameters
    ----------
    source : Source
        The candidate.
    compare : Compare
    """
    way = _Way()

    def watch(moment: Moment) -> None:
        kind, T = moment.kind, len(moment.case.ids)
        if kind in ("attn_norm", "final_norm"):
            way.enter(moment.layer)
        dump = source.get(moment.name)
        if dump is None:
            return
        compare(moment, dump, span_of(way.to(kind, dump.rows, range(T))))
        if moment.rank is not None:  # the sum is checked from what its parts are computed from
            return
        rows_of_tap(kind, moment.computed, dump.rows)[...] = dump.array
        way.has[kind] = dump.rows

    return watch


class _Way:
    """Which tokens of which taps are there, in the layer that runs and in the one before it."""

    def __init__(self) -> None:
        self.has: dict[str, range] = {}
        self._before: dict[str, range] = {}
        self._is_first = False

    def enter(self, layer: int | None) -> None:
        """Begin a layer, or the head."""
        self._before, self.has, self._is_first = self.has, {}, layer == 0

    def to(self, kind: str, rows: range, every: range) -> frozenset[str]:
        """Return what is missing on the way to some of all tokens of a tap."""
        return frozenset[str]().union(
            *(
                self._through(name, every if (kind, name) in WHOLE_SEQUENCE else rows, every)
                for name in INPUTS[kind]
            )
        )

    def _through(self, name: str, rows: range, every: range) -> frozenset[str]:
        """Return what is missing on the way through some tokens of an input, itself included."""
        if name == "hidden":
            return self._through_entry(rows)
        if _covers(self.has, name, rows):
            return frozenset()
        return self.to(name, rows, every) | {name}

    def _through_entry(self, rows: range) -> frozenset[str]:
        # An embedding is looked up: computing it costs nothing and errs in nothing.
        if self._is_first or _covers(self._before, "out", rows):
            return frozenset()
        # A kernel that adds and normalises in one go shows no `out`, and nothing is lost by it.
        added = all(_covers(self._before, name, rows) for name in INPUTS["out"])
        return frozenset({"out" if added else "model"})


def _covers(has: Mapping[str, range], name: str, rows: range) -> bool:
    """Tell whether a tap is there for all of some tokens."""
    there = has.get(name, range(0))
    return len(there) > 0 and there.start <= rows.start and there.stop >= rows.stop


def span_of(on_the_way: frozenset[str]) -> str:
    """Return the shortest span that covers what is missing on the way.

    Examples
    --------
    >>> span_of(frozenset()), span_of(frozenset({"scores", "probs"})), span_of(frozenset({"act"}))
    ('op', 'attention', 'layer')
    """
    return next((span for span, inside in INSIDE.items() if on_the_way <= inside), "model")
