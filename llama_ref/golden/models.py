"""Which model a bundle is about, and how to have it again: from a formula, or from a checkpoint.

A bundle holds no weights. It says how any reader gets the same ones: the recipe `synth-1` with its
seed, or the hash of every tensor of a checkpoint that the reader has to bring along.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from llama_ref.checkpoint.stored import Checkpoint
from llama_ref.checkpoint.synthetic_model import (
    is_synthetic,
    open_synthetic,
    parse_synthetic_path,
)
from llama_ref.config import PRESETS, Config, preset
from llama_ref.errors import BadRequest, shown
from llama_ref.golden.passes import whole
from llama_ref.holding import widened
from llama_ref.lineage import lineage_named
from llama_ref.loading import open_checkpoint
from llama_ref.model import Model
from llama_ref.numerics import Matrix, dtype_named
from llama_ref.weights import PAIRING, Layer, Weights, assemble, row_blocks

FORMULA, CHECKPOINT = "synth-1", "checkpoint"
HELD_BYTES = 2**30
"""A model of fewer float32 bytes is computed once and kept; of a larger one, a layer at a time."""


@dataclass(frozen=True)
class ModelSpec:
    """A blueprint, and where its weights come from.

    Attributes
    ----------
    config : Config
    recipe : {"synth-1", "checkpoint"}
    seed : int
        Of the formula.
    variant : str
        Of the formula: "plain" or "outliers".
    sha256 : str
        Of the tensors of a checkpoint; see `checkpoint_hash`.
    layout : {"hf", "meta"}
        Whose names and row order the weights have.
    """

    config: Config
    recipe: str = FORMULA
    seed: int = 0
    variant: str = "plain"
    sha256: str = ""
    layout: str = "hf"

    @property
    def pairing(self) -> str:
        """Which channels of the query and key taps RoPE pairs."""
        return PAIRING[self.layout]

    def as_dict(self) -> dict[str, Any]:
        """Return the weights' part of the manifest."""
        if self.recipe == FORMULA:
            return {"recipe": FORMULA, "seed": self.seed, "variant": self.variant}
        return {"recipe": CHECKPOINT, "sha256": self.sha256, "layout": self.layout}


def spec_of(model: str | os.PathLike[str], seed: int = 0) -> ModelSpec:
    """Return the spec of a preset's name, a `synthetic:` address, or the folder of a checkpoint.

    A checkpoint is read whole, for its hash.
    """
    if os.fspath(model) in PRESETS:
        return ModelSpec(preset(os.fspath(model)), seed=seed)
    if is_synthetic(model):
        config, seed, variant = parse_synthetic_path(model)
        return ModelSpec(config, seed=seed, variant=variant)
    checkpoint, config = open_checkpoint(model)
    config = replace(config, name=name_of(model))
    digest = checkpoint_hash(checkpoint)
    return ModelSpec(config, CHECKPOINT, sha256=digest, layout=checkpoint.layout)


def weights_of(spec: ModelSpec, path: str | os.PathLike[str] | None = None) -> Weights:
    """Return the weights of a spec.

    Parameters
    ----------
    spec : ModelSpec
    path : path-like, optional
        The checkpoint folder, for a spec that names one by its hash.

    Raises
    ------
    BadRequest
        If a checkpoint is needed and not given, or is not the one that was meant.
    """
    if spec.recipe == FORMULA:
        return assemble(open_synthetic(spec.config, spec.seed, spec.variant), spec.config)
    if path is None:
        raise BadRequest("weights", expected="the checkpoint that the bundle was made from")
    checkpoint, config = open_checkpoint(path)
    found = checkpoint_hash(checkpoint)
    if found != spec.sha256 or config != spec.config:
        raise BadRequest(
            "weights",
            expected=f"the checkpoint of SHA-256 {spec.sha256[:16]}…",
            found=f"{found[:16]}…" if found != spec.sha256 else "another blueprint",
            next_step="the bundle was made from other weights",
            file=path,
        )
    return assemble(checkpoint, config)


def model_of(spec: ModelSpec, weights: Weights, dtype: str, lineage: str) -> Model:
    """Return a model of these weights.

    Parameters
    ----------
    spec : ModelSpec
    weights : Weights
    dtype : str
        Of the activations: `float64` for truth and replay.
    lineage : {"hf", "meta"}
    """
    return Model(spec.config, weights, lineage_named(lineage), dtype_named(dtype))


def is_large(config: Config) -> bool:
    """Tell whether a model is computed or read a layer at a time."""
    return 4 * config.n_params > HELD_BYTES


def held(weights: Weights, config: Config, dtype: str = "float32") -> Weights:
    """Return weights that are computed or read once: all of them, or a layer at a time.

    Parameters
    ----------
    weights : Weights
    config : Config
    dtype : {"float32", "float64"}
        In which they are held. A model of another dtype runs on them as well, more slowly.
    """
    if not is_large(config):
        return widened(weights, dtype_named(dtype))
    layers = OneLayerHeld(weights.layers, dtype_named(dtype))
    w_head_VD = HeldWhenRead(weights.w_head_VD, dtype_named(dtype))
    return replace(weights, layers=layers, w_head_VD=w_head_VD)  # type: ignore[arg-type]


class HeldWhenRead:
    """A matrix that is in memory from the first time that rows of it are asked for."""

    def __init__(self, matrix: np.ndarray | Matrix, dtype: np.dtype):
        self.shape, self.dtype = tuple(matrix.shape), dtype
        self._matrix = matrix
        self._held_VD: np.ndarray | None = None

    def rows(self, lo: int, hi: int) -> np.ndarray:
        """Return rows lo to hi - 1, a view."""
        if self._held_VD is None:
            self._held_VD = np.ascontiguousarray(whole(self._matrix), self.dtype)
        return self._held_VD[lo:hi]


class OneLayerHeld(Sequence[Layer]):
    """The layers of a model, of which the one that was asked for last is in memory."""

    def __init__(self, layers: Sequence[Layer], dtype: np.dtype):
        self._layers, self._dtype = layers, dtype
        self._index, self._held = -1, layers[0]

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        if index != self._index:
            self._index, self._held = -1, self._layers[index]  # lets go of the last one first
            self._held = Layer(
                **{
                    f.name: np.ascontiguousarray(whole(getattr(self._held, f.name)), self._dtype)
                    for f in fields(self._held)
                }
            )
            self._index = index
        return self._held

    def __len__(self) -> int:
        return len(self._layers)


def checkpoint_hash(checkpoint: Checkpoint) -> str:
    """Return the SHA-256 of all tensors: name, dtype and shape in a line, then the rows.

    How they are cut into files does not matter.
    """
    digest = hashlib.sha256()
    for name in sorted(checkpoint):
        tensor = checkpoint[name]
        head = f"{name} {tensor.dtype.name} {'x'.join(map(str, tensor.shape))}\n"
        digest.update(head.encode())
        for _, rows in row_blocks(tensor):
            digest.update(np.ascontiguousarray(rows).view(np.uint8).data)
    return digest.hexdigest()


def name_of(path: str | os.PathLike[str]) -> str:
    """Return what a folder is called, for a manifest that names no machine's paths."""
    return shown(Path(path).name).strip("'")
