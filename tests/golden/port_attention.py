"""The port's attention: a cache filled call by call, repeated heads, a mask that is added.

Arrays are (batch, heads, tokens, width). A token is known by its index in its own sequence; padding
has negative ones, so that who may see whom is one comparison.
"""

import math

import numpy as np

from tests.golden.port_arithmetic import on_grid


class Cache:
    """The keys and values of one layer, with the index of the token in every slot."""

    def __init__(self, batch, n_kv_heads, capacity, head_dim):
        self.keys = np.zeros((batch, n_kv_heads, capacity, head_dim), np.float32)
        self.values = np.zeros_like(self.keys)
        self.index = np.zeros((batch, capacity), np.int64)
        self.filled = 0

    def append(self, keys, plain_keys, values, index, mistake):
        """Write what is new behind what is there; return all keys, values and indices.

        The plain keys, those that RoPE has not turned, are there for who stores the wrong ones.
        """
        lo = self.filled
        if mistake == "cache-last-entry-overwritten" and lo > 0:
            lo -= 1
        if mistake == "cache-in-float8":
            keys, values = on_grid(keys, "float8"), on_grid(values, "float8")
        self.filled = hi = lo + keys.shape[2]
        self.keys[:, :, lo:hi], self.values[:, :, lo:hi] = keys, values
        self.index[:, lo:hi] = index
        now = self.keys[:, :, :hi]
        if mistake == "cache-holds-unrotated-keys":
            now = now.copy()  # turned for this call, plain for later ones
            self.keys[:, :, lo:hi] = plain_keys
        return now, self.values[:, :, :hi], self.index[:, :hi]


def heads(flat, n_heads, mistake):
    """Cut (batch, tokens, heads side by side) into heads."""
    batch, n_tokens, width = flat.shape
    if mistake == "heads-split-transposed":
        return flat.reshape(batch, n_tokens, width // n_heads, n_heads).transpose(0, 3, 1, 2)
    return flat.reshape(batch, n_tokens, n_heads, width // n_heads).transpose(0, 2, 1, 3)


def side_by_side(ctx, mistake):
    """Put heads back into one row per token."""
    order = (0, 2, 3, 1) if mistake == "context-heads-transposed" else (0, 2, 1, 3)
    return ctx.transpose(order).reshape(ctx.shape[0], ctx.shape[2], -1)


def spread(x, times, kind, mistake):
    """Give every query head its own copy of the key/value head that it reads."""
    if mistake in ("key-value-heads-tiled", f"{kind}-heads-tiled"):
        return np.tile(x, (1, times, 1, 1))
    return np.repeat(x, times, axis=1)


def scaled_scores(query, key, config, mistake):
    """Return query . key / sqrt(H), in float32 whatever the format of the run."""
    scale = 1 / math.sqrt(config.head_dim)
    match mistake:
        case "scale-missing":
            scale = 1.0
        case "scale-by-width":
            scale = 1 / config.head_dim
        case "scale-of-model-width":
            scale = 1 / math.sqrt(config.d_model)
    scores = (query * np.float32(scale)) @ key.swapaxes(-1, -2)
    return 50 * np.tanh(scores / 50) if mistake == "scores-softcapped" else scores


def visible(query_index, key_index, first, mistake):
    """Return who may see whom, (batch, queries, keys); `first` is the first token of this call."""
    own, other = query_index[:, :, None], key_index[:, None, :]
    first = first[:, None, None]
    sees = other <= own
    match mistake:
        case "mask-missing":
            sees = np.ones_like(sees)
        case "mask-sees-next":
            sees = other <= own + 1
        case "mask-hides-self":
            sees = (other < own) | ((own == 0) & (other == 0))
        case "mask-not-offset-by-cache":
            sees = other <= own - first
        case "mask-forgets-cache":
            sees = sees & (other >= first)
        case "mask-missing-in-later-chunks":
            sees = sees | (first > 0)
        case "cache-written-too-late":
            sees = sees & ((other < own) | (first == 0))
        case "padding-attended":
            return sees
    return sees & (other >= 0)


def softmax(scores, sees, mistake):
    """Return probabilities of the scores; what is hidden has the lowest number added to it."""
    if mistake == "unknown-softmax-temperature":
        scores = scores / np.float32(1.07)
    bias = np.where(sees, 0, np.finfo(np.float32).min).astype(np.float32)
    axis = -2 if mistake == "softmax-over-queries" else -1
    scores = scores + bias[:, None]
    scores = scores - scores.max(axis=axis, keepdims=True)
    weight = np.exp2(scores) if mistake == "softmax-base-2" else np.exp(scores)
    if mistake == "softmax-not-normalised":
        return weight
    if mistake == "softmax-in-bfloat16":
        weight = on_grid(weight, "bfloat16")
        return on_grid(weight / weight.sum(axis=axis, keepdims=True), "bfloat16")
    return weight / weight.sum(axis=axis, keepdims=True)


def mixed(probs, value, mistake):
    """Return the values weighted by the probabilities."""
    ctx = probs @ value
    if mistake == "unknown-head-zeroed":
        ctx[:, 1] = 0
    if mistake == "unknown-last-context-rows-garbage":
        last = ctx[:, :, -3:]
        last[...] = np.random.default_rng(0).normal(size=last.shape)
    return ctx
