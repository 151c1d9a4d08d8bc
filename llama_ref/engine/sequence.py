"""One text of one request: its continuation, and the cache that holds what the model has read.

    ids       prompt, then output: everything there is so far
    cache     the keys and values of the first `cache.length` of them
    pending   the ids that the cache does not hold yet; when none is left, the next can be chosen

Nothing but `ids` is needed to go on. So a cache may be given up when memory is short, and computed
again: the random numbers depend on the seed and the place in the text alone, and the text goes on
as it would have.
"""

from __future__ import annotations

import numpy as np

from llama_ref.cache import KVCache
from llama_ref.continuation import Continuation
from llama_ref.engine.request import Delta, Request
from llama_ref.errors import LlamaRefError
from llama_ref.model import Model
from llama_ref.sampling import TokenLogprobs, token_logprobs


class Sequence:
    """One of the n texts of a request.

    Parameters
    ----------
    model : Model
    request : Request
    index : int
        Which of the n.
    """

    def __init__(self, model: Model, request: Request, index: int):
        self.request, self.index = request, index
        matcher = request.grammar.matcher() if request.grammar else None
        self.continuation = Continuation(
            model, request.prompt_ids, request.params, choice=index, matcher=matcher
        )
        self.ids = list(request.prompt_ids)
        self.cache: KVCache | None = None
        # The n texts share one prompt; the first of them looks at its logits for all.
        asked = request.params.prompt_logprobs if index == 0 else None
        self._prompt_logprobs: list[TokenLogprobs | None] | None = None if asked is None else [None]

    @property
    def pending(self) -> list[int]:
        """The ids that the cache does not hold yet."""
        return self.ids[self.cache.length if self.cache else 0 :]

    @property
    def n_pending(self) -> int:
        """How many ids the cache does not hold yet."""
        return len(self.ids) - (self.cache.length if self.cache else 0)

    @property
    def is_decoding(self) -> bool:
        """Whether one token more is enough to choose the next."""
        return self.cache is not None and self.n_pending == 1

    @property
    def wants_prompt_logits(self) -> bool:
        """Whether the logits of every token of the prompt are wanted, not of the last alone."""
        asked = self._prompt_logprobs
        return asked is not None and len(asked) < len(self.request.prompt_ids)

    def look_at_prompt(self, start: int, logits_TV: np.ndarray) -> None:
        """Note the log-probability of each token of the prompt that follows one of these logits.

        A text that gave its cache up reads its prompt again; what was noted then is not noted
        twice.

        Parameters
        ----------
        start : int
            The place in the prompt of the token that the first of these logits come after.
        logits_TV : numpy.ndarray
        """
        assert self._prompt_logprobs is not None  # `wants_prompt_logits` was asked
        n_top, prompt_ids = self.request.params.prompt_logprobs or 0, self.request.prompt_ids
        for at, logits_V in enumerate(logits_TV, start + 1):
            if at == len(self._prompt_logprobs) < len(prompt_ids):
                self._prompt_logprobs.append(token_logprobs(logits_V, prompt_ids[at], n_top))

    def take(self, logits_V: np.ndarray) -> Delta:
        """Choose the next token; return what it adds."""
        token = self.continuation.take(logits_V)
        self.ids.append(token.id)
        asked, is_first = self._prompt_logprobs, len(self.continuation.output_ids) == 1
        return Delta(
            self.request.request_id,
            self.index,
            (token.id,),
            token.text,
            (token.logprobs,) if token.logprobs else None,
            token.finish_reason,
            token.stop_reason,
            prompt_logprobs=tuple(asked) if asked and is_first else None,
        )

    def ended(self, reason: str, error: LlamaRefError | None = None) -> Delta:
        """Return the delta that ends this text from outside: "abort" or "error"."""
        self.continuation.finish_reason = reason
        return Delta(self.request.request_id, self.index, finish_reason=reason, error=error)


def shared_length(a: list[int], b: list[int]) -> int:
    """Return how many ids two sequences have in common at their beginning.

    Examples
    --------
    >>> shared_length([1, 2, 3], [1, 2, 4, 5])
    2
    """
    n = min(len(a), len(b))
    start = 0  # lists compare faster than their elements do, and most differ early
    while start < n and a[start : start + 1024] == b[start : start + 1024]:
        start += 1024
    return next((i for i in range(start, n) if a[i] != b[i]), n)
