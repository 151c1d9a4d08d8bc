"""The model: token ids to logits, read top to bottom.

    hidden = embedding[ids]
    for each layer:
        hidden = hidden + attention(rms_norm(hidden))         tokens read from each other
        hidden = hidden + feed_forward(rms_norm(hidden))      each token alone
    logits = head(rms_norm(hidden))

There is no batch axis. One call takes the T new tokens of one or more sequences packed end to end;
only attention knows where a sequence ends, and each has its own cache. So a ragged batch needs no
padding and no padding mask, and a sequence comes out as if it were alone.

Source: Transformer in meta-llama/llama-models, models/llama3/model.py; LlamaModel in transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from llama_ref.cache import KVCache
from llama_ref.config import Config
from llama_ref.config.facts import facts, html_table
from llama_ref.errors import NonFiniteError
from llama_ref.lineage import Lineage
from llama_ref.numerics import round_to, wide_dtype
from llama_ref.ops.attention import (
    attention_mix,
    attention_probs,
    attention_scores,
    packed_attention,
)
from llama_ref.ops.embed import embed
from llama_ref.ops.linear import linear
from llama_ref.ops.rms_norm import rms_norm
from llama_ref.ops.rope import rope_half_split, rope_interleaved, rope_table
from llama_ref.ops.rope_frequencies import rope_frequencies, stretched_frequencies
from llama_ref.ops.swiglu import swiglu
from llama_ref.packing import Ids, Packed, is_batch, pack
from llama_ref.trace import Tap, Trace, alarm, no_tap
from llama_ref.weights import Weights, non_finite_weight

if TYPE_CHECKING:
    from llama_ref.tokenizer import Tokenizer

ROTATE = {"interleaved": rope_interleaved, "half_split": rope_half_split}
KeysAndValues = list[tuple[np.ndarray, np.ndarray]]


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
    """

    def __init__(
        self,
        config: Config,
        weights: Weights,
        lineage: Lineage,
        dtype: np.dtype,
        tokenizer: Tokenizer | None = None,
    ):
        self.config, self.weights, self.lineage = config, weights, lineage
        self.dtype, self.tokenizer = np.dtype(dtype), tokenizer
        self.frequency_P = rope_frequencies(
            config.head_dim, theta=config.rope_theta, dtype=wide_dtype(self.dtype)
        )
        if config.rope_scaling:
            self.frequency_P = stretched_frequencies(
                self.frequency_P, **asdict(config.rope_scaling)
            )

    def new_cache(self, capacity: int | None = None) -> KVCache:
        """Return an empty cache for one sequence; without a capacity it grows as needed."""
        return KVCache(self.config, self.dtype, capacity, owner=self.weights)

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
        """
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
        packed = pack(self.config, self.weights, ids, caches, positions)
        rows_R, kept = packed.last_rows(last)
        with np.errstate(all="ignore"):  # what overflows becomes non-finite, and that is checked
            hidden_TD = self._embed(packed, tap)
            hidden_TD = self._layers(hidden_TD, packed, tap)
            logits_RV = self._head(hidden_TD[rows_R], tap)
        packed.advance()
        return np.split(logits_RV, np.cumsum(kept)[:-1])

    def _embed(self, packed: Packed, tap: Tap) -> np.ndarray:
        """Look the tokens up."""
        hidden_TD = embed(packed.ids_T, self.weights.embedding_VD, dtype=self.dtype)
        tap("embed", hidden_TD)
        if not np.isfinite(hidden_TD).all():
            self._explain(None, partial(self._embed, packed))
        return hidden_TD

    def _layers(self, hidden_TD: np.ndarray, packed: Packed, tap: Tap) -> np.ndarray:
        """Run every layer on the hidden state of the packed tokens."""
        table_dtype = self.lineage.rope_dtype(self.dtype)
        rotation = rope_table(packed.position_T, self.frequency_P, dtype=table_dtype)
        for index in range(self.config.n_layers):
            run = partial(self._layer, index, hidden_TD, rotation, packed)
            hidden_TD = run(tap)
            if not np.isfinite(hidden_TD).all():
                self._explain(index, run)
        return hidden_TD

    def _head(self, hidden_RD: np.ndarray, tap: Tap) -> np.ndarray:
        """Normalise the R rows that were asked for, and score the vocabulary."""
        final_RD = rms_norm(hidden_RD, self.weights.final_gain_D, eps=self.config.norm_eps)
        tap("final_norm", final_RD)
        logits_RV = linear(final_RD, self.weights.w_head_VD)
        logits_RV = round_to(logits_RV, self.lineage.logits_dtype(self.dtype))
        tap("logits", logits_RV)
        if not np.isfinite(logits_RV).all():
            self._explain(None, partial(self._head, hidden_RD))
        return logits_RV

    def _layer(
        self,
        index: int,
        hidden_TD: np.ndarray,
        rotation: tuple[np.ndarray, np.ndarray],
        packed: Packed,
        tap: Tap,
    ) -> np.ndarray:
        """Add to the hidden state what attention reads, then what feed-forward makes of it."""
        layer, eps, name = self.weights.layers[index], self.config.norm_eps, f"L{index:02d}."

        attn_norm_TD = rms_norm(hidden_TD, layer.attn_gain_D, eps=eps)
        tap(name + "attn_norm", attn_norm_TD)
        attn_out_TD = self._attention(index, attn_norm_TD, rotation, packed, tap)
        tap(name + "attn_out", attn_out_TD)
        hidden_TD = hidden_TD + attn_out_TD
        tap(name + "ffn_inp", hidden_TD)

        ffn_norm_TD = rms_norm(hidden_TD, layer.ffn_gain_D, eps=eps)
        tap(name + "ffn_norm", ffn_norm_TD)
        ffn_out_TD = self._feed_forward(index, ffn_norm_TD, tap)
        tap(name + "ffn_out", ffn_out_TD)
        hidden_TD = hidden_TD + ffn_out_TD
        tap(name + "out", hidden_TD)
        return hidden_TD

    def _attention(
        self,
        index: int,
        x_TD: np.ndarray,
        rotation: tuple[np.ndarray, np.ndarray],
        packed: Packed,
        tap: Tap,
    ) -> np.ndarray:
        """Project to heads, turn queries and keys, extend the caches, mix values, project back."""
        layer, config, name = self.weights.layers[index], self.config, f"L{index:02d}."
        rotate, H = ROTATE[self.weights.pairing], config.head_dim

        query_TNH = linear(x_TD, layer.w_query_AD).reshape(-1, config.n_heads, H)
        key_TKH = linear(x_TD, layer.w_key_BD).reshape(-1, config.n_kv_heads, H)
        value_TKH = linear(x_TD, layer.w_value_BD).reshape(-1, config.n_kv_heads, H)
        tap(name + "q", query_TNH)
        tap(name + "k", key_TKH)
        tap(name + "v", value_TKH)

        query_TNH, key_TKH = rotate(query_TNH, *rotation), rotate(key_TKH, *rotation)
        tap(name + "q_rope", query_TNH)
        tap(name + "k_rope", key_TKH)

        ends = np.cumsum(packed.lengths)[:-1]
        new = zip(packed.caches, np.split(key_TKH, ends), np.split(value_TKH, ends), strict=True)
        seen = [cache.write(index, key_TKH, value_TKH) for cache, key_TKH, value_TKH in new]
        if tap is no_tap:
            ctx_TNH = packed_attention(
                query_TNH, seen, packed.lengths, scaling=self.lineage.score_scaling
            )
        else:
            ctx_TNH = self._tapped_attention(query_TNH, seen, packed.lengths, name, tap)
        tap(name + "ctx", ctx_TNH)
        return linear(ctx_TNH.reshape(-1, config.n_heads * H), layer.w_out_DA)

    def _tapped_attention(
        self, query_TNH: np.ndarray, seen: KeysAndValues, lengths: list[int], name: str, tap: Tap
    ) -> np.ndarray:
        """Attend as `packed_attention` does, in one block per sequence, showing each step."""
        ctx, scaling = [], self.lineage.score_scaling
        for i, own_TNH in enumerate(np.split(query_TNH, np.cumsum(lengths)[:-1])):
            key_SKH, value_SKH = seen[i]
            which = f"[{i}]" if len(seen) > 1 else ""
            T, N, S = len(own_TNH), self.config.n_heads, len(key_SKH)
            scores_KGTS = attention_scores(own_TNH, key_SKH, scaling=scaling)
            tap(f"{name}scores{which}", scores_KGTS.reshape(N, T, S))
            probs_KGTS = attention_probs(scores_KGTS)
            tap(f"{name}probs{which}", probs_KGTS.reshape(N, T, S))
            ctx.append(attention_mix(probs_KGTS, value_SKH))
        return np.concatenate(ctx)

    def _feed_forward(self, index: int, x_TD: np.ndarray, tap: Tap) -> np.ndarray:
        """Widen, gate, and project back: SwiGLU."""
        layer, name = self.weights.layers[index], f"L{index:02d}."
        gate_TF, up_TF = linear(x_TD, layer.w_gate_FD), linear(x_TD, layer.w_up_FD)
        tap(name + "gate", gate_TF)
        tap(name + "up", up_TF)
        act_TF = swiglu(gate_TF, up_TF)
        tap(name + "act", act_TF)
        return linear(act_TF, layer.w_down_DF)

    def _explain(self, layer: int | None, run: Callable[[Tap], object]) -> NoReturn:
        """Run a part again with an alarm on every tap; name the tap and the weight behind it."""
        try:
            run(alarm)
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
        name, n_params = self.config.name or "Llama", self.config.n_params
        return f"<Model {name}: {n_params:,} parameters, {self.dtype}, lineage {self.lineage.name}>"

    def _repr_html_(self) -> str:
        run = f"activations in {self.dtype}, lineage {self.lineage.name}"
        stored = f"{self.weights.embedding_VD.dtype}, RoPE pairs {self.weights.pairing}"
        own = [("run", run), ("stored", stored), ("tokenizer", repr(self.tokenizer))]
        return html_table(repr(self), own + facts(self.config))
