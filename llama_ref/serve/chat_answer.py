"""What the engine says of a conversation, as a chat completion or as the chunks of one.

A stream has, for each choice: a chunk with the role, chunks with content or pieces of calls, and a
chunk with the reason it ended; and at the end, where it is asked for, one chunk about usage without
choices. The chunks, joined, are the response that is not streamed.

Source: the chat completion and chat completion chunk objects of the OpenAI API reference.
"""

from __future__ import annotations

from typing import Any

from llama_ref.engine import Delta, Request
from llama_ref.serve.job import checked, content_logprobs, end_of, head, usage
from llama_ref.tokenizer import Tokenizer
from llama_ref.tools import CallDelta
from llama_ref.turn import Turn, TurnReader, call_id


class ChatAnswer:
    """Makes the response to one request.

    Parameters
    ----------
    turn : Turn
    request : Request
        That of the turn, with its id.
    tokenizer : Tokenizer
    model : str
        Its name.
    is_stream, include_usage : bool
    """

    def __init__(
        self,
        turn: Turn,
        request: Request,
        tokenizer: Tokenizer,
        model: str,
        *,
        is_stream: bool,
        include_usage: bool,
    ):
        self._turn, self._request, self._tokenizer = turn, request, tokenizer
        self._is_stream, self._include_usage = is_stream, include_usage
        self._chunk_head = head(request.request_id, "chat.completion.chunk", model)
        self._head = self._chunk_head | {"object": "chat.completion"}
        self._readers: dict[int, TurnReader] = {}
        self._deltas: list[list[Delta]] = [[] for _ in range(request.params.n)]
        self._n_tokens = 0

    def push(self, delta: Delta) -> list[dict[str, Any]]:
        """Return the chunks that a delta adds."""
        self._n_tokens += len(delta.token_ids)
        if not self._is_stream:
            self._deltas[delta.index].append(delta)
            return []
        reason, stop_reason = end_of(delta)
        chunks = []
        if delta.index not in self._readers:
            self._readers[delta.index] = self._turn.reader()
            chunks.append(self._chunk(delta.index, {"role": "assistant", "content": ""}))
        reader = self._readers[delta.index]
        events = reader.push(delta.text)
        if reason:
            rest, reason = reader.finish(reason)
            events = [*events, *rest]
        logprobs = content_logprobs(delta.logprobs, self._tokenizer)
        changes = [_call(e) if isinstance(e, CallDelta) else {"content": e.text} for e in events]
        if logprobs and not changes:
            changes = [{}]
        for change in changes:
            chunks.append(self._chunk(delta.index, change, logprobs=logprobs))
            logprobs = None
        if reason:
            ended = self._chunk(delta.index, {}, finish_reason=reason, stop_reason=stop_reason)
            chunks.append(ended)
        return chunks

    def finish(self) -> list[dict[str, Any]]:
        """Return the chunk about usage, where it is asked for."""
        if not self._include_usage:
            return []
        return [self._chunk_head | {"choices": [], "usage": self._usage()}]

    def result(self) -> dict[str, Any]:
        """Return the response."""
        choices = [self._choice(index) for index in range(len(self._deltas))]
        return self._head | {"choices": choices, "usage": self._usage()}

    def _choice(self, index: int) -> dict[str, Any]:
        deltas = checked(self._deltas[index])
        reason, stop_reason = end_of(deltas[-1])
        message, reason = self._turn.message("".join(d.text for d in deltas), reason)
        logprobs = [one for delta in deltas for one in delta.logprobs or ()]
        wanted = logprobs if self._request.params.logprobs is not None else None
        return {
            "index": index,
            "message": message | {"refusal": None},
            "logprobs": content_logprobs(wanted, self._tokenizer),
            "finish_reason": reason,
            "stop_reason": stop_reason,
        }

    def _usage(self) -> dict[str, int]:
        return usage(len(self._request.prompt_ids), self._n_tokens)

    def _chunk(
        self,
        index: int,
        change: dict[str, Any],
        *,
        logprobs: dict[str, Any] | None = None,
        finish_reason: str | None = None,
        stop_reason: int | str | None = None,
    ) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": index, "delta": change, "logprobs": logprobs}
        choice |= {"finish_reason": finish_reason}
        if finish_reason:
            choice["stop_reason"] = stop_reason
        chunk = self._chunk_head | {"choices": [choice]}
        return chunk | ({"usage": None} if self._include_usage else {})


def _call(event: CallDelta) -> dict[str, Any]:
    """Return a piece of a call; the first of each brings its id and name."""
    function: dict[str, Any] = {"arguments": event.arguments}
    call: dict[str, Any] = {"index": event.index, "function": function}
    if event.name is not None:
        call |= {"id": call_id(), "type": "function"}
        call["function"] = {"name": event.name, **function}
    return {"tool_calls": [call]}
