"""Joining what several calls recorded: a case fed in chunks has taps for the whole case.

Tokens of later calls follow those of earlier ones. Scores and probabilities of a call reach over
the tokens so far, S of them; those to come are entries of zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from llama_ref.golden.taps import BY_HEAD, KINDS, kind_of, tap_name
from llama_ref.trace import LAYER_TAPS, tap_names


class Taps(dict[str, np.ndarray]):
    """Taps by name, in dataflow order, with notes about those that are missing.

    Attributes
    ----------
    notes : list of str
        A sentence for each kind of tap that could not be seen, and why.
    """

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def join(self, calls: Sequence[dict[str, np.ndarray]], n_layers: int, prefix: str = "") -> None:
        """Take in what the calls recorded, end to end; a tap that one of them lacks is left out.

        Parameters
        ----------
        calls : sequence of dict of str to ndarray
            By name, in the axes of `trace.LAYER_TAPS`, one for each call.
        n_layers : int
        prefix : str
            Comes in front of every name.
        """
        for name in tap_names(n_layers):
            parts = [call[name] for call in calls if name in call]
            if calls and len(parts) == len(calls):
                self[prefix + name] = joined(name, parts)

    def note_missing(self, n_layers: int, reasons: dict[str, str], prefix: str = "") -> None:
        """Add a note for each kind of tap that is missing.

        Parameters
        ----------
        n_layers : int
        reasons : dict of str to str
            Why a kind may be missing; the reason under "" is for all others.
        prefix : str
            What `join` put in front of every name.
        """
        for kind in KINDS:
            absent = [name for name in _names_of_kind(kind, n_layers) if prefix + name not in self]
            if absent:
                which = absent[0] if len(absent) == 1 else f"{absent[0]} … {absent[-1]}"
                self.notes.append(f"{which}: {reasons.get(kind, reasons[''])}")


def joined(name: str, parts: Sequence[np.ndarray]) -> np.ndarray:
    """Return a tap of several calls as that of one: tokens end to end, S padded to the largest.

    Examples
    --------
    >>> joined("L00.probs", [np.ones((1, 1, 1)), np.full((1, 1, 2), 0.5)]).tolist()
    [[[1.0, 0.0], [0.5, 0.5]]]
    """
    if kind_of(name) not in BY_HEAD:
        return np.concatenate(parts)
    S = max(part.shape[2] for part in parts)
    padded = [np.pad(part, ((0, 0), (0, 0), (0, S - part.shape[2]))) for part in parts]
    return np.concatenate(padded, axis=1)


def _names_of_kind(kind: str, n_layers: int) -> Iterable[str]:
    if kind in LAYER_TAPS:
        return [tap_name(layer, kind) for layer in range(n_layers)]
    return [kind]
