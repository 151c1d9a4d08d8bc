"""A dump becomes a candidate: which tensor is which tap of which case, and which is none.

Everything is decided here, before a check begins: names, shapes and dtypes from headers alone.
Data is read only where bits decide, of heads stored repeatedly and of a tap stored twice. What
remains is listed as unmatched.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from llama_ref.config import Config
from llama_ref.errors import BadRequest, CompareError, printable, shown
from llama_ref.golden.candidate.files import open_dump
from llama_ref.golden.candidate.names import Names
from llama_ref.golden.candidate.pieces import Assembly, notes_of
from llama_ref.golden.candidate.places import Places
from llama_ref.golden.cases import Case
from llama_ref.golden.pairing import PAIRINGS
from llama_ref.golden.replay import Dump
from llama_ref.golden.report import Unmatched

KNOWN_NAMES = (
    "names such as far/L00.q (ours), model.layers.0.self_attn.q_proj (hf), "
    "layers.0.attention.wq (meta) or Qcur-0 (MUL_MAT) (ggml)"
)


class Candidate:
    """What a backend dumped, by case and tap.

    Attributes
    ----------
    path : Path
    scheme : str
        Whose names it has: `llama_ref`, `hf`, `meta`, `ggml`, several, or the file of a map.
    unmatched : list of Unmatched
        Every tensor that is not compared.
    notes : list of str
        What was done to those that are, a sentence for each thing.
    """

    def __init__(
        self,
        path: Path,
        scheme: str,
        found: Mapping[str, Mapping[str, Assembly]],
        unmatched: list[Unmatched],
        notes: list[str],
    ):
        self.path, self.scheme, self.unmatched, self.notes = path, scheme, unmatched, notes
        self._found = found

    def taps(self, case: str) -> list[str]:
        """Return the taps it has of a case, in dataflow order."""
        return list(self._found.get(case, ()))

    def read(self, case: str, tap: str) -> Dump:
        """Read one tap; nothing of it is kept."""
        return self._assembly(case, tap).read()

    def dtype(self, case: str, tap: str) -> np.dtype:
        """Return the dtype that a tap is stored in."""
        return self._assembly(case, tap).dtype

    def _assembly(self, case: str, tap: str) -> Assembly:
        try:
            return self._found[case][tap]
        except KeyError:
            raise BadRequest(
                "tap of the candidate", expected="one of taps()", found=shown(f"{case}/{tap}")
            ) from None

    def __repr__(self) -> str:
        n_taps = sum(len(taps) for taps in self._found.values())
        n_cases = sum(bool(taps) for taps in self._found.values())
        name = printable(self.path.name)
        return f"<Candidate {name}: {n_taps} taps of {n_cases} cases, {self.scheme} names>"


def open_candidate(
    path: str | os.PathLike[str],
    cases: Sequence[Case],
    configs: Mapping[str, Config],
    *,
    pairing: str = "half_split",
    names: str | os.PathLike[str] | None = None,
    case: str | None = None,
) -> Candidate:
    """Open a dump and match its tensors to taps; of most, only headers are read.

    Parameters
    ----------
    path : path-like
        A safetensors or npz file, a description of raw files, or a folder of those; see `files`.
    cases : sequence of Case
        Those of the bundle.
    configs : mapping of str to Config
        The model of each case, by `Case.model`.
    pairing : {"half_split", "interleaved"}
        Which channels RoPE pairs in the bundle: queries and keys are brought into it.
    names : str or path-like, optional
        `llama_ref`, `hf`, `meta`, `ggml`, or a map of your own (see `user_map`); found out if not
        given.
    case : str, optional
        The case that names without one are of. Not needed where the bundle has one case.

    Returns
    -------
    Candidate

    Raises
    ------
    CompareError
        If no tensor is a tap: there is nothing to compare.
    BadRequest
        If `names`, `case` or `pairing` is none that exists.
    BadFile, Unsupported, LimitExceeded
        If a file is damaged, of a kind that is not read, or too large.
    """
    path, by_name = Path(path), {one.name: one for one in cases}
    if not by_name:
        raise BadRequest("cases", expected="at least one", found="none")
    if pairing not in PAIRINGS:
        raise BadRequest("pairing", expected=" or ".join(PAIRINGS), found=shown(pairing))
    if case is not None and case not in by_name:
        expected = shown(" ".join(by_name))
        raise BadRequest("case of the candidate", expected=f"one of {expected}", found=shown(case))
    tensors, skipped = open_dump(path, by_name.keys())
    n_layers = {one.name: configs[one.model].n_layers for one in cases}
    reader = Names([tensor.name for tensor in tensors], n_layers, names)
    default = next(iter(by_name)) if len(by_name) == 1 else case
    places = Places(by_name, configs, reader, pairing, default)
    for tensor in tensors:
        places.put(tensor)
    found = places.assemble()
    if not any(found.values()):
        raise _nothing(path, places.unmatched)
    notes = notes_of((one for taps in found.values() for one in taps.values()), pairing)
    notes += [f"not read: {', '.join(skipped)}."] if skipped else []
    return Candidate(path, reader.scheme, found, places.unmatched, notes)


def _nothing(path: Path, unmatched: Sequence[Unmatched]) -> CompareError:
    """Return the error that says why nothing can be compared."""
    first = "; ".join(f"{shown(one.name)} ({one.reason})" for one in unmatched[:3])
    found = f"{len(unmatched)} tensors that are none: {first}" if unmatched else "no tensor"
    return CompareError(
        "nothing to compare",
        expected=f"taps under {KNOWN_NAMES}",
        found=found,
        next_step="or hand in a map of your names: names=FILE, --names FILE",
        file=path,
    )
