"""Several machines: the ranks of MPI, each with its share of every layer (`parallel.py`).

    mpiexec -n 4 llama-ref generate path/to/checkpoint "Hello"
    mpiexec -n 2 llama-ref golden answer 70b.json --model synthetic:llama-3.1-70b
    mpiexec -n 8 llama-ref golden make golden

All ranks run the same command. Each opens the checkpoint and reads its part of it; they exchange
what they have computed twice in a layer, and the first of them speaks. Of golden bundles each makes
some of the cases, with the whole model. A rank that fails ends all.

Needs the package mpi4py and an MPI library: `pip install 'llama_ref[mpi]'`.
"""

from __future__ import annotations

import os
import secrets
import sys
import traceback
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from llama_ref.errors import Unsupported
from llama_ref.launcher import is_running
from llama_ref.model import Model
from llama_ref.parallel import share


@cache
def _world() -> Any:
    """Return the communicator of all ranks."""
    try:
        from mpi4py import MPI  # noqa: PLC0415 - an extra
    except (ModuleNotFoundError, RuntimeError) as error:
        raise Unsupported(
            "mpiexec",
            expected="mpi4py and an MPI library",
            found=str(error),
            next_step="python -m pip install 'llama_ref[mpi]'",
        ) from None
    return MPI.COMM_WORLD


def rank() -> int:
    """Return the number of this process among all; 0 where there is one."""
    return _world().rank if is_running() else 0


class MpiGroup:
    """The ranks of a launcher, as one of them sees it."""

    def __init__(self) -> None:
        self._world = _world()
        self.rank, self.size = self._world.rank, self._world.size

    def gather(self, part: np.ndarray) -> list[np.ndarray]:
        """Return the parts of all ranks in their order."""
        own = np.ascontiguousarray(part)
        parts = np.empty((self.size, *own.shape), own.dtype)
        self._world.Allgather(_bytes_of(own), _bytes_of(parts))  # MPI knows no bfloat16
        return list(parts)


class MpiCrew:
    """The ranks of a launcher that share out work, each with the whole model."""

    def __init__(self) -> None:
        self._world = _world()
        self.rank, self.size = self._world.rank, self._world.size

    def agree(self, text: str) -> str:
        """Return what the first rank says."""
        return self._world.bcast(text, root=0)

    def wait(self) -> None:
        """Wait until all ranks are here."""
        self._world.Barrier()


def _bytes_of(array: np.ndarray) -> np.ndarray:
    return array.reshape(-1).view(np.uint8)


def shared(model: Model) -> Model:
    """Return this rank's share of a model; all of it where there is one process."""
    return share(model, MpiGroup()) if is_running() else model


def agreed_seed(seed: int | None) -> int | None:
    """Return a seed that all ranks have: the one given, or the first rank's choice."""
    if not is_running() or seed is not None:
        return seed
    return _world().bcast(secrets.randbits(32), root=0)


def agreed_text(read: Callable[[], str]) -> str:
    """Return a text that all ranks have: what the first rank reads, which alone has an input."""
    if not is_running():
        return read()
    return _world().bcast(None if rank() else read(), root=0)


def together(run: Callable[[], int]) -> int:
    """Run a command as one of the ranks; let the first speak, and end all if this one fails.

    Parameters
    ----------
    run : function
        Returns an exit code; of 2 and above it has said why on standard error.
    """
    try:
        world = _world()
    except Unsupported as error:
        print(f"llama-ref: {error}", file=sys.stderr)
        return 2
    if world.rank:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    try:
        code = run()
    except BaseException:
        traceback.print_exc()
        code = 3
    if code > 1:  # the others wait for a part that will not come
        print(f"llama-ref: rank {world.rank} of {world.size} ends all", file=sys.stderr)
        sys.stderr.flush()
        world.Abort(code)
    return code
