"""One layer: tokens read from each other, then each thinks alone.

    hidden = hidden + attention(rms_norm(hidden))
    hidden = hidden + feed_forward(rms_norm(hidden))

Both halves *add* to the hidden state, so it carries everything from the embedding to the head, and
the norms see a copy. A model is L of these with different weights.

Source: TransformerBlock in meta-llama/llama-models, models/llama3/model.py; LlamaDecoderLayer in
transformers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from llama_ref.config import Config
from llama_ref.ops.attention import (
    Scaling,
    attention_mix,
    attention_probs,
    attention_scores,
    packed_attention,
)
from llama_ref.ops.linear import linear
from llama_ref.ops.rms_norm import rms_norm
from llama_ref.ops.swiglu import swiglu
from llama_ref.packing import Packed
from llama_ref.trace import Tap, no_tap
from llama_ref.weights import Layer

KeysAndValues = list[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Pass:
    """What all layers of one forward pass share.

    Attributes
    ----------
    config : Config
    packed : Packed
        The tokens, their sequences, and the cache of each.
    rotate : function of array of shape (T, N, H) to the same
        RoPE at the positions of these tokens, in the pairing of the stored weights.
    scaling : function of (scores, H) to scores
        How the lineage divides scores by sqrt(H).
    add_up : function of array of shape (T, D) to the same
        Adds what other ranks have of a sum, where heads and channels are cut over several.
    """

    config: Config
    packed: Packed
    rotate: Callable[[np.ndarray], np.ndarray]
    scaling: Scaling
    add_up: Callable[[np.ndarray], np.ndarray]


def run_layer(
    hidden_TD: np.ndarray, layer: Layer, index: int, shared: Pass, tap: Tap = no_tap
) -> np.ndarray:
    """Add to the hidden state what attention reads, then what feed-forward makes of it.

    Parameters
    ----------
    hidden_TD : ndarray of shape (T, D)
        What the layers so far have made of the packed tokens; not changed.
    layer : Layer
        The weights of this layer.
    index : int
        Which layer it is; the caches keep its keys and values under this number.
    shared : Pass
    tap : function of (name, array)
        Receives every intermediate, named without the layer: `attn_norm`, `q`, …, `out`.

    Returns
    -------
    ndarray of shape (T, D), dtype of `hidden_TD`
    """
    attn_norm_TD = rms_norm(hidden_TD, layer.attn_gain_D, eps=shared.config.norm_eps)
    tap("attn_norm", attn_norm_TD)
    attn_out_TD = shared.add_up(_attention(attn_norm_TD, layer, index, shared, tap))
    tap("attn_out", attn_out_TD)
    hidden_TD = hidden_TD + attn_out_TD
    tap("ffn_inp", hidden_TD)

    ffn_norm_TD = rms_norm(hidden_TD, layer.ffn_gain_D, eps=shared.config.norm_eps)
    tap("ffn_norm", ffn_norm_TD)
    ffn_out_TD = shared.add_up(_feed_forward(ffn_norm_TD, layer, tap))
    tap("ffn_out", ffn_out_TD)
    hidden_TD = hidden_TD + ffn_out_TD
    tap("out", hidden_TD)
    return hidden_TD


def _attention(x_TD: np.ndarray, layer: Layer, index: int, shared: Pass, tap: Tap) -> np.ndarray:
    """Project to heads, turn queries and keys, extend the caches, mix values, project back."""
    N, K, H = shared.config.n_heads, shared.config.n_kv_heads, shared.config.head_dim
    query_TNH = linear(x_TD, layer.w_query_AD).reshape(-1, N, H)
    key_TKH = linear(x_TD, layer.w_key_BD).reshape(-1, K, H)
    value_TKH = linear(x_TD, layer.w_value_BD).reshape(-1, K, H)
    tap("q", query_TNH)
    tap("k", key_TKH)
    tap("v", value_TKH)

    query_TNH, key_TKH = shared.rotate(query_TNH), shared.rotate(key_TKH)
    tap("q_rope", query_TNH)
    tap("k_rope", key_TKH)

    seen = _extend_caches(index, key_TKH, value_TKH, shared.packed)
    if tap is no_tap:
        ctx_TNH = packed_attention(query_TNH, seen, shared.packed.lengths, scaling=shared.scaling)
    else:
        ctx_TNH = _tapped_attention(query_TNH, seen, shared, tap)
    tap("ctx", ctx_TNH)
    return linear(ctx_TNH.reshape(-1, N * H), layer.w_out_DA)


def _extend_caches(
    index: int, key_TKH: np.ndarray, value_TKH: np.ndarray, packed: Packed
) -> KeysAndValues:
    """Put each sequence's new keys and values into its cache; return all that each may see."""
    own = zip(packed.caches, packed.split(key_TKH), packed.split(value_TKH), strict=True)
    return [
        cache.write(index, own_key_TKH, own_value_TKH) for cache, own_key_TKH, own_value_TKH in own
    ]


def _tapped_attention(
    query_TNH: np.ndarray, seen: KeysAndValues, shared: Pass, tap: Tap
) -> np.ndarray:
    """Attend as `packed_attention` does, in one block per sequence, showing each step."""
    ctx = []
    for i, own_TNH in enumerate(shared.packed.split(query_TNH)):
        key_SKH, value_SKH = seen[i]
        which = f"[{i}]" if len(seen) > 1 else ""
        T, N, S = len(own_TNH), shared.config.n_heads, len(key_SKH)
        scores_KGTS = attention_scores(own_TNH, key_SKH, scaling=shared.scaling)
        tap(f"scores{which}", scores_KGTS.reshape(N, T, S))
        probs_KGTS = attention_probs(scores_KGTS)
        tap(f"probs{which}", probs_KGTS.reshape(N, T, S))
        ctx.append(attention_mix(probs_KGTS, value_SKH))
    return np.concatenate(ctx)


def _feed_forward(x_TD: np.ndarray, layer: Layer, tap: Tap) -> np.ndarray:
    """Widen, gate, and project back: SwiGLU."""
    gate_TF, up_TF = linear(x_TD, layer.w_gate_FD), linear(x_TD, layer.w_up_FD)
    tap("gate", gate_TF)
    tap("up", up_TF)
    act_TF = swiglu(gate_TF, up_TF)
    tap("act", act_TF)
    return linear(act_TF, layer.w_down_DF)
