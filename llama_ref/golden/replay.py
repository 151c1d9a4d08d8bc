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

from llama_ref.golden.passes import INPUTS, Moment, Watch
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
    """A tap of a candidate: the array in our axes, and which of the T tokens its rows are."""

    array: np.ndarray
    rows: range


class Source(Protocol):
    """Whatever has taps."""

    def get(self, tap: str) -> Dump | None:
        """Return a tap by its full name; None if it is not there."""
        ...


Compare = Callable[[Moment, Dump, str], None]
"""Called at every tap that the candidate has: what was computed, what it dumped, which span."""


def row_axis(kind: str) -> int:
    """Return which axis of a tap counts the tokens."""
    return 1 if kind in ("scores", "probs") else 0


def rows_of_tap(kind: str, array: np.ndarray, rows: range) -> np.ndarray:
    """Return some tokens of a tap, as a view."""
    own = slice(rows.start, rows.stop)
    return array[:, own] if row_axis(kind) else array[own]


def replaying(source: Source, compare: Compare) -> Watch:
    """Return a watch under which a pass is a replay of a candidate, in any layer order upwards.

    Parameters
    ----------
    source : Source
        The candidate.
    compare : Compare
    """
    missing: dict[str, frozenset[str]] = {"hidden": frozenset()}
    has: dict[str, range] = {}

    def watch(moment: Moment) -> None:
        kind, T = moment.kind, len(moment.case.ids)
        if kind in ("attn_norm", "final_norm"):
            _enter(missing, has, moment, T)
        dump = source.get(moment.name)
        rows = range(T) if dump is None else dump.rows
        on_the_way = frozenset[str]().union(
            *(_missing(kind, name, rows, T, missing, has) for name in INPUTS[kind])
        )
        if dump is None:
            missing[kind] = on_the_way | {kind}
            has[kind] = range(0)
            if kind == "embed":  # a look-up: computing it costs nothing and errs in nothing
                missing[kind] = frozenset()
            return
        compare(moment, dump, span_of(on_the_way))
        rows_of_tap(kind, moment.computed, dump.rows)[...] = dump.array
        has[kind] = dump.rows
        missing[kind] = frozenset() if len(dump.rows) == T else on_the_way | {kind}

    return watch


def _enter(
    missing: dict[str, frozenset[str]], has: dict[str, range], moment: Moment, T: int
) -> None:
    """Begin a layer, or the head: what enters it is what the last one left."""
    before = "embed" if moment.layer == 0 else "out"
    came = missing.get(before, frozenset({"model"}))
    rows = has.get(before, range(T))
    # A kernel that adds and normalises in one go shows no `out`, and nothing is lost by it.
    missing["hidden"] = frozenset({"model"}) if came - {"out"} else came
    has["hidden"] = rows


def _missing(
    kind: str,
    name: str,
    rows: range,
    T: int,
    missing: Mapping[str, frozenset[str]],
    has: Mapping[str, range],
) -> frozenset[str]:
    """Return what is missing on the way to some tokens of a tap through one of its inputs."""
    there = has.get(name, range(0))
    needed = range(T) if (kind, name) in WHOLE_SEQUENCE else rows
    if len(there) and there.start <= needed.start and there.stop >= needed.stop:
        return frozenset()
    return missing.get(name, frozenset())


def span_of(on_the_way: frozenset[str]) -> str:
    """Return the shortest span that covers what is missing on the way.

    Examples
    --------
    >>> span_of(frozenset()), span_of(frozenset({"scores", "probs"})), span_of(frozenset({"act"}))
    ('op', 'attention', 'layer')
    """
    return next((span for span, inside in INSIDE.items() if on_the_way <= inside), "model")
