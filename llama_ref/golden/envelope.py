"""The envelope: how far right implementations are from float64, at every tap, step by step.

One case runs in float64 and in every legal style side by side, a layer at a time. At each tap the
error of each style is measured over every span that a candidate may be judged over: against the
same step taken in float64 from the style's own numbers, and against the truth. The worst style of a
class of precision, at each tap, span, band of positions and measure, is the envelope.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from llama_ref.golden.cases import Case
from llama_ref.golden.measure import BAND_STARTS, MEASURES, band_of, measure
from llama_ref.golden.models import ModelSpec, model_of
from llama_ref.golden.passes import Moment, Session
from llama_ref.golden.replay import SPANS, Dump, replaying
from llama_ref.golden.styles import PRECISIONS, STYLES, Style
from llama_ref.golden.taps import axes_of, tap_name, visible_parts
from llama_ref.ops.attention import attention
from llama_ref.weights import Weights

OP, ATTENTION, LAYER, MODEL = range(len(SPANS))
SHAPE = (len(PRECISIONS), len(SPANS), len(BAND_STARTS), len(MEASURES))

Taps = dict[str, np.ndarray]


@dataclass
class Stage:
    """One stage of one case: the embedding, a layer, or the head.

    Attributes
    ----------
    layer : int or None
        None of the embedding and the head.
    truth : dict of str to ndarray
        Float64 taps by kind.
    envelope : dict of str to ndarray of shape (precisions, spans, bands, measures)
        NaN where a span makes no sense at a tap, or a band has no token.
    by_style : dict of (style name, kind) to ndarray of shape (spans, bands, measures)
        What each style contributed.
    legal_logits : dict of str to list of ndarray
        For each precision, the logits of its styles; behind the layers only.
    """

    layer: int | None
    truth: Taps = field(default_factory=dict)
    envelope: dict[str, np.ndarray] = field(default_factory=dict)
    by_style: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    legal_logits: dict[str, list[np.ndarray]] = field(default_factory=dict)


class Runner:
    """A pass of one style, and the float64 model that checks its steps."""

    def __init__(self, style: Style, case: Case, spec: ModelSpec, weights: Weights):
        self.style = style
        self.session = Session(model_of(spec, weights, style.dtype, style.lineage), case)
        self.hidden_TD = np.empty(0)

    def take(self, index: int) -> Taps:
        """Run the next stage; return its taps as a backend would dump them, in float64."""
        taps: Taps = {}

        def keep(moment: Moment) -> None:
            taps[moment.short_name] = moment.computed.astype(np.float64)

        watch = self.style.watching(keep)
        self.hidden_TD = self.session.stage(index, self.hidden_TD, watch)
        return taps


def record(
    case: Case,
    spec: ModelSpec,
    weights: Weights,
    styles: tuple[Style, ...] = STYLES,
    *,
    exact_weights: Weights | None = None,
) -> Iterator[Stage]:
    """Run one case in float64 and in every style; yield it a stage at a time.

    Parameters
    ----------
    case : Case
    spec : ModelSpec
    weights : Weights
        Held, if possible: every style reads them.
    styles : tuple of Style
    exact_weights : Weights, optional
        The same in float64, which then need not be widened at every step.

    Yields
    ------
    Stage
        The embedding, each layer, the head.
    """
    exact = Session(model_of(spec, exact_weights or weights, "float64", "hf"), case)
    runners = [Runner(style, case, spec, weights) for style in styles]
    band_T = band_of(case.positions)
    hidden_TD, n_layers = np.empty(0), spec.config.n_layers
    for index in range(-1, n_layers + 1):
        stage = Stage(index if 0 <= index < n_layers else None)

        def keep(moment: Moment, stage: Stage = stage) -> None:
            stage.truth[moment.short_name] = moment.computed.copy()

        entered = [runner.hidden_TD.astype(np.float64) for runner in runners]
        hidden_TD = exact.stage(index, hidden_TD, keep)
        for runner, before_TD in zip(runners, entered, strict=True):
            taps = runner.take(index)
            errors = _errors(exact, index, before_TD, taps, stage.truth, band_T)
            _widen_envelope(stage, runner.style, errors)
            if index == n_layers:
                own = stage.legal_logits.setdefault(runner.style.precision, [])
                own.append(taps["logits"])
        yield stage


class OfStage:
    """The taps of one stage as the source of a replay."""

    def __init__(self, layer: int | None, taps: Mapping[str, np.ndarray], T: int):
        self._taps = {tap_name(layer, kind): Dump(a, range(T)) for kind, a in taps.items()}

    def get(self, tap: str) -> Dump | None:
        """Return a tap by its full name."""
        return self._taps.get(tap)


def _errors(
    exact: Session,
    index: int,
    before_TD: np.ndarray,
    taps: Taps,
    truth: Taps,
    band_T: np.ndarray,
) -> dict[str, np.ndarray]:
    """Return the errors of one style at every tap of a stage: (spans, bands, measures)."""
    found = {kind: np.full(SHAPE[1:], np.nan) for kind in taps}

    def put(span: int, kind: str, reference: np.ndarray) -> None:
        off = visible_parts(kind, taps[kind] - reference)
        found[kind][span] = measure(off, visible_parts(kind, reference), axes_of(kind), band_T)

    def at_op(moment: Moment, dump: Dump, span: str) -> None:
        put(OP, moment.short_name, moment.computed)

    def at_layer(moment: Moment) -> None:
        put(LAYER, moment.short_name, moment.computed)

    source = OfStage(index if "attn_norm" in taps else None, taps, len(band_T))
    exact.stage(index, before_TD, replaying(source, at_op))
    if "embed" not in taps:
        exact.stage(index, before_TD, at_layer)
    if "ctx" in taps:
        put(ATTENTION, "ctx", _attend(exact, taps))
    for kind in taps:
        put(MODEL, kind, truth[kind])
    return found


def _attend(exact: Session, taps: Taps) -> np.ndarray:
    """Return attention in float64 from unrotated queries and keys, and values."""
    rotate, scaling = exact.shared.rotate, exact.shared.scaling
    return attention(rotate(taps["q"]), rotate(taps["k"]), taps["v"], scaling=scaling)


def _widen_envelope(stage: Stage, style: Style, errors: dict[str, np.ndarray]) -> None:
    """Let the envelope of the style's class cover its errors; those of float32 are legal in all."""
    is_finest = style.precision == PRECISIONS[0]
    rows = slice(None) if is_finest else PRECISIONS.index(style.precision)
    for kind, error in errors.items():
        envelope = stage.envelope.setdefault(kind, np.full(SHAPE, np.nan))
        envelope[rows] = np.fmax(envelope[rows], error)
        stage.by_style[style.name, kind] = error
