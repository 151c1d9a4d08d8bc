"""The endpoints, as functions of a body; what is not possible is an `ApiError` before any work.

    POST /v1/chat/completions   chat           GET /v1/models   models
    POST /v1/completions        completions
    POST /tokenize              tokenize       POST /detokenize  detokenize

Source: the OpenAI API reference; entrypoints/serve/tokenize in vllm-project/vllm.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from llama_ref import chat
from llama_ref.continuation import check_fits
from llama_ref.errors import LlamaRefError, shown
from llama_ref.llm import LLM
from llama_ref.serve.chat_request import chat_job
from llama_ref.serve.completion_request import completion_job
from llama_ref.serve.errors import ApiError, api_error
from llama_ref.serve.fields import Fields, bad_field, read_body
from llama_ref.serve.job import Job
from llama_ref.tokenizer import Tokenizer

DEFAULTS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
"""Sampling parameters that a checkpoint's generation_config.json may set."""


class Service:
    """A model under a name.

    Parameters
    ----------
    llm : LLM
        Its engine is not used here.
    name : str
    defaults : mapping, optional
        Sampling parameters where a request gives none: those of `generation_config.json`. Others
        than `DEFAULTS` are passed over.
    chat_options : mapping, optional
        How conversations are written: `dialect`, `version`, `date`.
    """

    def __init__(
        self,
        llm: LLM,
        name: str,
        *,
        defaults: Mapping[str, Any] | None = None,
        chat_options: Mapping[str, Any] | None = None,
    ):
        self.llm, self.name = llm, name
        given = defaults or {}
        self._defaults = {key: given[key] for key in DEFAULTS if given.get(key) is not None}
        self._chat_options = dict(chat_options or {})
        self._created = int(time.time())

    def chat(self, data: bytes) -> Job:
        """Return the job of a chat completion.

        Raises
        ------
        ApiError
            If the body is not a possible request; so for all endpoints.
        """
        with _answered():
            fields = self._fields(data)
            return self._fitting(
                chat_job(fields, self.llm, self.name, self._defaults, self._chat_options),
                "messages",
            )

    def completions(self, data: bytes) -> Job:
        """Return the job of a completion."""
        with _answered():
            return self._fitting(
                completion_job(self._fields(data), self.llm, self.name, self._defaults), "prompt"
            )

    def models(self) -> dict[str, Any]:
        """Return the list of models, which has one."""
        context = self.llm.model.config.context_length
        model = {"id": self.name, "object": "model", "created": self._created}
        model |= {"owned_by": "llama_ref", "max_model_len": context}
        return {"object": "list", "data": [model]}

    def tokenize(self, data: bytes) -> dict[str, Any]:
        """Return the ids of a text, or of a conversation."""
        with _answered():
            fields, tokenizer = self._fields(data), self._tokenizer()
            messages, tools = fields.take("messages"), fields.take("tools")
            prompt, bos = fields.take("prompt"), fields.flag("add_special_tokens", True)
            head = fields.flag("add_generation_prompt", True)
            fields.end()
            if messages is not None and prompt is None:
                options = self._chat_options | {"add_generation_prompt": head}
                ids = chat.encode(tokenizer, messages, tools, **options)
            elif isinstance(prompt, str) and messages is None:
                ids = tokenizer.encode(prompt, bos=bos)
            else:
                raise bad_field("prompt", "must be text, or messages given instead", prompt)
            context = self.llm.model.config.context_length
            return {"count": len(ids), "max_model_len": context, "tokens": ids}

    def detokenize(self, data: bytes) -> dict[str, Any]:
        """Return the text of ids."""
        with _answered():
            fields = self._fields(data)
            ids = fields.take("tokens")
            fields.end()
            if not isinstance(ids, list) or not all(type(i) is int for i in ids):
                raise bad_field("tokens", "must be a list of token ids", ids)
            return {"prompt": self._tokenizer().decode(ids)}

    def _fields(self, data: bytes) -> Fields:
        """Return the fields of a body that is about this model."""
        fields = Fields(read_body(data))
        model = fields.take("model")
        if model is not None and model != self.name:
            message = f"The model {shown(model)} does not exist."
            raise ApiError(404, message, param="model", code="model_not_found")
        return fields

    def _tokenizer(self) -> Tokenizer:
        if self.llm.tokenizer is None:
            raise ApiError(400, "This model was loaded without a tokenizer.", param="model")
        return self.llm.tokenizer

    def _fitting(self, job: Job, field: str) -> Job:
        """Refuse what the engine would refuse, before it gets there."""
        context = self.llm.model.config.context_length
        for request in job.requests:
            n_prompt = len(request.prompt_ids)
            if n_prompt > context:
                message = (
                    f"This model's maximum context length is {context} tokens. However, your "
                    f"prompt contains {n_prompt} input tokens."
                )
                raise ApiError(400, message, param=field, code="context_length_exceeded")
            check_fits(self.llm.model, request.params)
            request.params.bad_word_ids(self.llm.tokenizer)
        return job


@contextmanager
def _answered() -> Iterator[None]:
    """Turn this library's errors into answers."""
    try:
        yield
    except LlamaRefError as error:
        raise api_error(error) from None
