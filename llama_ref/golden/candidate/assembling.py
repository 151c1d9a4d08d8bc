"""The pieces that say they are one tap: joined if they can be, kept once if they are the same.

Two tensors of one tap are no harm as long as they hold the same numbers: a module and its last
submodule return the same array. If they differ, nobody can tell which one the author meant.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from llama_ref.golden.candidate.layouts import same_bits
from llama_ref.golden.candidate.pieces import Assembly, Piece
from llama_ref.golden.cases import Case


class Refusal(NamedTuple):
    """A piece that is not used, and why; a misfit contradicts the case or another piece."""

    piece: Piece
    reason: str
    is_misfit: bool


def assemble(case: Case, pieces: Sequence[Piece]) -> tuple[Assembly | None, list[Refusal]]:
    """Make one tap of the pieces that say they are it.

    Parameters
    ----------
    case : Case
    pieces : sequence of Piece
        All of one tap of this case.

    Returns
    -------
    assembly : Assembly or None
        None if there is nothing to use.
    refusals : list of Refusal
    """
    T = sum(case.chunks)
    ways = [Assembly((piece,), T) for piece in pieces if piece.call is None]
    of_calls = [piece for piece in pieces if piece.call is not None]
    refusals: list[Refusal] = []
    if of_calls:
        joined, reason, is_misfit = _join(case, of_calls)
        ways += [joined] if joined else []
        refusals = [Refusal(piece, reason, is_misfit) for piece in of_calls if reason]
    if all(_same(one, other) for one, other in pairwise(ways)):
        return (ways[0] if ways else None), refusals
    differing = [piece for way in ways for piece in way.pieces]
    return None, refusals + _differ(differing)


def _join(case: Case, pieces: Sequence[Piece]) -> tuple[Assembly | None, str, bool]:
    """Put the pieces of single calls in order; a sentence, if that cannot be done.

    And whether they contradict each other: what is not there does not.
    """
    by_call: dict[int, list[Piece]] = defaultdict(list)
    for piece in pieces:
        by_call[piece.call or 0].append(piece)
    n_calls = len(case.chunks)
    if len(by_call) < n_calls:
        missing = min(set(range(n_calls)) - by_call.keys())
        absent = f"call {missing} of this tap is not there, and a case is joined of all calls"
        return None, absent, False
    for same in by_call.values():
        arrays = [Assembly((piece,), sum(case.chunks)) for piece in same]
        if not all(_same(one, other) for one, other in pairwise(arrays)):
            return None, _differ(same)[0].reason, True
    ordered = tuple(by_call[call][0] for call in range(n_calls))
    if any(piece.fit.last_rows for piece in ordered[1:]):
        return None, "only the first call may have fewer rows than were fed", False
    if len({piece.stored.dtype for piece in ordered}) > 1:
        return None, "its calls differ in dtype", True
    return Assembly(ordered, sum(case.chunks)), "", False


def _same(one: Assembly, other: Assembly) -> bool:
    a, b = one.read().array, other.read().array
    if a.dtype != b.dtype:  # the same numbers, one of them widened on the way
        a, b = a.astype(np.float64), b.astype(np.float64)
    return same_bits(a, b)


def _differ(pieces: Sequence[Piece]) -> list[Refusal]:
    """Refuse all of several tensors, naming the others to each."""
    labels = " and ".join(dict.fromkeys(piece.stored.label for piece in pieces))
    reason = f"{labels} are both {pieces[0].tap}, and differ"
    return [Refusal(piece, reason, is_misfit=True) for piece in pieces]
