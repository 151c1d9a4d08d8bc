"""Mistakes of the rotation: which channels are a pair, which way they turn, and what is turned."""

from __future__ import annotations

import numpy as np

from llama_ref.golden.grids import to_float16
from llama_ref.golden.mistake import Mistake
from llama_ref.golden.mistakes.common import (
    ROTATED,
    at,
    both,
    mixed,
    moved,
    several_heads,
    several_pairs,
)
from llama_ref.golden.mistakes.turning import cos_and_sin, own_positions, rotation, turned
from llama_ref.golden.pairing import to_interleaved
from llama_ref.golden.passes import Moment, Session
from llama_ref.ops.rope import rope_half_split, rope_interleaved

OTHER_PAIRING = {"half_split": rope_interleaved, "interleaved": rope_half_split}


def _pairing_swapped(m: Moment) -> np.ndarray:
    return OTHER_PAIRING[m.model.weights.pairing](m.input, *cos_and_sin(m))


def _table_in_other_pairing(m: Moment) -> np.ndarray:
    cos_TP, sin_TP = cos_and_sin(m)
    quarter_turned = rotation(m)(m.input, np.zeros_like(cos_TP), np.ones_like(sin_TP))
    if m.model.weights.pairing == "half_split":
        cos_TH, sin_TH = cos_TP.repeat(2, axis=1), sin_TP.repeat(2, axis=1)
    else:
        cos_TH, sin_TH = np.tile(cos_TP, 2), np.tile(sin_TP, 2)
    return m.input * cos_TH[:, None] + quarter_turned * sin_TH[:, None]


def _is_half_split(session: Session) -> bool:
    return session.model.weights.pairing == "half_split"


def _cos_sin_swapped(m: Moment) -> np.ndarray:
    cos_TP, sin_TP = cos_and_sin(m)
    return rotation(m)(m.input, sin_TP, cos_TP)


def right_angles(session: Session) -> np.ndarray:
    """Return position times frequency: (T, P)."""
    return own_positions(session)[:, None] * session.model.frequency_P


def _angles_in_float16(m: Moment) -> np.ndarray:
    angle_TP = to_float16(right_angles(m.session))
    return rotation(m)(m.input, np.cos(angle_TP), np.sin(angle_TP))


def _has_long_angles(session: Session) -> bool:
    angle_TP = right_angles(session)
    with np.errstate(over="ignore"):
        return bool((to_float16(angle_TP) != angle_TP).any())


def _heads_split_transposed(x_TNH: np.ndarray) -> np.ndarray:
    """Split the channels of a token as (H, N) where (N, H) is right."""
    T, N, H = x_TNH.shape
    return x_TNH.reshape(T, H, N).swapaxes(1, 2)


MISTAKES = (
    Mistake(
        "rope-pairing-swapped",
        "RoPE pairs the wrong channels",
        "Neighbouring channels are turned together where halves should be, or halves where"
        " neighbours should.",
        "HF checkpoints want rotate_half (ggml's mode NEOX); Meta's and GGUF files want neighbours"
        " (ggml's mode NORM, MLX's traditional=True).",
        at(ROTATED, _pairing_swapped),
        both(moved, several_pairs),
    ),
    Mistake(
        "rope-table-in-other-pairing",
        "RoPE table laid out for the other pairing",
        "The right channels are combined, with angles that belong to other pairs.",
        "`rotate_half` needs `cat((freqs, freqs))`, and a rotation of neighbours needs"
        " `repeat_interleave(2)`; one was combined with the other's table.",
        at(ROTATED, _table_in_other_pairing),
        both(moved, several_pairs),
    ),
    Mistake(
        "rope-halves-written-interleaved",
        "RoPE writes halves as neighbours",
        "Halves are turned as they should be, and then written as neighbours.",
        "`stack(..., -1).flatten(-2)` where `cat(..., -1)` is due; scores stay right as long as"
        " queries and keys are both written so.",
        at(ROTATED, lambda m: to_interleaved(m.computed)),
        both(_is_half_split, several_pairs),
    ),
    Mistake(
        "rope-missing",
        "no RoPE",
        "Queries and keys are not turned at all.",
        "The rotated arrays are computed and not used, or the kernel for this layout is a stub.",
        at(ROTATED, lambda m: m.input),
        moved,
    ),
    Mistake(
        "rope-missing-on-queries",
        "no RoPE on queries",
        "Keys are turned and queries are not.",
        "One of two return values is dropped, or an in-place rotation works on a copy of the"
        " queries.",
        {"q_rope": lambda m: m.input},
        moved,
    ),
    Mistake(
        "rope-missing-on-keys",
        "no RoPE on keys",
        "Queries are turned and keys are not.",
        "Keys go into the cache before the rotation, or an in-place rotation works on a copy of"
        " them.",
        {"k_rope": lambda m: m.input},
        moved,
    ),
    Mistake(
        "rope-direction-flipped",
        "RoPE turns backwards",
        "Every pair is turned by minus its angle.",
        "The sign of sin is flipped: rotate_half returns (second, -first) where (-second, first) is"
        " right, or the complex product takes the conjugate.",
        at(ROTATED, lambda m: turned(m, frequency_P=-m.model.frequency_P)),
        moved,
    ),
    Mistake(
        "rope-cos-sin-swapped",
        "RoPE with cos and sin exchanged",
        "Cosine is used where sine belongs and sine where cosine does.",
        "The rotary embedding returns (cos, sin) and is unpacked as (sin, cos); it shows at"
        " position 0 already.",
        at(ROTATED, _cos_sin_swapped),
    ),
    Mistake(
        "rope-applied-twice",
        "RoPE applied twice",
        "Queries and keys are turned by twice their angle.",
        "The projection or the attention kernel rotates already, or keys are turned both on the way"
        " into the cache and out of it.",
        at(ROTATED, lambda m: turned(m, m.computed)),
        moved,
    ),
    Mistake(
        "rope-angles-in-float16",
        "RoPE angles in float16",
        "The product of position and frequency is rounded to float16 before cosine and sine.",
        "The rotary module was cast with `.half()`, or autocast reaches into it; far positions end"
        " up radians away, beyond 65,504 as NaN.",
        at(ROTATED, _angles_in_float16),
        _has_long_angles,
    ),
    Mistake(
        "heads-split-transposed",
        "heads split in the wrong order",
        "The channels of a token are split as (H, N) where (N, H) is right.",
        "A reshape that names the axes in the order in which they are wanted, and not in the one in"
        " which they are stored; column-major languages do it unasked.",
        {
            **at(ROTATED, lambda m: turned(m, _heads_split_transposed(m.input))),
            "ctx": lambda m: mixed(m.taps["probs"], _heads_split_transposed(m.taps["v"])),
        },
        several_heads,
    ),
    Mistake(
        "rope-on-values",
        "RoPE on values too",
        "Values are turned like keys before they are mixed.",
        "A fused q, k, v is rotated as one array, or the cache rotates both of its halves.",
        {"ctx": lambda m: mixed(m.taps["probs"], turned(m, m.taps["v"]))},
        moved,
    ),
)
