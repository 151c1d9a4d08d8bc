"""What can be wrong with a checkpoint that opens: from its headers, and by reading all of it.

    structure(checkpoint, config)      names, shapes, dtypes: costs nothing
    contents(checkpoint, config)       every number and every checksum: costs one read of the files

`load` stops at the first thing that is wrong; these look for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from llama_ref.checkpoint.pth import check_storages
from llama_ref.checkpoint.stored import Checkpoint, Tensor
from llama_ref.cli.terminal import label
from llama_ref.config import Config
from llama_ref.errors import LlamaRefError, printable
from llama_ref.loading import has_tokenizer
from llama_ref.names import OUTER_NAMES, expected_shapes
from llama_ref.tokenizer import Tokenizer, load_tokenizer
from llama_ref.weights import (
    FLOATS,
    assemble,
    first_non_finite,
    inventory_findings,
    row_blocks,
)


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or, as a warning, one that is odd.

    Attributes
    ----------
    kind : str
        "missing", "unexpected", "shape", "dtype", "refused", "tokenizer", "damaged",
        "non-finite", "tied", "constant".
    thing : str
        The tensor or file, escaped.
    detail : str
        Expected and found.
    is_warning : bool
        Odd, but computed with as it is.
    """

    kind: str
    thing: str
    detail: str
    is_warning: bool = False


def structure(checkpoint: Checkpoint, config: Config) -> list[Finding]:
    """Return what names, shapes and dtypes tell."""
    missing, unexpected = inventory_findings(checkpoint, config)
    findings = [
        Finding("missing", label(name), f"expected shape {shape}")
        for name, shape in missing.items()
    ]
    findings += [
        Finding("unexpected", label(name), f"shape {tuple(checkpoint[name].shape)}: no one uses it")
        for name in unexpected
    ]
    findings += _wrong_tensors(checkpoint, config)
    if not findings:  # what is left, as tied embeddings beside a head that differs
        try:
            assemble(checkpoint, config)
        except LlamaRefError as error:
            findings.append(Finding("refused", label(error.thing), str(error)))
    return findings


def _wrong_tensors(checkpoint: Checkpoint, config: Config) -> Iterator[Finding]:
    """Yield the expected tensors that have another shape, or hold no floating-point numbers."""
    for name, shape in expected_shapes(config, checkpoint.layout).items():
        if name not in checkpoint:
            continue
        found = checkpoint[name]
        if tuple(found.shape) != shape:
            yield Finding("shape", name, f"expected {shape}, found {tuple(found.shape)}")
        if found.dtype.newbyteorder("=") not in FLOATS:
            yield Finding("dtype", name, f"expected a floating-point dtype, found {found.dtype}")


def tokenizer_of(checkpoint: Checkpoint, config: Config) -> tuple[Tokenizer | None, list[Finding]]:
    """Return the tokenizer beside the weights, if there is one, and what is wrong with it."""
    if not checkpoint.has_files or not has_tokenizer(checkpoint.path):
        return None, []
    try:
        return load_tokenizer(checkpoint.path, vocab_size=config.vocab_size), []
    except LlamaRefError as error:
        return None, [Finding("tokenizer", label(error.thing), str(error))]


def contents(
    checkpoint: Checkpoint, config: Config, advance: Callable[[int], object]
) -> Iterator[Finding]:
    """Yield what reading every byte tells.

    Parameters
    ----------
    checkpoint : Checkpoint
    config : Config
    advance : function of int
        Told the bytes of each tensor, and of each .pth file, once it is read.
    """
    yield from _damaged_files(checkpoint, advance)
    for name, tensor in checkpoint.items():
        yield from _odd_numbers(name, tensor)
        advance(n_bytes(tensor))
    embedding, _, head = OUTER_NAMES[checkpoint.layout].values()
    if config.tied_embeddings and head in checkpoint and embedding in checkpoint:
        row = _first_difference(checkpoint[embedding], checkpoint[head])
        if row is not None:
            yield Finding("tied", head, f"differs from the embedding it is tied to, row {row}")


def n_bytes(tensor: Tensor) -> int:
    """Return the bytes that a tensor takes in its files."""
    stored = getattr(tensor, "nbytes", None)
    return int(stored or int(np.prod(tensor.shape, dtype=object)) * tensor.dtype.itemsize)


def _damaged_files(checkpoint: Checkpoint, advance: Callable[[int], object]) -> Iterator[Finding]:
    """Yield the .pth files in which a checksum is wrong; safetensors has none."""
    if checkpoint.layout != "meta":
        return
    for file in sorted({file for files in checkpoint.files.values() for file in files}):
        try:
            check_storages(checkpoint.path / file)
        except LlamaRefError as error:
            yield Finding("damaged", printable(file), str(error))
        advance((checkpoint.path / file).stat().st_size)


def _odd_numbers(name: str, tensor: Tensor) -> Iterator[Finding]:
    """Yield that a tensor holds a NaN or infinity, or that a matrix is the same number all over."""
    if tensor.dtype.newbyteorder("=") not in FLOATS or 0 in tensor.shape:
        return
    if len(tensor.shape) == 0:
        tensor = np.asarray(tensor).reshape(1)
    found = first_non_finite(tensor)
    if found is not None:
        index, value = found
        yield Finding("non-finite", label(name), f"{value} at {index}")
    elif len(tensor.shape) == 2 and (constant := _constant(tensor)) is not None:
        what = "zero" if constant == 0 else f"{constant:g}"
        yield Finding("constant", label(name), f"every element is {what}", is_warning=True)


def _constant(matrix: Tensor) -> float | None:
    """Return the one number that a matrix consists of; None, and soon, if there are two."""
    first = None
    for _, block in row_blocks(matrix):
        first = block[0, 0] if first is None else first
        if not (block == first).all():
            return None
    return None if first is None else float(first)


def _first_difference(a: Tensor, b: Tensor) -> int | None:
    """Return the first row in which two matrices differ; None if they are equal throughout."""
    if tuple(a.shape) != tuple(b.shape):
        return 0
    for (lo, rows_a), (_, rows_b) in zip(row_blocks(a), row_blocks(b), strict=True):
        both_nan = np.isnan(rows_a) & np.isnan(rows_b)
        differs = ((rows_a != rows_b) & ~both_nan).any(axis=1)
        if differs.any():
            return lo + int(differs.argmax())
    return None
