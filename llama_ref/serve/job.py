"""A request on its way: what the engine is to run, and who makes a response of what it says."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from llama_ref.engine import Delta, Request
from llama_ref.errors import LlamaRefError
from llama_ref.sampling import TokenLogprobs
from llama_ref.serve.errors import ApiError, api_error, internal_error
from llama_ref.tokenizer import Tokenizer

LOWEST_LOGPROB = -9999.0
"""What stands for minus infinity, which JSON cannot write."""


class Answer(Protocol):
    """Reads deltas, and makes a response of them."""

    def push(self, delta: Delta) -> list[dict[str, Any]]:
        """Return the chunks of a stream that a delta adds."""

    def finish(self) -> list[dict[str, Any]]:
        """Return the chunks after the last delta."""

    def result(self) -> dict[str, Any]:
        """Return the whole response, after the last delta."""


@dataclass(frozen=True, slots=True)
class Job:
    """A request that has passed every check.

    Attributes
    ----------
    requests : list of Request
        One for each prompt, each with an id of its own.
    answer : Answer
    is_stream : bool
    """

    requests: list[Request]
    answer: Answer
    is_stream: bool

    @property
    def n_texts(self) -> int:
        """How many texts are written."""
        return sum(request.params.n for request in self.requests)


def new_id(prefix: str) -> str:
    """Return an id that no other request has."""
    return f"{prefix}-{uuid.uuid4().hex}"


def head(request_id: str, kind: str, model: str) -> dict[str, Any]:
    """Return what a response and each of its chunks begin with."""
    return {"id": request_id, "object": kind, "created": int(time.time()), "model": model}


def usage(n_prompt: int, n_completion: int) -> dict[str, int]:
    """Return what was read and written, in tokens."""
    total = n_prompt + n_completion
    return {
        "prompt_tokens": n_prompt,
        "completion_tokens": n_completion,
        "total_tokens": total,
    }


def end_of(delta: Delta) -> tuple[str | None, int | str | None]:
    """Return why a text ended, in the words of the API.

    Raises
    ------
    ApiError
        If it ended with an error.
    """
    if delta.finish_reason == "error":
        error = delta.error
        raise api_error(error) if isinstance(error, LlamaRefError) else internal_error()
    if delta.finish_reason == "abort":  # by the server: a client that aborts is not there any more
        return "length", "time_limit"
    return delta.finish_reason, delta.stop_reason


def checked(deltas: Sequence[Delta]) -> Sequence[Delta]:
    """Return the deltas of a whole text, or raise what it ended with."""
    if deltas:
        end_of(deltas[-1])
        return deltas
    raise ApiError(500, "a text was never written", kind="internal_error")


def as_json(logprob: float) -> float:
    """Return a log-probability that JSON can write."""
    return max(logprob, LOWEST_LOGPROB)


def token_entry(token_id: int, logprob: float, tokenizer: Tokenizer) -> dict[str, Any]:
    """Return a token as `logprobs` shows it; `bytes` are its own, whole characters or not."""
    return {
        "token": tokenizer.decode([token_id]),
        "logprob": as_json(logprob),
        "bytes": list(tokenizer.token_bytes(token_id)),
    }


def content_logprobs(
    logprobs: Sequence[TokenLogprobs] | None, tokenizer: Tokenizer
) -> dict[str, Any] | None:
    """Return the log-probabilities of tokens, each with the most probable ones in falling order."""
    if logprobs is None:
        return None
    entries = [
        token_entry(one.token_id, one.logprob, tokenizer)
        | {"top_logprobs": [token_entry(i, value, tokenizer) for i, value in one.top]}
        for one in logprobs
    ]
    return {"content": entries, "refusal": None}
