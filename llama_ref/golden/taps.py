"""Taps by name: what each is computed from, its axes, and which of its rows are which tokens.

A full name is a layer and a kind, `L07.q_rope`, or outside the layers the kind alone, `logits`.
Of a layer that is cut over ranks, what one of them adds to a sum has its number behind:
`L07.attn_out.rank2`. It is of the kind of the sum.
"""

from __future__ import annotations

import math

import numpy as np

from llama_ref.config import Config
from llama_ref.trace import layout

INPUTS: dict[str, tuple[str, ...]] = {
    "embed": (),
    "attn_norm": ("hidden",),
    "q": ("attn_norm",),
    "k": ("attn_norm",),
    "v": ("attn_norm",),
    "q_rope": ("q",),
    "k_rope": ("k",),
    "scores": ("q_rope", "k_rope"),
    "probs": ("scores",),
    "ctx": ("probs", "v"),
    "attn_out": ("ctx",),
    "ffn_inp": ("hidden", "attn_out"),
    "ffn_norm": ("ffn_inp",),
    "gate": ("ffn_norm",),
    "up": ("ffn_norm",),
    "act": ("gate", "up"),
    "ffn_out": ("act",),
    "out": ("ffn_inp", "ffn_out"),
    "final_norm": ("hidden",),
    "logits": ("final_norm",),
}
"""What each kind of tap is computed from; `hidden` is what enters the layer, or the final norm."""

RANK = ".rank"
KINDS = tuple(INPUTS)
"""Every kind of tap in dataflow order."""
OUTSIDE = ("embed", "final_norm", "logits")
"""The taps outside the layers."""
NORMS = ("attn_norm", "ffn_norm", "final_norm")
"""The taps whose numbers are divided by one number for each token."""
LINEARS = ("q", "k", "v", "attn_out", "gate", "up", "ffn_out", "logits")
"""The taps that are a matrix times something."""
BY_HEAD = ("scores", "probs")
"""The taps whose tokens stand on the second axis, N T S; those of all others on the first."""


def kind_of(tap: str) -> str:
    """Return a tap's name without its layer, and without its rank.

    Examples
    --------
    >>> kind_of("L07.q_rope"), kind_of("L07.attn_out.rank2"), kind_of("logits")
    ('q_rope', 'attn_out', 'logits')
    """
    return _of_all_ranks(tap).rpartition(".")[2]


def rank_of(tap: str) -> int | None:
    """Return the rank in a tap's name; None of what all ranks have together.

    Examples
    --------
    >>> rank_of("L07.attn_out.rank2"), rank_of("L07.attn_out")
    (2, None)
    """
    number = tap.rpartition(RANK)[2] if RANK in tap else ""
    return int(number) if number.isascii() and number.isdigit() else None


def _of_all_ranks(tap: str) -> str:
    return tap.partition(RANK)[0]


def layer_of(tap: str) -> int | None:
    """Return the layer in a tap's name; None outside the layers, or if the name is foreign.

    Examples
    --------
    >>> layer_of("L07.q"), layer_of("L07.ffn_out.rank0"), layer_of("logits")
    (7, 7, None)
    """
    head = _of_all_ranks(tap).rpartition(".")[0]
    return int(head[1:]) if head[:1] == "L" and head[1:].isascii() and head[1:].isdigit() else None


def place_of(tap: str) -> tuple[float, int, float]:
    """Return where a tap stands in the order of the data flow, as a key to sort by.

    The parts of a sum stand before it.

    Examples
    --------
    >>> place_of("embed") < place_of("L00.q") < place_of("L10.attn_norm") < place_of("logits")
    True
    """
    layer, kind, rank = layer_of(tap), kind_of(tap), rank_of(tap)
    outside = -1.0 if kind == "embed" else math.inf
    within = math.inf if rank is None else float(rank)
    return (outside if layer is None else float(layer)), KINDS.index(kind), within


def tap_name(layer: int | None, kind: str, rank: int | None = None) -> str:
    """Return the name of a tap.

    Examples
    --------
    >>> tap_name(7, "q_rope"), tap_name(7, "attn_out", 2), tap_name(None, "logits")
    ('L07.q_rope', 'L07.attn_out.rank2', 'logits')
    """
    own = kind if rank is None else f"{kind}{RANK}{rank}"
    return own if layer is None else f"L{layer:02d}.{own}"


def axes_of(tap: str) -> str:
    """Return the axes of a tap, or of a kind of tap.

    Examples
    --------
    >>> axes_of("L03.q_rope"), axes_of("k"), axes_of("logits")
    ('T N H', 'T K H', 'T V')
    """
    return layout(_of_all_ranks(tap), "").partition(";")[0]


def sizes_of(config: Config, n_rows: int, n_seen: int) -> dict[str, int]:
    """Return how long each axis is when `n_rows` tokens are fed and `n_seen` are seen."""
    return {
        "T": n_rows,
        "S": n_seen,
        "N": config.n_heads,
        "K": config.n_kv_heads,
        "G": config.n_heads // config.n_kv_heads,
        "H": config.head_dim,
        "D": config.d_model,
        "F": config.d_ff,
        "V": config.vocab_size,
    }


def shape_of(tap: str, config: Config, n_tokens: int) -> tuple[int, ...]:
    """Return the shape of a tap of a case, S being T.

    Examples
    --------
    >>> from llama_ref.config import preset
    >>> shape_of("L00.k", preset("golden-tiny"), 5)
    (5, 2, 32)
    """
    sizes = sizes_of(config, n_tokens, n_tokens)
    return tuple(sizes[letter] for letter in axes_of(tap).split())


def row_axis(kind: str) -> int:
    """Return which axis of a tap counts the tokens."""
    return 1 if kind in BY_HEAD else 0


def rows_of_tap(kind: str, array: np.ndarray, rows: range) -> np.ndarray:
    """Return some tokens of a tap, as a view."""
    own = slice(rows.start, rows.stop)
    return array[:, own] if row_axis(kind) else array[own]


def visible_parts(kind: str, array: np.ndarray, rows: range | None = None) -> np.ndarray:
    """Return scores with those that no query may see set to 0, anything else as it is.

    Implementations differ in what they leave there: the product, minus infinity, nothing.

    Parameters
    ----------
    kind : str
    array : ndarray
    rows : range, optional
        Which of the tokens the rows of the array are; by default all of them.
    """
    return np.tril(array, 0 if rows is None else rows.start) if kind == "scores" else array
