"""Which channels of a head RoPE pairs, and heads brought from one order of channels to the other.

half_split     a b A B    channel c with c + H/2: Hugging Face's files
interleaved    a A b B    channel 2p with 2p + 1: Meta's and GGUF files
"""

from __future__ import annotations

import numpy as np

PAIRINGS = ("half_split", "interleaved")
PAIRED = ("q", "k", "q_rope", "k_rope")
"""Kinds of taps whose channels RoPE pairs."""


def to_interleaved(x_TNH: np.ndarray) -> np.ndarray:
    """Reorder the channels of each head from half-split to interleaved: a b A B -> a A b B."""
    halves = x_TNH.reshape(*x_TNH.shape[:2], 2, -1)
    return halves.swapaxes(-1, -2).reshape(x_TNH.shape)


def to_half_split(x_TNH: np.ndarray) -> np.ndarray:
    """Reorder the channels of each head from interleaved to half-split: a A b B -> a b A B."""
    pairs = x_TNH.reshape(*x_TNH.shape[:2], -1, 2)
    return pairs.swapaxes(-1, -2).reshape(x_TNH.shape)


def swap_pairing(x_TNH: np.ndarray, target: str) -> np.ndarray:
    """Reorder the channels of each head from the other pairing to the target's.

    Parameters
    ----------
    x_TNH : ndarray of shape (T, N, H)
    target : {"half_split", "interleaved"}

    Returns
    -------
    ndarray of shape (T, N, H)

    Examples
    --------
    >>> swap_pairing(np.array([[[0, 10, 1, 11]]]), "half_split").tolist()  # pairs (0, 10), (1, 11)
    [[[0, 1, 10, 11]]]
    """
    return to_half_split(x_TNH) if target == "half_split" else to_interleaved(x_TNH)
