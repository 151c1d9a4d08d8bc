"""The fields of a request's body, taken one by one.

A field that is null is not given. A field that nobody takes is an error with its name: obeyed in
part is worse than refused. Those of `IGNORED` change no answer and are passed over.

Bounds on every number are here or in `SamplingParams`; nothing runs before all are checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llama_ref.errors import BadFile, LlamaRefError, is_whole, shown
from llama_ref.sampling import SamplingParams
from llama_ref.sampling.params import LOWEST_TEMPERATURE
from llama_ref.serve.errors import ApiError
from llama_ref.strict_json import parse_json

IGNORED = frozenset(
    [
        "user",
        "store",
        "metadata",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
    ]
)
MAX_CHOICES, MAX_STOPS, MAX_TOP_LOGPROBS, MAX_PROMPTS = 16, 4, 20, 64
MAX_TOKENS = 2**31 - 1
MAX_WORD = 16_384
MAX_ENTRIES = {"stop": MAX_STOPS, "stop_token_ids": 1024, "bad_words": 1024}
MAX_ENTRIES |= {"allowed_token_ids": 2**18, "logit_bias": 2**18}
SEEDS = (-(2**63), 2**63 - 1)

SAMPLING = (
    *("temperature", "top_p", "top_k", "min_p", "typical_p", "seed", "stop", "stop_token_ids"),
    *("frequency_penalty", "presence_penalty", "repetition_penalty", "logit_bias", "bad_words"),
    *("allowed_token_ids", "min_tokens", "ignore_eos", "skip_special_tokens"),
    "include_stop_str_in_output",
)


def read_body(data: bytes) -> dict[str, Any]:
    """Return the JSON object that a body is.

    Raises
    ------
    ApiError
        If it is not strict JSON (see `strict_json`), or no object.
    """
    try:
        body = parse_json(data, file="body")
    except BadFile as error:
        raise ApiError(400, f"The body is not JSON: {error}") from None
    except LlamaRefError as error:
        raise ApiError(400, str(error)) from None
    if not isinstance(body, dict):
        raise ApiError(400, f"The body must be a JSON object, got {shown(body)}.")
    return body


class Fields:
    """What is left of a body.

    Parameters
    ----------
    body : mapping
    """

    def __init__(self, body: Mapping[str, Any]):
        self._left = {name: value for name, value in body.items() if value is not None}

    def take(self, name: str) -> Any:
        """Return a field of any type; None if it is not given."""
        return self._left.pop(name, None)

    def flag(self, name: str, default: bool = False) -> bool:
        """Return a field that is true or false."""
        value = self._left.pop(name, default)
        if type(value) is not bool:
            raise bad_field(name, "must be true or false", value)
        return value

    def whole(self, name: str, low: int, high: int) -> int | None:
        """Return an integer within bounds; a number such as 2.0 is one."""
        value = self._left.pop(name, None)
        if value is None:
            return None
        if type(value) is float and value.is_integer():
            value = int(value)
        if is_whole(value, -(2**63)) and value < low:
            raise bad_field(name, f"must be at least {low}", value)
        if not is_whole(value, low, high):
            raise bad_field(name, f"must be an integer from {low} to {high}", value)
        return value

    def take_list(self, name: str) -> list[Any]:
        """Return a field that is a list; empty if it is not given."""
        value = self._left.pop(name, [])
        if not isinstance(value, list):
            raise bad_field(name, "must be a list", value)
        return value

    def end(self) -> None:
        """Refuse what nobody took."""
        unknown = sorted(set(self._left) - IGNORED)
        if unknown:
            name = unknown[0]
            message = f"Unknown or unsupported parameter: {shown(name)}."
            raise ApiError(400, message, param=name[:64], code="unknown_parameter")

    def sampling(
        self,
        defaults: Mapping[str, Any],
        *,
        max_tokens: int | None,
        logprobs: int | None,
        prompt_logprobs: int | None = None,
    ) -> SamplingParams:
        """Return the sampling parameters: what is given, else the checkpoint's, else OpenAI's.

        Raises
        ------
        ApiError
            Beyond the bounds of a server.
        BadRequest
            For a value of the wrong kind, or out of range.
        """
        n = self.whole("n", 1, MAX_CHOICES)
        seed = self.whole("seed", *SEEDS)
        given: dict[str, Any] = {} if seed is None else {"seed": seed}
        for name in SAMPLING:
            value = self._left.pop(name, None)
            if value is not None:
                given[name] = value
        _check_sizes(given)
        fixed = {"n": n or 1, "max_tokens": max_tokens, "logprobs": logprobs}
        values = {**defaults, **given, **fixed, "prompt_logprobs": prompt_logprobs}
        temperature = values.get("temperature")
        # What `SamplingParams` does with a warning, which no client would see; where warnings are
        # errors (python -W error) it would be a 500.
        if isinstance(temperature, int | float) and 0 < temperature < LOWEST_TEMPERATURE:
            values["temperature"] = LOWEST_TEMPERATURE
        return SamplingParams(**values)


def _check_sizes(given: Mapping[str, Any]) -> None:
    """Refuse what would keep the one thread of the engine busy for everyone."""
    for name, most in MAX_ENTRIES.items():
        value = given.get(name)
        if isinstance(value, list | dict) and len(value) > most:
            raise bad_field(name, f"must hold at most {most:,} entries", len(value))
    for name in ("stop", "bad_words"):
        texts = given.get(name)
        for text in texts if isinstance(texts, list) else [texts]:
            if isinstance(text, str | list) and len(text) > MAX_WORD:
                raise bad_field(name, f"must hold texts of at most {MAX_WORD:,}", len(text))


def max_tokens(fields: Fields) -> int | None:
    """Return how many tokens are wanted; None for all the room there is."""
    newer = fields.whole("max_completion_tokens", 1, MAX_TOKENS)
    older = fields.whole("max_tokens", 1, MAX_TOKENS)
    return older if newer is None else newer


def stream_options(fields: Fields) -> tuple[bool, bool]:
    """Return whether to stream, and whether with a last chunk about usage."""
    is_stream, options = fields.flag("stream"), fields.take("stream_options")
    if options is None:
        return is_stream, False
    if not is_stream:
        message = "Stream options can only be defined when `stream=True`."
        raise ApiError(400, message, param="stream_options")
    if not isinstance(options, dict):
        raise bad_field("stream_options", "must be an object", options)
    inner = Fields(options)
    include_usage = inner.flag("include_usage")
    inner.flag("include_obfuscation")
    inner.end()
    return is_stream, include_usage


def bad_field(name: str, rule: str, value: object) -> ApiError:
    """Return the answer to a field that breaks a rule."""
    return ApiError(400, f"{name} {rule}, got {shown(value)}.", param=name)
