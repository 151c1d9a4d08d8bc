"""From logits to one token: the parameters of a request, in the order of the peer you name.

    params.py        SamplingParams: vLLM's names, defaults, ranges and messages; checks.py
    steps.py         each parameter as one small function of logits, with its formula
    profiles.py      the order of vLLM, transformers, llama.cpp and Meta's code, as a table
    pipeline.py      logits -> the steps of a profile -> one token
    stream.py        random numbers that any language can repeat
    explanation.py   what each step did to one distribution
    logprobs.py      how probable a token was before anything was done to it

Two things decide a token: the logits after all steps, which every implementation can compute, and
one uniform number, a pure function of the request's seed and the number of tokens before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_ref.lazy import names_of

_HOMES = {
    "BadParameter": "llama_ref.sampling.checks",
    "Explanation": "llama_ref.sampling.explanation",
    "LowTemperatureWarning": "llama_ref.sampling.params",
    "PROFILES": "llama_ref.sampling.profiles",
    "SamplingParams": "llama_ref.sampling.params",
    "TokenLogprobs": "llama_ref.sampling.logprobs",
    "draw": "llama_ref.sampling.stream",
    "explain": "llama_ref.sampling.explanation",
    "processed_logits": "llama_ref.sampling.pipeline",
    "sample": "llama_ref.sampling.pipeline",
    "steps": "llama_ref.sampling.steps",
    "token_logprobs": "llama_ref.sampling.logprobs",
    "uniform": "llama_ref.sampling.stream",
}
__getattr__ = names_of(__name__, _HOMES)
__all__ = sorted(_HOMES)  # noqa: PLE0605


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


if TYPE_CHECKING:
    from llama_ref.sampling import steps as steps
    from llama_ref.sampling.checks import BadParameter as BadParameter
    from llama_ref.sampling.explanation import Explanation as Explanation
    from llama_ref.sampling.explanation import explain as explain
    from llama_ref.sampling.logprobs import TokenLogprobs as TokenLogprobs
    from llama_ref.sampling.logprobs import token_logprobs as token_logprobs
    from llama_ref.sampling.params import LowTemperatureWarning as LowTemperatureWarning
    from llama_ref.sampling.params import SamplingParams as SamplingParams
    from llama_ref.sampling.pipeline import processed_logits as processed_logits
    from llama_ref.sampling.pipeline import sample as sample
    from llama_ref.sampling.profiles import PROFILES as PROFILES
    from llama_ref.sampling.stream import draw as draw
    from llama_ref.sampling.stream import uniform as uniform
