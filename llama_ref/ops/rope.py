"""Rotary position embedding: turn each pair of channels by an angle proportional to the position.

    (a, b)  ->  (a cos - b sin,  a sin + b cos)        angle = position * frequency[pair]

Queries and keys are turned, values are not. A product of two turned vectors depends on the
*difference* of their positions alone. The world has two conventions for which channels make a pair:

    rope_interleaved   (0,1) (2,3) (4,5) ...           Meta's .pth files, GGUF, llama2.c
    rope_half_split    (0,H/2) (1,H/2+1) ...           HF safetensors

They are one rotation on permuted channels: a checkpoint of one kind run with the other's pairing
gives fluent nonsense that is exact at position 0.

Source: Su et al. 2021, arXiv:2104.09864; apply_rotary_emb in meta-llama/llama-models,
models/llama3/model.py; apply_rotary_pos_emb in huggingface/transformers.
"""

from __future__ import annotations

import numpy as np

from llama_ref.errors import BadRequest
from llama_ref.numerics import round_to


def rope_table(
    position_T: np.ndarray, frequency_P: np.ndarray, *, dtype: np.dtype
) -> tuple[np.ndarray, np.ndarray]:
    """Return cosine and sine of every angle position * frequency.

    Parameters
    ----------
    position_T : ndarray of shape (T,), integer
        The position of each token in its own sequence, from 0.
    frequency_P : ndarray of shape (P,), float32 or float64
        Radians per position.
    dtype : dtype
        What the table is rounded to. Rotation is done in the dtype of the table, so this decides
        the lineage: Meta's table is float32 at all times, that of transformers has the dtype of
        the activations.

    Returns
    -------
    cos_TP, sin_TP : ndarray of shape (T, P), `dtype`

    Notes
    -----
    Precision: position and product in the dtype of the frequencies, cosine and sine as well, then
    one rounding to `dtype`. Never bfloat16 positions: bfloat16 rounds 257 to 256, and sin(257) is
    not sin(256).

    Examples
    --------
    >>> cos_TP, sin_TP = rope_table(np.array([0, 1]), np.array([np.pi / 2]), dtype=np.float64)
    >>> cos_TP.round(6).tolist(), sin_TP.round(6).tolist()
    ([[1.0], [0.0]], [[0.0], [1.0]])
    """
    angle_TP = position_T.astype(frequency_P.dtype)[:, None] * frequency_P
    return round_to(np.cos(angle_TP), dtype), round_to(np.sin(angle_TP), dtype)


def rope_interleaved(x_TNH: np.ndarray, cos_TP: np.ndarray, sin_TP: np.ndarray) -> np.ndarray:
    """Rotate neighbouring channels (0,1), (2,3), ... : the layout of Meta's and GGUF checkpoints.

    Parameters
    ----------
    x_TNH : ndarray of shape (T, N, H), floating
        Queries or keys.
    cos_TP, sin_TP : ndarray of shape (T, P), P = H / 2
        From `rope_table`; their dtype is the one the rotation is done in.

    Returns
    -------
    ndarray of shape (T, N, H), dtype of `x_TNH`

    Raises
    ------
    BadRequest
        If shapes do not fit. (The table of transformers has H columns, the P of this one twice.)

    Notes
    -----
    Precision: products and sums in the dtype of the table, each rounded to it; one more rounding
    to the dtype of `x_TNH`.
    Law: the product of a query at m and a key at n depends on m - n.

    Examples
    --------
    >>> quarter_turn = np.zeros((1, 1)), np.ones((1, 1))
    >>> rope_interleaved(np.array([[[1.0, 2.0]]]), *quarter_turn)
    array([[[-2.,  1.]]])
    """
    _check_shapes(x_TNH, cos_TP, sin_TP)
    rotated_TNH = np.empty_like(x_TNH)
    first_TNP, second_TNP = x_TNH[..., 0::2], x_TNH[..., 1::2]
    rotated_TNH[..., 0::2], rotated_TNH[..., 1::2] = _rotate(first_TNP, second_TNP, cos_TP, sin_TP)
    return rotated_TNH


def rope_half_split(x_TNH: np.ndarray, cos_TP: np.ndarray, sin_TP: np.ndarray) -> np.ndarray:
    """Rotate channel p with channel p + H/2: the layout of HF safetensors checkpoints.

    Parameters, return value, errors and notes are those of `rope_interleaved`.

    Examples
    --------
    >>> quarter_turn = np.zeros((1, 2)), np.ones((1, 2))
    >>> rope_half_split(np.array([[[1.0, 2.0, 3.0, 4.0]]]), *quarter_turn)
    array([[[-3., -4.,  1.,  2.]]])
    """
    _check_shapes(x_TNH, cos_TP, sin_TP)
    rotated_TNH = np.empty_like(x_TNH)
    P = cos_TP.shape[-1]
    first_TNP, second_TNP = x_TNH[..., :P], x_TNH[..., P:]
    rotated_TNH[..., :P], rotated_TNH[..., P:] = _rotate(first_TNP, second_TNP, cos_TP, sin_TP)
    return rotated_TNH


def _rotate(
    first_TNP: np.ndarray, second_TNP: np.ndarray, cos_TP: np.ndarray, sin_TP: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Turn the points (first, second) by the table's angles, in the table's dtype."""
    first_TNP, second_TNP = first_TNP.astype(cos_TP.dtype), second_TNP.astype(cos_TP.dtype)
    cos_T1P, sin_T1P = cos_TP[:, None], sin_TP[:, None]
    return (
        first_TNP * cos_T1P - second_TNP * sin_T1P,
        first_TNP * sin_T1P + second_TNP * cos_T1P,
    )


def _check_shapes(x_TNH: np.ndarray, cos_TP: np.ndarray, sin_TP: np.ndarray) -> None:
    T, P = x_TNH.shape[0], x_TNH.shape[-1] / 2
    if x_TNH.ndim != 3 or cos_TP.shape != (T, P) or sin_TP.shape != (T, P):
        raise BadRequest(
            "rope shapes",
            expected="x (T, N, H), cosine and sine (T, H/2)",
            found=f"{x_TNH.shape}, {cos_TP.shape}, {sin_TP.shape}",
        )
