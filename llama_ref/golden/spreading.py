"""Making a bundle in several processes: each makes one of its cases, the first joins them.

A case is recorded as it would be alone, so the whole is the bundle that one process makes. Its
folder has to be on a file system that all of them see.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np

from llama_ref.checkpoint.staging import move, staging_folder, writing
from llama_ref.golden.bundle import Bundle
from llama_ref.golden.cases import Case
from llama_ref.golden.manifest import Manifest
from llama_ref.golden.placing import put_in_place, save


class Crew(Protocol):
    """The processes that make a bundle, as one of them sees it."""

    rank: int
    size: int

    def agree(self, text: str) -> str:
        """Return what the first of them says here; wait until it has said so."""
        ...

    def wait(self) -> None:
        """Wait until all are here."""
        ...


class _Alone:
    rank, size = 0, 1

    def agree(self, text: str) -> str:
        """Return what it says itself."""
        return text

    def wait(self) -> None:
        """Wait for nobody."""


ALONE = _Alone()
"""A process that is the only one."""


def shares(cases: Sequence[Case], size: int) -> list[list[Case]]:
    """Return which cases each process makes: the longest first, to whom has the fewest tokens.

    Examples
    --------
    >>> from llama_ref.golden.cases import Case
    >>> cases = [Case(str(n), "", tuple(range(n)), tuple(range(n)), (n,)) for n in (1, 2, 5, 9)]
    >>> [[case.name for case in share] for share in shares(cases, 2)]
    [['9'], ['1', '2', '5']]
    """
    own: list[list[Case]] = [[] for _ in range(size)]
    for case in sorted(cases, key=lambda case: -len(case.ids)):
        min(own, key=lambda share: sum(len(one.ids) for one in share)).append(case)
    return [[case for case in cases if case in share] for share in own]


def spread(
    manifest: Manifest,
    staging: Path,
    crew: Crew,
    record: Callable[[Manifest, Path], None],
) -> None:
    """Have each process record its share of the cases; in the first, join what they recorded.

    Parameters
    ----------
    manifest : Manifest
        Of all cases; in the first process it is filled in.
    staging : Path
        A folder that all of them see.
    crew : Crew
    record : function of (Manifest, Path)
        Records the cases of a manifest, and writes their files into a folder.
    """
    if crew.size == 1:
        record(manifest, staging)
        return
    share = shares(manifest.cases, crew.size)
    if share[crew.rank]:
        own = _of_cases(manifest, share[crew.rank])
        folder = staging / str(crew.rank)
        with writing(folder):
            folder.mkdir()
        with staging_folder(folder) as inner:
            record(own, inner)
            put_in_place(own, inner, folder)
    crew.wait()
    if crew.rank == 0:
        made = [Bundle(staging / str(rank)) for rank in range(crew.size) if share[rank]]
        _join(made, manifest, staging)


def _of_cases(manifest: Manifest, cases: list[Case]) -> Manifest:
    """Return the manifest of some of the cases, of which nothing is recorded yet."""
    used = {case.model for case in cases}
    models = {name: spec for name, spec in manifest.models.items() if name in used}
    return replace(manifest, models=models, cases=cases, taps={}, legal_logits={}, files={})


def _join(bundles: Sequence[Bundle], manifest: Manifest, staging: Path) -> None:
    """Move the files of several bundles into one folder, with one envelope for all."""
    by_case = {case.name: bundle for bundle in bundles for case in bundle.cases}
    envelopes: dict[str, np.ndarray] = {}
    for case in manifest.cases:
        bundle = by_case[case.name]
        manifest.taps[case.name] = bundle.manifest.taps[case.name]
        manifest.legal_logits[case.name] = bundle.manifest.legal_logits.get(case.name, {})
        for tap in bundle.taps(case):
            envelope = bundle.envelope(case, tap)
            if envelope is not None:
                envelopes[f"{case.name}/{tap}"] = envelope
    for bundle in bundles:
        for name, stated in bundle.manifest.files.items():
            if not name.startswith("envelope-"):
                manifest.files[name] = stated
                move(bundle.path / name, staging / name)
    if envelopes:
        save(manifest, staging, "envelope", envelopes)
