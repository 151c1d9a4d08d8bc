"""The loop: run the prompt, choose a token, run that token, choose the next, until told to stop.

    prompt -> logits -> id -> text      prefill, in chunks, through the cache
                 ^------ id             decode, one token at a time

The loop is an iterator. Who consumes it decides how long it runs: leaving it, or calling its
`close()`, ends the generation at that token, and its cache goes with it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from llama_ref.cache import KVCache
from llama_ref.errors import BadRequest, LimitExceeded, is_whole, shown
from llama_ref.model import Model
from llama_ref.ops.embed import check_ids
from llama_ref.packing import Ids, as_ids
from llama_ref.sampling import check_parameters, sample

PREFILL_CHUNK = 512
"""Prompt tokens run at a time: bounds the memory of a long prompt, changes only the rounding."""


class Token(NamedTuple):
    """One step of a generation.

    Attributes
    ----------
    id : int
    text : str
        What this token makes certain: "" while a character is incomplete, and for a stop token.
    finish_reason : {None, "stop", "length"}
        None for all but the last: "stop" at a stop token, "length" at `max_tokens` or when the
        context is full.
    """

    id: int
    text: str
    finish_reason: str | None = None


def generate(
    model: Model,
    prompt: str | Ids,
    *,
    max_tokens: int,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    stop_ids: Collection[int] | None = None,
) -> Iterator[Token]:
    """Continue a prompt, token by token.

    Parameters
    ----------
    model : Model
    prompt : str or sequence of int
        Text is encoded with the begin-of-text token in front and no other special token; ids are
        taken as they are.
    max_tokens : int, at least 1
    temperature, top_k, top_p, seed
        See `sampling.sample`; the default is greedy.
    stop_ids : collection of int, optional
        Ids that end the generation; by default those of the checkpoint, else of the tokenizer.

    Yields
    ------
    Token
        At least one. The last carries the reason it is the last.

    Raises
    ------
    BadRequest
        If an argument is out of range, or `prompt` is text and the model has no tokenizer.
    LimitExceeded
        If the prompt leaves no room in the context.
    """
    check_parameters(temperature, top_k, top_p, seed)
    if not is_whole(max_tokens, 1):
        raise BadRequest("max_tokens", expected="an integer, at least 1", found=shown(max_tokens))
    ids_T = as_ids(_encode(model, prompt) if isinstance(prompt, str) else prompt)
    check_ids(ids_T, model.config.vocab_size)
    if len(ids_T) > model.config.context_length:
        raise LimitExceeded(
            "prompt",
            expected=f"at most the context length {model.config.context_length}",
            found=f"{len(ids_T)} tokens",
        )
    choose = partial(sample, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
    stops = default_stop_ids(model) if stop_ids is None else _checked_stops(model, stop_ids)
    return _loop(model, ids_T, max_tokens, choose, stops)


def prefill(model: Model, ids_T: np.ndarray, cache: KVCache) -> np.ndarray:
    """Run a prompt chunk by chunk; return the logits after its last token, of shape (V,)."""
    for lo in range(0, len(ids_T), PREFILL_CHUNK):
        chunk_T = ids_T[lo : lo + PREFILL_CHUNK]
        ends_here = lo + PREFILL_CHUNK >= len(ids_T)
        logits_RV = model.forward(chunk_T, cache, last=int(ends_here))
    return logits_RV[-1]


def default_stop_ids(model: Model) -> frozenset[int]:
    """Return the ids that end a text: the checkpoint's own word, else the tokenizer's."""
    if model.config.eos_ids:
        return frozenset(model.config.eos_ids)
    return frozenset(model.tokenizer.stop_ids if model.tokenizer else ())


def _loop(
    model: Model,
    ids_T: np.ndarray,
    max_tokens: int,
    choose: Callable[..., int],
    stops: frozenset[int],
) -> Iterator[Token]:
    """Prefill, then choose and run one token after the other."""
    cache = model.new_cache()
    decoder = model.tokenizer.stream() if model.tokenizer else None
    if decoder:
        for token_id in ids_T.tolist():  # so that the text goes on where the prompt ends
            decoder.push(token_id)
    logits_V = prefill(model, ids_T, cache)
    for step in range(max_tokens):
        token_id = choose(logits_V, step=step)
        full = cache.length == model.config.context_length or step + 1 == max_tokens
        reason = "stop" if token_id in stops else "length" if full else None
        text = ""
        if decoder and reason != "stop":
            text += decoder.push(token_id)
        if decoder and reason:
            text += decoder.finish()
        yield Token(token_id, text, reason)
        if reason:
            return
        logits_V = model.forward([token_id], cache, last=1)[-1]


def _checked_stops(model: Model, stop_ids: Collection[int]) -> frozenset[int]:
    """Return the stop ids, refusing what the model could never produce."""
    if not isinstance(stop_ids, Iterable):
        raise BadRequest("stop_ids", expected="a collection of ids", found=shown(stop_ids))
    ids = list(stop_ids)
    highest = model.config.vocab_size - 1
    for token_id in ids:
        if not is_whole(token_id, 0, highest):
            raise BadRequest("stop_ids", expected=f"ids from 0 to {highest}", found=shown(token_id))
    return frozenset(map(int, ids))


def _encode(model: Model, text: str) -> list[int]:
    """Return the ids of a text prompt, the begin-of-text token in front."""
    if model.tokenizer is None:
        raise BadRequest(
            "prompt",
            expected="token ids, since this model was loaded without a tokenizer",
            found="text",
        )
    return model.tokenizer.encode(text, bos=True)
