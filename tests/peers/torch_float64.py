"""A Llama in float64 throughout, in torch: the mathematics, with nothing rounded on the way.

transformers in float64 is no such thing: its norms and its RoPE tables go through float32. So this
is written out once more, from the papers, and by other routes than the code under test where there
are any: rotations as complex numbers, frequencies by one clamped formula, one query at a time over
the keys before it, and no mask.
"""

import math

import torch

from tests.peers.arrays import to_numpy, to_torch

CHANNELS = {  # the first and the second channel of every rotated pair of a head of H channels
    "half_split": lambda H: (torch.arange(H // 2), torch.arange(H // 2) + H // 2),
    "interleaved": lambda H: (torch.arange(0, H, 2), torch.arange(1, H, 2)),
}


def float64_trace(config, tensors, ids, positions=None, pairing="half_split"):
    """Run one sequence with weights under the names of the HF layout; return every tap."""
    positions = range(len(ids)) if positions is None else positions
    weights = {name: to_torch(array, "float64") for name, array in tensors.items()}
    angles = torch.outer(torch.tensor(list(positions), dtype=torch.float64), frequencies(config))
    with torch.inference_mode():
        taps = _forward(config, weights, torch.tensor(list(ids)), angles, CHANNELS[pairing])
    return {name: to_numpy(tensor) for name, tensor in taps.items()}


def frequencies(config):
    """Return f s + f (1 - s) / factor, where s rises from 0 to 1 with the turns a pair makes."""
    f = config.rope_theta ** -(torch.arange(config.head_dim // 2).double() * 2 / config.head_dim)
    if config.rope_scaling is None:
        return f
    low, high = config.rope_scaling.low_freq_factor, config.rope_scaling.high_freq_factor
    turns = config.rope_scaling.original_context * f / (2 * math.pi)
    s = ((turns - low) / (high - low)).clamp(0, 1)
    return f * s + f * (1 - s) / config.rope_scaling.factor


def _forward(config, weights, ids, angles, channels):
    taps = {"embed": weights["model.embed_tokens.weight"][ids]}
    hidden = taps["embed"]
    for layer in range(config.n_layers):
        own = f"model.layers.{layer}."
        w = {name.removeprefix(own): x for name, x in weights.items() if name.startswith(own)}
        inner = _layer(config, w, hidden, angles, channels)
        taps.update({f"L{layer:02d}.{name}": tensor for name, tensor in inner.items()})
        hidden = inner["out"]
    taps["final_norm"] = _unit(hidden, config.norm_eps) * weights["model.norm.weight"]
    head = "model.embed_tokens.weight" if config.tied_embeddings else "lm_head.weight"
    taps["logits"] = taps["final_norm"] @ weights[head].T
    return taps


def _layer(config, w, hidden, angles, channels):
    t, T, H = {}, len(hidden), config.head_dim
    t["attn_norm"] = _unit(hidden, config.norm_eps) * w["input_layernorm.weight"]
    for tap in "qkv":
        t[tap] = (t["attn_norm"] @ w[f"self_attn.{tap}_proj.weight"].T).reshape(T, -1, H)
    t["q_rope"] = _rotate(t["q"], angles, channels)
    t["k_rope"] = _rotate(t["k"], angles, channels)
    t["scores"], t["probs"], t["ctx"] = attend(t["q_rope"], t["k_rope"], t["v"])
    t["attn_out"] = t["ctx"].reshape(T, -1) @ w["self_attn.o_proj.weight"].T
    t["ffn_inp"] = hidden + t["attn_out"]
    t["ffn_norm"] = _unit(t["ffn_inp"], config.norm_eps) * w["post_attention_layernorm.weight"]
    t["gate"] = t["ffn_norm"] @ w["mlp.gate_proj.weight"].T
    t["up"] = t["ffn_norm"] @ w["mlp.up_proj.weight"].T
    t["act"] = t["gate"] * torch.sigmoid(t["gate"]) * t["up"]
    t["ffn_out"] = t["act"] @ w["mlp.down_proj.weight"].T
    t["out"] = t["ffn_inp"] + t["ffn_out"]
    return t


def _unit(x, eps):
    return x * (x.square().mean(-1, keepdim=True) + eps) ** -0.5


def _rotate(x, angles, channels):
    first, second = channels(x.shape[-1])
    turned = torch.complex(x[..., first], x[..., second]) * torch.exp(1j * angles)[:, None]
    out = torch.empty_like(x)
    out[..., first], out[..., second] = turned.real, turned.imag
    return out


def attend(query, key, value):
    """Return scores, probabilities and mixed values of T queries on the T keys up to each."""
    T, N, H = query.shape
    key_head = torch.arange(N) // (N // key.shape[1])  # the one that each query head reads
    scores = torch.einsum("tnh,snh->nts", query, key[:, key_head]) / H**0.5
    probs, ctx = torch.zeros_like(scores), torch.zeros_like(query)
    for i in range(T):
        exp = torch.exp(scores[:, i, : i + 1])
        probs[:, i, : i + 1] = exp / exp.sum(-1, keepdim=True)
        ctx[i] = torch.einsum("ns,snh->nh", probs[:, i, : i + 1], value[: i + 1, key_head])
    return scores, probs, ctx
