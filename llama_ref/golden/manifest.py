"""The manifest of a bundle: everything about it but the numbers, as one JSON object.

    format, version            what this is; a reader refuses a version it does not know
    made_by                    library, hash of its source, NumPy, BLAS, threads
    tier                       full · fingerprint · dump
    models                     name -> blueprint, and how to have the weights
    cases                      tokens, positions, calls, why each exists, and its taps
    envelope, sketch           what the axes of those arrays mean
    files                      name -> bytes and SHA-256

docs/golden/bundle-format.md says the same at length, enough to write a reader from.
"""

from __future__ import annotations

import hashlib
import math
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_info

import llama_ref
from llama_ref.golden.cases import Case
from llama_ref.golden.measure import BAND_STARTS, MEASURES
from llama_ref.golden.models import ModelSpec
from llama_ref.golden.replay import SPANS
from llama_ref.golden.sketch import BUCKETS
from llama_ref.golden.styles import PRECISIONS, STYLES

FORMAT, VERSION = "llama_ref golden bundle", 1
FULL, FINGERPRINT, DUMP = "full", "fingerprint", "dump"
TIERS = (FULL, FINGERPRINT, DUMP)
MANIFEST = "manifest.json"
MANIFEST_LIMIT = 16_000_000
ENVELOPE_AXES = {
    "precisions": list(PRECISIONS),
    "spans": list(SPANS),
    "band_starts": list(BAND_STARTS),
    "measures": list(MEASURES),
}
"""What the axes of an envelope count, outermost first."""


@dataclass(frozen=True)
class Manifest:
    """What a manifest says.

    Attributes
    ----------
    tier : {"full", "fingerprint", "dump"}
    models : dict of str to ModelSpec
    cases : list of Case
    taps : dict of str to dict
        For each case, its taps: shape, axes, root mean square and largest value.
    legal_logits : dict of str to dict
        For each case and precision, the largest divergence (`kl`, nats) and the largest error
        (`largest`) that legal rounding gives.
    files : dict of str to dict
        Size and hash of each file.
    made_by : dict
    """

    tier: str
    models: dict[str, ModelSpec]
    cases: list[Case]
    taps: dict[str, dict[str, Any]]
    legal_logits: dict[str, dict[str, Any]]
    files: dict[str, dict[str, Any]]
    made_by: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "tier": self.tier,
            "made_by": self.made_by,
            "models": {name: _model_dict(spec) for name, spec in self.models.items()},
            "cases": [
                {
                    **asdict(case),
                    "taps": self.taps[case.name],
                    "legal_logits": _finite(self.legal_logits.get(case.name, {})),
                }
                for case in self.cases
            ],
            "envelope": {
                **ENVELOPE_AXES,
                "styles": {style.name: style.precision for style in STYLES},
            },
            "sketch": {"buckets": BUCKETS, "seed": 0},
            "files": self.files,
        }


def _finite(legal: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float | None]]:
    """Return numbers as JSON has them: where legal rounding overflows, null."""
    return {
        precision: {key: value if math.isfinite(value) else None for key, value in own.items()}
        for precision, own in legal.items()
    }


def provenance() -> dict[str, Any]:
    """Return what made a bundle: enough to explain a difference in the last digits."""
    blas = np.show_config(mode="dicts").get("Build Dependencies", {}).get("blas", {})
    return {
        "llama_ref": llama_ref.__version__,
        "source_sha256": source_hash(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "blas": f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip(),
        "core": _core_type(),
        "threads": os.cpu_count(),
        "machine": platform.machine(),
    }


def source_hash() -> str:
    """Return the SHA-256 of the source files of this package, by name."""
    root, digest = Path(llama_ref.__file__).parent, hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _core_type() -> str:
    """Return which kernels BLAS runs, if it says."""
    kinds = [pool.get("architecture") for pool in threadpool_info()]
    return next((kind for kind in kinds if kind), "unknown")


def _model_dict(spec: ModelSpec) -> dict[str, Any]:
    config = {key: value for key, value in asdict(spec.config).items() if key != "name"}
    return {
        "name": spec.config.name,
        "config": config,
        "weights": spec.as_dict(),
        "rope_pairing": spec.pairing,
    }
