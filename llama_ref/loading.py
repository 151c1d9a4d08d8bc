"""From a path to a model: which kind of checkpoint a folder holds, and what it is run as.

    config.json + *.safetensors              HF layout       lineage "hf"
    params.json + consolidated.NN.pth        Meta layout     lineage "meta"
    a file in .gguf                          llama.cpp's     lineage "meta"
    synthetic:llama-3.1-8b?seed=0            no folder       lineage "hf"

Everything is opened before anything is read: the blueprint, the inventory of tensors checked
against it, the tokenizer. The weights stay on disk until a forward pass touches them.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np

from llama_ref import checkpoint as layouts  # whose readers arrive when one is called
from llama_ref.checkpoint.fp8 import with_fp8
from llama_ref.checkpoint.gguf import checkpoint_of
from llama_ref.checkpoint.gguf_blueprint import blueprint_of
from llama_ref.checkpoint.gguf_header import is_gguf, read_gguf_header
from llama_ref.checkpoint.int4 import with_int4
from llama_ref.checkpoint.kv_heads import with_distinct_kv_heads
from llama_ref.checkpoint.meta_fp8 import with_meta_fp8
from llama_ref.checkpoint.ranges import MappedRange, ReadRange
from llama_ref.checkpoint.stored import Checkpoint
from llama_ref.checkpoint.streaming import Stream
from llama_ref.checkpoint.synthetic_model import is_synthetic, open_synthetic_path
from llama_ref.config import (
    Config,
    read_hf_config,
    read_hf_quantisation,
    read_meta_params,
    read_meta_quantisation,
)
from llama_ref.errors import BadFile, BadRequest, Unsupported, is_whole, shown
from llama_ref.files import list_folder
from llama_ref.holding import streamed, widened
from llama_ref.lineage import lineage_named
from llama_ref.model import Model
from llama_ref.names import OUTER_NAMES
from llama_ref.numerics import dtype_named
from llama_ref.tokenizer import TOKENIZER_FILES, Tokenizer, load_tokenizer
from llama_ref.tokenizer.gguf_vocabulary import has_vocabulary
from llama_ref.weights import Weights, assemble

SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,9})?) ?([KMGT]i?B|B)")
UNITS = {"B": 1} | {
    f"{letter}{i}B": base**power
    for power, letter in enumerate("KMGT", 1)
    for i, base in (("", 1000), ("i", 1024))
}
LEAST_MEMORY = 10**8
LINEAGE = {"hf": "hf", "meta": "meta", "gguf": "meta"}
"""Whose rounding points a layout follows; llama.cpp, in float32 throughout, is near either."""


def load(
    path: str | os.PathLike[str],
    *,
    dtype: str = "float32",
    lineage: str | None = None,
    widen: bool = False,
    memory: int | str | None = None,
    mmap: bool = True,
    quantised_activations: bool = False,
    tokenizer: bool = True,
) -> Model:
    """Open a checkpoint folder as a model, memory-mapped.

    Parameters
    ----------
    path : path-like
        A folder in the HF or the Meta layout, or a GGUF file. Do not rewrite its files while the
        model is in use: the map shows the file as it is, not as it was. Or `synthetic:` and the
        name of a published blueprint, for weights by formula:
        `synthetic:llama-3.1-8b?seed=0&n_layers=4`.
    dtype : {"float32", "float64", "bfloat16", "float16"}
        Of the activations, and so the precision of the computation, whatever the files store.
    lineage : {"meta", "hf"}, optional
        Whose rounding points to follow; by default that of the layout.
    widen : bool
        Hold all matrices in memory in the dtype of the arithmetic (float32, or float64): faster
        where they fit, but slower with 16-bit activations.
    memory : int or str, optional
        How much memory the matrices of files may take at a time, in bytes or as in "2GB", whatever
        the size of the files: they are read ahead of where a pass is, and let go of behind it. By
        default they stay in memory as long as the system has room.
    mmap : bool
        False reads them with plain reads instead of mapping them, with `memory` at 2 GB unless it
        says otherwise: for files that others may write to, which ends a program that maps them.
    quantised_activations : bool
        Round what is multiplied with a quantised matrix to the 8 bits that the kernels of such a
        release multiply in. By default only the weights are quantised.
    tokenizer : bool
        Whether to read the tokenizer. Without it the model runs on ids: for a Llama whose text is
        cut in a way that is not known here.

    Returns
    -------
    Model
        Its `tokenizer` is None if the folder holds none, or it was not to be read.

    Raises
    ------
    BadFile, BadConfig, Unsupported, LimitExceeded
        If the folder is no checkpoint, or anything in it cannot be explained.
    BadRequest
        If there is no such lineage, `memory` is no size or has `widen` beside it, activations are
        to be quantised where no release has kernels that do, or `synthetic:` is followed by what it
        does not know.
    """
    folder, activation_dtype = Path(path), dtype_named(dtype)
    n_bytes = _memory_limit(memory, mmap, widen)
    rounding = None if lineage is None else lineage_named(lineage)
    checkpoint, config = open_checkpoint(folder, quantised_activations=quantised_activations)
    weights = assemble(checkpoint, config)
    if quantised_activations:
        _check_rounding(weights, widen=widen)
    text = _tokenizer_of(folder, config) if tokenizer and checkpoint.has_files else None
    if widen:
        weights = widened(weights, activation_dtype)
    if n_bytes is not None:
        stream = Stream(n_bytes, MappedRange if mmap else ReadRange)
        weights = streamed(weights, stream, mapped=mmap)
    rounding = rounding or lineage_named(LINEAGE[checkpoint.layout])
    return Model(config, weights, rounding, activation_dtype, text)


def _check_rounding(weights: Weights, *, widen: bool) -> None:
    """Raise `BadRequest` unless there are matrices that stand behind a rounding of activations."""
    if widen:
        raise BadRequest("widen", expected="False with quantised_activations", found="True")
    tensors = [t for i in range(len(weights.layers)) for _, t in weights.named(i)]
    if not any(getattr(tensor, "rounds_activations", False) for tensor in tensors):
        raise BadRequest(
            "quantised_activations",
            expected="an FP8 or INT4 checkpoint, as Meta released them",
            found="no matrix that is multiplied with in 8 bits",
        )


def _memory_limit(memory: int | str | None, mmap: bool, widen: bool) -> int | None:
    """Return the bytes that matrices of files may take; None for no limit."""
    if widen and (memory is not None or not mmap):
        raise BadRequest("widen", expected="False with memory or mmap=False", found="True")
    if memory is None:
        return None if mmap else 2 * 10**9
    return memory_bytes(memory)


def memory_bytes(memory: int | str) -> int:
    """Return how many bytes a size of memory is: 2,000,000,000 for "2GB".

    Raises
    ------
    BadRequest
        If it is no size, or too small for a pass.
    """
    match = SIZE.fullmatch(memory.strip()) if isinstance(memory, str) else None
    n_bytes = int(float(match[1]) * UNITS[match[2]]) if match else memory
    if not is_whole(n_bytes, LEAST_MEMORY):
        expected = f'bytes, or a size such as "2GB" or "500MiB", at least {LEAST_MEMORY:,} bytes'
        raise BadRequest("memory", expected=expected, found=shown(memory))
    return int(n_bytes)


def open_checkpoint(
    path: str | os.PathLike[str], *, quantised_activations: bool = False
) -> tuple[Checkpoint, Config]:
    """Open a checkpoint of any layout: its tensors by stored name, and its blueprint.

    A path that begins with `synthetic:` is no folder: see `checkpoint.synthetic_model`.

    Raises
    ------
    BadFile
        If the folder holds neither layout.

    Notes
    -----
    A config.json and a params.json side by side have to agree; the weight files that are there
    decide which layout it is, safetensors first.
    """
    if is_synthetic(path):
        return open_synthetic_path(path)
    folder = Path(path)
    if is_gguf(folder):
        header = read_gguf_header(folder)
        checkpoint = checkpoint_of(header, folder)
        return checkpoint, blueprint_of(header, checkpoint, folder)
    names = list_folder(folder)
    has_pth = any(name.endswith(".pth") for name in names)
    has_safetensors = any(name.endswith(".safetensors") for name in names)
    if "params.json" in names and has_pth and not has_safetensors:
        checkpoint, int4 = layouts.open_meta(folder), read_meta_quantisation(folder)
        if int4:
            checkpoint = with_int4(checkpoint, int4, quantised_activations=quantised_activations)
        config = read_meta_params(folder, tied_embeddings=_is_tied(checkpoint))
        checkpoint = with_meta_fp8(
            checkpoint, config.n_layers, quantised_activations=quantised_activations
        )
        return with_distinct_kv_heads(checkpoint, config.n_kv_heads, config.head_dim), config
    if "config.json" in names:
        checkpoint, config = layouts.open_hf(folder), read_hf_config(folder)
        fp8 = read_hf_quantisation(folder)
        if fp8:
            checkpoint = with_fp8(checkpoint, fp8, quantised_activations=quantised_activations)
        return checkpoint, config
    raise BadFile(
        "checkpoint folder",
        expected="config.json and *.safetensors, or params.json and consolidated.NN.pth",
        found=", ".join(map(shown, names[:8])) or "an empty folder",
        file=folder,
    )


def has_tokenizer(path: Path) -> bool:
    """Tell whether a tokenizer lies beside the weights, or with them in a file."""
    if is_gguf(path):
        return has_vocabulary(read_gguf_header(path).entries)
    return any(name in TOKENIZER_FILES for name in list_folder(path))


def _tokenizer_of(folder: Path, config: Config) -> Tokenizer | None:
    """Load the tokenizer that lies beside the weights, or with them in a file, if one does."""
    if not has_tokenizer(folder):
        return None
    try:
        return load_tokenizer(folder, vocab_size=config.vocab_size)
    except (BadFile, Unsupported) as error:
        way_out = "load(path, tokenizer=False) runs the model on ids"
        raise type(error)(
            error.thing,
            expected=error.expected,
            found=error.found,
            next_step=f"{error.next_step}; {way_out}" if error.next_step else way_out,
            file=error.file,
        ) from None


def _is_tied(checkpoint: Checkpoint) -> bool:
    """Tell whether a Meta checkpoint, whose params.json is silent on it, ties its embeddings.

    A tied head is absent, or stored as a second name for the bytes of the embedding. (Whether two
    views merely overlap is a hard question: a hostile pair of strides keeps NumPy busy for years.)
    """
    embedding, head = (OUTER_NAMES["meta"][field] for field in ("embedding_VD", "w_head_VD"))
    if head not in checkpoint:
        return True
    tensors = [checkpoint[name] for name in (embedding, head) if name in checkpoint]
    views = [
        (tensor.ctypes.data, tensor.shape, tensor.strides, tensor.dtype)
        for tensor in tensors
        if isinstance(tensor, np.ndarray)
    ]
    return len(views) == 2 and views[0] == views[1]
