"""The same work with the cache and without, timed: what a cache must not change, and what it saves.

logits of a prompt      at once     |  token by token, through the cache
greedy continuation     with it     |  without: the whole text again at every step
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from llama_ref.cli.terminal import Progress
from llama_ref.continuation import Token
from llama_ref.generation import generate
from llama_ref.model import Model
from llama_ref.numerics import widen


class Logits(NamedTuple):
    """Logits of shape (T, V), widened, and the time they took."""

    logits_TV: np.ndarray
    seconds: float


class Continuation(NamedTuple):
    """Tokens, and the time they took."""

    tokens: list[Token]
    seconds: float


def logits_at_once(model: Model, ids: Sequence[int]) -> Logits:
    """Run a prompt in one pass."""
    start = time.perf_counter()
    with Progress("running the prompt at once"):
        logits_TV = model.forward(ids, model.new_cache())
    return Logits(widen(logits_TV), time.perf_counter() - start)


def logits_token_by_token(model: Model, ids: Sequence[int]) -> Logits:
    """Run a prompt one token at a time; each reads the earlier ones from the cache."""
    start = time.perf_counter()
    cache, rows = model.new_cache(), []
    with Progress("running it token by token", len(ids)) as progress:
        for token_id in ids:
            rows.append(model.forward([token_id], cache))
            progress.advance()
    return Logits(widen(np.concatenate(rows)), time.perf_counter() - start)


def greedy_with_cache(model: Model, ids: Sequence[int], max_tokens: int) -> Continuation:
    """Continue a prompt as `generate` does."""
    start, tokens = time.perf_counter(), []
    with Progress("generating", max_tokens) as progress:
        for token in generate(model, ids, max_tokens=max_tokens):
            tokens.append(token)
            progress.advance()
    return Continuation(tokens, time.perf_counter() - start)


def greedy_without_cache(model: Model, ids: Sequence[int], n_tokens: int) -> Continuation:
    """Continue a prompt with nothing kept: step n runs the prompt and the n tokens after it."""
    start, text = time.perf_counter(), list(ids)
    with Progress("generating without the cache", n_tokens) as progress:
        for _ in range(n_tokens):
            logits_V = model.forward(text, model.new_cache(), last=1)[-1]
            text.append(int(logits_V.argmax()))
            progress.advance()
    tokens = [Token(token_id, "") for token_id in text[len(ids) :]]
    return Continuation(tokens, time.perf_counter() - start)


def largest_difference(a: Logits, b: Logits) -> float:
    """Return the largest difference of two logits, in standard deviations of all of them."""
    spread = float(np.std(a.logits_TV, dtype=np.float64)) or 1.0
    return float(np.abs(a.logits_TV - b.logits_TV).max()) / spread


def n_same_choice(a: Logits, b: Logits) -> int:
    """Return at how many positions the most likely next token is the same."""
    return int((a.logits_TV.argmax(axis=-1) == b.logits_TV.argmax(axis=-1)).sum())
