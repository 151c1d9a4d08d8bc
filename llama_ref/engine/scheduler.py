"""Who takes part in the next pass of the model: continuous batching.

    waiting ──► running ──► finished          a text joins as soon as there is a place for it, and
       ▲           │                          leaves as soon as it ends; nobody waits for a batch
       └───────────┘                          when memory is short, the youngest gives its cache up

One pass takes a token from every text that is being written, and fills up with chunks of prompts
still to be read, so that a long prompt does not hold the others up. All of it is one packed call,
`Model.forward_packed`, in which only attention knows where one text ends.

A text does not notice the others: its random numbers depend on its seed and its place alone, and
its logits differ from those it would have had by rounding only. Law: `tests/engine`.

Source: Yu et al. 2022, "Orca: a distributed serving system for transformer-based generative
models".
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from llama_ref.cache import physical_memory
from llama_ref.engine.prefixes import SHORTEST, Prefixes
from llama_ref.engine.request import Delta, Request
from llama_ref.engine.sequence import Sequence, shared_length
from llama_ref.errors import BadRequest, LlamaRefError, is_whole, shown
from llama_ref.generation import prompt_ids
from llama_ref.model import Model


class Engine:
    """Runs requests together; one thread owns it.

        engine.add(Request(prompt_ids, params))
        while engine.has_work:
            for delta in engine.step():
                ...

    Parameters
    ----------
    model : Model
    max_running : int
        Texts in one pass; the rest wait.
    tokens_per_pass : int
        Tokens in one pass: one of each text being written, the others of prompts. Bounds the
        memory of a pass, and the time between two tokens of a text while a long prompt is read.
    cache_bytes : int, optional
        Keys and values of the running texts; by default half of this machine's memory.
    prefix_bytes : int
        Keys and values of finished texts, kept for prompts that begin alike. 0 keeps none.

    Raises
    ------
    BadRequest
        If a number is out of range.

    Attributes
    ----------
    n_run, n_reused : int
        Tokens that the model has read, and tokens it did not need to read, as a text with the same
        beginning was there.
    """

    def __init__(
        self,
        model: Model,
        *,
        max_running: int = 16,
        tokens_per_pass: int = 512,
        cache_bytes: int | None = None,
        prefix_bytes: int = 2**28,
    ):
        cache_bytes = physical_memory() // 2 if cache_bytes is None else cache_bytes
        for name, value, least in (
            ("max_running", max_running, 1),
            ("tokens_per_pass", tokens_per_pass, max_running + 1),
            ("cache_bytes", cache_bytes, 1),
            ("prefix_bytes", prefix_bytes, 0),
        ):
            if not is_whole(value, least):
                raise BadRequest(name, expected=f"an integer, at least {least}", found=shown(value))
        self.model, self.max_running, self.tokens_per_pass = model, max_running, tokens_per_pass
        self._limit, self._prefixes = cache_bytes, Prefixes(prefix_bytes)
        self._waiting, self._running = list[Sequence](), list[Sequence]()
        self._n_requests = self.n_run = self.n_reused = 0

    @property
    def n_waiting(self) -> int:
        """Texts that no pass has taken in yet."""
        return len(self._waiting)

    @property
    def n_running(self) -> int:
        """Texts that take part in passes."""
        return len(self._running)

    @property
    def has_work(self) -> bool:
        """Whether a call of `step` would do anything."""
        return bool(self._waiting or self._running)

    @property
    def cache_bytes(self) -> int:
        """Bytes of keys and values of the running texts."""
        return sum(sequence.cache.nbytes for sequence in self._running if sequence.cache)

    @property
    def prefix_bytes(self) -> int:
        """Bytes of keys and values kept of finished texts."""
        return self._prefixes.nbytes

    def add(self, request: Request) -> str:
        """Take a request in; return the id under which its deltas will arrive.

        Raises
        ------
        BadRequest, LimitExceeded
            If it asks for what this model cannot do; nothing is then taken in.
        """
        ids = prompt_ids(self.model, request.prompt_ids).tolist()
        self._n_requests += 1
        request_id = request.request_id or f"request-{self._n_requests}"
        if any(s.request.request_id == request_id for s in (*self._waiting, *self._running)):
            raise BadRequest("request_id", expected="one not in use", found=shown(request_id))
        request = replace(request, prompt_ids=ids, request_id=request_id)
        self._waiting += [Sequence(self.model, request, i) for i in range(request.params.n)]
        return request_id

    def abort(self, request_id: str) -> list[Delta]:
        """End what is unfinished of a request and free its caches; an unknown one is none."""
        ended = [s for s in (*self._waiting, *self._running) if s.request.request_id == request_id]
        for sequence in ended:
            self._drop(sequence)
        return [sequence.ended("abort") for sequence in ended]

    def step(self) -> list[Delta]:
        """Run the model once over what is due; return what that added to each text."""
        self._give_way()
        self._admit()
        deltas = []
        parts = self._next_pass()
        if not parts:
            return []
        self.n_run += sum(len(ids) for _, ids in parts)
        for (sequence, _), outcome in zip(parts, self._run(parts), strict=True):
            delta = self._advance(sequence, outcome)
            if delta:
                deltas.append(delta)
        return deltas

    def forget_prefixes(self) -> None:
        """Let go of the keys and values of finished texts."""
        self._prefixes.forget()

    def _admit(self) -> None:
        """Move waiting texts to the running ones while there is room."""
        for sequence in list(self._waiting):
            if len(self._running) >= self.max_running or not self._has_room_for(sequence):
                return
            length, source = 0, None
            if not sequence.wants_prompt_logits:
                length, source = self._prefixes.longest(sequence.ids, self._running)
                if self._being_read(sequence) >= length + SHORTEST:
                    continue  # what it needs is being computed in these very passes
            sequence.cache = source.prefix(length) if source else self.model.new_cache()
            self.n_reused += length
            self._waiting.remove(sequence)
            self._running.append(sequence)

    def _has_room_for(self, sequence: Sequence) -> bool:
        """Whether the memory allows for another text; for a single one it always does."""
        per_token = 2 * self.model.config.n_layers * self.model.config.n_kv_heads
        per_token *= self.model.config.head_dim * self.model.dtype.itemsize
        needed = 2 * len(sequence.ids) * per_token  # a cache grows by doubling
        return not self._running or self.cache_bytes + needed <= self._limit

    def _being_read(self, sequence: Sequence) -> int:
        """Return the longest beginning shared with a text whose prompt is being read."""
        reading = (other for other in self._running if not other.is_decoding)
        return max((shared_length(other.ids, sequence.ids) for other in reading), default=0)

    def _give_way(self) -> None:
        """While memory is short, put the youngest text back; it goes on later where it was."""
        while self.cache_bytes > self._limit and len(self._running) > 1:
            youngest = self._running.pop()
            youngest.cache = None
            self._waiting.insert(0, youngest)

    def _next_pass(self) -> list[tuple[Sequence, list[int]]]:
        """Choose the ids to run: one of each text that is being written, then prompts in turn."""
        parts = [(s, s.pending) for s in self._running if s.is_decoding]
        left = self.tokens_per_pass - len(parts)
        for sequence in self._running:
            if not sequence.is_decoding and left > 0:
                chunk = sequence.pending[:left]
                parts.append((sequence, chunk))
                left -= len(chunk)
        return parts

    def _run(self, parts: list[tuple[Sequence, list[int]]]) -> list[np.ndarray | LlamaRefError]:
        """Run the model; return for each part the logits after its last id, or what went wrong.

        Where a pass fails, each part is run alone, so that only the one at fault ends.
        """
        if len(parts) == 1:
            return [self._run_alone(*parts[0])]
        if any(sequence.wants_prompt_logits for sequence, _ in parts):
            return [self._run_alone(sequence, ids) for sequence, ids in parts]
        caches = [sequence.cache for sequence, _ in parts]
        try:
            packed = self.model.forward_packed([ids for _, ids in parts], caches, last=1)  # type: ignore[arg-type]
        except LlamaRefError:
            return [self._run_alone(sequence, ids) for sequence, ids in parts]
        return [logits_RV[-1] for logits_RV in packed]

    def _run_alone(self, sequence: Sequence, ids: list[int]) -> np.ndarray | LlamaRefError:
        """Run one text; where asked, look at the logits of the whole chunk of its prompt."""
        last, start = None if sequence.wants_prompt_logits else 1, sequence.cache.length  # type: ignore[union-attr]
        try:
            logits_RV = self.model.forward(ids, sequence.cache, last=last)  # type: ignore[arg-type]
            if last is None:
                sequence.look_at_prompt(start, logits_RV)
        except LlamaRefError as error:
            return error
        return logits_RV[-1]

    def _advance(self, sequence: Sequence, outcome: np.ndarray | LlamaRefError) -> Delta | None:
        """Choose the next token of a text that has all its ids in the cache."""
        if isinstance(outcome, LlamaRefError):
            self._drop(sequence)
            return sequence.ended("error", outcome)
        if sequence.n_pending:
            return None
        try:
            delta = sequence.take(outcome)
        except LlamaRefError as error:
            self._drop(sequence)
            return sequence.ended("error", error)
        if delta.finish_reason and sequence.cache:
            self._prefixes.keep(sequence.ids, sequence.cache)
            self._drop(sequence)
        return delta

    def _drop(self, sequence: Sequence) -> None:
        """Take a text out, and let go of its cache."""
        for queue in (self._waiting, self._running):
            if sequence in queue:
                queue.remove(sequence)
        sequence.cache = None
