"""The model: token ids to logits, read top to bottom.

    hidden = embedding[ids]
    for each layer:
        hidden = layer(hidden)                 `layer.py`: attention, then feed-forward
    logits = head(rms_norm(hidden))

There is no batch axis. One call takes the T new tokens of one or more sequences packed end to end;
only attention knows where a sequence ends, and each has its own cache. So a ragged batch needs no
padding and no padding mask, and a sequence comes out as if it were alone, to rounding: the order in
which BLAS adds depends on T.

Source: Transformer in meta-llama/llama-models, models/llama3/model.py; LlamaModel in transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from llama_ref.cache import KVCache, physical_memory
from llama_ref.config import Config
from llama_ref.config.facts import facts, html_table
from llama_ref.errors import LimitExceeded, NonFiniteError, printable
from llama_ref.holding import is_ready
from llama_ref.layer import Pass, run_layer
from llama_ref.lineage import Lineage
from llama_ref.numerics import round_to, wide_dtype
from llama_ref.ops.embed import embed
from llama_ref.ops.linear import linear
from llama_ref.ops.rms_norm import rms_norm
from llama_ref.ops.rope import rope_half_split, rope_interleaved, rope_table
from llama_ref.ops.rope_frequencies import rope_frequencies, stretched_frequencies
from llama_ref.packing import Ids, Packed, as_ids, is_batch, pack
from llama_ref.threads import single_threaded_blas
from llama_ref.trace import Progress, Tap, Trace, Watch, alarm, no_tap, no_watch, of_layer
from llama_ref.weights import Weights, non_finite_weight

if TYPE_CHECKING:
    from llama_ref.parallel import Group
    from llama_ref.tokenizer import Tokenizer

ROTATE = {"interleaved": rope_interleaved, "half_split": rope_half_split}


class Model:
    """A blueprint, its weights, and the arithmetic they are run in.

    Parameters
    ----------
    config : Config
    weights : Weights
    lineage : Lineage
        Whose rounding points to follow.
    dtype : dtype
        Of the activations: float64, float32, bfloat16 or float16.
    tokenizer : Tokenizer, optional
    group : Group, optional
        The ranks that the model is cut over; `config` and `weights` are then one rank's share.

    Attributes
    ----------
    watch : function of int
        Called at the beginning of each pass with the number of its steps, the layers and the head;
        returns a context manager of something whose `advance()` is called after each: a bar.
    """

    def __init__(
        self,
        config: Config,
        weights: Weights,
        lineage: Lineage,
        dtype: np.dtype,
        tokenizer: Tokenizer | None = None,
        *,
        group: Group | None = None,
    ):
        self.config, self.weights, self.lineage = config, weights, lineage
        self.dtype, self.tokenizer, self.group = np.dtype(dtype), tokenizer, group
        self._blas_multiplies = is_ready(weights, self.dtype)
        self.watch: Watch = no_watch
        self.frequency_P = rope_frequencies(
            config.head_dim, theta=config.rope_theta, dtype=wide_dtype(self.dtype)
        )
        if config.rope_scaling:
            with np.errstate(all="ignore"):  # of odd factors; a pass finds what overflows
                self.frequency_P = stretched_frequencies(
                    self.frequency_P, **asdict(config.rope_scaling)
                )

    def new_cache(self, capacity: int | None = None) -> KVCache:
        """Return an empty cache for one sequence; without a capacity it grows as needed."""
        return KVCache(self.config, self.dtype, capacity, owner=self)

    def logits(self, ids: Ids | Sequence[Ids]) -> np.ndarray | list[np.ndarray]:
        """Return the logits after every token: (T, V), or a list of those for a list of sequences.

        Parameters
        ----------
        ids : one-dimensional sequence of int, or a list of such sequences
        """
        if is_batch(ids):
            return self.forward_packed(ids, [self.new_cache() for _ in ids])  # type: ignore[arg-type]
        return self.forward(ids, self.new_cache())  # type: ignore[arg-type]

    def trace(self, ids: Ids, positions: Ids | None = None) -> Trace:
        """Run one sequence and return every intermediate by name.

        Parameters
        ----------
        ids : one-dimensional sequence of int
        positions : sequence of int, optional
            RoPE positions, strictly increasing; sparse ones reach far with few tokens.

        Raises
        ------
        LimitExceeded
            If scores and probabilities alone, T * T for each head, exceed this machine's memory.
        """
        T = len(as_ids(ids))
        n_bytes = 2 * self.config.n_layers * self.config.n_heads * T * T * self.dtype.itemsize
        if n_bytes > physical_memory():
            raise LimitExceeded(
                "trace",
                expected=f"at most the {physical_memory():,} bytes of this machine's memory",
                found=f"{n_bytes:,} for the scores of {T:,} tokens",
                next_step="trace fewer, or give `forward` a tap that keeps what you need",
            )
        trace = Trace(self.weights.pairing)
        self.forward(ids, self.new_cache(), positions=positions, tap=trace)
        return trace

    def forward(
        self,
        ids: Ids,
        cache: KVCache,
        *,
        positions: Ids | None = None,
        last: int | None = None,
        tap: Tap = no_tap,
    ) -> np.ndarray:
        """Run the tokens that follow what the cache holds, and add them to it.

        Parameters
        ----------
        ids : one-dimensional sequence of int
            The new tokens; a long prompt may come in chunks.
        cache : KVCache
            From `new_cache`.
        positions : sequence of int, optional
            RoPE positions of the new tokens, strictly increasing; by default they continue the
            cache. Who sees whom follows the order of the tokens, whatever their positions.
        last : int, optional
            Return logits of only this many tokens, the last ones; 0 computes none. The output head
            is a fifth of a 1B model, and a prompt needs it once.
        tap : function of (name, array), optional
            Receives every intermediate; see `trace.py`. The arrays are the model's own: copy them.

        Returns
        -------
        ndarray of shape (T, V), or (min(last, T), V)
            In the dtype of the activations; in lineage "meta" float32 where that is wider.

        Raises
        ------
        BadRequest
            If there is no token, an id is not of the vocabulary, positions do not increase, or the
            cache belongs to another model.
        LimitExceeded
            If the cache or the context is full.
        NonFiniteError
            If an activation is NaN or infinite: names the first such tap, and the weight at fault.
        """
        places = None if positions is None else [positions]
        return self.forward_packed([ids], [cache], positions=places, last=last, tap=tap)[0]

    def forward_packed(
        self,
        ids: Sequence[Ids],
        caches: Sequence[KVCache],
        *,
        positions: Sequence[Ids] | None = None,
        last: int | None = None,
        tap: Tap = no_tap,
    ) -> list[np.ndarray]:
        """Run several sequences in one pass: `forward` with a list for each argument and result.

        The weights are read once for all. Taps hold the packed tokens; scores and probabilities
        exist once per sequence and carry its number, `L00.scores[1]`, when there are several.
        """
        self.weights.check_files()
        packed = pack(self.config, self, ids, caches, positions)
        rows_R, kept = packed.last_rows(last)
        is_for_blas = self._blas_multiplies and len(packed.ids_T) == 1 and not self.group
        threads = nullcontext() if is_for_blas else single_threaded_blas()
        bar = self.watch(self.config.n_layers + 1)
        with np.errstate(all="ignore"), threads, bar as progress:  # non-finite numbers are found
            hidden_TD = self._embed(packed, tap)
            hidden_TD = self._layers(hidden_TD, packed, tap, progress)
            logits_RV = self._head(hidden_TD[rows_R], tap)
            progress.advance()
        packed.advance()
        return np.split(logits_RV, np.cumsum(kept)[:-1])

    def _embed(self, packed: Packed, tap: Tap) -> np.ndarray:
        """Look the tokens up."""
        hidden_TD = embed(packed.ids_T, self.weights.embedding_VD, dtype=self.dtype)
        tap("embed", hidden_TD)
        if not np.isfinite(hidden_TD).all():
            self._explain(None, partial(self._embed, packed, alarm))
        return hidden_TD

    def shared(self, packed: Packed) -> Pass:
        """Return what all layers of one pass over these tokens share: positions, rotation, scaling.

        Who runs layers one at a time, with `run_layer`, begins with this.
        """
        table_dtype = self.lineage.rope_dtype(self.dtype)
        cos_TP, sin_TP = rope_table(packed.position_T, self.frequency_P, dtype=table_dtype)
        rotate = partial(ROTATE[self.weights.pairing], cos_TP=cos_TP, sin_TP=sin_TP)
        return Pass(self.config, packed, rotate, self.lineage.score_scaling, self._add_up)

    def _add_up(self, part_TD: np.ndarray) -> np.ndarray:
        """Return the sum of the parts of all ranks, in their order; of one rank, its part."""
        if not self.group:
            return part_TD
        first, *others = self.group.gather(part_TD)
        return sum(others, start=first)

    def _layers(
        self, hidden_TD: np.ndarray, packed: Packed, tap: Tap, progress: Progress
    ) -> np.ndarray:
        """Run every layer on the hidden state of the packed tokens."""
        shared = self.shared(packed)
        for index, layer in enumerate(self.weights.layers):
            run = partial(run_layer, hidden_TD, layer, index, shared)
            try:
                hidden_TD = run(of_layer(tap, index))
                is_finite = bool(np.isfinite(hidden_TD).all())
            except NonFiniteError:  # scores without probabilities: nothing could be computed
                is_finite = False
            if not is_finite:
                self._explain(index, partial(run, of_layer(alarm, index)))
            progress.advance()
        return hidden_TD

    def _head(self, hidden_RD: np.ndarray, tap: Tap) -> np.ndarray:
        """Normalise the R rows that were asked for, and score the vocabulary."""
        final_RD = rms_norm(hidden_RD, self.weights.final_gain_D, eps=self.config.norm_eps)
        tap("final_norm", final_RD)
        logits_RV = linear(final_RD, self.weights.w_head_VD)
        if self.group:  # each rank has some of the vocabulary
            logits_RV = np.concatenate(self.group.gather(logits_RV), axis=1)
        logits_RV = round_to(logits_RV, self.lineage.logits_dtype(self.dtype))
        tap("logits", logits_RV)
        if not np.isfinite(logits_RV).all():
            self._explain(None, partial(self._head, hidden_RD, alarm))
        return logits_RV

    def _explain(self, layer: int | None, run_alarmed: Callable[[], object]) -> NoReturn:
        """Run a part again with an alarm on every tap; name the tap and the weight behind it."""
        try:
            run_alarmed()
        except NonFiniteError as error:
            raise NonFiniteError(
                error.thing,
                expected=error.expected,
                found=error.found,
                next_step=non_finite_weight(self.weights, layer)
                or f"no weight is at fault: the numbers outgrew {self.dtype}",
            ) from None
        raise NonFiniteError(f"layer {layer}", found="a non-finite value that did not recur")

    def __repr__(self) -> str:
        name, n_params = printable(self.config.name) or "Llama", self.config.n_params
        return f"<Model {name}: {n_params:,} parameters, {self.dtype}, lineage {self.lineage.name}>"

    def _repr_html_(self) -> str:
        run = f"activations in {self.dtype}, lineage {self.lineage.name}"
        stored = f"{self.weights.embedding_VD.dtype}, RoPE pairs {self.weights.pairing}"
        own = [("run", run), ("stored", stored), ("tokenizer", repr(self.tokenizer))]
        return html_table(repr(self), own + facts(self.config))
