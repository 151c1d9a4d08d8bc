"""How probable a token was: the logarithm of softmax of the logits as the model gave them.

    logprob[i] = z[i] - max z - ln sum_j exp(z[j] - max z)

Before bias, penalties, temperature and filters, as in vLLM and llama.cpp; so it says what the
model thought, and can be high for a token that a filter has removed. The list of the most probable
is strict: the n highest in order, of equal ones the lowest ids; the token that was drawn is in it
only if it is one of them. (vLLM puts the drawn token first and drops the n-th.)

Source: v1/sample/ops/logprobs.py in vllm-project/vllm.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from llama_ref.errors import BadRequest, NonFiniteError, is_whole, shown
from llama_ref.sampling.steps import top_ids


class TokenLogprobs(NamedTuple):
    """One token and what else it could have been.

    Attributes
    ----------
    token_id : int
    logprob : float
        Minus infinity for a token that the model itself rules out.
    rank : int
        1 for the most probable; one more for each token that is more probable.
    top : tuple of (int, float)
        The most probable ids and their logprobs, in falling order.
    """

    token_id: int
    logprob: float
    rank: int
    top: tuple[tuple[int, float], ...]


def token_logprobs(logits_V: np.ndarray, token_id: int, n_top: int = 0) -> TokenLogprobs:
    """Return the logprob and rank of a token, and the `n_top` most probable.

    Parameters
    ----------
    logits_V : ndarray of shape (V,), floating
        As the model gave them.
    token_id : int
    n_top : int
        -1: all that are possible. A token of logit minus infinity is never listed.

    Raises
    ------
    NonFiniteError
        If a logit is NaN or plus infinity, or none is finite.
    BadRequest
        If the id is not of the vocabulary or `n_top` below -1.

    Examples
    --------
    >>> token_logprobs(np.log([0.25, 0.5, 0.25]), 2, n_top=2)        # doctest: +ELLIPSIS
    TokenLogprobs(token_id=2, logprob=-1.386..., rank=2, top=((1, -0.693...), (0, -1.386...)))
    """
    V = len(logits_V)
    if not is_whole(token_id, 0, V - 1):
        raise BadRequest("token_id", expected=f"0 to {V - 1}", found=shown(token_id))
    if not is_whole(n_top, -1):
        raise BadRequest("n_top", expected="an integer, at least -1", found=shown(n_top))
    z_V = logits_V.astype(np.float64)
    highest = z_V.max()
    if not np.isfinite(highest):  # NaN if one is
        raise NonFiniteError("logits", expected="at least one finite", found=str(highest))
    with np.errstate(under="ignore", over="ignore"):
        log_sum = float(np.log(np.exp(z_V - highest).sum()))
    n_top = V if n_top == -1 else n_top
    return TokenLogprobs(
        token_id=int(token_id),
        logprob=float(z_V[token_id] - highest) - log_sum,
        rank=int((z_V > z_V[token_id]).sum()) + 1,
        top=tuple((int(i), float(z_V[i] - highest) - log_sum) for i in top_ids(z_V, n_top)),
    )
