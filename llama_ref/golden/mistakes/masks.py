"""Mistakes of the mask and the cache: which positions a query sees.

Each is a table of who sees whom; the right one is s <= t. Tokens are fed in several calls, and
`start` is the first token of a query's own call: what comes before it is read from the cache, and
what is fed later nobody sees, whatever his mask.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from llama_ref.golden.mistake import Mistake
from llama_ref.golden.mistakes.common import (
    causal,
    distribution,
    dumped_whole,
    exponentials,
    several_chunks,
    several_tokens,
)
from llama_ref.golden.passes import Change, Moment, Session

Sees = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Says from query t (T, 1), key s (S,) and start (T, 1) whether t sees s."""


def masked_by(sees: Sees) -> dict[str, Change]:
    """Return the change to probabilities under another mask."""
    return {"probs": lambda m: distribution(m.input, table_of(sees, m))}


def table_of(sees: Sees, m: Moment) -> np.ndarray:
    """Return who sees whom in the case that runs: (T, S)."""
    s_S, start_S = np.arange(len(m.case.ids)), m.case.chunk_start_T
    is_fed_TS = start_S <= start_S[:, None]
    return sees(s_S[:, None], s_S, start_S[:, None]) & is_fed_TS


def _hides_self(t_T1: np.ndarray, s_S: np.ndarray, start_T1: np.ndarray) -> np.ndarray:
    return (s_S < t_T1) | ((s_S == 0) & (t_T1 == 0))  # nobody is left without anything to see


def _sees_own_call_whole(t_T1: np.ndarray, s_S: np.ndarray, start_T1: np.ndarray) -> np.ndarray:
    return (s_S <= t_T1) | (start_T1 > 0)


def _last_entry_overwritten(t_T1: np.ndarray, s_S: np.ndarray, start_T1: np.ndarray) -> np.ndarray:
    was_last_of_call_S = np.isin(s_S + 1, start_T1)
    return (s_S <= t_T1) & ~(was_last_of_call_S & (s_S < start_T1))


def _overwritten_scores(m: Moment) -> np.ndarray:
    is_there_TS = table_of(_last_entry_overwritten, m) | ~causal(m)
    return np.where(is_there_TS, m.computed, 0)


def _written_too_late(t_T1: np.ndarray, s_S: np.ndarray, start_T1: np.ndarray) -> np.ndarray:
    return (s_S <= t_T1) & ~((s_S == t_T1) & (start_T1 > 0))


def _padding_attended(m: Moment) -> np.ndarray:
    dumped_NTS = dumped_whole(m)
    if dumped_NTS is not None:  # how much each row lost depends on what the padding holds
        return m.computed * np.minimum(dumped_NTS.sum(axis=-1, keepdims=True), 1)
    largest_NT1 = np.where(causal(m), m.input, -np.inf).max(axis=-1, keepdims=True)
    own_NT1 = exponentials(m.input, causal(m)).sum(axis=-1, keepdims=True)
    return m.computed * own_NT1 / (own_NT1 + m.case.padding * np.exp(-largest_NT1))


def _padding_mixed_in(m: Moment) -> np.ndarray:
    # Padding is one token repeated, and whatever it reads is padding: its values are all alike. So
    # each key head has one vector that is mixed in, by the share that the real tokens lost.
    dumped_TNH = dumped_whole(m)
    if dumped_TNH is None:
        return m.computed
    T, N, H = m.computed.shape
    K = m.model.config.n_kv_heads
    share_NT = np.maximum(1 - m.taps["probs"].sum(axis=-1), 0)
    share = share_NT.T.reshape(T, K, N // K, 1)
    rest = (dumped_TNH - m.computed).reshape(T, K, N // K, H)
    value = (share * rest).sum(axis=(0, 2)) / (share**2).sum(axis=(0, 2))  # least squares
    return m.computed + (share * value[:, None]).reshape(T, N, H)


def calls_of_several(session: Session) -> bool:
    """Say whether any call has two tokens, of which one must not see the other."""
    return any(n > 1 for n in session.case.chunks)


def _later_calls_of_several(session: Session) -> bool:
    return any(n > 1 for n in session.case.chunks[1:])


MISTAKES = (
    Mistake(
        "mask-missing",
        "no causal mask",
        "Every query sees all positions of its call, those after it too.",
        "The mask is not passed on, or is made for a call of one token and kept for prompts.",
        masked_by(lambda t, s, start: (s <= t) | True),
        calls_of_several,
    ),
    Mistake(
        "mask-sees-next",
        "mask one too wide",
        "Every query sees one position too many, the one after its own.",
        "`triu(diagonal=2)`, or s <= t + 1: an off-by-one between a position and a length.",
        masked_by(lambda t, s, start: s <= t + 1),
        calls_of_several,
    ),
    Mistake(
        "mask-hides-self",
        "mask one too narrow",
        "Every query sees what is before it and not its own position, except for the first.",
        "`triu(diagonal=0)`, or s < t: an off-by-one between a position and a length.",
        masked_by(_hides_self),
        several_tokens,
    ),
    Mistake(
        "mask-not-offset-by-cache",
        "mask not moved by the cache",
        "Query t of a later call sees positions 0 to t, as if nothing were cached.",
        "The mask is aligned at the upper left, as torch's is_causal=True is where there are more"
        " keys than queries; it has to be aligned at the lower right.",
        masked_by(lambda t, s, start: s <= t - start),
        several_chunks,
    ),
    Mistake(
        "mask-forgets-cache",
        "cache not read",
        "Tokens of a later call see only their own call.",
        "The cache is written and not read, or keys and values of the call are passed to attention"
        " in its place.",
        masked_by(lambda t, s, start: (s <= t) & (s >= start)),
        several_chunks,
    ),
    Mistake(
        "mask-missing-in-later-chunks",
        "no causal mask once the cache is in use",
        "Tokens of a later call see their own call whole, those after them too.",
        "The mask is made only where there are as many queries as keys: later calls were taken to"
        " be of one token, which needs none.",
        masked_by(_sees_own_call_whole),
        _later_calls_of_several,
    ),
    Mistake(
        "cache-last-entry-overwritten",
        "last entry of the cache overwritten",
        "The last key and value of each call are lost to all later ones (a dump has zeros there).",
        "The next call writes at the last used place and not behind it: `length - 1` where `length`"
        " is right.",
        {"scores": _overwritten_scores, **masked_by(_last_entry_overwritten)},
        several_chunks,
    ),
    Mistake(
        "cache-written-too-late",
        "own key not yet in the cache",
        "Tokens of later calls do not see their own position.",
        "Attention reads the cache before the new keys are in it, or with its length from before"
        " the call.",
        masked_by(_written_too_late),
        several_chunks,
    ),
    Mistake(
        "padding-attended",
        "padding attended",
        "Queries see the left padding, so that the probabilities of real tokens sum to less than"
        " one.",
        "The padding mask is missing or does not reach attention; it shows only in the shorter"
        " prompts of a batch.",
        {"probs": _padding_attended, "ctx": _padding_mixed_in},
        lambda session: session.case.padding > 0,
    ),
)
