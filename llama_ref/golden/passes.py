"""One forward pass, layer by layer, in which any tap can be replaced as it goes by.

Four things that a checker needs are this one thing:

    truth      float64, nothing replaced
    replay     every tap that a candidate dumped replaces the computed one, so that each step is
               computed from the candidate's own numbers
    style      a legal way to round: some taps are rounded where other implementations round
    mistake    one tap is computed the way a wrong port computes it

`layer.py` hands its own array to a tap and reads it afterwards, so writing into the array is
enough. The arithmetic is the model's, in one thread of BLAS as there; nothing of it stands here a
second time. A case always runs as one pass over all of its tokens, S = T: a pass in chunks through
a cache computes the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import reduce

import numpy as np

from llama_ref.errors import NonFiniteError
from llama_ref.golden.cases import Case
from llama_ref.golden.taps import INPUTS, tap_name
from llama_ref.layer import run_layer
from llama_ref.model import Model
from llama_ref.numerics import Matrix, rows_of, widen
from llama_ref.ops.embed import embed
from llama_ref.ops.linear import linear
from llama_ref.ops.rms_norm import rms_norm
from llama_ref.packing import pack
from llama_ref.parallel import SliceOfColumns
from llama_ref.threads import single_threaded_blas
from llama_ref.trace import LAYER_TAPS, SUMMED
from llama_ref.weights import Layer

WEIGHT = {
    "attn_norm": "attn_gain_D",
    "q": "w_query_AD",
    "k": "w_key_BD",
    "v": "w_value_BD",
    "attn_out": "w_out_DA",
    "ffn_norm": "ffn_gain_D",
    "gate": "w_gate_FD",
    "up": "w_up_FD",
    "ffn_out": "w_down_DF",
    "final_norm": "final_gain_D",
    "logits": "w_head_VD",
    "embed": "embedding_VD",
}
"""The weight behind each kind of tap that has one: a field of `Layer` or of `Weights`."""


@dataclass
class Moment:
    """What is known at the moment a tap goes by.

    Attributes
    ----------
    kind : str
        The tap without its layer: `q_rope`, `logits`.
    layer : int or None
        Which layer; None outside.
    computed : ndarray
        What the pass computed. Its axes are those of `trace.LAYER_TAPS`; T D of `embed` and
        `final_norm`, T V of `logits`.
    taps : mapping of str to ndarray
        The taps of the same layer before this one, by kind, as the pass goes on with them, and
        `hidden`, what entered the layer. Outside the layers: `hidden` and `final_norm`.
    session : Session
        The model, its weights, and the case that runs.
    rank : int or None
        Whose part of a sum over ranks it is; None of what all ranks have together.
    """

    kind: str
    layer: int | None
    computed: np.ndarray
    taps: Mapping[str, np.ndarray]
    session: Session
    rank: int | None = None

    @property
    def name(self) -> str:
        """The full name of the tap."""
        return tap_name(self.layer, self.kind, self.rank)

    @property
    def short_name(self) -> str:
        """The name without the layer."""
        return tap_name(None, self.kind, self.rank)

    @property
    def input(self) -> np.ndarray:
        """What this tap is computed from; of several, the first; of that, what the rank has."""
        x = self.taps[INPUTS[self.kind][0]]
        return x if self.rank is None else np.split(x, self.case.n_ranks, axis=1)[self.rank]

    @property
    def dumped(self) -> np.ndarray | None:
        """What the candidate has at this tap, for a mistake with a free number in it."""
        return self.session.dump_of(self.name)

    @property
    def model(self) -> Model:
        """The model that runs."""
        return self.session.model

    @property
    def case(self) -> Case:
        """The case that runs."""
        return self.session.case

    @property
    def own(self) -> Layer:
        """The weights of this layer."""
        assert self.layer is not None
        return self.model.weights.layers[self.layer]

    def weight(self, kind: str | None = None, layer: int | None = None) -> np.ndarray | Matrix:
        """Return the weight behind a kind of tap, by default this one, of this or another layer.

        Of a part of a sum, the columns that its rank has.
        """
        return self.columns(self.whole_weight(kind, layer))

    def columns(self, matrix: np.ndarray | Matrix) -> np.ndarray | Matrix:
        """Return the columns of a matrix that this rank has; all of them where it is no part."""
        if self.rank is None:
            return matrix
        n = matrix.shape[1] // self.case.n_ranks
        return SliceOfColumns(matrix, self.rank * n, (self.rank + 1) * n)

    def whole_weight(
        self, kind: str | None = None, layer: int | None = None
    ) -> np.ndarray | Matrix:
        """Return the weight with the columns of all ranks."""
        field_name = WEIGHT[kind or self.kind]
        if (kind or self.kind) in LAYER_TAPS:
            layers = self.model.weights.layers
            index = self.layer if layer is None else layer
            return getattr(layers[index or 0], field_name)
        return getattr(self.model.weights, field_name)


Change = Callable[[Moment], np.ndarray]
"""Computes what a tap is replaced with, of the same shape."""

Watch = Callable[[Moment], None]
"""Sees every tap as it was computed, and may write into `computed` what the pass goes on with."""


def whole(weight: np.ndarray | Matrix) -> np.ndarray:
    """Return all rows of a weight as an array, widened."""
    return widen(rows_of(weight, 0, weight.shape[0]))


def replacing(changes: Mapping[str, Change]) -> Watch:
    """Return a watch that replaces taps by kind."""

    def watch(moment: Moment) -> None:
        if moment.kind in changes:
            moment.computed[...] = changes[moment.kind](moment)

    return watch


@dataclass
class Session:
    """A model and the tokens of one case, ready to run, in whole or one layer at a time.

    Attributes
    ----------
    model : Model
        Its activations' dtype is that of the arithmetic: float64 for truth and replay.
    case : Case
    dump_of : function of str to ndarray or None
        What a candidate has at a tap, where one is replayed.
    """

    model: Model
    case: Case
    dump_of: Callable[[str], np.ndarray | None] = lambda tap: None
    _taps: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        cache = self.model.new_cache(len(self.case.ids))
        self.packed = pack(
            self.model.config, self.model, [self.case.ids], [cache], [self.case.positions]
        )
        self.shared = self.model.shared(self.packed)

    def run(self, watch: Watch) -> np.ndarray:
        """Run everything; return the logits."""
        hidden_TD = self.embed(watch)
        for index in range(self.model.config.n_layers):
            hidden_TD = self.layer(index, hidden_TD, watch)
        return self.head(hidden_TD, watch)

    def stage(self, index: int, hidden_TD: np.ndarray, watch: Watch) -> np.ndarray:
        """Run the embedding (-1), a layer, or the head (L); return what goes on from there."""
        if index < 0:
            return self.embed(watch)
        if index < self.model.config.n_layers:
            return self.layer(index, hidden_TD, watch)
        self.head(hidden_TD, watch)
        return hidden_TD

    def embed(self, watch: Watch) -> np.ndarray:
        """Look the tokens up."""
        self._taps = {}
        table_VD = self.model.weights.embedding_VD
        hidden_TD = embed(self.packed.ids_T, table_VD, dtype=self.model.dtype)
        self._show(watch, None, "embed", hidden_TD)
        return hidden_TD

    def layer(self, index: int, hidden_TD: np.ndarray, watch: Watch) -> np.ndarray:
        """Run one layer on what enters it.

        Scores that leave no probability, all minus infinity or not a number, make NaN of the rest
        of the layer: a candidate or a mistake may well produce them.
        """
        self._taps = {"hidden": hidden_TD}

        def tap(kind: str, array: np.ndarray) -> None:
            self._show(watch, index, kind, array)

        with single_threaded_blas(), np.errstate(all="ignore"):
            try:
                own = self.model.weights.layers[index]
                return run_layer(hidden_TD, own, index, self.shared, tap)
            except NonFiniteError:
                return np.full_like(hidden_TD, np.nan)

    def head(self, hidden_TD: np.ndarray, watch: Watch) -> np.ndarray:
        """Normalise, and score the vocabulary."""
        self._taps = {"hidden": hidden_TD}
        weights, config = self.model.weights, self.model.config
        with single_threaded_blas(), np.errstate(all="ignore"):
            final_TD = rms_norm(hidden_TD, weights.final_gain_D, eps=config.norm_eps)
            self._show(watch, None, "final_norm", final_TD)
            logits_TV = linear(final_TD, weights.w_head_VD)
            self._show(watch, None, "logits", logits_TV)
        return logits_TV

    def _show(self, watch: Watch, layer: int | None, kind: str, array: np.ndarray) -> None:
        if kind in SUMMED and self.case.n_ranks > 1:
            array[...] = self._summed_over_ranks(watch, layer, kind, array)
        watch(Moment(kind, layer, array, self._taps, self))
        self._taps[kind] = array

    def _summed_over_ranks(
        self, watch: Watch, layer: int | None, kind: str, array: np.ndarray
    ) -> np.ndarray:
        """Compute and show the part of each rank; return their sum, added in the order of ranks."""
        moments = [
            Moment(kind, layer, array, self._taps, self, rank) for rank in range(self.case.n_ranks)
        ]
        for moment in moments:
            x_TC = moment.input.reshape(len(array), -1)
            moment.computed = linear(x_TC, moment.weight())
            watch(moment)
        return reduce(np.add, (moment.computed for moment in moments))


def blocks_of_rows(n_rows: int, size: int) -> Iterator[slice]:
    """Yield slices that cut 0 ... n_rows - 1 into blocks of a size."""
    for lo in range(0, n_rows, size):
        yield slice(lo, min(lo + size, n_rows))
