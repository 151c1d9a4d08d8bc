"""Mistakes of the residual stream: what each half of a layer adds its result to."""

from __future__ import annotations

import numpy as np

from llama_ref.golden.grids import to_bfloat16, to_float16
from llama_ref.golden.mistake import Mistake
from llama_ref.golden.mistakes.common import at, normed
from llama_ref.golden.passes import Moment

SUMS = ("ffn_inp", "out")


def _skipped_if_last(m: Moment) -> np.ndarray:
    return m.taps["hidden"] if m.layer == m.model.config.n_layers - 1 else m.computed


MISTAKES = (
    Mistake(
        "residual-missing",
        "no residual",
        "What attention and feed-forward return replaces the hidden state instead of being added.",
        "The sum is missing, or the kernel overwrote the buffer that should have been added to.",
        {"ffn_inp": lambda m: m.taps["attn_out"], "out": lambda m: m.taps["ffn_out"]},
    ),
    Mistake(
        "residual-from-norm",
        "residual taken behind the norm",
        "Results are added to the normalised input instead of the hidden state.",
        "The norm works in place, so that `residual` is an alias of what it wrote; or the port"
        " follows a post-norm model.",
        {
            "ffn_inp": lambda m: m.taps["attn_norm"] + m.taps["attn_out"],
            "out": lambda m: m.taps["ffn_norm"] + m.taps["ffn_out"],
        },
    ),
    Mistake(
        "residual-from-layer-input",
        "second residual from the layer's input",
        "Feed-forward is added to what entered the layer, and what attention added is lost.",
        "One variable `residual` serves both sums and is not set anew between them.",
        {"out": lambda m: m.taps["hidden"] + m.taps["ffn_out"]},
    ),
    Mistake(
        "ffn-in-parallel",
        "feed-forward beside attention",
        "Feed-forward reads what entered the layer and not what attention made of it.",
        "GPT-J, GPT-NeoX and Falcon run both halves in parallel; Llama runs one after the other.",
        {"ffn_norm": lambda m: normed(m, m.taps["hidden"])},
    ),
    Mistake(
        "residual-rounded-to-bfloat16",
        "hidden state kept in bfloat16",
        "The hidden state is rounded to bfloat16 after each sum.",
        "Activations are stored in 16 bits between kernels though everything else is wider: look at"
        " the dtype of the buffers, not of the arithmetic.",
        at(SUMS, lambda m: to_bfloat16(m.computed)),
    ),
    Mistake(
        "residual-rounded-to-float16",
        "hidden state kept in float16",
        "The hidden state is rounded to float16 after each sum.",
        "Activations are stored in 16 bits between kernels though everything else is wider; real"
        " models also overflow here, above 65,504.",
        at(SUMS, lambda m: to_float16(m.computed)),
    ),
    Mistake(
        "last-layer-skipped",
        "last layer skipped",
        "The last layer returns what entered it.",
        "The loop ends one layer early, or an entry of `hidden_states` was taken for the output:"
        " entry 0 is the embedding, so that entry L - 1 is one layer short.",
        {"out": _skipped_if_last},
    ),
)
