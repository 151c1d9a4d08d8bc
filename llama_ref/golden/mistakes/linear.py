"""Mistakes of the matrices: the right product with the wrong weight, or with its rows reordered."""

from __future__ import annotations

import numpy as np

from llama_ref.golden.mistake import Mistake
from llama_ref.golden.mistakes.common import (
    at,
    gain,
    normed,
    project,
    several_layers,
    several_pairs,
    several_tokens,
)
from llama_ref.golden.pairing import to_half_split, to_interleaved
from llama_ref.golden.passes import Change, Moment, Session, whole
from llama_ref.golden.taps import LINEARS
from llama_ref.ops.linear import linear

LAYER_MATRICES = tuple(kind for kind in LINEARS if kind != "logits")


def _transposed(m: Moment) -> np.ndarray:
    return project(m, m.columns(whole(m.whole_weight()).T))


def _query_is_square(session: Session) -> bool:
    config = session.model.config
    return config.n_heads * config.head_dim == config.d_model


def _from_layer(other: int, *, relative: bool) -> dict[str, Change]:
    """Return the changes that take all nine tensors from another layer, wrapping round."""

    def layer(m: Moment) -> int:
        assert m.layer is not None
        return (m.layer + other) % m.model.config.n_layers if relative else other

    norms = at(("attn_norm", "ffn_norm"), lambda m: normed(m, gain_D=gain(m, layer=layer(m))))
    return norms | at(LAYER_MATRICES, lambda m: project(m, m.weight(layer=layer(m))))


def _side_by_side(m: Moment, *kinds: str) -> np.ndarray:
    """Return several projections of the input as one matrix with all their rows gives them."""
    return np.concatenate([linear(m.input, m.weight(kind)) for kind in kinds], axis=1)


def _fused_qkv_grouped(m: Moment) -> np.ndarray:
    T, H = m.computed.shape[0], m.computed.shape[-1]
    groups = _side_by_side(m, "q", "k", "v").reshape(T, m.model.config.n_kv_heads, -1, H)
    part = {"q": groups[:, :, :-2], "k": groups[:, :, -2], "v": groups[:, :, -1]}[m.kind]
    return part.reshape(m.computed.shape)


def _keys_permuted_by_query_heads(m: Moment) -> np.ndarray:
    there, back = to_interleaved, to_half_split
    if m.model.weights.pairing == "interleaved":
        there, back = back, there
    narrow = m.computed.reshape(len(m.computed), m.model.config.n_heads, -1)
    return back(there(narrow).reshape(m.computed.shape))


def _narrow_heads_pair(session: Session) -> bool:
    config = session.model.config
    width = config.n_kv_heads * config.head_dim / config.n_heads
    return config.n_kv_heads < config.n_heads and width % 2 == 0 and config.head_dim > 2


def _of_previous_token(m: Moment) -> np.ndarray:
    return np.concatenate([m.computed[:1], m.computed[:-1]])


QKV = ("q", "k", "v")
MISTAKES = (
    Mistake(
        "query-weight-transposed",
        "query weight transposed",
        "Queries are computed as x W in place of x W^T.",
        "The matrix is square, so that nothing complains: checkpoints store [out, in], while JAX,"
        " Keras and GPT-2's Conv1D want [in, out].",
        {"q": _transposed},
        _query_is_square,
    ),
    Mistake(
        "key-value-swapped",
        "key and value weights swapped",
        "Keys are computed with the weight of the values, and values with that of the keys.",
        "Both have one shape; look at the order in which a fused matrix is split, or at the names"
        " in the converter.",
        {"k": lambda m: project(m, m.weight("v")), "v": lambda m: project(m, m.weight("k"))},
    ),
    Mistake(
        "query-key-rows-permuted",
        "query and key rows permuted where nothing was due",
        "The rows of each query and key head are reordered from half-split to interleaved, though"
        " they are turned in the order they were stored in.",
        "It is `permute` of llama.cpp's converter, undue where the port turns halves as"
        " transformers does (ggml's mode NEOX).",
        at(("q", "k"), lambda m: to_interleaved(m.computed)),
        several_pairs,
    ),
    Mistake(
        "query-key-rows-unpermuted",
        "query and key rows unpermuted where nothing was due",
        "The rows of each query and key head are reordered from interleaved to half-split, though"
        " they are turned in the order they were stored in.",
        "It is `permute` of transformers' converter from Meta's files, applied to a checkpoint that"
        " has been through it already or to a port that turns neighbours.",
        at(("q", "k"), lambda m: to_half_split(m.computed)),
        several_pairs,
    ),
    Mistake(
        "key-rows-permuted-by-query-heads",
        "key rows permuted with the wrong number of heads",
        "On the way between the two orders of RoPE the key rows are cut into as many heads as there"
        " are query heads.",
        "`permute` was called with n_heads for both weights; it needs n_kv_heads for the keys, as"
        " transformers' GGUF loader found out in 2024.",
        {"k": _keys_permuted_by_query_heads},
        _narrow_heads_pair,
    ),
    Mistake(
        "fused-qkv-grouped",
        "fused q, k, v read in groups",
        "The rows of [all queries | all keys | all values] are read as one group after the other,"
        " each with its query heads, its key head and its value head.",
        "Megatron, GPT-NeoX and Falcon store the fused matrix by groups; vLLM, Phi-3 and most"
        " hand-made ports simply stack the three.",
        at(QKV, _fused_qkv_grouped),
        lambda session: session.model.config.n_kv_heads > 1,
    ),
    Mistake(
        "output-weight-transposed",
        "output weight transposed",
        "The heads are brought back to the model's width by x W in place of x W^T.",
        "The matrix is square where N * H = D, so that nothing complains: checkpoints store"
        " [out, in].",
        {"attn_out": _transposed},
        _query_is_square,
    ),
    Mistake(
        "gate-up-swapped",
        "gate and up weights swapped",
        "Gate and up are computed with each other's weight.",
        "Meta calls gate w1 and up w3, with down as w2 between them; a fused matrix is split in"
        " the wrong order as easily.",
        {
            "gate": lambda m: project(m, m.weight("up")),
            "up": lambda m: project(m, m.weight("gate")),
        },
    ),
    Mistake(
        "fused-gate-up-interleaved",
        "fused gate and up read row by row",
        "The rows of [gate | up] are read as gate, up, gate, up, and so on.",
        "Kernels for fused SwiGLU, and gpt-oss's `gate_up_proj`, interleave the rows; a matrix made"
        " by stacking does not.",
        {
            "gate": lambda m: _side_by_side(m, "gate", "up")[:, 0::2],
            "up": lambda m: _side_by_side(m, "gate", "up")[:, 1::2],
        },
        lambda session: session.model.config.d_ff > 1,
    ),
    Mistake(
        "weights-of-next-layer",
        "weights of the next layer",
        "Each layer runs with the nine tensors of the layer after it, the last with those of the"
        " first.",
        "Layers are counted from 1 on one side and from 0 on the other.",
        _from_layer(1, relative=True),
        several_layers,
    ),
    Mistake(
        "weights-of-previous-layer",
        "weights of the previous layer",
        "Each layer runs with the nine tensors of the layer before it, the first with those of the"
        " last.",
        "Layers are counted from 1 on one side and from 0 on the other, or a prefetched buffer is"
        " read one turn late.",
        _from_layer(-1, relative=True),
        several_layers,
    ),
    Mistake(
        "weights-of-first-layer",
        "weights of the first layer everywhere",
        "All layers run with the nine tensors of the first.",
        "The offset into stacked weights is not advanced, or a closure in a loop caught one layer"
        " for all.",
        _from_layer(0, relative=False),
        several_layers,
    ),
    Mistake(
        "head-tied-wrongly",
        "embedding used as the head",
        "Logits are computed with the embedding table, though the model has a head of its own.",
        "`tie_word_embeddings` differs within the family: Llama 3.2 1B and 3B share the table, the"
        " larger models do not.",
        {"logits": lambda m: project(m, m.weight("embed"))},
        lambda session: not session.model.config.tied_embeddings,
    ),
    Mistake(
        "logits-softcapped",
        "logits soft-capped",
        "Logits x are replaced by 30 tanh(x / 30).",
        "Gemma 2 does this (final_logit_softcapping); Llama does not.",
        {"logits": lambda m: 30 * np.tanh(m.computed / 30)},
    ),
    Mistake(
        "logits-of-previous-token",
        "logits one row late",
        "The row of each token holds the logits of the token before it.",
        "The comparison shifts labels as a training loss does, or a runner returns what its last"
        " call left behind.",
        {"logits": _of_previous_token},
        several_tokens,
    ),
)
