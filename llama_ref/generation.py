"""The loop: run the prompt, choose a token, run that token, choose the next, until told to stop.

    prompt -> logits -> id -> text      prefill, in chunks, through the cache
                 ^------ id             decode, one token at a time

The loop is an iterator. Who consumes it decides how long it runs: leaving it, or calling its
`close()`, ends the generation at that token, and its cache goes with it.

What is chosen, and when the text ends, is `continuation.py`; many texts at once is `engine/`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from llama_ref.cache import KVCache
from llama_ref.continuation import Continuation, Token
from llama_ref.errors import BadRequest, shown
from llama_ref.model import Model
from llama_ref.ops.embed import check_ids
from llama_ref.packing import Ids, as_ids
from llama_ref.sampling import SamplingParams

if TYPE_CHECKING:
    from llama_ref.constrain import Grammar

PREFILL_CHUNK = 512
"""Prompt tokens run at a time: bounds the memory of a long prompt, changes only the rounding."""


def generate(
    model: Model,
    prompt: str | Ids,
    params: SamplingParams | None = None,
    *,
    grammar: Grammar | None = None,
    **fields: object,
) -> Iterator[Token]:
    """Continue a prompt, token by token.

    Parameters
    ----------
    model : Model
    prompt : str or sequence of int
        Text is encoded with the begin-of-text token in front and no other special token; ids are
        taken as they are.
    params : SamplingParams, optional
        How to choose and when to stop. Alternatively its fields by name, as in `max_tokens=100,
        temperature=0.6, seed=7`; then the temperature is 0, greedy, unless given, and
        `max_tokens` must be.
    grammar : Grammar, optional
        What the text must be, such as JSON; see `constrain`.

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
    if params is None:
        if "max_tokens" not in fields:
            raise BadRequest("max_tokens", expected="an integer, or None for all the room there is")
        params = SamplingParams(**{"temperature": 0.0, **fields})  # type: ignore[arg-type]
    elif fields:
        raise BadRequest("generate", expected="params, or its fields by name", found="both")
    for name, most in (("n", 1), ("prompt_logprobs", None)):
        if getattr(params, name) != most:
            found = shown(getattr(params, name))
            raise BadRequest(name, expected=most, found=found, next_step="ask LLM.generate for it")
    ids_T = prompt_ids(model, prompt)
    matcher = grammar.matcher() if grammar else None
    return _loop(model, ids_T, Continuation(model, ids_T.tolist(), params, matcher=matcher))


def prefill(model: Model, ids_T: np.ndarray, cache: KVCache) -> np.ndarray:
    """Run a prompt chunk by chunk; return the logits after its last token, of shape (V,)."""
    for lo in range(0, len(ids_T), PREFILL_CHUNK):
        chunk_T = ids_T[lo : lo + PREFILL_CHUNK]
        ends_here = lo + PREFILL_CHUNK >= len(ids_T)
        logits_RV = model.forward(chunk_T, cache, last=int(ends_here))
    return logits_RV[-1]


def prompt_ids(model: Model, prompt: str | Ids) -> np.ndarray:
    """Return the ids of a prompt: of text, with the begin-of-text token in front.

    Raises
    ------
    BadRequest
        If there is no token, an id is not of the vocabulary, or there is no tokenizer for text.
    """
    if isinstance(prompt, str):
        if model.tokenizer is None:
            raise BadRequest(
                "prompt",
                expected="token ids, since this model was loaded without a tokenizer",
                found="text",
            )
        prompt = model.tokenizer.encode(prompt, bos=True)
    ids_T = as_ids(prompt)
    check_ids(ids_T, model.config.vocab_size)
    return ids_T


def _loop(model: Model, ids_T: np.ndarray, continuation: Continuation) -> Iterator[Token]:
    """Prefill, then choose and run one token after the other."""
    cache = model.new_cache()
    logits_V = prefill(model, ids_T, cache)
    while True:
        token = continuation.take(logits_V)
        yield token
        if token.finish_reason:
            return
        logits_V = model.forward([token.id], cache, last=1)[-1]
