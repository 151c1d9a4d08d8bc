"""From stored names to the matrices of the forward pass; what is missing, extra or misshapen stops.

The suffix of a field is its shape: `w_gate_FD` has F rows and D columns, with the sizes of the
blueprint, and a stored tensor of any other shape is refused (a gain of shape (1, D) too: NumPy
would broadcast it without a word). Nothing is read, copied or permuted; the fields are views of the
mapped files. The one thing layouts disagree on besides names, the order of the query and key rows,
is kept as found and named in `pairing`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from llama_ref.checkpoint.stored import Checkpoint, Tensor, changed
from llama_ref.config import Config
from llama_ref.errors import BadFile, Unsupported, shown
from llama_ref.mapped import MappedFile, map_behind
from llama_ref.names import LAYER_NAMES, OUTER_NAMES, expected_shapes
from llama_ref.numerics import ACTIVATION_DTYPES, rows_of

FLOATS = set(ACTIVATION_DTYPES.values())
NUMBERS_PER_SCAN = 2**24
"""Numbers of a tensor looked at together: what is computed of them takes some ten megabytes."""

PAIRING = {"hf": "half_split", "meta": "interleaved", "gguf": "interleaved"}
RECOMPUTED = ("rotary_emb.inv_freq", "rope.freqs", "rope_freqs.weight")
"""Tables some files carry and every program computes for itself; never read."""


@dataclass(frozen=True)
class Layer:
    """The nine tensors of one layer."""

    attn_gain_D: np.ndarray
    w_query_AD: Tensor
    w_key_BD: Tensor
    w_value_BD: Tensor
    w_out_DA: Tensor
    ffn_gain_D: np.ndarray
    w_gate_FD: Tensor
    w_up_FD: Tensor
    w_down_DF: Tensor


@dataclass(frozen=True)
class Weights:
    """All tensors of a model, by their role in the forward pass.

    Attributes
    ----------
    embedding_VD, w_head_VD : Tensor of shape (V, D)
        One and the same object where embeddings are tied.
    layers : tuple of Layer
    final_gain_D : ndarray of shape (D,)
    layout : {"hf", "meta", "gguf"}
        Whose names the file uses.
    pairing : {"half_split", "interleaved"}
        Which channels of a stored query or key head RoPE turns together.
    files : tuple of MappedFile
        That tensors are views of.
    is_streamed : bool
        Whether matrices of files pass through memory, in the order of a pass.
    """

    embedding_VD: Tensor
    layers: tuple[Layer, ...]
    final_gain_D: np.ndarray
    w_head_VD: Tensor
    layout: str
    pairing: str
    files: tuple[MappedFile, ...] = ()
    is_streamed: bool = False

    def check_files(self) -> None:
        """Raise `BadFile` if a mapped file was shortened or written to since it was opened."""
        for file in self.files:
            file.check()

    def named(self, layer: int | None = None) -> Iterator[tuple[str, Tensor]]:
        """Yield (stored name, tensor) of one layer, or of the three tensors outside the layers."""
        holder = self if layer is None else self.layers[layer]
        names = OUTER_NAMES if layer is None else LAYER_NAMES
        for field, name in names[self.layout].items():
            yield name.format(layer), getattr(holder, field)


def assemble(checkpoint: Checkpoint, config: Config) -> Weights:
    """Give every tensor of a checkpoint its role.

    Parameters
    ----------
    checkpoint : Checkpoint
        Stored name to mapped tensor.
    config : Config
        The blueprint that every shape has to follow.

    Raises
    ------
    BadFile
        If a tensor is missing, unexpected, of another shape, or contradicts tied embeddings.
    Unsupported
        If a tensor is not floating-point.
    """
    layout = checkpoint.layout
    _check_inventory(checkpoint, config)
    inventory = expected_shapes(config, layout)
    for name, shape in inventory.items():
        _check_tensor(checkpoint, name, shape)

    layers = tuple(
        Layer(**{f: checkpoint[name.format(i)] for f, name in LAYER_NAMES[layout].items()})  # type: ignore[arg-type]
        for i in range(config.n_layers)
    )
    outer = {f: checkpoint[name] for f, name in OUTER_NAMES[layout].items() if name in inventory}
    if config.tied_embeddings:
        _check_tied(checkpoint, OUTER_NAMES[layout]["w_head_VD"], outer["embedding_VD"])
        outer["w_head_VD"] = outer["embedding_VD"]
    files = _files_of(checkpoint)
    return Weights(layers=layers, layout=layout, pairing=PAIRING[layout], files=files, **outer)  # type: ignore[arg-type]


def _files_of(checkpoint: Checkpoint) -> tuple[MappedFile, ...]:
    """Return the mapped files that tensors are views of, each once."""
    files: dict[int, MappedFile] = {}

    def note(array: np.ndarray) -> np.ndarray:
        mapped = map_behind(array)
        if mapped is not None:
            files[id(mapped)] = mapped
        return array

    for tensor in checkpoint.values():
        changed(tensor, note)
    return tuple(files.values())


def inventory_findings(
    checkpoint: Checkpoint, config: Config
) -> tuple[dict[str, tuple[int, ...]], list[str]]:
    """Return the missing tensors with their shapes, and the unexpected ones."""
    inventory = expected_shapes(config, checkpoint.layout)
    head = OUTER_NAMES[checkpoint.layout]["w_head_VD"]
    missing = {name: shape for name, shape in inventory.items() if name not in checkpoint}
    unexpected = [
        name
        for name in checkpoint
        if name not in inventory
        and not name.endswith(RECOMPUTED)
        and not (name == head and config.tied_embeddings)
    ]
    return missing, unexpected


def non_finite_weight(weights: Weights, layer: int | None) -> str | None:
    """Say which tensor of a layer (None: outside the layers) holds a NaN or infinity, and where."""
    for name, tensor in weights.named(layer):
        found = first_non_finite(tensor)
        if found is not None:
            return f"tensor {name} holds {found[1]} at {found[0]}"
    return None


def first_non_finite(tensor: Tensor) -> tuple[tuple[int, ...], float] | None:
    """Return index and value of the first NaN or infinity of a tensor, or None; reads all of it."""
    for lo, rows in row_blocks(tensor):
        finite = np.isfinite(rows)
        if not finite.all():
            first = tuple(map(int, np.unravel_index(finite.argmin(), finite.shape)))
            return (lo + first[0], *first[1:]), float(rows[first])
    return None


def row_blocks(tensor: Tensor) -> Iterator[tuple[int, np.ndarray]]:
    """Yield a tensor some rows at a time, each time with the number of the first."""
    n_rows = max(1, NUMBERS_PER_SCAN // max(1, math.prod(tensor.shape[1:])))
    for lo in range(0, tensor.shape[0], n_rows):
        yield lo, rows_of(tensor, lo, min(lo + n_rows, tensor.shape[0]))


def _check_inventory(checkpoint: Checkpoint, config: Config) -> None:
    """Refuse a checkpoint that lacks a tensor or holds one nobody would use."""
    missing, unexpected = inventory_findings(checkpoint, config)
    for name, shape in missing.items():
        is_head = name == OUTER_NAMES[checkpoint.layout]["w_head_VD"]
        raise BadFile(
            f"tensor {name}",
            expected=f"shape {shape}",
            found="no such tensor",
            next_step="with tied embeddings config.json says tie_word_embeddings"
            if is_head
            else None,
            file=checkpoint.path,
        )
    for name in unexpected:
        raise BadFile(
            f"unexpected tensor {shown(name)}",
            expected="the tensors of this blueprint and no other",
            found=f"shape {checkpoint[name].shape}",
            next_step="a bias, adapter, extra layer or renamed tensor would be silently unused",
            file=checkpoint.path,
        )


def _check_tensor(checkpoint: Checkpoint, name: str, shape: tuple[int, ...]) -> None:
    """Refuse a tensor of another shape, or one that is not floating-point."""
    tensor = checkpoint[name]
    if tuple(tensor.shape) != shape:
        raise BadFile(
            f"tensor {name}",
            expected=f"shape {shape}",
            found=f"shape {tuple(tensor.shape)}",
            file=checkpoint.path,
        )
    if tensor.dtype.newbyteorder("=") not in FLOATS:
        raise Unsupported(
            f"tensor {name}",
            expected="float32, bfloat16, float16 or float64",
            found=str(tensor.dtype),
            file=checkpoint.path,
        )


def _check_tied(checkpoint: Checkpoint, head: str, embedding_VD: Tensor) -> None:
    """Refuse tied embeddings beside a stored head that differs, judged by rows across the table."""
    if head not in checkpoint:
        return
    w_head_VD = checkpoint[head]
    V = embedding_VD.shape[0]
    same = tuple(w_head_VD.shape) == tuple(embedding_VD.shape) and all(
        np.array_equal(rows_of(w_head_VD, v, v + 1), rows_of(embedding_VD, v, v + 1))
        for v in np.linspace(0, V - 1, min(V, 64), dtype=int).tolist()
    )
    if not same:
        raise BadFile(
            f"tensor {head}",
            expected="no head, or one equal to the embedding, since embeddings are tied",
            found="another matrix",
            next_step="one of tie_word_embeddings and the stored head is wrong",
            file=checkpoint.path,
        )
