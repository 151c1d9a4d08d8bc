"""One file in GGUF, llama.cpp's format: the blueprint as entries, then the tensors.

Query and key rows are interleaved, the gains of norms are float32, and RoPE's scaling is a factor
for each pair of channels, `rope_freqs.weight`. Without a vocabulary llama.cpp runs the file on
token ids.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

import numpy as np

from llama_ref.checkpoint.gguf_blueprint import END_KEYS, FACTORS, FIELDS, factors_of
from llama_ref.checkpoint.gguf_header import ARRAY, BOOL, MAGIC, STORAGE, STRING
from llama_ref.checkpoint.staging import writing
from llama_ref.config import Config
from llama_ref.errors import BadRequest, Unsupported
from llama_ref.numerics import BFLOAT16
from weights_tools.new_folder import Plan, write_files
from weights_tools.streams import Stream, bytes_of
from weights_tools.tokenizer_forms import NO_VOCABULARY

ALIGNMENT, VERSION = 32, 3
CODES = {storage.name: code for code, storage in STORAGE.items()}
TYPES = {np.dtype(np.float32): "F32", np.dtype(np.float16): "F16", BFLOAT16: "BF16"}
U32, I32, F32 = 4, 5, 6
END_OF_MESSAGE = "<|eom_id|>"
BLOCKS = ("d_model", "n_layers", "n_heads", "n_kv_heads", "head_dim", "d_ff", "vocab_size")


def write_gguf_file(
    path: Path,
    config: Config,
    tensors: Sequence[Stream],
    advance: Callable[[int], object],
    *,
    resume: str | None = None,
    vocabulary: Mapping[str, Any] = MappingProxyType(NO_VOCABULARY),
) -> None:
    """Write a checkpoint that llama.cpp and `lr.load` open.

    Parameters
    ----------
    path : Path
        Ends in .gguf; nothing stands there yet.
    config : Config
    tensors : sequence of Stream
        With names and rows of layout "gguf".
    advance : function of int
        Told the bytes of each block as it is written.
    resume : str, optional
        As of `write_folder`; a file cut short is begun again.
    vocabulary : mapping of str to value
        The entries that say how text becomes ids.

    Raises
    ------
    BadRequest
        If something stands there, or the path does not end in .gguf.
    Unsupported
        If the file cannot state the blueprint.
    BadFile
        If it cannot be written.
    """
    if path.suffix != ".gguf":
        raise BadRequest("file to write", expected="a name that ends in .gguf", found=path.name)
    _refuse(path)
    written = _as_stored(config, tensors)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    n_bytes = sum(stream.n_bytes for stream in tensors)
    plan = Plan(path.name, n_bytes, partial(_write, _entries(config, vocabulary), written, advance))
    write_files(path.parent, [plan], advance, resume, check=lambda folder: _refuse(path))


def _refuse(path: Path) -> None:
    """Raise `BadRequest` if something stands at the path."""
    if path.exists():
        raise BadRequest("file to write", expected="nothing there", found="a file", file=path)


def _as_stored(config: Config, tensors: Sequence[Stream]) -> list[Stream]:
    """Return the tensors as the format has them: vectors in float32, and the factors of RoPE."""
    streams = [_widened(stream) if len(stream.shape) == 1 else stream for stream in tensors]
    for stream in streams:
        if stream.dtype not in TYPES:
            expected = "float32, float16 or bfloat16"
            raise Unsupported(f"tensor {stream.name}", expected=expected, found=stream.dtype)
    if config.rope_scaling is None:
        return streams
    factor_P = factors_of(config.rope_scaling, config.head_dim, config.rope_theta)
    narrow_P = factor_P.astype("<f4")
    factors = Stream(FACTORS, narrow_P.shape, narrow_P.dtype, lambda *span: iter([narrow_P]))
    return [streams[0], factors, *streams[1:]]


def _widened(stream: Stream) -> Stream:
    dtype = np.dtype("<f4")
    return replace(
        stream,
        dtype=dtype,
        blocks=lambda *span: (block.astype(dtype) for block in stream.blocks(*span)),
    )


def _write(
    entries: Mapping[str, Any],
    tensors: Sequence[Stream],
    advance: Callable[[int], object],
    file: BinaryIO,
) -> None:
    file.write(struct.pack("<4sIQQ", MAGIC, VERSION, len(tensors), len(entries)))
    for key, value in entries.items():
        file.write(_text(key) + _value(value))
    offset = 0
    for stream in tensors:
        axes = stream.shape[::-1]
        code = CODES[TYPES[stream.dtype]]
        file.write(_text(stream.name) + struct.pack("<I", len(axes)))
        file.write(struct.pack(f"<{len(axes)}QIQ", *axes, code, offset))
        offset += stream.n_bytes + -stream.n_bytes % ALIGNMENT
    for stream in tensors:
        file.write(bytes(-file.tell() % ALIGNMENT))
        for data in bytes_of(stream, advance):
            file.write(data)
    file.write(bytes(-file.tell() % ALIGNMENT))


def _entries(config: Config, vocabulary: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the file says of the model."""
    numbers: dict[str, Any] = {FIELDS[name]: getattr(config, name) for name in BLOCKS}
    numbers |= {
        FIELDS["context_length"]: config.context_length,
        FIELDS["norm_eps"]: float(config.norm_eps),
        FIELDS["rope_theta"]: float(config.rope_theta),
        "llama.attention.value_length": config.head_dim,
        "llama.rope.dimension_count": config.head_dim,
    }
    if len(config.eos_ids) > len(END_KEYS):
        expected = f"at most {len(END_KEYS)}"
        raise Unsupported("eos_ids in GGUF", expected=expected, found=len(config.eos_ids))
    numbers |= dict(zip(END_KEYS, _ends(config, vocabulary), strict=False))
    if config.bos_id is not None:
        numbers[FIELDS["bos_id"]] = config.bos_id
    name = {"general.name": config.name} if config.name else {}
    return {"general.architecture": "llama", **name, **vocabulary, **numbers}


def _ends(config: Config, vocabulary: Mapping[str, Any]) -> list[int]:
    """Return the ids that end a text, a turn, a message; the format has a key for each."""
    tokens = vocabulary.get("tokenizer.ggml.tokens", [])
    others = sorted(config.eos_ids[1:], key=lambda i: tokens[i : i + 1] == [END_OF_MESSAGE])
    return [*config.eos_ids[:1], *others]


def _value(value: Any) -> bytes:
    """Return the kind of a value and the value."""
    if isinstance(value, list):
        return struct.pack("<I", ARRAY) + _array(value)
    if isinstance(value, bool):
        return struct.pack("<I?", BOOL, value)
    if isinstance(value, str):
        return struct.pack("<I", STRING) + _text(value)
    if isinstance(value, float):
        if not math.isclose(float(str(np.float32(value))), value, rel_tol=1e-12):
            raise Unsupported("a number in GGUF", expected="one float32 can hold", found=value)
        return struct.pack("<If", F32, value)
    return struct.pack("<II", U32, value)


def _array(values: Sequence[Any]) -> bytes:
    """Return the kind of the elements, how many there are, and all of them."""
    if not values or isinstance(values[0], str):  # a vocabulary of bytes alone merges nothing
        return struct.pack("<IQ", STRING, len(values)) + b"".join(map(_text, values))
    kind, letter = (F32, "f") if isinstance(values[0], float) else (I32, "i")
    return struct.pack(f"<IQ{len(values)}{letter}", kind, len(values), *values)


def _text(text: str) -> bytes:
    encoded = text.encode("utf-8", "replace")  # of a folder's name no more can be said
    return struct.pack("<Q", len(encoded)) + encoded
