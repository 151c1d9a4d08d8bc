"""Whether a launcher of MPI started this process as one of several: its variables say so."""

from __future__ import annotations

import os

SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MPI_LOCALNRANKS", "PMIX_SIZE")


def is_running() -> bool:
    """Tell whether there are other ranks than this process."""
    return any(os.environ.get(name, "").isdigit() and int(os.environ[name]) > 1 for name in SIZES)
