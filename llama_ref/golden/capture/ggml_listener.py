"""What llama.cpp calls back: asked about a node, it says if that is a tap; shown one, keeps it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from llama_ref.golden.capture.ggml_calls import look_at, read, write
from llama_ref.golden.capture.ggml_nodes import Heads, as_tap, tap_of


class Listener:
    """Is called before and after each node is computed, and keeps the nodes that are taps.

    Attributes
    ----------
    calls : list of dict of str to ndarray
        The taps of each `llama_decode`.
    error : BaseException or None
        What went wrong in a callback. Nothing is kept after it.
    """

    def __init__(self, n_layers: int, heads: Heads):
        self.n_layers, self.heads = n_layers, heads
        self.calls: list[dict[str, np.ndarray]] = []
        self.error: BaseException | None = None
        self._positions: np.ndarray | None = None
        self._seen = 0

    def begin_call(self, positions: Iterable[int] | None, seen: int) -> None:
        """Begin a call after which `seen` tokens are cached; rotate by positions, if given."""
        self.calls.append({})
        self._positions = None if positions is None else np.array(list(positions), np.int32)
        self._seen = seen

    def __call__(self, address: int, ask: bool, user_data: Any) -> bool:
        """Say whether a node is wanted, or keep it; an error waits: C could not carry it."""
        try:
            return self.error is None and (self._ask if ask else self._keep)(address)
        except BaseException as error:
            self.error = error
            return False

    def _ask(self, address: int) -> bool:
        tensor, name, op = look_at(address)
        if op == "ROPE" and self._positions is not None:
            write(tensor.src[1], self._positions)
        return tap_of(name, op, self.n_layers) is not None

    def _keep(self, address: int) -> bool:
        _, name, op = look_at(address)
        tap = tap_of(name, op, self.n_layers)
        if tap is not None:
            self.calls[-1][tap] = as_tap(tap, read(address), self._seen, self.heads)
        return True
