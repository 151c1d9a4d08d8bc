"""A checkpoint as a list of tensors in the layout wanted, each a stream of rows.

Nothing is computed or read before its rows are asked for, and then some megabytes at a time, so a
checkpoint of any size passes through. Two things are changed on the way: numbers are rounded to the
dtype wanted, and between the layouts the rows of the query and key matrices change places:

    row of a head      half-split (HF)   c * H/2 + r   <->   2 r + c   interleaved (Meta)
                       r = 0 … H/2 - 1 the pair that RoPE turns, c = 0, 1 which of the two

Source: permute in convert_llama_weights_to_hf.py of huggingface/transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from llama_ref.checkpoint.gguf_blueprint import FACTORS
from llama_ref.checkpoint.stored import Checkpoint, Tensor
from llama_ref.config import Config
from llama_ref.errors import BadFile, Unsupported, shown
from llama_ref.names import LAYER_NAMES, OUTER_NAMES, expected_shapes
from llama_ref.numerics import round_to, rows_of
from llama_ref.weights import PAIRING, assemble, row_blocks

ROTATED = {
    LAYER_NAMES[layout][field].rpartition("{}")[2]
    for layout in LAYER_NAMES
    for field in ("w_query_AD", "w_key_BD")
}
"""How the names of matrices end whose rows RoPE pairs."""

Blocks = Callable[..., Iterator[np.ndarray]]
"""Called with no span for all rows, or with lo and hi."""


@dataclass(frozen=True)
class Stream:
    """A tensor that is still to come.

    Attributes
    ----------
    name : str
        In the layout wanted.
    shape : tuple of int
    dtype : dtype
        Little-endian.
    blocks : function of (int, int)
        Returns a fresh iterator over the tensor, or over rows lo to hi - 1, some at a time.
    check : function
        Raises `BadFile` if the files that it comes from have changed since they were opened.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    blocks: Blocks
    check: Callable[[], None] = lambda: None

    @property
    def n_bytes(self) -> int:
        """The size of the whole tensor."""
        return self.n_elements * self.dtype.itemsize

    @property
    def n_elements(self) -> int:
        """The number of its numbers."""
        return int(np.prod(self.shape, dtype=object))


def streams(
    checkpoint: Checkpoint, config: Config, layout: str, dtype: np.dtype | None
) -> list[Stream]:
    """Return every tensor of a model, in the order of the forward pass.

    Parameters
    ----------
    checkpoint : Checkpoint
    config : Config
        Its blueprint.
    layout : {"hf", "meta", "gguf"}
        Whose names, and whose order of the query and key rows.
    dtype : dtype, optional
        Of the numbers, rounded to nearest; by default that of each tensor.

    Raises
    ------
    BadFile, Unsupported
        If a tensor of the blueprint is missing, unexpected or misshapen.
    """
    check = assemble(checkpoint, config).check_files
    sources = expected_shapes(config, checkpoint.layout)
    targets = expected_shapes(config, layout)
    is_reordered = PAIRING[checkpoint.layout] != PAIRING[layout]
    vectors = _dtype_of_vectors(checkpoint) if dtype is None else None
    result = []
    for source, (name, shape) in zip(sources, targets.items(), strict=True):
        tensor = checkpoint[source]
        own = vectors if vectors is not None and len(shape) == 1 else tensor.dtype
        wanted = (own if dtype is None else dtype).newbyteorder("<")
        is_moved = is_reordered and name.endswith(tuple(ROTATED))
        blocks = _heads(tensor, config.head_dim, layout) if is_moved else _rows(tensor)
        result.append(Stream(name, shape, wanted, _rounded(blocks, wanted, name), check))
    return result


def _dtype_of_vectors(checkpoint: Checkpoint) -> np.dtype | None:
    """Return the dtype of the matrices of a GGUF file, if its float32 vectors are exact in it.

    The format has gains in float32 whatever the model had them in; so they come back as they were.
    """
    if checkpoint.layout != "gguf":
        return None
    names = [name for name in checkpoint if len(checkpoint[name].shape) == 1]
    dtype = checkpoint[OUTER_NAMES["gguf"]["embedding_VD"]].dtype
    vectors = [np.asarray(checkpoint[name]) for name in names if name != FACTORS]
    is_exact = all(np.array_equal(round_to(v, dtype).astype(v.dtype), v) for v in vectors)
    return dtype if is_exact else None


def reordered_rows(head_HD: np.ndarray, layout: str) -> np.ndarray:
    """Return the rows of one query or key head in the order of a layout, from that of the other.

    Parameters
    ----------
    head_HD : ndarray of shape (H, D)
        Rows of one head.
    layout : {"hf", "meta", "gguf"}
        The order wanted.

    Examples
    --------
    >>> reordered_rows(np.arange(6)[:, None], "meta")[:, 0]
    array([0, 3, 1, 4, 2, 5])
    >>> reordered_rows(np.array([0, 3, 1, 4, 2, 5])[:, None], "hf")[:, 0]
    array([0, 1, 2, 3, 4, 5])
    """
    H, D = head_HD.shape
    axes = (2, H // 2, D) if PAIRING[layout] == "interleaved" else (H // 2, 2, D)
    return head_HD.reshape(axes).swapaxes(0, 1).reshape(H, D)


def _rows(tensor: Tensor) -> Blocks:
    def blocks(lo: int = 0, hi: int | None = None) -> Iterator[np.ndarray]:
        end = tensor.shape[0] if hi is None else hi
        for start, rows in row_blocks(tensor):
            if start < end and start + len(rows) > lo:
                yield rows[max(lo - start, 0) : end - start]

    return blocks


def _heads(tensor: Tensor, head_dim: int, layout: str) -> Blocks:
    def blocks(lo: int = 0, hi: int | None = None) -> Iterator[np.ndarray]:
        end = tensor.shape[0] if hi is None else hi
        for row in range(lo - lo % head_dim, end, head_dim):  # a file may hold a part of a head
            head_HD = reordered_rows(rows_of(tensor, row, row + head_dim), layout)
            yield np.ascontiguousarray(head_HD[max(lo - row, 0) : end - row])

    return blocks


def _rounded(blocks: Blocks, dtype: np.dtype, name: str) -> Blocks:
    def rounded(*span: int) -> Iterator[np.ndarray]:
        for block in blocks(*span):
            with np.errstate(over="ignore"):
                narrow = np.ascontiguousarray(round_to(block, dtype))
            if narrow.dtype != block.dtype and not np.isfinite(narrow).all():
                found = "a larger one, or one that is none"
                expected = f"numbers that {dtype} holds"
                raise Unsupported(f"tensor {shown(name)}", expected=expected, found=found)
            yield narrow

    return rounded


def bytes_of(stream: Stream, advance: Callable[[int], object]) -> Iterator[memoryview]:
    """Yield the bytes of a tensor, all that its shape says and no more.

    Raises
    ------
    BadFile
        If there are others, or what they come from has changed meanwhile.
    """
    n_bytes = 0
    for block in stream.blocks():
        yield np.ascontiguousarray(block).reshape(-1).view(np.uint8).data
        n_bytes += block.nbytes
        advance(block.nbytes)
    if n_bytes != stream.n_bytes:
        raise BadFile(
            f"tensor {shown(stream.name)}",
            expected=f"{stream.n_bytes:,} bytes",
            found=f"{n_bytes:,}",
        )
    stream.check()
