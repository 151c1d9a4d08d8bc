"""A golden bundle on disk, opened: the manifest, and the arrays by name, mapped.

    manifest.json
    <case>-<hash>.safetensors      full and dump: `case/tap`, float64
                                   fingerprint: `case/tap#sketch`, `case/tap#norms`,
                                                `case/logits#top_ids`, `case/logits#top`
    envelope-<hash>.safetensors    `case/tap`: (precisions, spans, bands, measures), float32;
                                   not in a dump, which is the truth alone

Every file is named in the manifest with its size and its hash. A file that is not there, has
another size or other bytes is an error before anything is compared; so is a truth that is not a
number.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from llama_ref.checkpoint.readahead import let_go
from llama_ref.checkpoint.safetensors import open_safetensors
from llama_ref.errors import BadFile, shown
from llama_ref.files import list_folder
from llama_ref.golden.cases import Case
from llama_ref.golden.envelope import MODEL, OP, SHAPE
from llama_ref.golden.manifest import DUMP, FINGERPRINT, MANIFEST, MANIFEST_LIMIT, Manifest
from llama_ref.golden.manifest_reading import parse_manifest
from llama_ref.golden.measure import WHOLE, band_of
from llama_ref.golden.models import ModelSpec
from llama_ref.golden.sketch import BUCKETS, TOP
from llama_ref.golden.styles import PRECISIONS
from llama_ref.golden.taps import axes_of, place_of, shape_of
from llama_ref.mapped import map_bytes
from llama_ref.strict_json import read_json
from llama_ref.trace import tap_names

HASHED_BYTES = 2**28
"""Files up to this size are hashed when a bundle is opened; of larger ones the size is checked."""


class Bundle:
    """An opened bundle.

    Parameters
    ----------
    path : path-like
        Its folder.

    Attributes
    ----------
    manifest : Manifest
    path : Path

    Raises
    ------
    BadFile, Unsupported
        If anything about it is not as the manifest says.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        list_folder(self.path)
        file = self.path / MANIFEST
        self.manifest: Manifest = parse_manifest(read_json(file, limit=MANIFEST_LIMIT), file)
        self._arrays: dict[str, np.ndarray] = {}
        self._envelopes: dict[str, np.ndarray] = {}
        for name, stated in self.manifest.files.items():
            self._open(name, stated)
        cuts = {(self.spec(case).config.n_layers, case.n_ranks) for case in self.cases}
        self._known = {cut: frozenset(tap_names(*cut)) for cut in cuts}
        for case in self.manifest.cases:
            self._check_case(case)

    @property
    def cases(self) -> list[Case]:
        """The cases, in the order of the manifest."""
        return self.manifest.cases

    def spec(self, case: Case) -> ModelSpec:
        """Return the model that a case runs."""
        return self.manifest.models[case.model]

    def taps(self, case: Case) -> list[str]:
        """Return the taps that a case has, in dataflow order."""
        return sorted(self.manifest.taps[case.name], key=place_of)

    def truth(self, case: Case, tap: str) -> np.ndarray | None:
        """Return the float64 truth of a tap; None if the bundle has no more than its sketch."""
        return self._finite(f"{case.name}/{tap}")

    def sketch(self, case: Case, tap: str) -> np.ndarray | None:
        """Return the sketch of a tap, if that is what the bundle has."""
        return self._finite(f"{case.name}/{tap}#sketch")

    def extra(self, case: Case, tap: str, what: str) -> np.ndarray | None:
        """Return `norms`, or `top_ids` and `top` of logits, of a fingerprint."""
        return self._finite(f"{case.name}/{tap}#{what}")

    def envelope(self, case: Case, tap: str) -> np.ndarray | None:
        """Return (precisions, spans, bands, measures) of a tap."""
        return self._envelopes.get(f"{case.name}/{tap}")

    def _finite(self, name: str) -> np.ndarray | None:
        """Return a stored array, if there is one; a truth that is no number is an error."""
        array = self._arrays.get(name)
        if array is not None and not np.isfinite(array).all():
            raise BadFile(
                f"truth {name}",
                expected="finite numbers",
                found="NaN or infinity",
                next_step="make the bundle anew",
                file=self.path,
            )
        return array

    def _open(self, name: str, stated: Any) -> None:
        """Map a file of the bundle, after a look at its size and its hash."""
        path = self.path / name
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise BadFile("files", expected="names of safetensors files", found=shown(name))
        raw = map_bytes(path)
        if not isinstance(stated, dict) or raw.size != stated.get("bytes"):
            raise BadFile(
                "file size",
                expected=shown(stated.get("bytes") if isinstance(stated, dict) else stated),
                found=f"{raw.size} bytes",
                next_step="the file was cut or changed; make the bundle anew",
                file=path,
            )
        if raw.size <= HASHED_BYTES:
            self._check_hash(path, raw, stated)
        arrays = open_safetensors(path)
        (self._envelopes if name.startswith("envelope-") else self._arrays).update(arrays)

    def _check_hash(self, path: Path, raw: np.ndarray, stated: dict[str, Any]) -> None:
        """Refuse a file of other bytes than the manifest says; keep nothing of it in memory."""
        digest = hashlib.sha256(raw.data).hexdigest()
        let_go(raw)
        if digest != stated.get("sha256"):
            raise BadFile(
                "SHA-256",
                expected=shown(stated.get("sha256")),
                found="that of other bytes",
                next_step="the file was damaged or changed; make the bundle anew",
                file=path,
            )

    def _check_case(self, case: Case) -> None:
        """Refuse a case without the arrays that the manifest promises, in their shapes."""
        config, T = self.spec(case).config, len(case.ids)
        known = self._known[config.n_layers, case.n_ranks]
        if self.manifest.tier == FINGERPRINT and "logits" in self.manifest.taps[case.name]:
            self._check_top(case)
        for tap, stated in self.manifest.taps[case.name].items():
            name = f"{case.name}/{tap}"
            full = self.manifest.tier != FINGERPRINT
            stored = self._arrays.get(name if full else f"{name}#sketch")
            shape = shape_of(tap, config, T) if tap in known else ()
            if (
                tap not in known
                or stored is None
                or stored.shape != (shape if full else (BUCKETS,))
                or stored.dtype != np.float64
                or stated["shape"] != list(shape)
                or stated["axes"] != axes_of(tap)
            ):
                raise BadFile(
                    f"tap {shown(name)}",
                    expected=f"float64 of shape {shape}" if full else "float64 of a sketch",
                    found="nothing" if stored is None else f"{stored.dtype} {stored.shape}",
                    next_step="make the bundle anew",
                    file=self.path,
                )
            if self.manifest.tier == DUMP:
                continue
            if not _is_sound(self._envelopes.get(name), band_of(case.positions)):
                raise BadFile(
                    f"envelope {shown(name)}",
                    expected=f"shape {SHAPE}, a number wherever the case has a token",
                    next_step="make the bundle anew",
                    file=self.path,
                )

    def _check_top(self, case: Case) -> None:
        """Refuse a fingerprint without the highest logits of each token: ids and values."""
        ids, top = (self._arrays.get(f"{case.name}/logits#{what}") for what in ("top_ids", "top"))
        shape = (len(case.ids), min(TOP, self.spec(case).config.vocab_size))
        for array, dtype in ((ids, np.int32), (top, np.float64)):
            if array is None or (array.shape, array.dtype) != (shape, dtype) or shape[1] < 2:
                raise BadFile(
                    f"highest logits of {shown(case.name)}",
                    expected=f"ids in int32 and values in float64 of shape {shape}",
                    next_step="make the bundle anew",
                    file=self.path,
                )


def _is_sound(envelope: np.ndarray | None, band_T: np.ndarray) -> bool:
    """Tell whether candidates can be judged by an envelope: none that excuses everything is one.

    Legal rounding overflows in float16 at most, where infinity stands.
    """
    if envelope is None or envelope.shape != SHAPE or envelope.dtype != np.float32:
        return False
    wide = [i for i, name in enumerate(PRECISIONS) if "16" not in name or name == "bfloat16"]
    needed = envelope[:, [OP, MODEL]][:, :, np.unique(band_T), WHOLE]
    return not (np.isnan(needed).any() or (envelope < 0).any() or np.isinf(envelope[wide]).any())
