"""Which class of rounding a candidate is judged by, where its author does not say.

A dump of 16-bit numbers comes from a port that rounds to them. A dump in float32 may come from one
too: then the outputs of its matrices all lie on the coarser grid, which no float32 computation
would produce by chance. What cannot be told from the numbers (a float16 cache, tensor cores) is for
the author to say.
"""

from __future__ import annotations

import numpy as np

from llama_ref.errors import BadRequest, shown
from llama_ref.golden.passes import LINEARS, kind_of
from llama_ref.golden.replay import Source
from llama_ref.golden.styles import PRECISIONS, to_bfloat16, to_float16
from llama_ref.numerics import BFLOAT16

GRIDS = {"bfloat16": to_bfloat16, "float16": to_float16}
ENOUGH = 64
"""Numbers on a grid that cannot be chance."""


def precision_of(source: Source, taps: list[str], asked: str | None) -> tuple[str, str]:
    """Return the class to judge by, and a sentence that says why.

    Parameters
    ----------
    source : Source
        One case of the candidate.
    taps : list of str
        The taps it has.
    asked : str or None
        What the author says.

    Raises
    ------
    BadRequest
        If there is no such class.
    """
    if asked is not None:
        if asked not in PRECISIONS:
            raise BadRequest("dtype", expected=" or ".join(PRECISIONS), found=shown(asked))
        told, _ = _told_by_numbers(source, taps)
        but = f", though its numbers are {told}: --dtype {told} is the class for those"
        is_coarser = PRECISIONS.index(told) > PRECISIONS.index(asked)
        return asked, f"Judged as {asked}, as asked{but if is_coarser else ''}."
    return _told_by_numbers(source, taps)


def _told_by_numbers(source: Source, taps: list[str]) -> tuple[str, str]:
    """Return the class that the numbers of a candidate are of, and a sentence that says why."""
    linear = [tap for tap in taps if kind_of(tap) in LINEARS]
    for tap in [*linear, *taps]:
        dump = source.get(tap)
        if dump is None:
            continue
        array = dump.array
        if array.dtype == BFLOAT16:
            return "bfloat16", "Judged as bfloat16, since the dump holds bfloat16 numbers."
        if array.dtype == np.float16:
            return "float16", "Judged as float16, since the dump holds float16 numbers."
        finite = array[np.isfinite(array) & (array != 0)].astype(np.float32)
        if tap in linear and finite.size >= ENOUGH:
            for name, grid in GRIDS.items():
                if (grid(finite) == finite).all():
                    return name, f"Judged as {name}: {tap} holds {name} numbers alone."
            break
    return "float32", "Judged as float32, the dtype of the dump; --dtype says otherwise."
