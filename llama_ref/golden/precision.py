"""Which class of rounding a candidate is judged by, where its author does not say.

A dump of 16-bit numbers comes from a port that rounds to them. A dump in float32 may come from one
too: then the outputs of all its matrices lie on the coarser grid, which no float32 computation
would produce by chance. What cannot be told from the numbers (a float16 cache, tensor cores) is for
the author to say.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from llama_ref.errors import BadRequest, shown
from llama_ref.golden.grids import to_bfloat16, to_float16
from llama_ref.golden.replay import Source
from llama_ref.golden.styles import PRECISIONS
from llama_ref.golden.taps import LINEARS, kind_of
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
    """Return the class that the numbers of a candidate are of, and a sentence that says why.

    One tap of each kind is looked at: a single one that is coarse is no coarse port, but a finding.
    """
    first = {kind_of(tap): tap for tap in reversed(taps)}
    linear = {kind: tap for kind, tap in first.items() if kind in LINEARS}
    if len(linear) > 1:
        linear.pop("logits", None)  # often wider than the rest
    elif len(first) > 1 and not linear:
        first.pop("embed", None)  # table rows are 16-bit numbers in any port
    looked_at = list((linear or first).values())
    told = {tap: found for tap in looked_at if (found := _class_of(source, tap, linear))}
    classes = set(told.values())
    if len(classes) == 1 and (name := classes.pop()) != "float32":
        return name, f"Judged as {name}: {next(reversed(told))} holds {name} numbers alone."
    coarse = next((tap for tap in reversed(told) if told[tap] != "float32"), None)
    but = f", though {coarse} holds {told[coarse]} numbers alone" if coarse else ""
    return "float32", f"Judged as float32, the dtype of the dump{but}; --dtype says otherwise."


def _class_of(source: Source, tap: str, linear: Mapping[str, str]) -> str | None:
    """Return the coarsest class whose numbers a tap may be; None if it says nothing."""
    dump = source.get(tap)
    if dump is None:
        return None
    array = dump.array
    if array.dtype in (BFLOAT16, np.float16):
        return array.dtype.name
    if kind_of(tap) not in linear:
        return "float32"
    with np.errstate(over="ignore"):
        finite = array[np.isfinite(array) & (array != 0)].astype(np.float32)
    if finite.size < ENOUGH:
        return None
    return next((n for n, grid in GRIDS.items() if (grid(finite) == finite).all()), "float32")
