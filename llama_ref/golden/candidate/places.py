"""Where each tensor of a dump belongs: its name says which tap, its shape whether that can be."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from llama_ref.config import Config
from llama_ref.golden.candidate.assembling import assemble
from llama_ref.golden.candidate.layouts import fit
from llama_ref.golden.candidate.names import Names
from llama_ref.golden.candidate.pieces import Assembly, Piece
from llama_ref.golden.candidate.schemes import Meaning
from llama_ref.golden.candidate.stored import StoredTensor
from llama_ref.golden.cases import Case
from llama_ref.golden.report import Unmatched
from llama_ref.golden.taps import kind_of, place_of, rank_of, sizes_of
from llama_ref.numerics import ACTIVATION_DTYPES

FLOATS = tuple(ACTIVATION_DTYPES.values())


@dataclass
class Places:
    """The taps that tensors turned out to be, filled one by one.

    Attributes
    ----------
    cases : mapping of str to Case
    configs : mapping of str to Config
        By `Case.model`.
    names : Names
    pairing : str
        That of the bundle.
    default : str or None
        The case that names without one are of.
    unmatched : list of Unmatched
    """

    cases: Mapping[str, Case]
    configs: Mapping[str, Config]
    names: Names
    pairing: str
    default: str | None
    unmatched: list[Unmatched] = field(default_factory=list)
    _pieces: dict[tuple[str, str], list[Piece]] = field(default_factory=lambda: defaultdict(list))

    def put(self, tensor: StoredTensor) -> None:
        """Find the taps that a tensor is, or list it with the reason why it is none."""
        whose = self._whose(tensor)
        if isinstance(whose, str):
            return self._refuse(tensor, whose)
        case, call, meaning = whose
        pieces = self._pieces_of(tensor, meaning, case, call)
        if isinstance(pieces, str):
            return self._refuse(tensor, pieces, is_misfit=True)
        for piece in pieces:
            self._pieces[case.name, piece.tap].append(piece)
        return None

    def assemble(self) -> dict[str, dict[str, Assembly]]:
        """Join pieces to taps, by case, in dataflow order; list those that cannot be joined."""
        found: dict[str, dict[str, Assembly]] = {name: {} for name in self.cases}
        for name, tap in sorted(self._pieces, key=lambda key: place_of(key[1])):
            assembly, refusals = assemble(self.cases[name], self._pieces[name, tap])
            for refusal in refusals:
                self._refuse(refusal.piece.stored, refusal.reason, is_misfit=refusal.is_misfit)
            if assembly:
                found[name][tap] = assembly
        return found

    def _refuse(self, tensor: StoredTensor, reason: str, *, is_misfit: bool = False) -> None:
        self.unmatched.append(Unmatched(tensor.label, tensor.shape, reason, is_misfit))

    def _whose(self, tensor: StoredTensor) -> tuple[Case, int | None, Meaning] | str:
        """Return the case and call of a tensor and what it stands for, or why it is not used."""
        own_case = tensor.case or self.default
        address, meaning = self.names.read(tensor.name, own_case)
        name = address.case or own_case
        call = tensor.call if address.call is None else address.call
        if tensor.case not in (None, name) or tensor.call not in (None, call):
            return "its name and that of its file say different things"
        if meaning.refused:
            return meaning.refused
        if name is None:
            return "neither its name nor that of its file says which case (far/L00.q)"
        case = self.cases[name]
        return _beyond(case, call, rank_of(meaning.taps[0])) or (case, call, meaning)

    def _pieces_of(
        self, tensor: StoredTensor, meaning: Meaning, case: Case, call: int | None
    ) -> list[Piece] | str:
        """Return the tensor as each tap that it holds; a sentence, if one of them does not fit."""
        if tensor.dtype not in FLOATS:
            return f"its dtype is {tensor.dtype}, and taps are {', '.join(ACTIVATION_DTYPES)}"
        config, until = self.configs[case.model], len(case.chunks) if call is None else call + 1
        n_seen = sum(case.chunks[:until])
        sizes = sizes_of(config, n_seen if call is None else case.chunks[call], n_seen)
        widest = max(config.context_length, n_seen)
        factor = config.head_dim**-0.5 if meaning.unscaled else 1.0
        pieces = []
        for tap, columns, shape in _parts(tensor, meaning, sizes):
            own = fit(shape, kind_of(tap), sizes, order=meaning.order, widest=widest)
            if isinstance(own, str):
                return own
            pieces.append(Piece(tensor, tap, meaning, own, columns, call, self.pairing, factor))
        if not pieces:
            widths = _widths(meaning, sizes)
            sides = " + ".join(map(str, widths))
            return f"expected a fused projection, T × ({sides} = {sum(widths)})"
        for piece in pieces:
            if piece.fit.copies > 1 and not piece.fit.copies_agree(piece.stored_columns()):
                return f"its heads are not {sizes['K']} heads, each {sizes['G']} times in a row"
        return pieces


def _beyond(case: Case, call: int | None, rank: int | None) -> str:
    """Say why a case has no such call or rank; nothing if it has."""
    if call is not None and call >= len(case.chunks):
        return f"the case has {len(case.chunks)} calls, numbered from 0"
    if rank is not None and case.n_ranks == 1:
        return "the case is of one rank; golden make --ranks makes cases of several"
    if rank is not None and rank >= case.n_ranks:
        return f"the case has {case.n_ranks} ranks, numbered from 0"
    return ""


Part = tuple[str, slice | None, tuple[int, ...]]
"""A tap, its columns of a fused projection, and the shape of those."""


def _parts(tensor: StoredTensor, meaning: Meaning, sizes: Mapping[str, int]) -> Iterator[Part]:
    """Yield the taps that stand side by side in a tensor: nothing, if it is not as wide as they."""
    if len(meaning.taps) == 1:
        yield meaning.taps[0], None, tensor.shape
        return
    widths = _widths(meaning, sizes)
    if tensor.shape[-1:] != (sum(widths),):
        return
    begin = 0
    for tap, width in zip(meaning.taps, widths, strict=True):
        yield tap, slice(begin, begin + width), (*tensor.shape[:-1], width)
        begin += width


def _widths(meaning: Meaning, sizes: Mapping[str, int]) -> list[int]:
    """Return how many columns each tap of a fused projection has."""
    heads = {"q": "N", "k": "K", "v": "K"}
    kinds = [kind_of(tap) for tap in meaning.taps]
    return [sizes[heads[kind]] * sizes["H"] if kind in heads else sizes["F"] for kind in kinds]
