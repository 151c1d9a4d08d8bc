"""The known ways in which ports of Llama go wrong, each a small piece of wrong code.

    common.py turning.py             the right steps, with what may be wrong as arguments
    embed.py rms_norm.py linear.py precision.py
    rope.py rope_frequencies.py rope_positions.py
    attention.py masks.py swiglu.py residual.py ranks.py

A checker that has found the first wrong tap computes it once more with each of these, from the
candidate's own inputs. The one that brings the difference down to rounding is the mistake that was
made. So none is a caricature: it is the arithmetic of a wrong port, exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from llama_ref.golden.mistake import Mistake
from llama_ref.golden.mistakes import (
    attention,
    embed,
    linear,
    masks,
    precision,
    ranks,
    residual,
    rms_norm,
    rope,
    rope_frequencies,
    rope_positions,
    swiglu,
)
from llama_ref.golden.taps import KINDS

_BY_OP = (
    *embed.MISTAKES,
    *rms_norm.MISTAKES,
    *linear.MISTAKES,
    *precision.MISTAKES,
    *rope.MISTAKES,
    *rope_frequencies.MISTAKES,
    *rope_positions.MISTAKES,
    *attention.MISTAKES,
    *masks.MISTAKES,
    *swiglu.MISTAKES,
    *residual.MISTAKES,
    *ranks.MISTAKES,
)


def _first_tap(mistake: Mistake) -> int:
    return min(KINDS.index(kind) for kind in mistake.changes)


def _quiet(mistake: Mistake) -> Mistake:
    """Return a mistake whose infinities and NaN, of which some consist, raise no warning."""
    ignoring = np.errstate(all="ignore")
    return replace(mistake, changes={k: ignoring(change) for k, change in mistake.changes.items()})


MISTAKES: Mapping[str, Mistake] = MappingProxyType(
    {mistake.id: _quiet(mistake) for mistake in sorted(_BY_OP, key=_first_tap)}
)
"""Every known mistake by id, in the order of the first tap that it distorts."""
