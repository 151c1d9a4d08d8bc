"""Mistakes of tensor parallelism: what ranks make of their parts of a sum.

    attn_out  =  part of rank 0  +  part of rank 1  +  …             likewise ffn_out

A candidate seldom says over how many ranks it is cut. Of the numbers that are possible, and of the
ranks, the one is meant that comes nearest to what was dumped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from llama_ref.golden.cases import can_be_cut
from llama_ref.golden.mistake import Mistake
from llama_ref.golden.mistakes.common import at, dumped_whole, flat
from llama_ref.golden.passes import Change, Moment, Session, whole
from llama_ref.golden.taps import INPUTS
from llama_ref.trace import SUMMED

USUAL = (2, 4, 8)
"""Numbers of ranks that are tried where the case does not say."""


def _numbers(session: Session) -> list[int]:
    """Return over how many ranks the pass may be cut."""
    if session.case.n_ranks > 1:
        return [session.case.n_ranks]
    return [n for n in USUAL if can_be_cut(session.model.config, n)]


def _can_be_cut(session: Session) -> bool:
    return bool(_numbers(session))


def _nearest(m: Moment, guesses: Iterable[np.ndarray]) -> np.ndarray:
    """Return the guess that is nearest to what was dumped; the first, if nothing was."""
    dumped = dumped_whole(m)
    if dumped is None or not np.isfinite(dumped).all():
        return next(iter(guesses))
    return min(guesses, key=lambda guess: float(np.linalg.norm(guess - dumped)))


def _parts(m: Moment, n_ranks: int, shift: int = 0) -> list[np.ndarray]:
    """Return what each rank has of a sum, with the columns of the rank so many places further."""
    x = np.split(flat(m.taps[INPUTS[m.kind][0]]), n_ranks, axis=1)
    weight = np.split(whole(m.whole_weight()), n_ranks, axis=1)
    return [x[rank] @ weight[(rank + shift) % n_ranks].T for rank in range(n_ranks)]


def _one_part_alone(m: Moment) -> np.ndarray:
    if m.rank is not None:
        return m.computed
    return _nearest(m, (part for n in _numbers(m.session) for part in _parts(m, n)))


def _times_ranks(m: Moment) -> np.ndarray:
    if m.rank is not None:
        return m.computed
    return _nearest(m, (n * m.computed for n in _numbers(m.session)))


def _of_other_ranks(m: Moment) -> np.ndarray:
    def guesses() -> Iterator[np.ndarray]:
        for n in _numbers(m.session):
            for shift in range(1, n):
                parts = _parts(m, n, shift)
                yield sum(parts) if m.rank is None else parts[m.rank]  # type: ignore[misc]

    return _nearest(m, guesses())


def _hidden_of_all(entered: str, update: str) -> Change:
    """Return the sum of what enters, once for each rank, and of what is added to it."""

    def change(m: Moment) -> np.ndarray:
        numbers = _numbers(m.session)
        return _nearest(m, (n * m.taps[entered] + m.taps[update] for n in numbers))

    return change


MISTAKES = (
    Mistake(
        "all-reduce-missing",
        "all-reduce missing",
        "What one rank computed from its heads or channels stands for the sum over all ranks.",
        "The all-reduce behind the row-parallel matrix is missing, or the shards of several ranks"
        " were loaded as one: join `wo` and `w2` of Meta's shards along the columns.",
        at(SUMMED, _one_part_alone),
        _can_be_cut,
    ),
    Mistake(
        "all-reduce-twice",
        "summed over ranks twice",
        "The sum over ranks is as many times too large as there are ranks.",
        "A second all-reduce adds up what is the whole sum already: one inside the row-parallel"
        " layer, one behind it.",
        at(SUMMED, _times_ranks),
        _can_be_cut,
    ),
    Mistake(
        "output-columns-of-other-rank",
        "output columns of another rank",
        "Each rank multiplies its heads or channels with the columns that belong to another's.",
        "Shards of `wo` and `w2` are given out in another order than those of the matrices before"
        " them: files sorted by name or by time, or ranks numbered otherwise on other nodes.",
        at(SUMMED, _of_other_ranks),
        _can_be_cut,
    ),
    Mistake(
        "residual-of-every-rank",
        "residual added by every rank",
        "The hidden state is added as many times as there are ranks.",
        "It is added to a rank's part before the all-reduce in place of to the sum behind it: a"
        " kernel that fuses matrix and residual does so, unless only one rank is given it.",
        {
            "ffn_inp": _hidden_of_all("hidden", "attn_out"),
            "out": _hidden_of_all("ffn_inp", "ffn_out"),
        },
        _can_be_cut,
    ),
)
