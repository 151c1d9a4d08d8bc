"""A Llama as a backend author would port it: not our code, and able to make known mistakes.

It goes other ways than the package wherever there are any: a batch axis and left padding, heads in
front of tokens, keys and values repeated for every query head, one preallocated cache per layer, a
mask that is added, rotation by complex numbers, norms and SwiGLU rounded once at the end. It is
right, so a checker must accept it; given the name of a mistake it is wrong in that one way, so a
checker must notice.

In 16-bit runs matrices multiply in float32 and every result is rounded once; scores and softmax
stay in float32, and probabilities are rounded before they weigh the values. Neither released code
rounds at just these points.

Arrays are (batch, tokens, channels) or (batch, heads, tokens, width).
"""

import math

import numpy as np

from tests.golden.port_arithmetic import gated, matmul, norm, on_grid
from tests.golden.port_attention import (
    Cache,
    heads,
    mixed,
    scaled_scores,
    side_by_side,
    softmax,
    spread,
    visible,
)
from tests.golden.port_batch import Taps, calls
from tests.golden.port_mistakes import MISTAKES, UNKNOWN
from tests.golden.port_ranks import parts_of, ranks_of, reduced
from tests.golden.port_rope import rope
from tests.golden.port_weights import layer_weights, outer_weights

__all__ = ["MISTAKES", "UNKNOWN", "run", "run_batch"]


def run(config, weights, case, dtype="float32", mistake=None):
    """Run one case, padded on the left by its `padding`; return its taps.

    Parameters
    ----------
    config : Config
    weights : mapping of str to ndarray
        By Hugging Face name.
    case : Case
        Fed in its chunks, through a cache.
    dtype : {"float32", "bfloat16", "float16"}
        What activations are rounded to.
    mistake : str, optional
        One of `MISTAKES` or `UNKNOWN`.

    Returns
    -------
    dict of str to ndarray
        Every tap, by our names and in our axes, for all tokens of the case; in `dtype`, the scores
        in float32. What a call did not look at is 0 in scores and probabilities. A layer that was
        skipped has no taps.
    """
    return run_batch(config, weights, [case], dtype, mistake)[case.name]


def run_batch(config, weights, cases, dtype="float32", mistake=None):
    """Run several cases as one batch, padded on the left; return the taps of each, by name.

    Parameters, but for the list of cases, are those of `run`. The cases must be fed in the same
    number of calls, and all but the first call in the same sizes.
    """
    if mistake is not None and mistake not in MISTAKES + UNKNOWN:
        raise ValueError(f"the port knows no mistake {mistake!r}")
    with np.errstate(all="ignore"):
        return _Port(config, weights, dtype, mistake).run(cases)


class _Port:
    def __init__(self, config, weights, dtype, mistake):
        self.config, self.dtype, self.mistake = config, dtype, mistake
        self.embedding, self.final_gain, self.head = outer_weights(config, weights, dtype, mistake)
        n_layers = config.n_layers - (mistake == "last-layer-skipped")
        self.layers = [
            layer_weights(config, weights, layer, dtype, mistake) for layer in range(n_layers)
        ]

    def run(self, cases):
        config, fed = self.config, calls(cases, self.config.vocab_size, self.mistake)
        capacity = sum(call.ids.shape[1] for call in fed)
        self.taps = Taps(cases, self.dtype)
        self.n_ranks = ranks_of(cases, self.mistake)
        self.shows_parts = cases[0].n_ranks > 1
        self.caches = [
            Cache(len(cases), config.n_kv_heads, capacity, config.head_dim) for _ in self.layers
        ]
        for call in fed:
            self._forward(call)
        if self.mistake == "logits-of-previous-token":
            for taps in self.taps.found.values():
                taps["logits"][1:] = taps["logits"][:-1].copy()
        return self.taps.found

    def _forward(self, call):
        hidden = self.embedding[call.ids]
        if self.mistake == "embedding-scaled":
            hidden = self._rounded(hidden * np.float32(math.sqrt(self.config.d_model)))
        self.taps.rows("embed", call.index, hidden)
        for number in range(len(self.layers)):
            hidden = self._layer(number, hidden, call)
        final = self._norm(hidden, self.final_gain)
        if self.mistake == "final-norm-missing":
            final = hidden
        if self.mistake == "final-norm-twice":
            final = self._norm(final, self.final_gain)
        self.taps.rows("final_norm", call.index, final)
        self.taps.rows("logits", call.index, self._logits(final))

    def _logits(self, final):
        logits = self._linear(final, self.head)
        if self.mistake == "logits-softcapped":
            logits = self._rounded(30 * np.tanh(logits / 30))
        if self.mistake == "unknown-vocabulary-half-rolled":
            half = logits.shape[-1] // 2
            logits[..., half:] = np.roll(logits[..., half:], 1, axis=-1)
        return logits

    def _layer(self, number, hidden, call):
        """Run one layer: attention and feed-forward, each added to what it read."""
        own, mistake = self.layers[number], self.mistake

        def tap(name, array):
            self.taps.rows(f"L{number:02d}.{name}", call.index, array)

        normed = hidden if mistake == "norm-missing" else self._norm(hidden, own["attn_gain"])
        tap("attn_norm", normed)
        attended = self._attention(number, normed, call)
        tap("attn_out", attended)
        middle = self._added(normed if mistake == "residual-from-norm" else hidden, attended)
        tap("ffn_inp", middle)

        read = hidden if mistake == "ffn-in-parallel" else middle
        normed = read if mistake == "norm-missing" else self._norm(read, own["ffn_gain"])
        tap("ffn_norm", normed)
        gate, up = self._linear(normed, own["gate"]), self._linear(normed, own["up"])
        tap("gate", gate)
        tap("up", up)
        act = self._rounded(gated(gate, up, mistake))
        tap("act", act)
        thought = self._over_ranks(act, own["down"], f"L{number:02d}.ffn_out", call)
        tap("ffn_out", thought)
        wrong = {"residual-from-norm": normed, "residual-from-layer-input": hidden}
        out = self._added(wrong.get(mistake, middle), thought)
        if mistake == "unknown-token-row-repeated" and number == 0:
            _repeat_row(out, call.index, 5)
        tap("out", out)
        return out

    def _attention(self, number, normed, call):
        """Project, turn, remember, look back, and project what was found."""
        config, mistake, own = self.config, self.mistake, self.layers[number]
        n_heads, n_kv_heads = config.n_heads, config.n_kv_heads
        name = f"L{number:02d}.{{}}".format
        query, key, value = (self._linear(normed, own[short]) for short in "qkv")
        if mistake == "unknown-keys-scaled":
            key = self._rounded(key * np.float32(1.1))
        # A dump shows the projections as they lie in memory, before anyone cuts them wrongly.
        self.taps.heads(name("q"), call.index, heads(query, n_heads, None))
        self.taps.heads(name("k"), call.index, heads(key, n_kv_heads, None))
        self.taps.heads(name("v"), call.index, heads(value, n_kv_heads, None))

        query = self._turned(heads(query, n_heads, mistake), call, "queries")
        plain_key = heads(key, n_kv_heads, mistake)
        key = self._turned(plain_key, call, "keys")
        value = self._turned(heads(value, n_kv_heads, mistake), call, "values")
        self.taps.heads(name("q_rope"), call.index, query)
        self.taps.heads(name("k_rope"), call.index, key)

        cache = self.caches[number]
        keys, values, index = cache.append(key, plain_key, value, call.index, mistake)
        groups = n_heads // n_kv_heads
        scores = scaled_scores(query, spread(keys, groups, "key", mistake), config, mistake)
        self.taps.maps(name("scores"), call.index, index, scores, "float32")
        sees = visible(call.index, index, call.first, mistake)
        probs = self._rounded(softmax(scores, sees, mistake))
        self.taps.maps(name("probs"), call.index, index, probs, self.dtype)
        ctx = self._rounded(mixed(probs, spread(values, groups, "value", mistake), mistake))
        self.taps.heads(name("ctx"), call.index, ctx)
        return self._over_ranks(side_by_side(ctx, mistake), own["o"], name("attn_out"), call)

    def _turned(self, x, call, kind):
        return self._rounded(rope(x, call.position, self.config, kind, self.mistake))

    def _added(self, stream, update):
        """Add to the residual stream."""
        of_every_rank = self.mistake == "residual-of-every-rank"
        times = np.float32(max(2, self.n_ranks) if of_every_rank else 1)
        total = update if self.mistake == "residual-missing" else times * stream + update
        if self.mistake and self.mistake.startswith("residual-rounded-to-"):
            total = on_grid(total, self.mistake.removeprefix("residual-rounded-to-"))
        return self._rounded(total)

    def _over_ranks(self, x, weight, name, call):
        """Multiply in parts, if there are several ranks, and add these up."""
        if self.n_ranks == 1:
            return self._linear(x, weight)
        operands = parts_of(x, weight, self.n_ranks, self.mistake)
        parts = [self._linear(own_x, own_weight) for own_x, own_weight in operands]
        if self.shows_parts:
            for rank, part in enumerate(parts):
                self.taps.rows(f"{name}.rank{rank}", call.index, part)
        return reduced(parts, self._rounded, self.mistake)

    def _norm(self, x, gain):
        return self._rounded(norm(x, gain, self.config.norm_eps, self.mistake))

    def _linear(self, x, weight):
        return self._rounded(matmul(x, weight, self.mistake))

    def _rounded(self, x):
        return on_grid(x, self.dtype)


def _repeat_row(hidden, index, token):
    """Overwrite the row of a token by that of the one before it, where both are in this call."""
    for rows, own in zip(hidden, index, strict=True):
        at = int(token - own[0])
        if 0 < at < len(rows):
            rows[at] = rows[at - 1]
