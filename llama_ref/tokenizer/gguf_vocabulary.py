"""The vocabulary inside a GGUF file, as a tokenizer.

    gpt2     tokens in the byte alphabet, merges, and which split rule: Llama 3's is "llama-bpe"
    llama    pieces with scores and kinds: what a sentencepiece model holds, so one is put together

Source: docs/gguf.md in ggml-org/ggml; src/sentencepiece_model.proto in google/sentencepiece.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llama_ref.errors import BadFile, Unsupported, shown
from llama_ref.tokenizer.base import Tokenizer
from llama_ref.tokenizer.llama3 import Llama3Tokenizer
from llama_ref.tokenizer.merge_list import check_merges
from llama_ref.tokenizer.sentencepiece_model import SentencePieceTokenizer
from llama_ref.tokenizer.tokenizer_json import read_vocab

PREFIX = "tokenizer.ggml."
SPLIT_RULES = ("llama-bpe", "llama3", "llama-v3")
"""Names under which llama.cpp has the split rule of Llama 3."""

NONE = "no_vocab"
NORMAL, CONTROL = 1, 3
KINDS = range(1, 7)
N_BYTES = 256
MAX_FLOAT = 2.0**128 - 2.0**104
BPE_MODEL, INTEGER, BYTES, FLOAT = 2, 0, 2, 5


def has_vocabulary(entries: Mapping[str, Any]) -> bool:
    """Tell whether a GGUF file holds a vocabulary: one for benchmarks may not."""
    return entries.get(f"{PREFIX}model", NONE) != NONE


def tokenizer_of(entries: Mapping[str, Any], *, file: str | os.PathLike[str]) -> Tokenizer:
    """Return the tokenizer of a GGUF file.

    Parameters
    ----------
    entries : mapping of str to value
        The entries of the header.
    file : path-like
        For messages.

    Raises
    ------
    BadFile
        If the vocabulary contradicts itself.
    Unsupported
        If it is of another kind than those of the Llamas.
    """
    kind = entries.get(f"{PREFIX}model", NONE)
    if kind == "gpt2":
        return _llama3(entries, Path(file))
    if kind == "llama":
        return SentencePieceTokenizer(_sentencepiece(entries, file), file=file)
    expected = '"gpt2" or "llama"'
    raise Unsupported(f"{PREFIX}model", expected=expected, found=shown(kind), file=file)


def _llama3(entries: Mapping[str, Any], file: Path) -> Tokenizer:
    rule = entries.get(f"{PREFIX}pre")
    if rule not in SPLIT_RULES:
        expected = f"Llama 3's: {', '.join(SPLIT_RULES)}"
        raise Unsupported(f"{PREFIX}pre", expected=expected, found=shown(rule), file=file)
    tokens = _list(entries, "tokens", str, file)
    kinds = _list(entries, "token_type", int, file, length=len(tokens))
    n_ranks = next((i for i, kind in enumerate(kinds) if kind != NORMAL), len(kinds))
    if any(kind != CONTROL for kind in kinds[n_ranks:]):
        expected = "ordinary tokens, then control tokens"
        raise Unsupported(
            f"{PREFIX}token_type", expected=expected, found="another order", file=file
        )
    if len(set(tokens)) < len(tokens):
        raise BadFile(f"{PREFIX}tokens", expected="each once", found="one twice", file=file)
    written = read_vocab({token: i for i, token in enumerate(tokens[:n_ranks])}, file)
    ranks = {token: rank for rank, token in enumerate(written.values())}
    if len(ranks) > N_BYTES:  # bytes alone merge to nothing
        check_merges(_list(entries, "merges", str, file), written, ranks, file=file)
    return Llama3Tokenizer(ranks, tokens[n_ranks:], unreachable=frozenset(), file=file)


def _sentencepiece(entries: Mapping[str, Any], file: str | os.PathLike[str]) -> bytes:
    """Put together the model that a vocabulary was taken from."""
    pieces = _list(entries, "tokens", str, file)
    scores = _list(entries, "scores", float, file, length=len(pieces))
    kinds = _list(entries, "token_type", int, file, length=len(pieces))
    if not all(abs(score) <= MAX_FLOAT for score in scores):
        expected = "numbers that float32 holds"
        raise BadFile(f"{PREFIX}scores", expected=expected, found="others", file=file)
    if any(kind not in KINDS for kind in kinds):
        raise BadFile(f"{PREFIX}token_type", expected="1 to 6", found=shown(kinds[:8]), file=file)
    model = b"".join(
        _field(1, _field(1, piece.encode()) + _field(2, float(score)) + _field(3, kind))
        for piece, score, kind in zip(pieces, scores, kinds, strict=True)
    )
    ids = {name: _id(entries, name, len(pieces), file) for name in ("unknown", "bos", "eos")}
    unknown = kinds.index(2) if ids["unknown"] is None and 2 in kinds else ids["unknown"]
    trainer = _field(3, BPE_MODEL) + _field(4, len(pieces)) + _field(35, 1)
    for number, token_id in ((40, unknown), (41, ids["bos"]), (42, ids["eos"]), (43, None)):
        trainer += _field(number, -1 if token_id is None else token_id)
    adds_blank = int(bool(entries.get(f"{PREFIX}add_space_prefix", True)))
    normalizer = _field(1, b"identity") + _field(3, adds_blank) + _field(4, 0) + _field(5, 1)
    return model + _field(2, trainer) + _field(3, normalizer)


def _id(
    entries: Mapping[str, Any], name: str, n_pieces: int, file: str | os.PathLike[str]
) -> int | None:
    """Return the id of a piece with a part to play; None if the file names none."""
    key = f"{PREFIX}{name}_token_id"
    value = entries.get(key)
    if value is not None and (type(value) is not int or not 0 <= value < n_pieces):
        raise BadFile(key, expected=f"an id below {n_pieces:,}", found=shown(value), file=file)
    return value


def _field(number: int, value: bytes | float | int) -> bytes:
    """Write one field of a protobuf message."""
    if isinstance(value, bytes):
        return _varint(number << 3 | BYTES) + _varint(len(value)) + value
    if isinstance(value, float):
        return _varint(number << 3 | FLOAT) + struct.pack("<f", value)
    return _varint(number << 3 | INTEGER) + _varint(value % 2**64)


def _varint(value: int) -> bytes:
    groups = []
    while value >= 128:
        groups.append(value & 127 | 128)
        value >>= 7
    return bytes([*groups, value])


def _list(
    entries: Mapping[str, Any],
    name: str,
    kind: type,
    file: str | os.PathLike[str],
    length: int | None = None,
) -> Sequence[Any]:
    """Return an array of the file, of which each element has that type."""
    value = entries.get(f"{PREFIX}{name}")
    if not isinstance(value, list) or not value or type(value[0]) is not kind:
        expected = f"an array of {kind.__name__}"
        raise BadFile(f"{PREFIX}{name}", expected=expected, found=shown(value)[:80], file=file)
    if length is not None and len(value) != length:
        expected = f"{length:,} elements"
        raise BadFile(f"{PREFIX}{name}", expected=expected, found=f"{len(value):,}", file=file)
    return value
