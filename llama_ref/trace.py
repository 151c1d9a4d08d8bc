"""Taps: every intermediate of a forward pass, under the name that code, goldens and docs share.

    embed   L00.attn_norm  L00.q  L00.k  L00.v  L00.q_rope  L00.k_rope  L00.scores  L00.probs
    L00.ctx  L00.attn_out  L00.ffn_inp  L00.ffn_norm  L00.gate  L00.up  L00.act  L00.ffn_out
    L00.out  L01.attn_norm  ...  final_norm  logits

`model.py` and `layer.py` hand each one to a function `tap(name, array)`, and they leave by no other
door.
"""

from __future__ import annotations

import html
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import numpy as np

from llama_ref.errors import BadRequest, NonFiniteError, shown
from llama_ref.numerics import widen

Tap = Callable[[str, np.ndarray], None]


class Progress(Protocol):
    """What hears how far a pass has come."""

    def advance(self) -> object:
        """Count a layer, or the head, as done."""


Watch = Callable[[int], AbstractContextManager[Progress]]
"""Called with the number of steps of a pass, its layers and its head, when one begins."""

LAYER_TAPS = {
    "attn_norm": "T D",
    "q": "T N H",
    "k": "T K H",
    "v": "T K H",
    "q_rope": "T N H",
    "k_rope": "T K H",
    "scores": "N T S",
    "probs": "N T S",
    "ctx": "T N H",
    "attn_out": "T D",
    "ffn_inp": "T D",
    "ffn_norm": "T D",
    "gate": "T F",
    "up": "T F",
    "act": "T F",
    "ffn_out": "T D",
    "out": "T D",
}
"""The taps of one layer in dataflow order, with their axes; `scores` are scaled, not masked."""


SUMMED = ("attn_out", "ffn_out")
"""The taps that are sums over ranks: of a layer cut over several, each rank has a part of them."""


def tap_names(n_layers: int, n_ranks: int = 1) -> list[str]:
    """Return every tap of a model in dataflow order; of several ranks, parts before their sum.

    Examples
    --------
    >>> tap_names(2)[:3], len(tap_names(2))
    (['embed', 'L00.attn_norm', 'L00.q'], 37)
    >>> [name for name in tap_names(1, n_ranks=2) if "attn_out" in name]
    ['L00.attn_out.rank0', 'L00.attn_out.rank1', 'L00.attn_out']
    """
    ranks = range(n_ranks if n_ranks > 1 else 0)
    kinds = [
        name
        for kind in LAYER_TAPS
        for name in [*(f"{kind}.rank{r}" for r in ranks if kind in SUMMED), kind]
    ]
    inner = [f"L{layer:02d}.{name}" for layer in range(n_layers) for name in kinds]
    return ["embed", *inner, "final_norm", "logits"]


def layout(name: str, pairing: str) -> str:
    """Return the axes of a tap, and for queries and keys which channels RoPE pairs.

    Examples
    --------
    >>> layout("L07.q_rope", "half_split")
    'T N H; rope=half_split'
    """
    outer = {"embed": "T D", "final_norm": "T D", "logits": "T V"}
    kind = name.rpartition(".")[2].partition("[")[0]
    axes = outer.get(name) or LAYER_TAPS.get(kind)
    if axes is None:
        raise BadRequest("tap", expected="a name of tap_names()", found=shown(name))
    return f"{axes}; rope={pairing}" if kind in ("q", "k", "q_rope", "k_rope") else axes


class _Deaf:
    def advance(self) -> None:
        """Do nothing."""


def no_watch(total: int) -> AbstractContextManager[Progress]:
    """Return what hears how far a pass has come, and does nothing."""
    return nullcontext(_Deaf())


def no_tap(name: str, array: np.ndarray) -> None:
    """Listen to nothing."""


def of_layer(tap: Tap, index: int) -> Tap:
    """Return a tap that puts the number of a layer in front of the names it is given."""
    if tap is no_tap:
        return no_tap
    return lambda name, array: tap(f"L{index:02d}.{name}", array)


def alarm(name: str, array: np.ndarray) -> None:
    """Raise `NonFiniteError` at the first tap that holds a NaN or an infinity."""
    finite = np.isfinite(array)
    if not finite.all():
        at = tuple(np.argwhere(~finite)[0].tolist())
        raise NonFiniteError(
            f"activation {name}", expected="finite numbers", found=f"{array[at]} at {at}"
        )


class Trace(dict[str, np.ndarray]):
    """Every tap of one forward pass, by name, in dataflow order; a dict that shows itself.

    Parameters
    ----------
    pairing : {"half_split", "interleaved"}
        Which channels of the query and key taps RoPE pairs.
    """

    def __init__(self, pairing: str):
        super().__init__()
        self.pairing = pairing

    def __call__(self, name: str, array: np.ndarray) -> None:
        """Keep a copy of a tap: this is the `tap` of the forward pass."""
        self[name] = array.copy()

    def layout(self, name: str) -> str:
        """Return the axes of a tap."""
        return layout(name, self.pairing)

    def __repr__(self) -> str:
        n_bytes = sum(array.nbytes for array in self.values())
        return f"<Trace: {len(self)} taps, {n_bytes / 1e6:.1f} MB>"

    def _repr_html_(self) -> str:
        """Show a table of the taps with their axes, shapes and sizes of numbers."""
        rows = []
        for name, array in self.items():
            wide = widen(array)
            rms = float(np.sqrt(np.mean(wide * wide, dtype=np.float64)))
            cells = [
                name,
                self.layout(name),
                " × ".join(map(str, array.shape)),
                str(array.dtype),
                f"{rms:.4g}",
                f"{float(np.abs(wide).max()):.4g}",
            ]
            rows.append("".join(f"<td>{html.escape(cell)}</td>" for cell in cells))
        head = "".join(f"<th>{h}</th>" for h in ("tap", "axes", "shape", "dtype", "rms", "largest"))
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        return (
            f"<details><summary>{html.escape(repr(self))}</summary>"
            f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></details>"
        )
