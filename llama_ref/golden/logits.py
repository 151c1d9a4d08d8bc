"""What the error of logits amounts to: other distributions, other choices.

    KL(truth || candidate) = sum_v p[v] (log p[v] - log q[v])         nats, in float64 throughout

Whether the same token comes out on top says little: legal bfloat16 disagrees with float64 wherever
two tokens are close. It has to agree where the truth leads by more than twice what legal rounding
can move.
"""

from __future__ import annotations

import math

import numpy as np

from llama_ref.golden.report import LogitsSummary


def log_softmax(logits_TV: np.ndarray) -> np.ndarray:
    """Return log-probabilities in float64."""
    wide_TV = logits_TV.astype(np.float64)
    wide_TV -= wide_TV.max(axis=-1, keepdims=True)
    return wide_TV - np.log(np.exp(wide_TV).sum(axis=-1, keepdims=True))


def divergence(truth_TV: np.ndarray, candidate_TV: np.ndarray) -> np.ndarray:
    """Return the Kullback-Leibler divergence of the candidate from the truth, for each token.

    Examples
    --------
    >>> divergence(np.array([[0.0, 0.0]]), np.array([[5.0, 5.0]]))
    array([0.])
    """
    log_p_TV, log_q_TV = log_softmax(truth_TV), log_softmax(candidate_TV)
    return np.maximum(np.sum(np.exp(log_p_TV) * (log_p_TV - log_q_TV), axis=-1), 0)


def summary(
    case: str, truth_TV: np.ndarray, candidate_TV: np.ndarray, kl_legal: float, largest: float
) -> LogitsSummary:
    """Say what the logits of one case amount to.

    Parameters
    ----------
    case : str
    truth_TV, candidate_TV : ndarray of shape (T, V)
    kl_legal, largest : float
        The largest divergence, and the largest error of a logit, that legal rounding gives.
    """
    kl_T = divergence(truth_TV, candidate_TV)
    best = np.sort(truth_TV, axis=-1)[:, -2:]
    is_decided = best[:, -1] - best[:, 0] > 2 * largest
    same = truth_TV.argmax(axis=-1) == candidate_TV.argmax(axis=-1)
    return _summary(case, kl_T, kl_legal, same, is_decided)


def summary_of_top(
    case: str, top_ids: np.ndarray, top: np.ndarray, candidate_TV: np.ndarray, largest: float
) -> LogitsSummary:
    """Say the same of a fingerprint, which has the highest logits alone: no divergence.

    Parameters
    ----------
    case : str
    top_ids, top : ndarray of shape (T, highest)
        Ids and logits of the truth, highest first.
    candidate_TV : ndarray of shape (T, V)
    largest : float
        The largest error of a logit that legal rounding gives.
    """
    is_decided = top[:, 0] - top[:, 1] > 2 * largest
    same = top_ids[:, 0] == candidate_TV.argmax(axis=-1)
    return _summary(case, np.array([math.nan]), math.nan, same, is_decided)


def _summary(
    case: str, kl_T: np.ndarray, kl_legal: float, same: np.ndarray, is_decided: np.ndarray
) -> LogitsSummary:
    return LogitsSummary(
        case=case,
        kl_mean=float(kl_T.mean()),
        kl_max=float(kl_T.max()),
        kl_legal=kl_legal,
        n_tokens=len(same),
        n_same_choice=int(same.sum()),
        n_decided=int(is_decided.sum()),
        n_decided_same=int((same & is_decided).sum()),
    )
