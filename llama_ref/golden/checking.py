"""Checking a candidate against a bundle: every tap it has, step by step and as a whole.

Each case runs once in float64, as a replay of the candidate. At every tap two errors are measured
and put into units of legal rounding: that of the step itself, and, where the bundle has the truth
or its sketch, that of everything up to there. The first tap in dataflow order that is wrong by
itself is where the port has its mistake; `diagnosis` says which.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from llama_ref.errors import BadRequest, CompareError
from llama_ref.golden.bundle import Bundle
from llama_ref.golden.candidate import Candidate, open_candidate
from llama_ref.golden.case_check import CaseCheck, OfCase
from llama_ref.golden.cases import Case
from llama_ref.golden.diagnosis import verdict_of
from llama_ref.golden.manifest import DUMP
from llama_ref.golden.models import CHECKPOINT, held, model_of, weights_of
from llama_ref.golden.precision import precision_of
from llama_ref.golden.report import Report
from llama_ref.model import Model

Progress = Callable[[int], object]

MOST_HELD = 2**28
"""Weights held in float64 while a candidate is checked. A larger model is read a row at a time: a
check that passes reads each weight once, and has to fit beside the program that made the dump."""


def check(
    bundle: Bundle | str | os.PathLike[str],
    candidate: str | os.PathLike[str],
    *,
    dtype: str | None = None,
    names: str | os.PathLike[str] | None = None,
    case: str | None = None,
    weights: str | os.PathLike[str] | None = None,
    advance: Progress = lambda n: None,
) -> Report:
    """Check what a backend dumped against a golden bundle.

    Parameters
    ----------
    bundle : Bundle or path-like
    candidate : path-like
        The dump: a file or a folder; see `golden.candidate`.
    dtype : str, optional
        What the backend computes in: `float32`, `float32-kv16`, `tf32`, `float16`, `bfloat16`. By
        default it is read off the numbers.
    names : str or path-like, optional
        Whose names the dump uses: `llama_ref`, `hf`, `meta`, `ggml`, or a file that maps them.
    case : str, optional
        The case of a dump whose names say none.
    weights : path-like, optional
        The checkpoint, for a bundle that was made from one. Without it nothing is replayed.
    advance : function of int
        Told the tokens that are done.

    Returns
    -------
    Report

    Raises
    ------
    BadFile, BadRequest, Unsupported, LimitExceeded
        If bundle or candidate cannot be read.
    CompareError
        If nothing of them can be compared.
    """
    start = time.perf_counter()
    opened = bundle if isinstance(bundle, Bundle) else Bundle(bundle)
    _refuse_unfit(opened, weights)
    configs = {name: spec.config for name, spec in opened.manifest.models.items()}
    pairings = {spec.pairing for spec in opened.manifest.models.values()}
    dumped = open_candidate(
        candidate, opened.cases, configs, pairing=pairings.pop(), names=names, case=case
    )
    checks, notes = [], list(dumped.notes)
    precision = None
    for one, model in _models(opened, dumped, weights):
        source = OfCase(dumped, one, opened)
        if precision is None:
            precision, why = precision_of(source, source.taps, dtype)
            notes.insert(0, why)
        checks.append(CaseCheck(opened, one, source, precision, model))
        checks[-1].run()
        advance(len(one.ids))
    if precision is None or not any(check.rows for check in checks):
        raise CompareError(
            "candidate",
            expected="taps of this bundle",
            found="none that can be judged" if precision else "none",
            file=candidate,
        )
    notes += _left_out(opened, checks)
    report = verdict_of(checks, notes, dumped.unmatched)
    return replace(
        report,
        bundle=str(opened.path),
        candidate=str(candidate),
        seconds=time.perf_counter() - start,
    )


def _refuse_unfit(bundle: Bundle, weights: str | os.PathLike[str] | None) -> None:
    """Refuse a bundle that nothing can be judged by, and weights where they are no question."""
    if bundle.manifest.tier == DUMP:
        raise BadRequest(
            "bundle",
            expected="an envelope to judge by",
            found="a dump of the truth alone",
            next_step="make one of the tier full or fingerprint",
            file=bundle.path,
        )
    recipes = {spec.recipe for spec in bundle.manifest.models.values()}
    if weights is not None and CHECKPOINT not in recipes:
        raise BadRequest("weights", expected="none: those of this bundle come from a formula")


def _left_out(bundle: Bundle, checks: list[CaseCheck]) -> list[str]:
    """Say which taps could not be judged, and which cases were not dumped."""
    unjudged = [f"{check.case.name}/{tap}" for check in checks for tap in check.unjudged]
    looked_at = {check.case.name for check in checks}
    others = [case.name for case in bundle.cases if case.name not in looked_at]
    notes = []
    if unjudged:
        notes.append(
            f"Of {len(unjudged):,} taps nothing can be told ({unjudged[0]}, …): without a replay "
            "a sketch needs all rows, and where legal rounding overflows there is no bound."
        )
    if others:
        named = ", ".join(others[:8]) + (", …" if len(others) > 8 else "")
        notes.append(f"{len(others):,} of {len(bundle.cases):,} cases were not dumped: {named}.")
    return notes


def _models(
    bundle: Bundle, candidate: Candidate, path: str | os.PathLike[str] | None
) -> Iterator[tuple[Case, Model | None]]:
    """Yield the cases that the candidate has anything of, each with the float64 model it runs."""
    for name, spec in bundle.manifest.models.items():
        cases = [c for c in bundle.cases if c.model == name and candidate.taps(c.name)]
        model = None
        if cases and (spec.recipe != CHECKPOINT or path is not None):
            weights = weights_of(spec, path)
            if 8 * spec.config.n_params <= MOST_HELD:
                weights = held(weights, spec.config, "float64")
            model = model_of(spec, weights, "float64", "hf")
        for case in cases:
            yield case, model
