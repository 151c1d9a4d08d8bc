"""Our own ops as an implementation under test: the reference passes its own suite.

It is also the shortest example of one. The ops have the names and signatures already; only
`attention` has its scaling translated, since ours takes a function where the suite says a word.
"""

from __future__ import annotations

import numpy as np

from llama_ref.lineage import lineage_named
from llama_ref.ops.attention import attention as _attention
from llama_ref.ops.embed import embed
from llama_ref.ops.linear import linear
from llama_ref.ops.rms_norm import rms_norm
from llama_ref.ops.rope import rope_half_split, rope_interleaved, rope_table
from llama_ref.ops.rope_frequencies import rope_frequencies, stretched_frequencies
from llama_ref.ops.softmax import softmax
from llama_ref.ops.swiglu import swiglu

__all__ = [
    "attention",
    "embed",
    "linear",
    "rms_norm",
    "rope_frequencies",
    "rope_half_split",
    "rope_interleaved",
    "rope_table",
    "softmax",
    "stretched_frequencies",
    "swiglu",
]


def attention(
    query_TNH: np.ndarray, key_SKH: np.ndarray, value_SKH: np.ndarray, *, scaling: str
) -> np.ndarray:
    """Attend as `llama_ref.ops.attention` does, with the scaling of the lineage "hf" or "meta"."""
    scale = lineage_named(scaling).score_scaling
    return _attention(query_TNH, key_SKH, value_SKH, scaling=scale)
