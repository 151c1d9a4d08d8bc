"""Meta's Llama restated in torch: the formulas and the rounding points of the released code.

Meta's own model.py needs fairscale and a process group, so it cannot run here. This says the same
arithmetic in plain functions, in the order of that file, and hands out every intermediate. What
decides the rounding is kept to the letter: norms and rotations through `.float()`, angles as
complex64, scores divided by sqrt(H), softmax in float32, logits widened at the end.

Source: RMSNorm, apply_scaling, precompute_freqs_cis, apply_rotary_emb, Attention, FeedForward,
TransformerBlock, Transformer in meta-llama/llama-models, models/llama3/model.py.
"""

import math

import torch
import torch.nn.functional as F  # noqa: N812

from tests.peers.arrays import to_numpy, to_torch


class MetaPeer:
    """Weights under Meta's names in one dtype, and a cache of keys and values per layer."""

    def __init__(self, config, tensors, dtype="float32"):
        self.config = config
        self.weights = {name: to_torch(array, dtype) for name, array in tensors.items()}
        self.cache = [None] * config.n_layers
        self.frequencies = frequencies(config)

    def trace(self, ids, positions=None):
        """Run tokens that follow what the cache holds; return every tap by our names."""
        taps = {}
        with torch.inference_mode():
            self._forward(torch.tensor([list(ids)]), positions, taps)
        return {name: to_numpy(tensor) for name, tensor in taps.items()}

    def logits(self, ids, positions=None):
        """Run tokens that follow what the cache holds; return their logits."""
        return self.trace(ids, positions)["logits"]

    def clear(self):
        """Forget every key and value."""
        self.cache = [None] * self.config.n_layers

    def _forward(self, tokens, positions, taps):
        start = 0 if self.cache[0] is None else self.cache[0][0].shape[1]
        T = tokens.shape[1]
        if positions is None:
            positions = range(start, start + T)
        angles = torch.outer(torch.tensor(list(positions), dtype=torch.float32), self.frequencies)
        turn = torch.polar(torch.ones_like(angles), angles)

        hidden = F.embedding(tokens, self.weights[self._outer("tok_embeddings")])
        taps["embed"] = hidden[0]
        mask = causal_mask(T, start, hidden.dtype) if T > 1 else None
        for layer in range(self.config.n_layers):
            hidden = self._block(layer, hidden, turn, mask, taps)
        final = rms_norm(hidden, self.weights["norm.weight"], self.config.norm_eps)
        taps["final_norm"] = final[0]
        taps["logits"] = F.linear(final, self.weights[self._outer("output")]).float()[0]

    def _outer(self, name):
        tied = self.config.tied_embeddings and name == "output"
        return "tok_embeddings.weight" if tied else f"{name}.weight"

    def _block(self, layer, hidden, turn, mask, taps):
        w = {
            name.split(".", 2)[2].removesuffix(".weight"): tensor
            for name, tensor in self.weights.items()
            if name.startswith(f"layers.{layer}.")
        }
        inner, eps = {}, self.config.norm_eps
        inner["attn_norm"] = rms_norm(hidden, w["attention_norm"], eps)
        inner["attn_out"] = self._attention(layer, w, inner["attn_norm"], turn, mask, inner)
        inner["ffn_inp"] = hidden + inner["attn_out"]
        inner["ffn_norm"] = rms_norm(inner["ffn_inp"], w["ffn_norm"], eps)
        inner["gate"] = F.linear(inner["ffn_norm"], w["feed_forward.w1"])
        inner["up"] = F.linear(inner["ffn_norm"], w["feed_forward.w3"])
        inner["act"] = F.silu(inner["gate"]) * inner["up"]
        inner["ffn_out"] = F.linear(inner["act"], w["feed_forward.w2"])
        inner["out"] = inner["ffn_inp"] + inner["ffn_out"]
        taps.update({f"L{layer:02d}.{name}": tensor[0] for name, tensor in inner.items()})
        return inner["out"]

    def _attention(self, layer, w, x, turn, mask, inner):
        heads = (1, x.shape[1], -1, self.config.head_dim)
        query = inner["q"] = F.linear(x, w["attention.wq"]).view(heads)
        key = inner["k"] = F.linear(x, w["attention.wk"]).view(heads)
        value = inner["v"] = F.linear(x, w["attention.wv"]).view(heads)
        query = inner["q_rope"] = rotate(query, turn)
        key = inner["k_rope"] = rotate(key, turn)

        if self.cache[layer] is not None:
            key = torch.cat([self.cache[layer][0], key], dim=1)
            value = torch.cat([self.cache[layer][1], value], dim=1)
        self.cache[layer] = key, value

        inner["scores"], inner["probs"], ctx = attend(query, key, value, mask)
        inner["ctx"] = ctx
        return F.linear(ctx.view(1, x.shape[1], -1), w["attention.wo"])


def rms_norm(x, gain, eps):
    """Normalise in float32, round, then multiply by the gain."""
    wide = x.float()
    unit = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return unit.type_as(x) * gain


def attend(query, key, value, mask):
    """Return scores, probabilities and mixed values; the mask is added, as the original does."""
    G = query.shape[2] // key.shape[2]
    query = query.transpose(1, 2)
    key = key.repeat_interleave(G, dim=2).transpose(1, 2)
    value = value.repeat_interleave(G, dim=2).transpose(1, 2)
    scores = torch.matmul(query, key.transpose(2, 3)) / math.sqrt(query.shape[-1])
    masked = scores if mask is None else scores + mask
    probs = F.softmax(masked.float(), dim=-1).type_as(query)
    return scores, probs, torch.matmul(probs, value).transpose(1, 2).contiguous()


def causal_mask(T, start, dtype):
    """Return (T, start + T): minus infinity where a query would see a later key."""
    mask = torch.full((T, T), -math.inf).triu(diagonal=1)
    return torch.hstack([torch.zeros((T, start)), mask]).to(dtype)


def frequencies(config):
    """Return radians per position for every pair of channels, rescaled where the blueprint says."""
    exponents = torch.arange(0, config.head_dim, 2).float() / config.head_dim
    plain = 1.0 / (config.rope_theta**exponents)
    return plain if config.rope_scaling is None else scaled(plain, config.rope_scaling)


def scaled(plain, scaling):
    """Rescale by wavelength; Meta's code has the four numbers, with factor 8, written into it."""
    longest = scaling.original_context / scaling.low_freq_factor
    shortest = scaling.original_context / scaling.high_freq_factor
    wavelength = 2 * torch.pi / plain
    smooth = (scaling.original_context / wavelength - scaling.low_freq_factor) / (
        scaling.high_freq_factor - scaling.low_freq_factor
    )
    blended = (1 - smooth) * plain / scaling.factor + smooth * plain
    slowed = torch.where(wavelength > longest, plain / scaling.factor, plain)
    between = (wavelength >= shortest) & (wavelength <= longest)
    return torch.where(between, blended, slowed)


def rotate(x, turn):
    """Multiply neighbouring channels, as complex numbers in float32, by unit numbers."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * turn[None, :, None]).flatten(3).type_as(x)
