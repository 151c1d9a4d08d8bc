"""Stored tensors become taps: cut, turned, joined, and nothing else done to a number.

A tap is one piece, a whole tensor or some columns of a fused one; or, where the calls of a case
were dumped one by one, a piece for each call, joined along the tokens.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from llama_ref.golden.candidate.layouts import Fit
from llama_ref.golden.candidate.schemes import Meaning
from llama_ref.golden.candidate.stored import StoredTensor
from llama_ref.golden.pairing import PAIRED, swap_pairing
from llama_ref.golden.replay import Dump
from llama_ref.golden.taps import kind_of, row_axis
from llama_ref.numerics import round_to, widen


@dataclass(frozen=True)
class Piece:
    """A stored tensor, or some of its columns, as (a part of) one tap.

    Attributes
    ----------
    stored : StoredTensor
    tap : str
    meaning : Meaning
    fit : Fit
        Of the columns.
    columns : slice or None
        Of the last axis of a fused projection; None for all.
    call : int or None
        None if it is not of a single call.
    pairing : str
        That of the bundle.
    factor : float
        What numbers are multiplied by: H^-0.5 for scores that were not.
    """

    stored: StoredTensor
    tap: str
    meaning: Meaning
    fit: Fit
    columns: slice | None
    call: int | None
    pairing: str
    factor: float = 1.0

    @property
    def is_turned(self) -> bool:
        """Whether channels are reordered from one pairing to the other."""
        own = self.meaning.pairing or self.pairing
        return kind_of(self.tap) in PAIRED and own != self.pairing

    def stored_columns(self) -> np.ndarray:
        """Read the tensor; return what of it belongs to the tap."""
        array = self.stored.load()
        return array if self.columns is None else array[..., self.columns]

    def array(self) -> np.ndarray:
        """Read it, in our axes and pairing."""
        array = self.fit.apply(self.stored_columns())
        if self.is_turned:
            array = swap_pairing(array, self.pairing)
        if self.factor != 1:
            array = round_to(widen(array) * self.factor, array.dtype)
        return np.ascontiguousarray(array)


@dataclass(frozen=True)
class Assembly:
    """All pieces of one tap of one case, in order.

    Attributes
    ----------
    pieces : tuple of Piece
    n_tokens : int
        T of the case.
    """

    pieces: tuple[Piece, ...]
    n_tokens: int

    @property
    def dtype(self) -> np.dtype:
        """The dtype of all pieces."""
        return self.pieces[0].stored.dtype

    def read(self) -> Dump:
        """Read and join the pieces; columns of scores that a call does not see yet become 0."""
        parts = [piece.array() for piece in self.pieces]
        axis = row_axis(kind_of(self.pieces[0].tap))
        if axis:
            parts = [
                np.pad(part, ((0, 0), (0, 0), (0, self.n_tokens - part.shape[-1])))
                for part in parts
            ]
        array = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=axis)
        return Dump(array, range(self.n_tokens - array.shape[axis], self.n_tokens))


def notes_of(assemblies: Iterable[Assembly], pairing: str) -> list[str]:
    """Say what was done to the tensors that are read, a sentence for each thing."""
    done: dict[str, list[str]] = defaultdict(list)
    for assembly in assemblies:
        for piece in assembly.pieces:
            for what in _done_to(piece, pairing):
                done[what].append(piece.stored.label)
            if len(assembly.pieces) > 1:
                done["joined from single calls"].append(piece.stored.label)
            if piece.meaning.remark:
                done[piece.meaning.remark] = []
    return [_sentence(what, list(dict.fromkeys(labels))) for what, labels in done.items()]


def _done_to(piece: Piece, pairing: str) -> Iterator[str]:
    fit = piece.fit
    if piece.is_turned:
        yield f"reordered from {piece.meaning.pairing} to {pairing} pairs of channels"
    if piece.meaning.unscaled:
        yield "multiplied by H^-0.5, since this source has scores before they are scaled"
    if piece.columns is not None:
        yield "cut apart, as fused projections"
    if fit.transposed:
        yield "transposed, since their axes fit in no other way"
    if fit.padded:
        yield "cut to the columns that are tokens: the others are padding"
    if fit.copies > 1:
        yield "read from one head of each group, since repeated heads are equal to the bit"
    if fit.last_rows:
        yield "taken for the last tokens, since they have fewer rows than were fed"


def _sentence(what: str, labels: list[str]) -> str:
    if not labels:
        return f"{what}."
    if len(labels) == 1:
        return f"1 tensor ({labels[0]}) was {what}."
    return f"{len(labels)} tensors ({labels[0]}, …) were {what}."
