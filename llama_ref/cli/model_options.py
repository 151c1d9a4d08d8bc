"""How a command opens a model, and the bar that it shows while a pass takes long."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from llama_ref import mpi
from llama_ref.cli import checks
from llama_ref.cli.terminal import Progress, size
from llama_ref.lineage import LINEAGES
from llama_ref.loading import load
from llama_ref.model import Model
from llama_ref.numerics import ACTIVATION_DTYPES


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options that say how a checkpoint is opened and run."""
    add = parser.add_argument
    add("--dtype", choices=ACTIVATION_DTYPES, default="float32", help="of the activations")
    add("--lineage", choices=LINEAGES, help="whose rounding points to follow")
    add("--widen", action="store_true", help="hold the weights in memory, widened: faster")
    add("--memory", metavar="SIZE", help="of the weights at a time, as in 2GB; the rest streams")
    add("--no-mmap", action="store_true", help="read the files plainly instead of mapping them")


def load_model(options: argparse.Namespace) -> Model:
    """Open the checkpoint as the options say."""
    with Progress("reading the weights" if options.widen else "opening the checkpoint"):
        model = load(
            options.path,
            dtype=options.dtype,
            lineage=options.lineage,
            widen=options.widen,
            memory=options.memory,
            mmap=not options.no_mmap,
        )
        return mpi.shared(model)


class PassProgress(Progress):
    """The bar of one pass: which layer it is at, how fast weights go by, how long it will take.

    `model.watch = PassProgress.of(model)` has it drawn for every pass over a second long.
    """

    def __init__(self, total: int, bytes_of_layer: float):
        super().__init__("running", total)
        self._bytes_of_layer = bytes_of_layer

    @classmethod
    def of(cls, model: Model) -> Callable[[int], PassProgress]:
        """Return what makes the bar of each pass of a model."""
        matrices = [w for _, w in model.weights.named(0) if len(w.shape) == 2]
        n_bytes = sum(checks.n_bytes(w) for w in matrices)
        return lambda total: cls(total, n_bytes)

    def note(self, elapsed: float) -> str:
        """Return the layer and the speed."""
        speed = size(int(self.done * self._bytes_of_layer / max(elapsed, 1e-9)))
        return f"layer {min(self.done + 1, self.total or 0)} of {self.total}, {speed}/s"
