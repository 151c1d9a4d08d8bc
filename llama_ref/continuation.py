"""One text in the making: from the logits after its last token to the next token, and the end.

    logits -> id        sampling/: the parameters of this request, its own random numbers
    id     -> text      a character at a time: half of one is held until the other half comes
    text   -> certain   stopping.py: what could still be part of a stop string is held back
    why it ends         stop: a stop token or string; length: no more tokens wanted, or no room

A continuation knows nothing of the model but its vocabulary and its limits, nor of the cache, nor
of the other texts that are being written at the same time. So whoever runs the model, one request
in a loop (`generation.py`) or many packed into one pass (`engine/`), the text comes out the same.

Order at each token, that of vLLM: end of text, stop tokens, length, and last the stop strings,
which win over all: a stop string that is complete with the very last token is why it ended.

Source: v1/core/sched/utils.py and v1/engine/output_processor.py in vllm-project/vllm.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from llama_ref.errors import BadRequest, LimitExceeded, shown
from llama_ref.sampling import SamplingParams, TokenLogprobs, sample, token_logprobs
from llama_ref.stopping import StopStrings

if TYPE_CHECKING:
    from llama_ref.constrain import Matcher
    from llama_ref.model import Model

END_OF_TURN = "<|eot_id|>"


class Token(NamedTuple):
    """One step of a generation.

    Attributes
    ----------
    id : int
    text : str
        What this token makes certain: "" while a character is incomplete or the text could still
        be part of a stop string, and for a stop token.
    finish_reason : {None, "stop", "length"}
        None for all but the last: "stop" at a stop token or stop string, "length" at `max_tokens`
        or when the context is full.
    stop_reason : int, str or None
        The stop token or stop string that ended it; None for the end-of-text token.
    logprobs : TokenLogprobs or None
        Where `params.logprobs` asks for them.
    """

    id: int
    text: str
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    logprobs: TokenLogprobs | None = None


class Continuation:
    """The state of one text: its tokens so far, and what is not yet certain of its end.

    Parameters
    ----------
    model : Model
        For its tokenizer, vocabulary, context length and end-of-text ids.
    prompt_ids : sequence of int
    params : SamplingParams
    choice : int
        Which of `params.n` texts: it draws with the seed `params.seed + choice`.
    matcher : Matcher, optional
        Says which ids may come next; see `constrain`.

    Attributes
    ----------
    output_ids : list of int
    seed : int
        The one it draws with: if the parameters name none, a fresh one.
    finish_reason : str or None

    Raises
    ------
    BadRequest
        If the parameters need a tokenizer that the model has not, or ids outside its vocabulary.
    LimitExceeded
        If the prompt leaves no room in the context.
    """

    def __init__(
        self,
        model: Model,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        *,
        choice: int = 0,
        matcher: Matcher | None = None,
    ):
        check_fits(model, params)
        if params.bad_words:
            params = replace(params, bad_words=params.bad_word_ids(model.tokenizer))
        self.prompt_ids, self.params, self.matcher = list(prompt_ids), params, matcher
        self.output_ids: list[int] = []
        self.finish_reason: str | None = None
        self.seed = seed_of(params, choice)
        self.limit = n_tokens_at_most(model, len(self.prompt_ids), params.max_tokens)
        self._eos_id, self._stop_ids = ends(model, params)
        self._stops = StopStrings(params.stops, include=params.include_stop_str_in_output)
        self._decoder = None
        if model.tokenizer:
            self._decoder = model.tokenizer.stream(skip_special=params.skip_special_tokens)
            for token_id in self.prompt_ids:  # so that the text goes on where the prompt ends
                self._decoder.push(token_id)

    def take(self, logits_V: np.ndarray) -> Token:
        """Choose the token that follows, and say what it makes certain.

        Parameters
        ----------
        logits_V : ndarray of shape (V,), floating
            After the last token so far.

        Raises
        ------
        NonFiniteError
            If a logit is NaN, or none is left to choose; the continuation is then as it was.
        """
        token_id = sample(
            logits_V,
            self.params,
            step=len(self.output_ids),
            seed=self.seed,
            prompt_ids=self.prompt_ids,
            output_ids=self.output_ids,
            stop_ids=self._masked_ids,
            allowed_V=self.matcher.allowed_V() if self.matcher else None,
        )
        logprobs = None
        if self.params.logprobs is not None:
            logprobs = token_logprobs(logits_V, token_id, self.params.logprobs)
        if self.matcher:
            self.matcher.advance(token_id)
        self.output_ids.append(token_id)
        reason, stop_reason = self._reason_of(token_id)
        text, stop = self._text_of(token_id, reason)
        if stop is not None:
            reason, stop_reason = "stop", stop
        self.finish_reason = reason
        return Token(token_id, text, reason, stop_reason, logprobs)

    @property
    def _masked_ids(self) -> frozenset[int]:
        """The ids that `min_tokens` keeps from being chosen too early."""
        return self._stop_ids if self._eos_id is None else self._stop_ids | {self._eos_id}

    def _reason_of(self, token_id: int) -> tuple[str | None, int | str | None]:
        """Tell whether this token is the last one, and which stop token it is."""
        if token_id == self._eos_id:
            return "stop", None
        if token_id in self._stop_ids:
            return "stop", token_id
        return ("length" if len(self.output_ids) >= self.limit else None), None

    def _text_of(self, token_id: int, reason: str | None) -> tuple[str, str | None]:
        """Return the text that is certain now, and the stop string it ended with."""
        shows = reason != "stop" or (
            self.params.include_stop_str_in_output and not self.params.skip_special_tokens
        )
        text = self._decoder.push(token_id) if self._decoder and shows else ""
        armed = len(self.output_ids) > self.params.min_tokens
        text, stop = self._stops.push(text, armed=armed)
        if reason and stop is None:  # half a character at the end is dropped, held text is not
            text += self._stops.finish()
        return text, stop


def seed_of(params: SamplingParams, choice: int) -> int:
    """Return the seed of one of the n texts of a request: `seed + choice`, or a fresh one."""
    if params.seed is None:
        return secrets.randbits(63)
    return (params.seed + choice) % 2**64


def ends(model: Model, params: SamplingParams) -> tuple[int | None, frozenset[int]]:
    """Return the end-of-text id, and the other ids that end a text.

    A checkpoint may name several ends; `<|eot_id|>`, or else the first, is the one that needs no
    `stop_reason`. With `ignore_eos` only those remain that the request itself names.
    """
    named = frozenset(params.stop_token_ids or ())
    if params.ignore_eos:
        return None, named
    ids = model.config.eos_ids or (model.tokenizer.stop_ids if model.tokenizer else ())
    if not ids:
        return None, named
    turn = model.tokenizer.special_tokens.get(END_OF_TURN) if model.tokenizer else None
    primary = turn if turn in ids else ids[0]
    return primary, named | (frozenset(ids) - {primary})


def n_tokens_at_most(model: Model, n_prompt: int, max_tokens: int | None) -> int:
    """Return how many tokens may follow a prompt; `max_tokens` is cut to the room there is.

    The last token of a full context is chosen but never run, so one more than the rest fits.

    Raises
    ------
    LimitExceeded
        If the prompt alone is longer than the context.
    """
    context = model.config.context_length
    if n_prompt > context:
        raise LimitExceeded(
            "prompt",
            expected=f"at most the context length {context}",
            found=f"{n_prompt} tokens",
        )
    room = context - n_prompt + 1
    return room if max_tokens is None else min(max_tokens, room)


def check_fits(model: Model, params: SamplingParams) -> None:
    """Refuse parameters that this model cannot honour.

    Raises
    ------
    BadRequest
        If an id is outside the vocabulary, or stop strings are given to a model without text.
    """
    params.check_vocabulary(model.config.vocab_size)
    if params.stops and model.tokenizer is None:
        raise BadRequest(
            "stop",
            expected="stop_token_ids, since this model was loaded without a tokenizer",
            found=shown(params.stops),
        )
