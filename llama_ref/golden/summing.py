"""The worst legal order of a sum: one number after the other, in float32.

Every order of a sum is legal, and each rounds differently. Pairs of pairs err least, a plain loop
errs most, BLAS is somewhere between and elsewhere on every machine. So the envelope of float32 has
one style that sums as the loop does, whatever kernels the BLAS of this machine has.
"""

from __future__ import annotations

import numpy as np

from llama_ref.golden.passes import Change, Moment, blocks_of_rows
from llama_ref.golden.taps import LINEARS
from llama_ref.numerics import Matrix, rows_of, widen

MOST_ADDITIONS = 1024
"""Sums of a longer row are made of so many blocks, or a wide model would take minutes a layer."""
ROWS_AT_ONCE = 1024


def linear(moment: Moment) -> np.ndarray:
    """Multiply by a weight, the products of a row added up in order."""
    x_TD, weight_FD = moment.input.reshape(len(moment.input), -1), moment.weight()
    y_TF = np.empty((len(x_TD), weight_FD.shape[0]), np.float32)
    for rows in blocks_of_rows(weight_FD.shape[0], ROWS_AT_ONCE):
        y_TF[:, rows] = _product(x_TD, weight_FD, rows)
    return y_TF.reshape(moment.computed.shape)


def _product(x_TD: np.ndarray, weight_FD: np.ndarray | Matrix, rows: slice) -> np.ndarray:
    """Return some columns of x times a weight."""
    weight_DR = np.ascontiguousarray(widen(rows_of(weight_FD, rows.start, rows.stop)).T)
    D, R = weight_DR.shape
    sums_TR, products_TR = np.zeros((2, len(x_TD), R), np.float32)
    for some in blocks_of_rows(D, -(-D // MOST_ADDITIONS)):
        if some.stop - some.start == 1:
            np.multiply(x_TD[:, some], weight_DR[some], out=products_TR)
        else:
            np.matmul(x_TD[:, some], weight_DR[some], out=products_TR)
        sums_TR += products_TR
    return sums_TR


def rms_norm(moment: Moment) -> np.ndarray:
    """Normalise, the squares of a row added up in order."""
    x_TD, eps = moment.input, np.float32(moment.model.config.norm_eps)
    mean_square_T1 = _last_sum(x_TD * x_TD) / np.float32(x_TD.shape[1])
    return x_TD * (1 / np.sqrt(mean_square_T1 + eps)) * widen(np.asarray(moment.weight()))


def scores(moment: Moment) -> np.ndarray:
    """Multiply queries with keys, channel after channel."""
    query_TNH, key_SKH = moment.taps["q_rope"], moment.taps["k_rope"]
    key_SNH = np.repeat(key_SKH, query_TNH.shape[1] // key_SKH.shape[1], axis=1)
    sums = np.zeros_like(moment.computed)
    for h in range(query_TNH.shape[2]):
        sums += query_TNH[:, :, h].T[:, :, None] * key_SNH[:, :, h].T[:, None]
    return sums * np.float32(query_TNH.shape[2] ** -0.5)


def probs(moment: Moment) -> np.ndarray:
    """Exponentiate, and add up a row in order."""
    visible_TS = np.tril(np.ones(moment.input.shape[1:], bool))
    scores_NTS = np.where(visible_TS, moment.input, np.float32(-np.inf))
    exp_NTS = np.exp(scores_NTS - scores_NTS.max(axis=-1, keepdims=True))
    return exp_NTS / _last_sum(exp_NTS)


def ctx(moment: Moment) -> np.ndarray:
    """Mix values, position after position."""
    probs_NTS, value_SKH = moment.taps["probs"], moment.taps["v"]
    value_SNH = np.repeat(value_SKH, probs_NTS.shape[0] // value_SKH.shape[1], axis=1)
    sums_TNH = np.zeros_like(moment.computed)
    for s in range(probs_NTS.shape[2]):
        sums_TNH += probs_NTS[:, :, s].T[:, :, None] * value_SNH[s]
    return sums_TNH


IN_A_ROW: dict[str, Change] = {
    **dict.fromkeys(LINEARS, linear),
    **dict.fromkeys(("attn_norm", "ffn_norm", "final_norm"), rms_norm),
    "scores": scores,
    "probs": probs,
    "ctx": ctx,
}
"""Every tap that is a sum, summed in a row."""


def _last_sum(array: np.ndarray) -> np.ndarray:
    """Return sums over the last axis, which is kept; each number is added to those before it."""
    return np.cumsum(array, axis=-1, dtype=np.float32)[..., -1:]
