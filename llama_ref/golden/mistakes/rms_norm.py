"""Mistakes of the norms: what is averaged, where eps goes, and which gain is used."""

from __future__ import annotations

import numpy as np

from llama_ref.golden.mistake import Mistake
from llama_ref.golden.mistakes.common import at, gain, normed
from llama_ref.golden.passes import Moment, Session, whole
from llama_ref.golden.taps import NORMS


def mean_over_channels(x_TD: np.ndarray) -> np.ndarray:
    """Return the mean of each token's channels, the axis kept."""
    return x_TD.mean(axis=-1, keepdims=True)


def _eps_outside_root(m: Moment) -> np.ndarray:
    rms_T1 = np.sqrt(mean_over_channels(m.input**2))
    return m.input / (rms_T1 + m.model.config.norm_eps) * gain(m)


def _mean_subtracted(m: Moment) -> np.ndarray:
    return normed(m, m.input - mean_over_channels(m.input))


def _sum_not_mean(m: Moment) -> np.ndarray:
    sum_T1 = (m.input**2).sum(axis=-1, keepdims=True)
    return m.input / np.sqrt(sum_T1 + m.model.config.norm_eps) * gain(m)


def _has_gains(session: Session) -> bool:
    # One stands for all: models have gains of 1 everywhere or nowhere, and to look at each would
    # read every layer of a model that is too large to be held.
    return bool((whole(session.model.weights.final_gain_D) != 1).any())


MISTAKES = (
    Mistake(
        "norm-eps-1e-6",
        "eps of 1e-6",
        "The norms add 1e-6 to the mean square, whatever the config says.",
        "It is the default of many libraries and was hard-coded in early llama.cpp; Llama 2 and"
        " later are trained with `rms_norm_eps` 1e-5.",
        at(NORMS, lambda m: normed(m, eps=1e-6)),
        lambda session: session.model.config.norm_eps != 1e-6,
    ),
    Mistake(
        "norm-eps-missing",
        "no eps",
        "The norms divide by the root of the mean square with nothing added.",
        "A hand-written kernel left it out: its outputs are too large where a token's numbers are"
        " small, which is right behind the embedding.",
        at(NORMS, lambda m: normed(m, eps=0.0)),
    ),
    Mistake(
        "norm-eps-outside-root",
        "eps outside the root",
        "The norms divide by sqrt(mean square) + eps in place of sqrt(mean square + eps).",
        "A kernel that adds eps after the square root, as Adam and some guides to LayerNorm do.",
        at(NORMS, _eps_outside_root),
    ),
    Mistake(
        "norm-mean-subtracted",
        "LayerNorm in place of RMSNorm",
        "The mean over the channels is subtracted before the norm.",
        "A LayerNorm without bias was used, as `nn.LayerNorm` or ggml_norm instead of"
        " ggml_rms_norm.",
        at(NORMS, _mean_subtracted),
    ),
    Mistake(
        "norm-sum-not-mean",
        "sum in place of mean of squares",
        "The norms divide by the root of the sum of squares, which is sqrt(D) too large.",
        "An L2 norm such as F.normalize, or a reduction in a kernel that is never divided by D.",
        at(NORMS, _sum_not_mean),
    ),
    Mistake(
        "norm-gain-missing",
        "no gain",
        "The normalised numbers are not multiplied by the learned gain.",
        "A norm without affine weights, or weights that never reached it: ports tested on weights"
        " of 1 keep this for long.",
        at(NORMS, lambda m: normed(m, gain_D=np.ones_like(gain(m)))),
        _has_gains,
    ),
    Mistake(
        "norm-gain-plus-one",
        "gain + 1",
        "The normalised numbers are multiplied by 1 + gain.",
        "Gemma stores its gains less one; a norm written for both families adds it for Llama too.",
        at(NORMS, lambda m: normed(m, gain_D=1 + gain(m))),
    ),
    Mistake(
        "norm-gains-swapped",
        "gains of the two norms swapped",
        "The norm before attention uses the gain of the one before feed-forward, and vice versa.",
        "Names mislead here: HF's post_attention_layernorm is Meta's ffn_norm, the norm *before*"
        " feed-forward.",
        {
            "attn_norm": lambda m: normed(m, gain_D=gain(m, "ffn_norm")),
            "ffn_norm": lambda m: normed(m, gain_D=gain(m, "attn_norm")),
        },
        _has_gains,
    ),
    Mistake(
        "norm-missing",
        "no norm in the layers",
        "Attention and feed-forward read the hidden state as it is.",
        "The result of the norm is thrown away: a kernel writes into a buffer that the next step"
        " does not read.",
        at(("attn_norm", "ffn_norm"), lambda m: m.input),
    ),
    Mistake(
        "final-norm-missing",
        "no norm before the head",
        "The logits are computed from the hidden state without the final norm.",
        "The loop over layers is followed by the head at once; the top choice survives this in most"
        " rows, so that generated text looks sane.",
        {"final_norm": lambda m: m.input},
    ),
    Mistake(
        "final-norm-twice",
        "final norm applied twice",
        "What the final norm returns is normalised once more.",
        "The last of `hidden_states` in transformers is normalised already, unlike all the others,"
        " and a head of one's own that begins with the norm repeats it.",
        {"final_norm": lambda m: normed(m, m.computed)},
    ),
)
