"""`LLM`, in the shape that vLLM's users know: prompts in, a `RequestOutput` for each out.

    llm = LLM("path/to/checkpoint")
    outputs = llm.generate(["Once upon a time", "The end"], SamplingParams(max_tokens=50))
    print(outputs[0].outputs[0].text)

All prompts of a call are written at once, packed by `engine/`; what comes out for one does not
depend on the others. `stream` yields pieces as they become certain, and ends its request when it is
closed. An error or Ctrl-C in the middle of a call ends all its requests and frees their caches.

Source: vllm/entrypoints/llm.py and vllm/outputs.py in vllm-project/vllm.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from llama_ref import constrain
from llama_ref.continuation import ends
from llama_ref.engine import Delta, Engine, Request
from llama_ref.errors import BadRequest, shown
from llama_ref.generation import prompt_ids
from llama_ref.loading import load
from llama_ref.model import Model
from llama_ref.outputs import RequestOutput
from llama_ref.packing import Ids
from llama_ref.sampling import SamplingParams
from llama_ref.turn import prepare_turn

Prompt = str | Ids | Mapping[str, Any]


class LLM:
    """A model with an engine around it.

    Parameters
    ----------
    model : Model, str or path
        A path, or a synthetic name, goes through `load`.
    engine_options
        Those of `Engine`: `max_running`, `tokens_per_pass`, `cache_bytes`, `prefix_bytes`.
    """

    def __init__(self, model: Model | str | os.PathLike[str], **engine_options: int):
        self.model = model if isinstance(model, Model) else load(model)
        self.tokenizer = self.model.tokenizer
        self.engine = Engine(self.model, **engine_options)
        self._vocabulary: constrain.Vocabulary | None = None
        self._inboxes: dict[str, deque[Delta]] = {}
        self._n_named = 0

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
    ) -> list[RequestOutput]:
        """Continue prompts.

        Parameters
        ----------
        prompts : str, sequence of int, or mapping; or a list of those
            Text is encoded with the begin-of-text token in front. A mapping holds "prompt" or
            "prompt_token_ids".
        sampling_params : SamplingParams, or a list with one for each prompt

        Returns
        -------
        list of RequestOutput
            In the order of the prompts, also for a single one.

        Raises
        ------
        BadRequest, LimitExceeded
            If a prompt or a parameter is not possible; nothing is then run.
        NonFiniteError
            If the model computes what is not a number.
        """
        many = as_prompts(prompts)
        each = _one_for_each(sampling_params, len(many))
        requests = [
            Request(prompt_ids(self.model, prompt).tolist(), params)
            for prompt, params in zip(many, each, strict=True)
        ]
        return [
            RequestOutput.of(request, deltas, self.tokenizer, text=prompt)
            for prompt, (request, deltas) in zip(many, self._run(requests), strict=True)
        ]

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]] | Sequence[Sequence[Mapping[str, Any]]],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        **options: Any,
    ) -> list[RequestOutput]:
        """Answer a conversation, or several.

        Parameters
        ----------
        messages : list of messages, or list of such lists
        sampling_params : SamplingParams, or a list with one for each conversation
        options
            Those of `turn.prepare_turn`: `tools`, `tool_choice`, `parallel_tool_calls`,
            `response_format`, and how the prompt is written: `dialect`, `version`, `date` …

        Returns
        -------
        list of RequestOutput
            Their `outputs[i].message` is the assistant's message, tool calls included, ready to be
            appended to the conversation.
        """
        several = bool(messages) and not isinstance(messages[0], Mapping)
        many: list[Any] = list(messages) if several else [messages]
        each = _one_for_each(sampling_params, len(many))
        turns = [
            prepare_turn(self, conversation, params, **options)
            for conversation, params in zip(many, each, strict=True)
        ]
        ran = self._run([turn.request for turn in turns])
        return [
            RequestOutput.of(request, deltas, self.tokenizer, turn=turn)
            for turn, (request, deltas) in zip(turns, ran, strict=True)
        ]

    def stream(
        self, request: Request | Prompt, params: SamplingParams | None = None
    ) -> Generator[Delta, None, None]:
        """Run one request; yield what each pass adds to its texts. Closing the iterator aborts it.

        Parameters
        ----------
        request : Request, or a prompt as `generate` takes them
        params : SamplingParams, optional
            With a prompt.
        """
        if not isinstance(request, Request):
            (prompt,) = as_prompts(request)
            request = Request(prompt_ids(self.model, prompt).tolist(), params or SamplingParams())
        elif params is not None:
            raise BadRequest("params", expected="those of the request", found="others")
        return self._deltas([self._named(request)])

    def vocabulary(self) -> constrain.Vocabulary:
        """Return this model's vocabulary as grammars need it; made once.

        Raises
        ------
        BadRequest
            If the model was loaded without a tokenizer.
        """
        if self.tokenizer is None:
            raise BadRequest("grammar", expected="a model with a tokenizer", found="none")
        if self._vocabulary is None:
            primary, others = ends(self.model, SamplingParams())
            stop_ids = sorted(others if primary is None else others | {primary})
            size = self.model.config.vocab_size
            self._vocabulary = constrain.Vocabulary(
                self.tokenizer, vocab_size=size, stop_ids=stop_ids
            )
        return self._vocabulary

    def _run(self, requests: list[Request]) -> list[tuple[Request, list[Delta]]]:
        """Run requests to their end; return each with its deltas."""
        named = [self._named(request) for request in requests]
        gathered: dict[str, list[Delta]] = {request.request_id: [] for request in named}
        for delta in self._deltas(named):
            gathered[delta.request_id].append(delta)
            if delta.error:
                raise delta.error
        return [(request, gathered[request.request_id]) for request in named]

    def _deltas(self, requests: list[Request]) -> Generator[Delta, None, None]:
        """Yield what the engine makes of requests; whatever interrupts this ends them all.

        Several such iterators may be open at a time. Whichever is asked runs the engine for all,
        and leaves in the others' inboxes what is theirs.
        """
        inbox: deque[Delta] = deque()
        ours: list[str] = []  # a request that the engine refuses may bear the id of another's
        try:
            for request in requests:
                ours.append(self.engine.add(request))
                self._inboxes[request.request_id] = inbox
            n_unfinished = sum(request.params.n for request in requests)
            while n_unfinished:
                if not inbox:
                    self._step()
                while inbox:
                    delta = inbox.popleft()
                    n_unfinished -= delta.finish_reason is not None
                    yield delta
        finally:
            for request_id in ours:
                self.engine.abort(request_id)
                self._inboxes.pop(request_id, None)

    def _step(self) -> None:
        """Run the engine once, and put what it says into the inboxes of those who wait for it."""
        for delta in self.engine.step():
            if delta.request_id in self._inboxes:
                self._inboxes[delta.request_id].append(delta)

    def _named(self, request: Request) -> Request:
        """Return the request with an id of its own."""
        if request.request_id:
            return request
        self._n_named += 1
        return replace(request, request_id=f"llm-{self._n_named}")


def as_prompts(prompts: Prompt | Sequence[Prompt]) -> list[str | Ids]:
    """Return a list of prompts, each text or ids, from one or several in any of the shapes.

    Examples
    --------
    >>> as_prompts("Hello"), as_prompts([1, 2]), as_prompts(["Hello", {"prompt_token_ids": [1, 2]}])
    (['Hello'], [[1, 2]], ['Hello', [1, 2]])
    """
    several = isinstance(prompts, Sequence) and not isinstance(prompts, str) and len(prompts) > 0
    if several and all(isinstance(p, str | Mapping | Sequence | np.ndarray) for p in prompts):
        return [_as_prompt(prompt, f"prompts[{i}]") for i, prompt in enumerate(prompts)]
    return [_as_prompt(prompts, "prompts")]  # type: ignore[arg-type]


def _as_prompt(prompt: Prompt, thing: str) -> str | Ids:
    if isinstance(prompt, Mapping):
        found = [prompt[name] for name in ("prompt", "prompt_token_ids") if name in prompt]
        if len(prompt) != 1 or len(found) != 1:
            expected = '"prompt" or "prompt_token_ids", and nothing else'
            raise BadRequest(thing, expected=expected, found=shown(sorted(map(str, prompt))))
        prompt = found[0]
    if isinstance(prompt, str | np.ndarray) or (isinstance(prompt, Sequence) and len(prompt)):
        return prompt
    raise BadRequest(thing, expected="text, or a sequence of token ids", found=shown(prompt))


def _one_for_each(
    params: SamplingParams | Sequence[SamplingParams] | None, n_prompts: int
) -> list[SamplingParams]:
    """Return one for each prompt."""
    if params is None or isinstance(params, SamplingParams):
        return [params or SamplingParams()] * n_prompts
    if len(params) != n_prompts or not all(isinstance(p, SamplingParams) for p in params):
        expected = f"SamplingParams, or a list of {n_prompts}, one for each prompt"
        raise BadRequest("sampling_params", expected=expected, found=shown(params))
    return list(params)
