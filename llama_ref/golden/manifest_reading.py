"""Reading a manifest: every field it has to have, of its type, and nothing taken on trust.

A manifest comes from a stranger as often as from here. Its numbers decide what is run, its names
which files are opened; each is looked at before it is used.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

from llama_ref.config import Config, RopeScaling
from llama_ref.errors import BadFile, LimitExceeded, LlamaRefError, Unsupported, is_whole, shown
from llama_ref.golden.cases import Case, can_be_cut
from llama_ref.golden.manifest import DUMP, ENVELOPE_AXES, FORMAT, TIERS, VERSION, Manifest
from llama_ref.golden.models import CHECKPOINT, FORMULA, ModelSpec
from llama_ref.golden.sketch import BUCKETS
from llama_ref.golden.styles import PRECISIONS
from llama_ref.weights import PAIRING

AnyPath = str | os.PathLike[str]

NUMBERS_LIMIT = 2**28
"""Numbers in one tap of a case: 2 GiB in float64. 64 tokens of the 405B model have 2^23 logits."""


def parse_manifest(data: Any, file: AnyPath) -> Manifest:
    """Return the manifest that a JSON object is.

    Raises
    ------
    BadFile
        If it is no manifest, or contradicts itself.
    Unsupported
        If its version is another.
    LimitExceeded
        If a case is larger than any that is checked here.
    """
    top = _Object(data, "manifest", file)
    if top.get("format", str) != FORMAT:
        raise BadFile("format", expected=FORMAT, found=shown(top.get("format", str)), file=file)
    if top.get("version", int) != VERSION:
        raise Unsupported(
            "version of the bundle",
            expected=VERSION,
            found=shown(top.get("version", int)),
            next_step="make the bundle anew, or use the release that made it",
            file=file,
        )
    _check_axes(_Object(top.get("envelope", dict), "envelope", file))
    sketch = _Object(top.get("sketch", dict), "sketch", file)
    if (sketch.get("buckets", int), sketch.get("seed", int)) != (BUCKETS, 0):
        raise BadFile(
            "sketch", expected=f"{BUCKETS} buckets, seed 0", found=shown(sketch.data), file=file
        )
    models = {
        name: _parse_model(_Object(model, f"model {shown(name)}", file))
        for name, model in top.get("models", dict).items()
    }
    if len({spec.pairing for spec in models.values()}) > 1:
        raise BadFile("models", expected="one pairing of channels", found="both", file=file)
    entries = [_Object(case, "case", file) for case in top.get("cases", list)]
    cases = [_parse_case(entry, models) for entry in entries]
    if len({case.name for case in cases}) != len(cases) or not cases:
        raise BadFile("cases", expected="one or more, each with a name of its own", file=file)
    tier = top.get("tier", str)
    if tier not in TIERS:
        raise BadFile("tier", expected=" or ".join(TIERS), found=shown(tier), file=file)
    by_name = dict(zip((case.name for case in cases), entries, strict=True))
    return Manifest(
        tier=tier,
        models=models,
        cases=cases,
        taps={name: _taps(entry) for name, entry in by_name.items()},
        legal_logits={} if tier == DUMP else {n: _legal_logits(e) for n, e in by_name.items()},
        files=top.get("files", dict),
        made_by=_provenance(top),
    )


class _Object:
    """A JSON object of which every key that is asked for has to be there."""

    def __init__(self, data: Any, thing: str, file: AnyPath):
        if not isinstance(data, dict):
            raise BadFile(thing, expected="a JSON object", found=shown(data), file=file)
        self.data, self.thing, self.file = data, thing, file

    def get(self, key: str, kind: Any) -> Any:
        """Return a value of a type; True is no integer."""
        value = self.data.get(key)
        fits = is_whole(value, -(2**63), 2**63) if kind is int else isinstance(value, kind)
        if key not in self.data or not fits:
            raise BadFile(
                f"{self.thing}: {key}",
                expected=getattr(kind, "__name__", str(kind)),
                found=shown(value) if key in self.data else "nothing",
                file=self.file,
            )
        return value

    def inner(self, key: str) -> _Object:
        """Return a value that is an object itself."""
        return _Object(self.get(key, dict), f"{self.thing}: {shown(key)[1:-1]}", self.file)

    def size(self, key: str) -> float:
        """Return a number that is not negative; null stands for one without end."""
        value = self.data.get(key)
        if key in self.data and value is None:
            return math.inf
        if not isinstance(value, int | float) or isinstance(value, bool) or not value >= 0:
            raise BadFile(
                f"{self.thing}: {key}",
                expected="a number, 0 or more",
                found=shown(value) if key in self.data else "nothing",
                file=self.file,
            )
        return float(value)


def _taps(entry: _Object) -> dict[str, Any]:
    """Return what is said of the taps of a case; the bundle looks whether it is true."""
    taps = entry.inner("taps")
    if not taps.data:
        raise BadFile("case: taps", expected="one or more", found="none", file=entry.file)
    for name in taps.data:
        tap = taps.inner(name)
        tap.get("shape", list), tap.get("axes", str), tap.size("rms"), tap.size("absmax")
    return taps.data


def _legal_logits(entry: _Object) -> dict[str, dict[str, Any]]:
    """Return how far legal rounding takes the logits of a case, in each precision."""
    legal = entry.inner("legal_logits")
    own = {precision: legal.inner(precision) for precision in PRECISIONS}
    return {name: {"kl": o.size("kl"), "largest": o.size("largest")} for name, o in own.items()}


def _provenance(top: _Object) -> dict[str, Any]:
    made_by = _Object(top.get("made_by", dict), "made_by", top.file)
    for key in ("llama_ref", "source_sha256", "numpy"):
        made_by.get(key, str)
    return made_by.data


def _check_axes(envelope: _Object) -> None:
    """Refuse an envelope whose axes are not ours."""
    for key, expected in ENVELOPE_AXES.items():
        found = envelope.get(key, list)
        if found != expected:
            raise BadFile(
                f"envelope: {key}", expected=expected, found=shown(found), file=envelope.file
            )


def _parse_model(model: _Object) -> ModelSpec:
    try:
        config = _config(model)
    except (KeyError, TypeError, LlamaRefError) as error:
        raise BadFile(f"{model.thing}: config", found=shown(str(error)), file=model.file) from None
    weights = _Object(model.get("weights", dict), f"{model.thing}: weights", model.file)
    recipe = weights.get("recipe", str)
    if recipe == FORMULA:
        seed, variant = weights.get("seed", int), weights.get("variant", str)
        spec = ModelSpec(config, FORMULA, seed, variant)
    elif recipe == CHECKPOINT and weights.get("layout", str) in PAIRING:
        sha256, layout = weights.get("sha256", str), weights.get("layout", str)
        spec = ModelSpec(config, CHECKPOINT, sha256=sha256, layout=layout)
    else:
        raise BadFile(
            f"{model.thing}: weights",
            expected=f"{FORMULA}, or a {CHECKPOINT} in the layout {' or '.join(PAIRING)}",
            found=shown(weights.data),
            file=model.file,
        )
    pairing = model.get("rope_pairing", str)
    if pairing != spec.pairing:
        raise BadFile(
            f"{model.thing}: rope_pairing",
            expected=spec.pairing,
            found=shown(pairing),
            file=model.file,
        )
    return spec


def _config(model: _Object) -> Config:
    """Return the blueprint of a model; every number of it has to be there."""
    stated = dict(model.get("config", dict))
    scaling = stated.pop("rope_scaling")
    stated["eos_ids"] = tuple(stated.pop("eos_ids"))
    return Config(
        **stated,
        rope_scaling=None if scaling is None else RopeScaling(**scaling),
        name=model.get("name", str),
    )


def _parse_case(entry: _Object, models: Mapping[str, ModelSpec]) -> Case:
    """Return a case whose ids, positions and calls fit each other and its model."""
    batch = entry.data.get("batch")
    case = Case(
        name=entry.get("name", str),
        why=entry.get("why", str),
        ids=_whole_numbers(entry, "ids"),
        positions=_whole_numbers(entry, "positions"),
        chunks=_whole_numbers(entry, "chunks"),
        model=entry.get("model", str),
        batch=None if batch is None else entry.get("batch", str),
        padding=entry.get("padding", int),
        catches=_words(entry, "catches"),
        n_ranks=entry.get("n_ranks", int) if "n_ranks" in entry.data else 1,
    )
    if case.model in models and _largest_tap(case, models[case.model].config) > NUMBERS_LIMIT:
        raise LimitExceeded(
            f"case {shown(case.name)}",
            expected=f"at most {NUMBERS_LIMIT:,} numbers in its largest tap",
            file=entry.file,
        )
    if not _is_consistent(case, models):
        raise BadFile(
            f"case {shown(case.name)}",
            expected="ids of the vocabulary of its model, as many positions, rising, calls that "
            "sum to their number, and ranks that its heads and channels can be cut over",
            file=entry.file,
        )
    return case


def _largest_tap(case: Case, config: Config) -> int:
    """Return how many numbers the largest tap of a case has, stored or not: a check computes it."""
    n_tokens = len(case.ids)
    heads = config.n_heads * max(config.head_dim, n_tokens)
    return n_tokens * max(heads, config.d_model, config.d_ff, config.vocab_size)


def _whole_numbers(entry: _Object, key: str) -> tuple[int, ...]:
    numbers = entry.get(key, list)
    if not all(is_whole(n, 0, 2**31) for n in numbers):
        raise BadFile(f"case: {key}", expected="whole numbers", file=entry.file)
    return tuple(numbers)


def _words(entry: _Object, key: str) -> tuple[str, ...]:
    words = entry.get(key, list)
    if not all(isinstance(word, str) for word in words):
        raise BadFile(f"case: {key}", expected="words", file=entry.file)
    return tuple(words)


def _is_consistent(case: Case, models: Mapping[str, ModelSpec]) -> bool:
    if case.model not in models or not case.ids or "/" in case.name:
        return False
    config = models[case.model].config
    rising = sorted(set(case.positions))
    return (
        max(case.ids) < config.vocab_size
        and len(case.positions) == len(case.ids) == sum(case.chunks)
        and list(case.positions) == rising
        and case.positions[-1] < config.context_length
        and min(case.chunks) > 0
        and 0 <= case.padding < 2**31
        and can_be_cut(config, case.n_ranks)
    )
