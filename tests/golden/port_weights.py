"""The port's weights, found by their Hugging Face names, and all that goes wrong in loading them.

A mistake in loading is a function of the matrices of one layer that returns those it spoils. What a
weight loses in a quantised format it loses here too: the port computes with what comes back.
"""

import numpy as np

from tests.golden.port_arithmetic import half_away, on_grid

NAMES = {
    "attn_gain": "input_layernorm",
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "ffn_gain": "post_attention_layernorm",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
BLOCK = 32  # weights that share a scale in ggml's formats
TILE = 16


def layer_weights(config, tensors, layer, dtype, mistake):
    """Return the nine tensors of a layer, by short name, on the grid of `dtype`."""
    last = config.n_layers - 1
    match mistake:
        case "weights-of-next-layer":
            layer = layer + 1 if layer < last else 0
        case "weights-of-previous-layer":
            layer = layer - 1 if layer else last
        case "weights-of-first-layer":
            layer = 0
    own = {
        short: tensors[f"model.layers.{layer}.{name}.weight"].astype(np.float32)
        for short, name in NAMES.items()
    }
    if mistake in SPOILED:
        own |= SPOILED[mistake](own, config)
    return {short: on_grid(_stored(one, mistake), dtype) for short, one in own.items()}


def outer_weights(config, tensors, dtype, mistake):
    """Return embedding, final gain and head."""
    embedding = tensors["model.embed_tokens.weight"].astype(np.float32)
    is_tied = config.tied_embeddings or mistake == "head-tied-wrongly"
    head = embedding if is_tied else tensors["lm_head.weight"].astype(np.float32)
    gain = tensors["model.norm.weight"].astype(np.float32)
    return (
        on_grid(embedding, dtype),
        on_grid(gain, dtype),
        on_grid(_stored(head, mistake), dtype),
    )


def _stored(weight, mistake):
    """Return a matrix as it comes back from the format that it was kept in."""
    if weight.ndim == 1 or mistake not in QUANTISED:
        return weight
    return QUANTISED[mistake](weight).astype(np.float32)


def _q8_0(weight):
    blocks, restore = _in_blocks(weight)
    scale = np.abs(blocks).max(axis=-1, keepdims=True) / np.float32(127)
    steps = half_away(blocks * _inverse(scale))
    return restore(steps * scale.astype(np.float16).astype(np.float32))


def _q4_0(weight):
    """Sixteen steps, of which the lowest is the number of largest magnitude, whatever its sign."""
    blocks, restore = _in_blocks(weight)
    at = np.abs(blocks).argmax(axis=-1)[..., None]
    scale = np.take_along_axis(blocks, at, axis=-1) / np.float32(-8)
    steps = np.minimum(np.trunc(blocks * _inverse(scale) + np.float32(8.5)), 15)
    return restore((steps - 8) * scale.astype(np.float16).astype(np.float32))


def _inverse(scale):
    """Return 1 / scale in float32; ggml multiplies by it, which now and then is not to divide."""
    return np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale != 0)


def _float8(weight):
    scale = np.abs(weight).max(axis=-1, keepdims=True) / 448
    scale = np.where(scale == 0, 1, scale)
    return on_grid(weight / scale, "float8") * scale


def _in_blocks(weight):
    """Cut rows into blocks, the last filled up with zeros; return them and the way back."""
    n_rows, width = weight.shape
    filled = np.pad(weight, ((0, 0), (0, -width % BLOCK)))
    return filled.reshape(n_rows, -1, BLOCK), lambda b: b.reshape(n_rows, -1)[:, :width]


def _in_head_order(weight, head_dim, pairs_first):
    """Reorder the rows of every head: halves to neighbours, or neighbours to halves."""
    half = head_dim // 2
    shape = (-1, half, 2) if pairs_first else (-1, 2, half)
    return weight.reshape(*shape, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def _key_rows_by_query_heads(own, config):
    """Go to neighbours in heads as many as there are query heads, and back in those there are."""
    narrow = len(own["k"]) // config.n_heads
    there = _in_head_order(own["k"], narrow, pairs_first=False)
    return {"k": _in_head_order(there, config.head_dim, pairs_first=True)}


def _qkv_grouped(own, config):
    """Read [q | k | v] as if each key/value head stood beside its query heads."""
    fused = np.concatenate([own["q"], own["k"], own["v"]])
    width, groups = fused.shape[1], config.n_heads // config.n_kv_heads
    heads = fused.reshape(config.n_kv_heads, groups + 2, config.head_dim, width)
    cut = {"q": heads[:, :groups], "k": heads[:, groups], "v": heads[:, groups + 1]}
    return {short: one.reshape(-1, width) for short, one in cut.items()}


def _gate_up_interleaved(own, config):
    fused = np.concatenate([own["gate"], own["up"]])
    return {"gate": fused[0::2], "up": fused[1::2]}


def _stale_tile(own, config):
    gate = own["gate"].copy()
    gate[TILE : 2 * TILE, 8 : 8 + TILE] = 0
    return {"gate": gate}


def _transposed_tile(own, config):
    down = own["down"].copy()
    down[:TILE, TILE : 2 * TILE] = down[:TILE, TILE : 2 * TILE].T.copy()
    return {"down": down}


SPOILED = {
    "norm-gains-swapped": lambda own, _: {
        "attn_gain": own["ffn_gain"],
        "ffn_gain": own["attn_gain"],
    },
    "query-weight-transposed": lambda own, _: {"q": own["q"].T},
    "output-weight-transposed": lambda own, _: {"o": own["o"].T},
    "key-value-swapped": lambda own, _: {"k": own["v"], "v": own["k"]},
    "gate-up-swapped": lambda own, _: {"gate": own["up"], "up": own["gate"]},
    "query-key-rows-permuted": lambda own, config: {
        short: _in_head_order(own[short], config.head_dim, pairs_first=False) for short in "qk"
    },
    "query-key-rows-unpermuted": lambda own, config: {
        short: _in_head_order(own[short], config.head_dim, pairs_first=True) for short in "qk"
    },
    "key-rows-permuted-by-query-heads": _key_rows_by_query_heads,
    "fused-qkv-grouped": _qkv_grouped,
    "fused-gate-up-interleaved": _gate_up_interleaved,
    "unknown-stale-weight-tile": _stale_tile,
    "unknown-transposed-weight-tile": _transposed_tile,
}
QUANTISED = {"weights-in-q8-0": _q8_0, "weights-in-q4-0": _q4_0, "weights-in-float8": _float8}
