"""What the engine says of prompts, as a completion or as the chunks of one.

Choices are numbered over all prompts: choice `i * n + j` is text j of prompt i.

Source: the completion object of the OpenAI API reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_ref.engine import Delta, Request
from llama_ref.sampling import TokenLogprobs
from llama_ref.serve.job import as_json, checked, end_of, head, usage
from llama_ref.tokenizer import Tokenizer


class CompletionAnswer:
    """Makes the response to one request.

    Parameters
    ----------
    requests : list of Request
        One for each prompt.
    tokenizer : Tokenizer
    request_id, model : str
    echo : bool
        Whether each text begins with its prompt.
    is_stream, include_usage : bool
    """

    def __init__(
        self,
        requests: Sequence[Request],
        tokenizer: Tokenizer,
        request_id: str,
        model: str,
        *,
        echo: bool,
        is_stream: bool,
        include_usage: bool,
    ):
        self._tokenizer, self._echo = tokenizer, echo
        self._is_stream, self._include_usage = is_stream, include_usage
        self._requests = {request.request_id: (i, request) for i, request in enumerate(requests)}
        self._head = head(request_id, "text_completion", model)
        self._deltas: dict[int, list[Delta]] = {}
        self._offsets: dict[int, int] = {}
        self._n_tokens = 0

    def push(self, delta: Delta) -> list[dict[str, Any]]:
        """Return the chunks that a delta adds."""
        self._n_tokens += len(delta.token_ids)
        at, request = self._requests[delta.request_id]
        index = at * request.params.n + delta.index
        is_first = index not in self._deltas
        self._deltas.setdefault(index, []).append(delta)
        if not self._is_stream:
            return []
        self._deltas[index] = [delta]
        reason, stop_reason = end_of(delta)
        text = (self._prompt(request) if self._echo and is_first else "") + delta.text
        if not (text or reason or delta.logprobs):
            return []
        logprobs = None
        if request.params.logprobs is not None:
            offset = self._offsets.get(index, 0)
            logprobs = self._logprobs(delta.logprobs or (), offset)
            self._offsets[index] = offset + sum(map(len, logprobs["tokens"]))
        choice = _choice(index, text, logprobs, reason, stop_reason)
        chunk = self._head | {"choices": [choice]}
        return [chunk | ({"usage": None} if self._include_usage else {})]

    def finish(self) -> list[dict[str, Any]]:
        """Return the chunk about usage, where it is asked for."""
        if not self._include_usage:
            return []
        return [self._head | {"choices": [], "usage": self._usage()}]

    def result(self) -> dict[str, Any]:
        """Return the response."""
        choices = []
        for at, request in self._requests.values():
            for j in range(request.params.n):
                index = at * request.params.n + j
                choices.append(self._whole(index, request, self._deltas.get(index, [])))
        return self._head | {"choices": choices, "usage": self._usage()}

    def _whole(self, index: int, request: Request, deltas: list[Delta]) -> dict[str, Any]:
        reason, stop_reason = end_of(checked(deltas)[-1])
        text = "".join(delta.text for delta in deltas)
        logprobs = None
        if request.params.logprobs is not None:
            listed = [one for delta in deltas for one in delta.logprobs or ()]
            logprobs = self._logprobs(listed, 0)
        if self._echo:
            text = self._prompt(request) + text
        return _choice(index, text, logprobs, reason, stop_reason)

    def _prompt(self, request: Request) -> str:
        return self._tokenizer.decode(request.prompt_ids, skip_special=True)

    def _usage(self) -> dict[str, int]:
        n_prompt = sum(len(request.prompt_ids) for _, request in self._requests.values())
        return usage(n_prompt, self._n_tokens)

    def _logprobs(self, logprobs: Sequence[TokenLogprobs], offset: int) -> dict[str, Any]:
        """Return the log-probabilities of tokens; `text_offset` counts characters of the output."""
        listed: dict[str, Any] = {"tokens": [], "token_logprobs": [], "top_logprobs": []}
        offsets = []
        for one in logprobs:
            text = self._tokenizer.decode([one.token_id])
            listed["tokens"].append(text)
            listed["token_logprobs"].append(as_json(one.logprob))
            pairs = [*one.top, (one.token_id, one.logprob)]
            top = {self._tokenizer.decode([i]): as_json(value) for i, value in pairs}
            listed["top_logprobs"].append(top)
            offsets.append(offset)
            offset += len(text)
        return listed | {"text_offset": offsets}


def _choice(
    index: int,
    text: str,
    logprobs: dict[str, Any] | None,
    reason: str | None,
    stop_reason: int | str | None,
) -> dict[str, Any]:
    end = {"finish_reason": reason, "stop_reason": stop_reason}
    return {"index": index, "text": text, "logprobs": logprobs, **end}
