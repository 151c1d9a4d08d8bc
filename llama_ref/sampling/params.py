"""How to choose the tokens of a text and when to stop: one frozen record, checked when it is made.

Names, defaults, ranges and messages are vLLM's. The profile says in which order the fields that
change logits are applied (`profiles.py`) and which of them the peer has; one that it has not is
refused, not ignored.

Source: SamplingParams in sampling_params.py, vllm-project/vllm.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import TYPE_CHECKING, Any

from llama_ref.errors import BadRequest, shown
from llama_ref.sampling import checks
from llama_ref.sampling.checks import BadIds, BadParameter
from llama_ref.sampling.profiles import profile_named

if TYPE_CHECKING:
    from llama_ref.tokenizer import Tokenizer

LOWEST_TEMPERATURE = 0.01
"""vLLM raises a temperature between 0 and this to it."""

BadWords = Sequence[str | Sequence[int]]


class LowTemperatureWarning(UserWarning):
    """A temperature so low that vLLM raises it was raised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """The parameters of one request.

    Parameters
    ----------
    n : int, 1 to 16384
        How many texts; in profile vllm 1 at temperature 0.
    temperature : float
        0 is greedy: the filters are then without effect, and in profile vllm read as off.
    top_p : float
        1 switches it off.
    top_k : int
        0 switches it off, in profile vllm also -1.
    min_p : float
        0 switches it off.
    typical_p : float
        1 switches it off. In profile vllm an extension.
    frequency_penalty, presence_penalty : float
        0 switches them off.
    repetition_penalty : float, above 0
        1 switches it off.
    logit_bias : mapping of int to float, optional
        Keys may be digits in a string. In profile vllm moved into -100 to 100.
    allowed_token_ids : sequence of int, optional
        Not empty.
    bad_words : sequence of str or of sequences of int, optional
        Strings need a tokenizer: see `bad_word_ids`.
    seed : int, optional
        64 bits, signed or not. None, and -1 as in vLLM: unseeded; whoever runs the request draws
        one. Choice i draws with `seed + i`.
    max_tokens : int, optional
        At least 1; None for all the room there is.
    min_tokens : int
        No stop token and no stop string ends the text before.
    stop : str or sequence of str, optional
        None may be empty.
    stop_token_ids : sequence of int, optional
    ignore_eos : bool
    include_stop_str_in_output : bool
    skip_special_tokens : bool
    logprobs, prompt_logprobs : int, optional
        How many of the most probable tokens to report; -1 for all.
    profile : {"vllm", "hf", "llama.cpp", "meta"}

    Raises
    ------
    BadRequest
        If a field is out of range, or the profile has no such step; its `thing` is the field.

    Warns
    -----
    LowTemperatureWarning
        If profile vllm raises the temperature.

    Examples
    --------
    >>> SamplingParams(temperature=0.7, top_p=0.9).top_p
    0.9
    >>> SamplingParams(top_p=0)
    Traceback (most recent call last):
        ...
    llama_ref.sampling.checks.BadParameter: top_p must be in (0, 1], got 0.0.
    """

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    typical_p: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] | None = None
    allowed_token_ids: Sequence[int] | None = None
    bad_words: BadWords | None = None
    seed: int | None = None
    max_tokens: int | None = 16
    min_tokens: int = 0
    stop: str | Sequence[str] | None = None
    stop_token_ids: Sequence[int] | None = None
    ignore_eos: bool = False
    include_stop_str_in_output: bool = False
    skip_special_tokens: bool = True
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    profile: str = "vllm"

    @classmethod
    def of_profile(cls, profile: str, **given: Any) -> SamplingParams:
        """Return the parameters of a request with the peer's own defaults.

        Examples
        --------
        >>> params = SamplingParams.of_profile("llama.cpp", top_k=20)
        >>> params.temperature, params.top_k, params.top_p, params.min_p
        (0.8, 20, 0.95, 0.05)
        """
        return cls(**{**profile_named(profile).defaults, **given, "profile": profile})

    def __post_init__(self) -> None:
        known = profile_named(self.profile).names
        for name in _NUMBERS:
            self._set(name, checks.number(name, getattr(self, name)))
        for name in ("top_k", "n", "min_tokens"):
            self._set(name, checks.whole(name, getattr(self, name)))
        for name in ("seed", "max_tokens", "logprobs", "prompt_logprobs"):
            self._set(name, checks.whole_or_none(name, getattr(self, name)))
        for name in ("ignore_eos", "include_stop_str_in_output", "skip_special_tokens"):
            checks.flag(name, getattr(self, name))
        for name in (*_NUMBERS, "top_k"):
            value = getattr(self, name)
            if name in known:
                self._set(name, checks.in_range(name, value, self.profile))
            elif value != _DEFAULTS[name]:
                raise BadParameter(name, f"is not a step of profile {self.profile!r}", value)
        self._check_counts()
        self._check_lists(known)
        if self.profile == "vllm":
            self._as_in_vllm()

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        return checks.texts("stop", self.stop)

    @property
    def bad_words_as_ids(self) -> tuple[tuple[int, ...], ...]:
        """The bad words, if all are sequences of ids; `BadRequest` if one is still a string."""
        for word in self.bad_words or ():
            if isinstance(word, str):
                raise BadRequest(
                    "bad_words",
                    expected="token ids",
                    found=shown(word),
                    next_step="turn strings into ids with params.bad_word_ids(tokenizer)",
                )
        return tuple(self.bad_words or ())  # type: ignore[arg-type]

    def bad_word_ids(self, tokenizer: Tokenizer | None) -> tuple[tuple[int, ...], ...]:
        """Return the bad words as sequences of ids.

        A string is banned as it is written at the start of a text; and after a space, where that
        makes as many tokens and another first one. That is vLLM's rule: words in the middle of
        a text are the second kind.

        Raises
        ------
        BadRequest
            If a bad word is a string and there is no tokenizer.
        """
        sequences: list[tuple[int, ...]] = []
        for word in self.bad_words or ():
            if not isinstance(word, str):
                sequences.append(tuple(word))
                continue
            if tokenizer is None:
                raise BadRequest("bad_words", expected="token ids: the model has no tokenizer")
            bare = tuple(tokenizer.encode(word.lstrip()))
            spaced = tuple(tokenizer.encode(" " + word.lstrip()))
            sequences.append(bare)
            if len(spaced) == len(bare) and spaced[0] != bare[0]:
                sequences.append(spaced)
        return tuple(sequences)

    def check_vocabulary(self, vocab_size: int) -> None:
        """Raise `BadRequest` if a field names an id that is not below `vocab_size`."""
        for name in ("logit_bias", "allowed_token_ids", "stop_token_ids"):
            checks.in_vocabulary(name, getattr(self, name) or (), vocab_size)
        for word in self.bad_words or ():
            if not isinstance(word, str):
                checks.in_vocabulary("bad_words", word, vocab_size)

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _check_counts(self) -> None:
        checks.at_least("n", self.n, 1, "must be at least 1")
        if self.n > checks.MAX_N:
            raise BadParameter("n", f"must be at most {checks.MAX_N}", self.n)
        if self.max_tokens is not None:
            checks.at_least("max_tokens", self.max_tokens, 1, "must be at least 1")
        checks.at_least("min_tokens", self.min_tokens, 0, "must be greater than or equal to 0")
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            rule = f"must be less than or equal to max_tokens={self.max_tokens}"
            raise BadParameter("min_tokens", rule, self.min_tokens)
        for name in ("logprobs", "prompt_logprobs"):
            value = getattr(self, name)
            if value is not None:
                checks.at_least(name, value, -1, "must be non-negative or -1")
        if self.seed is not None and not -(2**63) <= self.seed < 2**64:
            raise BadParameter("seed", "must be an integer of 64 bits", self.seed)
        if self.seed == -1:
            self._set("seed", None)

    def _check_lists(self, known: frozenset[str]) -> None:
        if self.logit_bias is not None:
            if "logit_bias" not in known and self.logit_bias:
                rule = f"is not a step of profile {self.profile!r}"
                raise BadParameter("logit_bias", rule, self.logit_bias)
            self._set("logit_bias", checks.bias(self.logit_bias, self.profile))
        if self.allowed_token_ids is not None:
            allowed = checks.ids("allowed_token_ids", self.allowed_token_ids)
            if not allowed:
                raise BadIds("allowed_token_ids", "allowed_token_ids is not None and empty!")
            self._set("allowed_token_ids", allowed)
        if self.stop_token_ids is not None:
            stops = checks.ids("stop_token_ids", self.stop_token_ids)
            self._set("stop_token_ids", tuple(dict.fromkeys(stops)))  # each once, in order
        self._set("stop", self.stops or None)
        if self.bad_words is not None:
            self._set("bad_words", _checked_bad_words(self.bad_words))

    def _as_in_vllm(self) -> None:
        """Raise a tiny temperature, and read the filters of a greedy request as off."""
        if self.temperature == 0:
            if self.n > 1:
                raise BadParameter("n", "must be 1 when using greedy sampling", self.n)
            for name in ("top_p", "top_k", "min_p", "typical_p"):
                self._set(name, _DEFAULTS[name])
        elif self.temperature < LOWEST_TEMPERATURE:
            # One text for every value: Python remembers each text it has warned of.
            warnings.warn(
                f"temperature: between 0 and {LOWEST_TEMPERATURE}, raised to "
                f"{LOWEST_TEMPERATURE} as in vLLM; 0 is greedy",
                LowTemperatureWarning,
                stacklevel=4,
            )
            self._set("temperature", LOWEST_TEMPERATURE)


def _checked_bad_words(value: object) -> tuple[str | tuple[int, ...], ...]:
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Sequence):
        raise BadParameter("bad_words", "must be a list of strings or of lists of ids", value)
    words: list[str | tuple[int, ...]] = []
    for word in value:
        words.append(word if isinstance(word, str) else checks.ids("bad_words", word))
        if not words[-1] or (isinstance(word, str) and not word.strip()):
            raise BadIds("bad_words", "bad_words cannot contain an empty string.")
    return tuple(words)


_DEFAULTS: dict[str, Any] = {
    f.name: f.default for f in fields(SamplingParams) if f.default is not MISSING
}
_NUMBERS = (
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "temperature",
    "top_p",
    "min_p",
    "typical_p",
)
