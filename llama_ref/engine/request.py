"""What is asked of an engine, and the pieces in which it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from llama_ref.errors import LlamaRefError
from llama_ref.sampling import SamplingParams, TokenLogprobs

if TYPE_CHECKING:
    from llama_ref.constrain import Grammar


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt, and what to make of it.

    Attributes
    ----------
    prompt_ids : sequence of int
    params : SamplingParams
        `params.n` texts are written.
    grammar : Grammar, optional
        What each text must be, such as JSON.
    request_id : str
        The name under which deltas arrive; "" lets the engine make one.
    """

    prompt_ids: Sequence[int]
    params: SamplingParams = field(default_factory=SamplingParams)
    grammar: Grammar | None = None
    request_id: str = ""


class Delta(NamedTuple):
    """What one pass added to one text of a request.

    Attributes
    ----------
    request_id : str
    index : int
        Which of the n texts.
    token_ids : tuple of int
        The new tokens; none if the text was ended from outside.
    text : str
        What became certain.
    logprobs : tuple of TokenLogprobs, or None
        One for each new token, where the parameters ask for them.
    finish_reason : {None, "stop", "length", "abort", "error"}
        None until the last delta of the text.
    stop_reason : int, str or None
        The stop token or stop string that ended it.
    error : LlamaRefError or None
        With `finish_reason` "error": what went wrong.
    prompt_logprobs : tuple, or None
        In the first delta of a request that asks for them: None for the first token, which nothing
        predicts, and TokenLogprobs for each that follows.
    """

    request_id: str
    index: int  # type: ignore[assignment]  # hides a method of tuples that nobody needs
    token_ids: tuple[int, ...] = ()
    text: str = ""
    logprobs: tuple[TokenLogprobs, ...] | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    error: LlamaRefError | None = None
    prompt_logprobs: tuple[TokenLogprobs | None, ...] | None = None
