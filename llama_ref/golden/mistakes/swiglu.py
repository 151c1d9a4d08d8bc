"""Mistakes of the gate: another curve, another half, or a factor left out."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from llama_ref.golden.mistake import Mistake
from llama_ref.golden.passes import Change
from llama_ref.ops.swiglu import swiglu


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + exp(-x))."""
    return 1 / (1 + np.exp(-x))


def gelu(x: np.ndarray) -> np.ndarray:
    """Return x times the chance that a normal number is below x."""
    return x * (1 + np.vectorize(math.erf, otypes=[x.dtype])(x / math.sqrt(2))) / 2


def gelu_tanh(x: np.ndarray) -> np.ndarray:
    """Return the tanh approximation of gelu."""
    return x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2


def gated_by(curve: Callable[[np.ndarray], np.ndarray]) -> dict[str, Change]:
    """Return the change that lets the gate decide through another curve than silu."""
    return {"act": lambda m: curve(m.taps["gate"]) * m.taps["up"]}


MISTAKES = (
    Mistake(
        "act-gelu",
        "GELU in place of SiLU",
        "The gate goes through GELU, computed with erf.",
        "`nn.GELU()` and ggml_gelu_erf are a neighbour away; `hidden_act` in the config says silu.",
        gated_by(gelu),
    ),
    Mistake(
        "act-gelu-tanh",
        "GELU (tanh) in place of SiLU",
        "The gate goes through the tanh approximation of GELU.",
        "It is what Gemma's GeGLU, ggml_gelu and jax.nn.gelu compute; `hidden_act` in the config"
        " says silu.",
        gated_by(gelu_tanh),
    ),
    Mistake(
        "act-quick-gelu",
        "quick GELU in place of SiLU",
        "The gate goes through g sigmoid(1.702 g).",
        "It is the activation of CLIP, and one constant away from silu in a shared kernel.",
        gated_by(lambda gate_TF: gate_TF * sigmoid(1.702 * gate_TF)),
    ),
    Mistake(
        "act-relu",
        "ReLU in place of SiLU",
        "The gate goes through max(g, 0).",
        "The default activation of a fused feed-forward kernel; `hidden_act` in the config says"
        " silu.",
        gated_by(lambda gate_TF: np.maximum(gate_TF, 0)),
    ),
    Mistake(
        "act-sigmoid",
        "sigmoid in place of SiLU",
        "The gate goes through the sigmoid and is not multiplied by itself.",
        "That is the original GLU; silu(g) is g times sigmoid(g), and the factor g is easily lost"
        " when a kernel works in place.",
        gated_by(sigmoid),
    ),
    Mistake(
        "act-on-up",
        "SiLU on the wrong half",
        "SiLU is applied to up and the gate multiplies it as it is.",
        "Libraries disagree about which half of a fused matrix is activated: silu_and_mul of vLLM"
        " takes the first, F.glu of torch the second.",
        {"act": lambda m: swiglu(m.taps["up"], m.taps["gate"])},
    ),
    Mistake(
        "act-missing",
        "no activation",
        "Gate and up are multiplied without any activation.",
        "The product was written and the SiLU before it forgotten, or its result went into another"
        " buffer.",
        {"act": lambda m: m.taps["gate"] * m.taps["up"]},
    ),
    Mistake(
        "act-not-multiplied",
        "up is not used",
        "The result is silu(gate) without the factor up.",
        "A plain feed-forward block of two matrices was taken for a gated one of three.",
        {"act": lambda m: swiglu(m.taps["gate"], np.ones_like(m.taps["gate"]))},
    ),
)
