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
from llama_ref.config import Config
from llama_ref.errors import BadFile, shown
from llama_ref.files import list_folder, map_bytes
from llama_ref.golden.cases import Case
from llama_ref.golden.envelope import MODEL, OP, SHAPE
from llama_ref.golden.manifest import DUMP, FINGERPRINT, MANIFEST, MANIFEST_LIMIT, Manifest
from llama_ref.golden.manifest_reading import parse_manifest
from llama_ref.golden.measure import WHOLE, band_of
from llama_ref.golden.models import ModelSpec
from llama_ref.golden.sketch import BUCKETS
from llama_ref.golden.styles import PRECISIONS
from llama_ref.strict_json import read_json
from llama_ref.trace import layout, tap_names

HASHED_BYTES = 2**28
"""Files up to this size are hashed when a bundle is opened; of larger ones the size is checked."""


def axes_of(tap: str) -> str:
    """Return the axes of a tap.

    Examples
    --------
    >>> axes_of("L03.q_rope"), axes_of("logits")
    ('T N H', 'T V')
    """
    return layout(tap, "").partition(";")[0]


def shape_of(tap: str, config: Config, n_tokens: int) -> tuple[int, ...]:
    """Return the shape of a tap of a case, S being T.

    Examples
    --------
    >>> from llama_ref.config import preset
    >>> shape_of("L00.k", preset("golden-tiny"), 5)
    (5, 2, 32)
    """
    sizes = {
        "T": n_tokens,
        "S": n_tokens,
        "D": config.d_model,
        "N": config.n_heads,
        "K": config.n_kv_heads,
        "H": config.head_dim,
        "F": config.d_ff,
        "V": config.vocab_size,
    }
    return tuple(sizes[letter] for letter in axes_of(tap).split())


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
        held = self.manifest.taps[case.name]
        return [t for t in tap_names(self.spec(case).config.n_layers) if t in held]

    def truth(self, case: Case, tap: str) -> np.ndarray | None:
        """Return the float64 truth of a tap; None if the bundle has no more than its sketch."""
        array = self._arrays.get(f"{case.name}/{tap}")
        if array is not None and not np.isfinite(array).all():
            raise BadFile(
                f"truth {case.name}/{tap}",
                expected="finite numbers",
                found="NaN or infinity",
                next_step="make the bundle anew",
                file=self.path,
            )
        return array

    def sketch(self, case: Case, tap: str) -> np.ndarray | None:
        """Return the sketch of a tap, if that is what the bundle has."""
        return self._arrays.get(f"{case.name}/{tap}#sketch")

    def extra(self, case: Case, tap: str, what: str) -> np.ndarray | None:
        """Return `norms`, or `top_ids` and `top` of logits, of a fingerprint."""
        return self._arrays.get(f"{case.name}/{tap}#{what}")

    def envelope(self, case: Case, tap: str) -> np.ndarray | None:
        """Return (precisions, spans, bands, measures) of a tap."""
        return self._envelopes.get(f"{case.name}/{tap}")

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
        known = set(tap_names(config.n_layers))
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


def _is_sound(envelope: np.ndarray | None, band_T: np.ndarray) -> bool:
    """Tell whether candidates can be judged by an envelope: none that excuses everything is one.

    Legal rounding overflows in float16 at most, where infinity stands.
    """
    if envelope is None or envelope.shape != SHAPE or envelope.dtype != np.float32:
        return False
    wide = [i for i, name in enumerate(PRECISIONS) if "16" not in name or name == "bfloat16"]
    needed = envelope[:, [OP, MODEL]][:, :, np.unique(band_T), WHOLE]
    return not (np.isnan(needed).any() or (envelope < 0).any() or np.isinf(envelope[wide]).any())


FINGERPRINT_KINDS = ("q_rope", "k_rope", "ctx", "ffn_inp", "act", "out")
"""What a fingerprint has of each layer; and `final_norm` and `logits`."""
