"""What a request came to, in the shape that vLLM's users know.

    RequestOutput       the prompt, and
      outputs: CompletionOutput     each of its n texts: text, ids, logprobs, why it ended
                 message            after `LLM.chat`: the assistant's message, tool calls included

Source: vllm/outputs.py and vllm/logprobs.py in vllm-project/vllm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from llama_ref.engine import Delta, Request
from llama_ref.packing import Ids
from llama_ref.sampling import TokenLogprobs
from llama_ref.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llama_ref.turn import Turn


class Logprob(NamedTuple):
    """A token's log-probability under the model alone, before any parameter changed it.

    Attributes
    ----------
    logprob : float
    rank : int
        1 for the most probable token.
    decoded_token : str
    """

    logprob: float
    rank: int
    decoded_token: str


@dataclass(frozen=True, slots=True)
class CompletionOutput:
    """One text of a request.

    Attributes
    ----------
    index : int
    text : str
    token_ids : tuple of int
        All that were chosen, the one that ended the text included.
    cumulative_logprob : float or None
    logprobs : list of dict of int to Logprob, or None
        For each token, the most probable ones and the one chosen.
    finish_reason : {"stop", "length", "tool_calls", "abort", "error"}
    stop_reason : int, str or None
    message : dict or None
        After `LLM.chat`: role, content, and tool_calls where there are any.
    """

    index: int
    text: str
    token_ids: tuple[int, ...]
    cumulative_logprob: float | None
    logprobs: list[dict[int, Logprob]] | None
    finish_reason: str | None
    stop_reason: int | str | None
    message: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class RequestOutput:
    """A request and its texts.

    Attributes
    ----------
    request_id : str
    prompt : str or None
        If it was given as text.
    prompt_token_ids : list of int
    prompt_logprobs : list of (dict of int to Logprob, or None), or None
        None for the first token, which nothing predicts.
    outputs : list of CompletionOutput
    finished : bool
    """

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    prompt_logprobs: list[dict[int, Logprob] | None] | None
    outputs: list[CompletionOutput]
    finished: bool = True

    @classmethod
    def of(
        cls,
        request: Request,
        deltas: Sequence[Delta],
        tokenizer: Tokenizer | None,
        *,
        text: str | Ids | None = None,
        turn: Turn | None = None,
    ) -> RequestOutput:
        """Put the deltas of a request together."""
        of_each = [[d for d in deltas if d.index == i] for i in range(request.params.n)]
        looked_at = next((d.prompt_logprobs for d in deltas if d.prompt_logprobs), None)
        prompt_logprobs = None
        if looked_at is not None:
            prompt_logprobs = [lp and _as_dict(lp, tokenizer) for lp in looked_at]
        return cls(
            request.request_id,
            text if isinstance(text, str) else None,
            list(request.prompt_ids),
            prompt_logprobs,
            [_completion(i, pieces, tokenizer, turn) for i, pieces in enumerate(of_each)],
        )


def _completion(
    index: int, deltas: list[Delta], tokenizer: Tokenizer | None, turn: Turn | None
) -> CompletionOutput:
    text = "".join(delta.text for delta in deltas)
    reason, message = deltas[-1].finish_reason, None
    if turn:
        message, reason = turn.message(text, reason)
    logprobs = [lp for delta in deltas for lp in delta.logprobs or ()]
    return CompletionOutput(
        index,
        text,
        tuple(token_id for delta in deltas for token_id in delta.token_ids),
        sum(lp.logprob for lp in logprobs) if logprobs else None,
        [_as_dict(lp, tokenizer) for lp in logprobs] if logprobs else None,
        reason,
        deltas[-1].stop_reason,
        message,
    )


def _as_dict(logprobs: TokenLogprobs, tokenizer: Tokenizer | None) -> dict[int, Logprob]:
    """Return the most probable tokens in order, and the one chosen or given."""
    listed = {token_id: (value, rank) for rank, (token_id, value) in enumerate(logprobs.top, 1)}
    listed.setdefault(logprobs.token_id, (logprobs.logprob, logprobs.rank))
    return {
        token_id: Logprob(value, rank, tokenizer.decode([token_id]) if tokenizer else "")
        for token_id, (value, rank) in listed.items()
    }
