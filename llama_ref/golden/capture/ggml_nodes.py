"""llama.cpp's graph: which node is which tap, and how its axes become ours.

A node has a name and an operation, and only both together say what it is:

    Qcur-0 (MUL_MAT)     L00.q            kq-0 (MUL_MAT)              L00.scores, once scaled
    Qcur-0 (ROPE)        L00.q_rope       kq_soft_max-0 (SOFT_MAX)    L00.probs

Sizes are listed fastest first, so that [H, N, T] is our T N H. Element 2p + c of a query or key
head is element c H/2 + p of a half-split one. `kq` is the bare product, neither scaled nor masked;
it reaches over the whole cache, of which S places are in use.

Source: src/models/llama.cpp and src/llama-graph.cpp in ggml-org/llama.cpp.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llama_ref.golden.candidate.ggml import Ggml
from llama_ref.golden.pairing import PAIRED, to_half_split
from llama_ref.golden.taps import BY_HEAD, kind_of

SAME_NUMBERS = ("RESHAPE", "VIEW", "PERMUTE")  # a node that is seen already, in other axes
WITH_HEADS = ("q", "k", "v", "q_rope", "k_rope", "ctx")


@dataclass(frozen=True)
class Heads:
    """What nodes do not say of themselves.

    Attributes
    ----------
    head_dim : int
        H.
    pairing : {"half_split", "interleaved"}
        In which order the channels of queries and keys are wanted; llama.cpp interleaves them.
    """

    head_dim: int
    pairing: str = "half_split"


def tap_of(name: str, op: str, n_layers: int) -> str | None:
    """Return the tap that a node is, or None.

    Examples
    --------
    >>> tap_of("Qcur-7", "ROPE", 8), tap_of("Qcur-7", "RESHAPE", 8), tap_of("norm-7", "RMS_NORM", 8)
    ('L07.q_rope', None, None)
    """
    meaning = Ggml().parse(f"{name} ({op})", n_layers)
    if meaning is None or meaning.order or op in SAME_NUMBERS or len(meaning.taps) != 1:
        return None
    return meaning.taps[0]


def as_tap(tap: str, node: np.ndarray, seen: int, heads: Heads) -> np.ndarray:
    """Return what a node holds, in the axes of the tap that it is.

    Parameters
    ----------
    tap : str
        From `tap_of`.
    node : ndarray of four axes
        The sizes of the node, slowest first; the first is 1.
    seen : int
        S: how many tokens the cache holds, those of this call included.
    heads : Heads

    Returns
    -------
    ndarray, dtype of `node`
        Axes as in `trace.LAYER_TAPS`; scores are scaled.

    Examples
    --------
    >>> node = np.arange(8.0).reshape(1, 1, 2, 4)                     # two tokens, one head of four
    >>> as_tap("L00.q", node, 2, Heads(4))[1].tolist()
    [[4.0, 6.0, 5.0, 7.0]]
    """
    kind = kind_of(tap)
    if kind in BY_HEAD:
        visible_NTS = node[0, :, :, :seen]
        scale = heads.head_dim**-0.5 if kind == "scores" else 1
        return visible_NTS * node.dtype.type(scale)
    if kind not in WITH_HEADS:
        return node[0, 0]
    x_TNH = node.reshape(node.shape[1 if kind.endswith("_rope") else 2], -1, heads.head_dim)
    if kind not in PAIRED or heads.pairing == "interleaved":
        return x_TNH
    return to_half_split(x_TNH)
