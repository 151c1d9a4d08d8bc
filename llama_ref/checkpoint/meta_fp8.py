"""The FP8 release of 405B as Meta's own files have it: each rank with scales of its own.

    consolidated.03.pth    layers.5.feed_forward.w2.weight   [out, in / 8]   float8 e4m3
    fp8_scales_3.pt        5_feed_forward.w2_3               [out]           float32

Every rank quantised what it held: rows of w1 and w3, columns of w2. So a row of w2 has a scale in
each file, and the parts stay apart. A rank also rounds activations by itself, and what w2 is
multiplied with is cut as its columns are: a token has as many scales there as there are ranks.

In float8 are w1, w3 and w2 of all layers but the first and the last. params.json is copied as it
was, so that there are scales is all that tells such a folder from one in 16 bits. The bound of
activations, 1200, is an argument of the released loader.

The layout is taken from the code that writes and reads it. The release itself could not be looked
at; the published size of a shard, 60,903,742,309 bytes, is that of its parts in these dtypes,
60,903,292,928, and of headers.

Source: llama_toolchain/inference/quantization/scripts/quantize_checkpoint.py in
meta-llama/llama-stack at 7a8b5c16, which writes such folders; models/llama3/quantization/loader.py
in meta-llama/llama-models, and llama_meta_pth_size in its sku_list.py; quantize_fp8_per_row in
pytorch/FBGEMM, whose scales are [out].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from llama_ref.checkpoint.fp8 import ScaledRows, is_in_fp8, scales_of
from llama_ref.checkpoint.meta import is_scales_file
from llama_ref.checkpoint.sharded import ShardedMatrix
from llama_ref.checkpoint.stored import Checkpoint, Tensor
from llama_ref.dynamic_quantisation import rounded_to_fp8
from llama_ref.errors import BadFile, shown
from llama_ref.numerics import FLOAT8

FEED_FORWARD = ("w1", "w3", "w2")


class ScaledShards(ShardedMatrix):
    """Equal parts of one matrix, each with scales of its own; implements `numerics.Matrix`.

    Parameters
    ----------
    parts : sequence of ScaledRows
        Of one shape.
    axis : {0, 1}
        0 if the parts lie one below the other, 1 if side by side.
    """

    is_quantised = True

    def __init__(self, parts: Sequence[ScaledRows], axis: int):
        super().__init__(parts, axis)
        self.rounds_activations = parts[0].rounds_activations
        self.stored_as, self.nbytes = parts[0].stored_as, sum(part.nbytes for part in parts)
        n_slices = len(parts) if axis == 1 else 1
        how = parts[0].prepare
        self.prepare = partial(_by_slices, how=how, n_slices=n_slices) if how else None


def _by_slices(
    x_TD: np.ndarray, how: Callable[[np.ndarray], np.ndarray], n_slices: int
) -> np.ndarray:
    """Prepare activations for each part by itself, as the rank that holds it does."""
    return np.concatenate([how(part) for part in np.split(x_TD, n_slices, axis=1)], axis=1)


def scale_names(n_layers: int) -> dict[str, str]:
    """Return every matrix that is in float8, with what its scales are called before the rank.

    Examples
    --------
    >>> scale_names(3)["layers.1.feed_forward.w2.weight"]
    '1_feed_forward.w2_'
    >>> len(scale_names(126))
    372
    """
    return {
        f"layers.{i}.feed_forward.{matrix}.weight": f"{i}_feed_forward.{matrix}_"
        for i in range(1, n_layers - 1)
        for matrix in FEED_FORWARD
    }


def with_meta_fp8(
    checkpoint: Checkpoint, n_layers: int, *, quantised_activations: bool
) -> Checkpoint:
    """Join the matrices in float8 of a Meta checkpoint, if it has any, with their scales.

    Parameters
    ----------
    checkpoint : Checkpoint
        As `open_meta` returns it: the scales are tensors of their own.
    n_layers : int
        All, of which the first and the last are in 16 bits.
    quantised_activations : bool
        Whether `linear` is to round what it multiplies with them to 8 bits too.

    Raises
    ------
    BadFile
        If a matrix is in float8 and should not be, or the other way round; or a scale is missing,
        misshapen, no positive number, or of no matrix.
    """
    scales = {name for name in checkpoint if is_scales_file(checkpoint.files[name][0])}
    if not scales and all(tensor.dtype != FLOAT8 for tensor in checkpoint.values()):
        return checkpoint
    tensors, files, before_rank = dict[str, Tensor](), dict(checkpoint.files), scale_names(n_layers)
    for name in [name for name in checkpoint if name not in scales]:
        tensors[name] = checkpoint[name]
        if is_in_fp8(checkpoint, name, name in before_rank):
            own = [f"{before_rank[name]}{rank}" for rank in range(len(files[name]))]
            tensors[name] = _scaled(checkpoint, name, own, quantised_activations)
            files[name] += tuple(file for scale in own for file in files[scale])
            scales -= set(own)
    for name in sorted(scales):
        expected = "a matrix in float8 that it is the scale of"
        raise BadFile(f"tensor {shown(name)}", expected=expected, file=checkpoint.path)
    return Checkpoint(checkpoint.path, checkpoint.layout, tensors, files)


def _scaled(checkpoint: Checkpoint, name: str, scales: list[str], rounds: bool) -> Tensor:
    """Return a matrix whose parts have the scales of these names."""
    tensor = checkpoint[name]
    stored = tensor.parts if isinstance(tensor, ShardedMatrix) else (tensor,)
    parts = []
    for rank, (part, scale) in enumerate(zip(stored, scales, strict=True)):
        expected, found = (f"fp8_scales_{rank}.pt",), checkpoint.files.get(scale)
        if found != expected:
            raise BadFile(
                f"scales {scale} of tensor {shown(name)}",
                expected=f"in {expected[0]}",
                found=f"in {shown(found[0])}" if found else "no such tensor",
                file=checkpoint.path,
            )
        scale_F1 = scales_of(checkpoint, scale, (part.shape[0],))
        parts.append(ScaledRows(part, scale_F1, rounded_to_fp8 if rounds else None))
    return ScaledShards(parts, tensor.axis) if isinstance(tensor, ShardedMatrix) else parts[0]
