"""The body of a chat completion, as a job.

Beside OpenAI's fields it takes those that vLLM adds for sampling (`top_k`, `min_p`, …), and
`builtin_tools`, the names of tools that Llama 3.1 knows by heart. A template in a request is
refused like any field that is not known: only the published formats are written.

Source: create chat completion of the OpenAI API reference; ChatCompletionRequest of
entrypoints/openai/chat_completion/protocol.py in vllm-project/vllm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from llama_ref.llm import LLM
from llama_ref.serve.chat_answer import ChatAnswer
from llama_ref.serve.errors import ApiError
from llama_ref.serve.fields import (
    MAX_TOP_LOGPROBS,
    Fields,
    max_tokens,
    stream_options,
)
from llama_ref.serve.job import Job, new_id
from llama_ref.turn import prepare_turn


def chat_job(
    fields: Fields, llm: LLM, model: str, defaults: Mapping[str, Any], options: Mapping[str, Any]
) -> Job:
    """Return the job of a chat completion.

    Parameters
    ----------
    fields : Fields
    llm : LLM
    model : str
        Its name.
    defaults : mapping
        Sampling parameters of the checkpoint.
    options : mapping
        How prompts are written: dialect, version, date.

    Raises
    ------
    ApiError, LlamaRefError
        For whatever is not possible.
    """
    messages, tools = fields.take("messages"), fields.take("tools")
    if messages is None:
        raise ApiError(400, "messages must be given.", param="messages")
    turn_options = {
        "tools": tools,
        "tool_choice": _tool_choice(fields.take("tool_choice"), tools),
        "parallel_tool_calls": fields.flag("parallel_tool_calls", True),
        "response_format": fields.take("response_format"),
        "builtin_tools": fields.take_list("builtin_tools"),
        "add_generation_prompt": fields.flag("add_generation_prompt", True),
        "continue_final_message": fields.flag("continue_final_message"),
    }
    is_stream, include_usage = stream_options(fields)
    wanted = {"max_tokens": max_tokens(fields), "logprobs": _logprobs(fields)}
    params = fields.sampling(defaults, **wanted)
    fields.end()
    turn = prepare_turn(llm, messages, params, **options, **turn_options)
    request = replace(turn.request, request_id=new_id("chatcmpl"))
    how = {"is_stream": is_stream, "include_usage": include_usage}
    assert llm.tokenizer is not None  # `prepare_turn` looked
    return Job([request], ChatAnswer(turn, request, llm.tokenizer, model, **how), is_stream)


def _tool_choice(choice: Any, tools: Any) -> Any:
    if choice is not None and choice != "none" and tools is None:
        message = "When using `tool_choice`, `tools` must be set."
        raise ApiError(400, message, param="tool_choice")
    return choice


def _logprobs(fields: Fields) -> int | None:
    """Return how many of the most probable tokens to list; None for no logprobs at all."""
    is_wanted, n_top = fields.flag("logprobs"), fields.whole("top_logprobs", 0, MAX_TOP_LOGPROBS)
    if n_top is None:
        return 0 if is_wanted else None
    if not is_wanted and n_top:
        message = "when using `top_logprobs`, `logprobs` must be set to true."
        raise ApiError(400, message, param="top_logprobs")
    return n_top if is_wanted else None
