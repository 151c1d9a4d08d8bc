"""What the mistakes share: the right arithmetic with one operand exchanged, and who is spared.

A mistake is easiest to read where its code names nothing else. So these functions are the steps
of the forward pass as they should be, each with the operands that somebody gets wrong as arguments;
left out, an operand is the right one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from llama_ref.golden.passes import Change, Moment, Session, whole
from llama_ref.numerics import Matrix
from llama_ref.ops.attention import attention_mix, attention_scores, over_root_width
from llama_ref.ops.linear import linear
from llama_ref.ops.rms_norm import rms_norm

Applies = Callable[[Session], bool]

ROTATED = ("q_rope", "k_rope")


def at(kinds: Iterable[str], change: Change) -> dict[str, Change]:
    """Return the same change for several kinds of tap."""
    return dict.fromkeys(kinds, change)


def several_tokens(session: Session) -> bool:
    """Say whether there is a token that could read, or be read by, another."""
    return len(session.case.ids) > 1


def several_chunks(session: Session) -> bool:
    """Say whether a cache is read that an earlier call has filled."""
    return len(session.case.chunks) > 1


def several_layers(session: Session) -> bool:
    """Say whether there are other layers whose weights could be taken."""
    return session.model.config.n_layers > 1


def several_heads(session: Session) -> bool:
    """Say whether heads can be mistaken for each other."""
    return session.model.config.n_heads > 1


def several_pairs(session: Session) -> bool:
    """Say whether there is a choice of which channels of a head to turn together."""
    return session.model.config.head_dim > 2


def moved(session: Session) -> bool:
    """Say whether any token stands elsewhere than at position 0, where RoPE turns nothing."""
    return any(session.case.positions)


def both(*conditions: Applies) -> Applies:
    """Return the condition that holds where all of these do."""
    return lambda session: all(condition(session) for condition in conditions)


def gain(m: Moment, kind: str | None = None, layer: int | None = None) -> np.ndarray:
    """Return the gain of a norm, by default of the one that goes by."""
    return whole(m.weight(kind, layer))


def normed(
    m: Moment,
    x_TD: np.ndarray | None = None,
    gain_D: np.ndarray | None = None,
    eps: float | None = None,
) -> np.ndarray:
    """Return the norm that goes by, with another input, gain or eps."""
    return rms_norm(
        m.input if x_TD is None else x_TD,
        gain(m) if gain_D is None else gain_D,
        eps=m.model.config.norm_eps if eps is None else eps,
    )


def flat(x: np.ndarray) -> np.ndarray:
    """Return activations with the heads of a token side by side, as a matrix reads them."""
    return x.reshape(len(x), -1)


def project(
    m: Moment, weight: np.ndarray | Matrix | None = None, x: np.ndarray | None = None
) -> np.ndarray:
    """Return the linear map that goes by, with another matrix or input."""
    x_TD = flat(m.input if x is None else x)
    return linear(x_TD, m.weight() if weight is None else weight).reshape(m.computed.shape)


def scored(query_TNH: np.ndarray, key_SKH: np.ndarray) -> np.ndarray:
    """Return the scaled scores (N, T, S) of queries and keys."""
    scores_KGTS = attention_scores(query_TNH, key_SKH, scaling=over_root_width)
    return scores_KGTS.reshape(-1, *scores_KGTS.shape[2:])


def mixed(probs_NTS: np.ndarray, value_SKH: np.ndarray) -> np.ndarray:
    """Return the values (T, N, H) weighted by the probabilities."""
    K = value_SKH.shape[1]
    return attention_mix(probs_NTS.reshape(K, -1, *probs_NTS.shape[1:]), value_SKH)


def exponentials(scores_NTS: np.ndarray, visible_TS: np.ndarray, axis: int = -1) -> np.ndarray:
    """Return exp(score - the largest along an axis), and 0 of what is not seen."""
    seen_NTS = np.where(visible_TS, scores_NTS, -np.inf)
    return np.exp(seen_NTS - seen_NTS.max(axis=axis, keepdims=True))


def distribution(scores_NTS: np.ndarray, visible_TS: np.ndarray) -> np.ndarray:
    """Return the softmax over what is seen."""
    exp_NTS = exponentials(scores_NTS, visible_TS)
    return exp_NTS / exp_NTS.sum(axis=-1, keepdims=True)


def causal(m: Moment) -> np.ndarray:
    """Return the right mask."""
    return np.tri(len(m.case.ids), dtype=bool)


def dumped_whole(m: Moment) -> np.ndarray | None:
    """Return what the candidate has at this tap, if it has it for all tokens."""
    dumped = m.dumped
    return dumped if dumped is not None and dumped.shape == m.computed.shape else None
