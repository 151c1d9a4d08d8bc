"""Encoding costs little more than the bare engine, and loading little more than parsing."""

import statistics
import sysconfig
import time
from pathlib import Path

import pytest
import tiktoken
import tiktoken.load

from llama_ref.tokenizer import load_tokenizer
from tests.tokenizer.files import META_PATTERN

pytestmark = [pytest.mark.real, pytest.mark.slow]


def seconds(work, *arguments):
    """Return how long one call takes."""
    start = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - start


def median_ratio(ours, theirs, *arguments):
    """Return the median of seven ratios of times, each of two calls made in turn."""
    pairs = [(seconds(theirs, *arguments), seconds(ours, *arguments)) for _ in range(7)]
    return statistics.median(their_time / our_time for their_time, our_time in pairs)


@pytest.fixture(scope="module")
def engine(llama3_ranks_file):
    """Bare tiktoken over the real ranks."""
    return tiktoken.Encoding(
        "llama3",
        pat_str=META_PATTERN,
        mergeable_ranks=tiktoken.load.load_tiktoken_bpe(str(llama3_ranks_file)),
        special_tokens={},
    )


def test_encoding_is_as_fast_as_the_engine(llama3, engine):
    """On over a megabyte of prose and code we reach 0.8 of the bare engine's speed, or more."""
    library = Path(sysconfig.get_paths()["stdlib"])
    files = [library / "pydoc_data" / "topics.py", *sorted(library.glob("*.py"))[:60]]
    text = "".join(file.read_text(encoding="utf-8") for file in files)
    assert len(text.encode()) > 1_000_000
    assert median_ratio(llama3.encode, engine.encode_ordinary, text) >= 0.8


def test_loading_stays_near_the_engine(llama3_ranks_file):
    """Reading the real file strictly takes at most 0.5 s more than reading it leniently."""

    def bare():
        ranks = tiktoken.load.load_tiktoken_bpe(str(llama3_ranks_file))
        tiktoken.Encoding("x", pat_str=META_PATTERN, mergeable_ranks=ranks, special_tokens={})

    times = [(seconds(load_tokenizer, llama3_ranks_file), seconds(bare)) for _ in range(5)]
    assert statistics.median(ours - theirs for ours, theirs in times) < 0.5
