"""From a path to a tokenizer: which file of a folder counts, and what kind it is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from llama_ref.checkpoint.gguf_header import is_gguf, read_gguf_header
from llama_ref.errors import BadFile, BadRequest, shown
from llama_ref.files import list_folder, read_bytes
from llama_ref.tokenizer import rank_file, tokenizer_json
from llama_ref.tokenizer.base import Tokenizer
from llama_ref.tokenizer.gguf_vocabulary import tokenizer_of
from llama_ref.tokenizer.llama3 import Llama3Tokenizer
from llama_ref.tokenizer.sentencepiece_model import SentencePieceTokenizer
from llama_ref.tokenizer.special_tokens import NAMINGS

TOKENIZER_FILES = ("tokenizer.model", "tokenizer.json")
"""The files that hold a tokenizer; of two in one folder the first counts."""


def load_tokenizer(
    path: str | os.PathLike[str],
    *,
    vocab_size: int | None = None,
    naming: Literal["meta", "hf"] = "meta",
) -> Tokenizer:
    """Read a tokenizer from a file or a checkpoint folder.

    Parameters
    ----------
    path : path-like
        Meta's tokenizer.model (ranks), Hugging Face's tokenizer.json, a sentencepiece model, or a
        GGUF file; or a folder with one of the first three. Of two, ``tokenizer.model`` counts and
        the other is not read: it is the original, from which a tokenizer.json is converted.
    vocab_size : int, optional
        The number of ids that the model has embeddings for: a tokenizer of another size is
        refused.
    naming : {"meta", "hf"}
        Whose names of the special tokens to show where the file has none, as Meta's ranks.

    Returns
    -------
    Tokenizer

    Raises
    ------
    BadFile, Unsupported, LimitExceeded
        If there is no such file, it is damaged, of another kind, too large, or of another size
        than the model's embedding.

    Warns
    -----
    UnknownFileWarning
        If the file has the 128,000 ranks of Llama 3, but not the content of the published one.
    """
    if not isinstance(naming, str) or naming not in NAMINGS:
        raise BadRequest("naming", expected='"meta" or "hf"', found=shown(naming))
    tokenizer = _read(_file_of(path), naming)
    if vocab_size is not None and tokenizer.vocab_size != vocab_size:
        raise BadFile(
            "tokenizer",
            expected=f"{vocab_size} tokens, as the model has embeddings",
            found=tokenizer.vocab_size,
            next_step="a tokenizer of another model gives ids that mean something else",
            file=tokenizer.file,
        )
    return tokenizer


def _file_of(path: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """Return the tokenizer's file: the path itself, or the first of its folder."""
    if not os.path.isdir(path):  # noqa: PTH112  (Path of a foreign string may raise)
        return path
    names = list_folder(path)
    for name in TOKENIZER_FILES:
        if name in names:
            return Path(path) / name
    raise BadFile(
        "tokenizer", expected=f"one of {', '.join(TOKENIZER_FILES)}", found="none", file=path
    )


def _read(file: str | os.PathLike[str], naming: str) -> Tokenizer:
    """Read a file as what it is: JSON and GGUF by their names, the other two by their content."""
    if is_gguf(file):
        return tokenizer_of(read_gguf_header(file).entries, file=file)
    is_json = Path(file).suffix == ".json"
    limit = tokenizer_json.MAX_FILE_BYTES if is_json else rank_file.MAX_FILE_BYTES
    data = read_bytes(file, limit=limit)
    if is_json:
        ranks, names, unreachable = tokenizer_json.parse_tokenizer_json(data, file=file)
        return Llama3Tokenizer(ranks, names, unreachable=unreachable, file=file)
    if rank_file.is_sentencepiece(data):
        return SentencePieceTokenizer(data, file=file)
    return Llama3Tokenizer(rank_file.parse_ranks(data, file=file), NAMINGS[naming], file=file)
