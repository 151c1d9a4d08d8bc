"""Making a bundle: which model, which cases, the truth and the envelope of each tap."""

from __future__ import annotations

import contextlib
import fnmatch
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from llama_ref.checkpoint.staging import only_writer, staging_folder, writing
from llama_ref.errors import BadRequest, NonFiniteError, shown
from llama_ref.golden.bundle import Bundle
from llama_ref.golden.cases import MAIN, Case, can_be_cut, cases_for, chosen, shape_case, shapes
from llama_ref.golden.envelope import Stage, record
from llama_ref.golden.logits import divergence
from llama_ref.golden.manifest import DUMP, FINGERPRINT, FULL, TIERS, Manifest, provenance
from llama_ref.golden.models import ModelSpec, held, is_large, spec_of, weights_of
from llama_ref.golden.placing import put_in_place, refuse_existing, save
from llama_ref.golden.sketch import TOP, sketch
from llama_ref.golden.spreading import ALONE, Crew, spread
from llama_ref.golden.styles import STYLES
from llama_ref.golden.taps import BY_HEAD, OUTSIDE, axes_of, kind_of, tap_name, visible_parts
from llama_ref.trace import tap_names

FINGERPRINT_KINDS = ("q_rope", "k_rope", "ctx", "ffn_inp", "act", "out")
"""What a fingerprint has of each layer."""
FILE_BYTES = 2**28
"""Truth of one case that goes into one file; of a larger one every layer has its own."""

Progress = Callable[[int], object]


def make(
    model: str | os.PathLike[str] = "golden-tiny",
    path: str | os.PathLike[str] = "golden",
    *,
    cases: Sequence[str] | None = None,
    tier: str = FULL,
    taps: Sequence[str] | None = None,
    n_ranks: int = 1,
    seed: int = 0,
    overwrite: bool = False,
    advance: Progress = lambda n: None,
    crew: Crew = ALONE,
) -> Bundle:
    """Make a golden bundle.

    Parameters
    ----------
    model : str or path-like
        The name of a preset, whose weights come from a formula; `synthetic:NAME?n_layers=2`; or the
        folder of a checkpoint.
    path : path-like
        The folder to write; its parent exists.
    cases : sequence of str, optional
        Which cases, by name; "shapes" stands for those of other shapes than the model's, "all" for
        everything. By default all that the model itself can run; a fingerprint has `far` alone, and
        a model that memory cannot hold `spread`.
    tier : {"full", "fingerprint", "dump"}
        All taps in float64; or sketches of some, a hundred kilobytes. A dump is the truth alone, in
        float64, for tools of your own: it says nothing of what is legal, and takes one pass where
        the others take some sixty.
    taps : sequence of str, optional
        Which taps are kept, by name, with `*` for anything: `L*.out`, `logits`. By default all, of
        a fingerprint the embedding, six of each layer, and the head.
    n_ranks : int
        Over how many ranks every layer is cut, as tensor-parallel backends do. Of more than one,
        what each adds to a sum is a tap too, `L00.attn_out.rank2`, and its rounding is legal.
    seed : int
        Of the weights by formula, and of the token ids.
    overwrite : bool
        Whether a bundle that is there may be replaced.
    advance : function of int
        Told the tokens times layers that are done.
    crew : Crew
        The processes among which the cases are shared out, all of which call this; by default one.

    Returns
    -------
    Bundle
        The new one, opened.

    Raises
    ------
    BadRequest
        If something stands at the path, or a name is unknown.
    BadFile
        If it cannot be written; whatever was there is as it was.
    """
    if tier not in TIERS:
        raise BadRequest("tier", expected=" or ".join(TIERS), found=shown(tier))
    folder, spec = Path(path), spec_of(model, seed)
    models, wanted = _chosen_cases(spec, cases, tier, seed)
    wanted = _cut(wanted, models, n_ranks)
    keep = _kept(taps, tier, models, n_ranks)
    manifest = Manifest(tier, models, wanted, {}, {}, {}, provenance())

    def record(own: Manifest, into: Path) -> None:
        _record_all(own, into, model, keep, advance)

    with _place_to_write(folder, overwrite, crew) as staging:
        spread(manifest, staging, crew, record)
        if crew.rank == 0:
            put_in_place(manifest, staging, folder)
    crew.wait()
    return Bundle(folder)


@contextlib.contextmanager
def _place_to_write(folder: Path, overwrite: bool, crew: Crew) -> Iterator[Path]:
    """Lend a folder inside the bundle's: the first process makes it, the others are told which."""
    if crew.rank:
        yield Path(crew.agree(""))
        return
    refuse_existing(folder, overwrite)
    made = not folder.exists()
    with writing(folder):
        folder.mkdir(exist_ok=True)
    try:
        with only_writer(folder), staging_folder(folder) as staging:
            crew.agree(str(staging))
            yield staging
    except BaseException:
        if made:
            with contextlib.suppress(OSError):
                folder.rmdir()  # only if nothing is in it
        raise


def case_names(model: str | os.PathLike[str] = "golden-tiny", seed: int = 0) -> list[str]:
    """Return the names of all cases that a bundle of this model can have."""
    return [case.name for case in cases_for(spec_of(model, seed).config, seed)] + list(shapes())


def _chosen_cases(
    spec: ModelSpec, names: Sequence[str] | None, tier: str, seed: int
) -> tuple[dict[str, ModelSpec], list[Case]]:
    """Return the cases of these names and the models that they run."""
    others = {name: shape_case(name, shape, seed) for name, shape in shapes().items()}
    own = cases_for(spec.config, seed)
    if names is None:
        names = _by_default(spec, [case.name for case in own], tier)
    expand = {"shapes": list(others), "all": [*(case.name for case in own), *others]}
    flat = [each for name in names for each in expand.get(name, [name])]
    cases = chosen(flat, [*own, *others.values()])
    if not cases:
        raise BadRequest("cases", expected="one or more", found="none")
    used = {case.model for case in cases}
    if spec.pairing != ModelSpec(spec.config).pairing and len(used) > 1:
        raise BadRequest(
            "cases",
            expected="those of the model alone, whose layout pairs other channels",
            found=shown(sorted(used - {MAIN})),
        )
    models = {MAIN: spec} if MAIN in used else {}
    models |= {
        name: ModelSpec(shape.config, seed=seed, variant=shape.variant)
        for name, shape in shapes().items()
        if name in used
    }
    return models, cases


def _cut(cases: list[Case], models: dict[str, ModelSpec], n_ranks: int) -> list[Case]:
    """Return cases whose layers are cut over ranks."""
    for case in cases:
        config = models[case.model].config
        if not can_be_cut(config, n_ranks):
            raise BadRequest(
                "number of ranks",
                expected=f"a divisor of {config.n_heads} heads and of {config.d_ff} channels",
                found=n_ranks,
            )
    return [replace(case, n_ranks=n_ranks) for case in cases]


def _kept(
    taps: Sequence[str] | None, tier: str, models: dict[str, ModelSpec], n_ranks: int
) -> list[str]:
    """Return the patterns of the taps to keep; each has to fit a tap of some model."""
    if taps is None:
        in_layers = FINGERPRINT_KINDS if tier == FINGERPRINT else ["*"]
        return [*OUTSIDE, *(f"L*.{kind}" for kind in in_layers)]
    known = {tap for spec in models.values() for tap in tap_names(spec.config.n_layers, n_ranks)}
    for pattern in taps:
        if not fnmatch.filter(known, pattern):
            raise BadRequest(
                "taps", expected="names such as L*.out or logits", found=shown(pattern)
            )
    return list(taps)


def _by_default(spec: ModelSpec, names: list[str], tier: str) -> list[str]:
    """Return the cases that are made unless others are asked for."""
    if is_large(spec.config):
        return ["spread" if "spread" in names else names[0]]
    if tier == FINGERPRINT:
        return ["far" if "far" in names else "prefill"]
    return [name for name in names if name != "spread"]


def _record_all(
    manifest: Manifest,
    staging: Path,
    model: str | os.PathLike[str],
    keep: list[str],
    advance: Progress,
) -> None:
    """Run every case; write its arrays into the staging folder, and say so in the manifest."""
    envelopes: dict[str, np.ndarray] = {}
    styles = () if manifest.tier == DUMP else STYLES
    for name, spec in manifest.models.items():
        weights = weights_of(spec, model)
        in_float32 = held(weights, spec.config, "float32")
        in_float64 = held(weights, spec.config, "float64")
        for case in (case for case in manifest.cases if case.model == name):
            manifest.taps[case.name], manifest.legal_logits[case.name] = {}, {}
            stages = record(case, spec, in_float32, styles, exact_weights=in_float64)
            portions = _recorded(case, stages, manifest, keep, envelopes, advance)
            for number, arrays in enumerate(portions):
                stem = f"{case.name}-{number}" if number else case.name
                save(manifest, staging, stem, arrays)
    if envelopes:
        save(manifest, staging, "envelope", envelopes)


def _recorded(
    case: Case,
    stages: Iterator[Stage],
    manifest: Manifest,
    keep: list[str],
    envelopes: dict[str, np.ndarray],
    advance: Progress,
) -> Iterator[dict[str, np.ndarray]]:
    """Yield the arrays of a case, in as few portions as memory likes."""
    arrays: dict[str, np.ndarray] = {}
    for stage in stages:
        for kind, truth in stage.truth.items():
            tap = tap_name(stage.layer, kind)
            if not np.isfinite(truth).all():
                raise NonFiniteError(f"truth {case.name}/{tap}", expected="finite numbers")
            if any(fnmatch.fnmatchcase(tap, pattern) for pattern in keep):
                name = f"{case.name}/{tap}"
                manifest.taps[case.name][tap] = _described(tap, truth)
                arrays |= _stored(manifest.tier, name, truth)
                if kind in stage.envelope:
                    envelopes[name] = stage.envelope[kind].astype(np.float32)
        if stage.legal_logits:
            manifest.legal_logits[case.name] = _legal_logits(stage)
        advance(len(case.ids))
        if sum(array.nbytes for array in arrays.values()) > FILE_BYTES:
            yield arrays
            arrays = {}
    if arrays:
        yield arrays


def _stored(tier: str, name: str, truth: np.ndarray) -> dict[str, np.ndarray]:
    """Return what a bundle keeps of a tap, by stored name."""
    tap = name.partition("/")[2]
    kind = kind_of(tap)
    if tier != FINGERPRINT:
        return {name: truth}
    kept = {f"{name}#sketch": sketch(visible_parts(kind, truth))}
    if kind not in BY_HEAD:
        norms_T = np.linalg.norm(truth.reshape(len(truth), -1), axis=1)
        kept[f"{name}#norms"] = norms_T.astype(np.float32)
    if tap == "logits":
        order = np.argsort(-truth, axis=-1, kind="stable")[:, :TOP]
        kept[f"{name}#top_ids"] = order.astype(np.int32)
        kept[f"{name}#top"] = np.take_along_axis(truth, order, axis=-1)
    return kept


def _described(tap: str, truth: np.ndarray) -> dict[str, Any]:
    """Return what the manifest says of a tap."""
    return {
        "shape": list(truth.shape),
        "axes": axes_of(tap),
        "rms": float(f"{np.sqrt(np.mean(np.square(truth))):.6g}"),
        "absmax": float(f"{np.abs(truth).max():.6g}"),
    }


def _legal_logits(stage: Stage) -> dict[str, Any]:
    """Return, for each precision, how far legal rounding takes the logits."""
    truth_TV = stage.truth["logits"]
    return {
        precision: {
            "kl": _worst([divergence(truth_TV, x).max() for x in legal]),
            "largest": _worst([np.abs(x - truth_TV).max() for x in legal]),
        }
        for precision, legal in stage.legal_logits.items()
    }


def _worst(values: list[float]) -> float:
    """Return the largest of some numbers; infinity where a style overflowed, as float16 may."""
    largest = float(f"{np.max(values):.4g}")
    return math.inf if math.isnan(largest) else largest
