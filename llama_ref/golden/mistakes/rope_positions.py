"""Mistakes of RoPE's positions: which number each token is turned by."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from llama_ref.golden.grids import to_bfloat16
from llama_ref.golden.mistake import Mistake
from llama_ref.golden.mistakes.common import ROTATED, Applies, at
from llama_ref.golden.mistakes.turning import own_positions, turned
from llama_ref.golden.passes import Change, Moment, Session

Positions = Callable[[Session], np.ndarray]


def _consecutive(session: Session) -> np.ndarray:
    return np.arange(len(session.case.ids))


def _restarted(session: Session) -> np.ndarray:
    return _consecutive(session) - session.case.chunk_start_T


def _one_more_after_the_first_call(session: Session) -> np.ndarray:
    return own_positions(session) + (session.case.chunk_start_T > 0)


def _with_padding(session: Session) -> np.ndarray:
    return own_positions(session) + session.case.padding


def _in_bfloat16(session: Session) -> np.ndarray:
    return to_bfloat16(own_positions(session).astype(np.float64))


def _at(positions: Positions) -> Change:
    return lambda m: turned(m, position_T=positions(m.session))


def _differ(positions: Positions) -> Applies:
    return lambda session: bool((positions(session) != own_positions(session)).any())


def _plus_one(m: Moment) -> np.ndarray:
    return turned(m, position_T=own_positions(m.session) + 1)


def _by_head(m: Moment) -> np.ndarray:
    x_NTH = m.input.swapaxes(0, 1)
    return turned(m, x_NTH, position_T=np.arange(len(x_NTH))).swapaxes(0, 1)


def _head_is_not_position(session: Session) -> bool:
    return session.model.config.n_heads > 1 or any(session.case.positions)


MISTAKES = (
    Mistake(
        "rope-position-plus-one",
        "RoPE counts from 1",
        "Queries and keys are turned by one position too many.",
        "The length of the cache is advanced before the angles are computed, or positions count"
        " from 1: harmless alone, since only differences matter, but not beside a foreign cache.",
        at(ROTATED, _plus_one),
    ),
    Mistake(
        "rope-position-plus-one-on-keys",
        "RoPE counts keys from 1",
        "Keys, and only they, are turned by one position too many.",
        "Keys are turned with the cache's new length and queries with the old one.",
        {"k_rope": _plus_one},
    ),
    Mistake(
        "rope-position-plus-one-behind-cache",
        "RoPE one position off behind the cache",
        "Tokens of every call after the first are turned by one position too many.",
        "The prompt is counted from 0 and generation from the length of the cache plus one, often"
        " since the length is advanced before the new token is turned.",
        at(ROTATED, _at(_one_more_after_the_first_call)),
        _differ(_one_more_after_the_first_call),
    ),
    Mistake(
        "rope-restarts-in-each-chunk",
        "RoPE restarts in each call",
        "Positions are counted from 0 in every call, whatever the cache holds.",
        "`position_ids` default to arange(T) of the call; they have to begin at the length of the"
        " cache.",
        at(ROTATED, _at(_restarted)),
        _differ(_restarted),
    ),
    Mistake(
        "rope-positions-consecutive",
        "RoPE ignores the positions asked for",
        "Tokens are turned by 0, 1, 2, and so on, whatever positions were given.",
        "The port takes no positions, or takes and drops them: the table of angles is sliced by"
        " length and not indexed.",
        at(ROTATED, _at(_consecutive)),
        _differ(_consecutive),
    ),
    Mistake(
        "rope-positions-count-padding",
        "RoPE counts the padding",
        "Positions are counted from the left padding and not from the first real token.",
        "`position_ids` have to be the running sum of the attention mask, less one, as `generate`"
        " of transformers makes them.",
        at(ROTATED, _at(_with_padding)),
        _differ(_with_padding),
    ),
    Mistake(
        "rope-positions-in-bfloat16",
        "RoPE positions in bfloat16",
        "Positions are rounded to bfloat16, which above 256 does not hold every integer.",
        "`arange(..., dtype=x.dtype)` or `.type_as(inv_freq)` in a model that was cast, as in"
        " GPT-NeoX and in older transformers.",
        at(ROTATED, _at(_in_bfloat16)),
        _differ(_in_bfloat16),
    ),
    Mistake(
        "rope-position-is-head",
        "RoPE turns by the head's number",
        "Each head is turned by its own number in place of the token's position.",
        "The rotary function takes (B, T, N, H) and was given (B, N, T, H), or the other way"
        " round: the axis it counts is the heads'.",
        at(ROTATED, _by_head),
        _head_is_not_position,
    ),
)
