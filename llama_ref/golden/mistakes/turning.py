"""Turning queries and keys, with whatever somebody gets wrong about it as an argument."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from llama_ref.golden.passes import Moment, Session
from llama_ref.model import ROTATE
from llama_ref.ops.rope import rope_table


def own_positions(session: Session) -> np.ndarray:
    """Return the positions that were asked for: (T,)."""
    return session.packed.position_T


def cos_and_sin(
    m: Moment, position_T: np.ndarray | None = None, frequency_P: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the table (T, P) of cosines and sines, by default the right one."""
    return rope_table(
        own_positions(m.session) if position_T is None else position_T,
        m.model.frequency_P if frequency_P is None else frequency_P,
        dtype=m.computed.dtype,
    )


def rotation(m: Moment) -> Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]:
    """Return the function that turns the pairs of this model's layout."""
    return ROTATE[m.model.weights.pairing]


def turned(
    m: Moment,
    x_TNH: np.ndarray | None = None,
    *,
    position_T: np.ndarray | None = None,
    frequency_P: np.ndarray | None = None,
) -> np.ndarray:
    """Return the input turned, by default as it should be."""
    cos_TP, sin_TP = cos_and_sin(m, position_T, frequency_P)
    return rotation(m)(m.input if x_TNH is None else x_TNH, cos_TP, sin_TP)
