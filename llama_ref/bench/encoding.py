"""Encoding text: this library's tokenizer and the bare engine inside it, turn by turn.

What is added around the engine, cutting and checking, should cost little. The text is what every
Python brings along: a megabyte of prose and code of the standard library.
"""

from __future__ import annotations

import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import NamedTuple

from llama_ref.bpe import SPLIT_PATTERN
from llama_ref.errors import Unsupported
from llama_ref.tokenizer import Llama3Tokenizer, load_tokenizer

TEXT_BYTES = 1_500_000


class Encoding(NamedTuple):
    """Medians over the rounds.

    Attributes
    ----------
    bytes_per_second : float
        UTF-8 in, ids out, with this library's defaults.
    ratio_to_tiktoken : float
        Our speed over that of `tiktoken.Encoding.encode_ordinary`.
    """

    bytes_per_second: float
    ratio_to_tiktoken: float


def measure_encoding(path: Path, rounds: int) -> Encoding:
    """Measure the tokenizer of a Llama 3 rank file, tokenizer.json or checkpoint folder.

    Raises
    ------
    Unsupported
        If it is a sentencepiece tokenizer, whose engine is another.
    """
    import tiktoken  # noqa: PLC0415  (whoever measures no encoding need not wait for it)

    tokenizer = load_tokenizer(path)
    if not isinstance(tokenizer, Llama3Tokenizer):
        raise Unsupported("tokenizer", expected="one of Llama 3", found=repr(tokenizer), file=path)
    ranks = dict(tokenizer.ranks)
    bare = tiktoken.Encoding(
        "bare", pat_str=SPLIT_PATTERN, mergeable_ranks=ranks, special_tokens={}
    )
    text = library_text()
    n_bytes = len(text.encode())
    turns = [
        (_seconds(bare.encode_ordinary, text), _seconds(tokenizer.encode, text))
        for _ in range(rounds)
    ]
    return Encoding(
        median(n_bytes / ours for _, ours in turns), median(theirs / ours for theirs, ours in turns)
    )


def library_text() -> str:
    """Return over a megabyte of prose and code of Python's standard library."""
    library = Path(sysconfig.get_paths()["stdlib"])
    text = ""
    for file in [library / "pydoc_data" / "topics.py", *sorted(library.glob("*.py"))]:
        if len(text) < TEXT_BYTES:
            text += file.read_text(encoding="utf-8")
    return text


def _seconds(work: Callable[[str], object], text: str) -> float:
    start = time.perf_counter()
    work(text)
    return time.perf_counter() - start
