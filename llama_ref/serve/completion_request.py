"""The body of a completion, as a job: one prompt or several, as text or as ids.

Source: create completion of the OpenAI API reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llama_ref.engine import Request
from llama_ref.errors import shown
from llama_ref.generation import prompt_ids
from llama_ref.llm import LLM, as_prompts
from llama_ref.serve.completion_answer import CompletionAnswer
from llama_ref.serve.errors import ApiError
from llama_ref.serve.fields import (
    MAX_CHOICES,
    MAX_PROMPTS,
    MAX_TOP_LOGPROBS,
    Fields,
    bad_field,
    max_tokens,
    stream_options,
)
from llama_ref.serve.job import Job, new_id
from llama_ref.turn import grammar_of

DEFAULT_MAX_TOKENS = 16


def completion_job(fields: Fields, llm: LLM, model: str, defaults: Mapping[str, Any]) -> Job:
    """Return the job of a completion; parameters and errors are those of `chat_job`."""
    prompts = _prompts(fields.take("prompt"))
    is_stream, include_usage = stream_options(fields)
    echo = fields.flag("echo")
    logprobs = fields.whole("logprobs", 0, MAX_TOP_LOGPROBS)
    if echo and logprobs is not None:
        message = "echo together with logprobs is not supported."
        raise ApiError(400, message, param="echo")
    best_of, form = fields.whole("best_of", 1, MAX_CHOICES), fields.take("response_format")
    most = max_tokens(fields) or DEFAULT_MAX_TOKENS
    params = fields.sampling(defaults, max_tokens=most, logprobs=logprobs)
    if best_of not in (None, params.n):
        raise bad_field("best_of", f"must equal n, {params.n}", best_of)
    fields.end()
    if llm.tokenizer is None:
        raise ApiError(400, "This model was loaded without a tokenizer.", param="model")
    grammar = grammar_of(llm, form)
    request_id = new_id("cmpl")
    requests = [
        Request(prompt_ids(llm.model, prompt).tolist(), params, grammar, f"{request_id}-{i}")
        for i, prompt in enumerate(prompts)
    ]
    answer = CompletionAnswer(
        requests,
        llm.tokenizer,
        request_id,
        model,
        echo=echo,
        is_stream=is_stream,
        include_usage=include_usage,
    )
    return Job(requests, answer, is_stream)


def _prompts(prompt: Any) -> list[Any]:
    if prompt is None:
        raise ApiError(400, "prompt must be given.", param="prompt")
    if not isinstance(prompt, str | list):
        raise bad_field("prompt", "must be text, token ids, or a list of those", prompt)
    prompts = as_prompts(prompt)
    if len(prompts) > MAX_PROMPTS:
        raise bad_field("prompt", f"must hold at most {MAX_PROMPTS} prompts", len(prompts))
    for ids in prompts:
        if not isinstance(ids, str) and not all(type(i) is int and i >= 0 for i in ids):
            raise ApiError(400, f"prompt must hold token ids, got {shown(ids)}.", param="prompt")
    return prompts
