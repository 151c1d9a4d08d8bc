"""Two lineages: the few places where Meta's code and transformers round differently.

Both compute the same mathematics, and in float64 they agree to the last digits. (Here RoPE's angles
are float64 then; in the released codes they are float32 at all times.) In bfloat16 they do not, and
a backend agrees with one of them:

                       meta                          hf
    cos/sin table      float32                       rounded to the activations' dtype
    rotation           float32, rounded once         every product and sum rounded
    scores             divided by sqrt(H)            multiplied by H^-0.5
    logits             widened to float32            in the activations' dtype

The third row shows in float32, in the last digit of two scores in five where H = 128 and of none
where H = 64; in bfloat16 both ways give the same score, for every H of a published model.

"hf" is transformers with `attn_implementation="eager"`. Its default, "sdpa", is a fused kernel that
rounds elsewhere. "meta" is one device: on several, Meta's code rounds each one's part of wo and w2
before it adds them.

Which channels RoPE *pairs* is no matter of lineage: it follows the order in which a file stores its
query and key rows (`weights.py`), since weights are never permuted on loading.

Source: models/llama3/model.py in meta-llama/llama-models; modeling_llama.py in transformers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from llama_ref.errors import BadRequest, shown
from llama_ref.numerics import wide_dtype
from llama_ref.ops.attention import Scaling, over_root_width, times_inverse_root_width


def unchanged(dtype: np.dtype) -> np.dtype:
    """Return `dtype`: what stays in the dtype of the activations."""
    return dtype


@dataclass(frozen=True)
class Lineage:
    """Whose rounding points the forward pass follows.

    Attributes
    ----------
    name : str
    rope_dtype : function of dtype to dtype
        The dtype of the cosine and sine table, in which the rotation is done.
    score_scaling : function of (scores, H) to scores
    logits_dtype : function of dtype to dtype
        The dtype in which logits are returned.
    """

    name: str
    rope_dtype: Callable[[np.dtype], np.dtype]
    score_scaling: Scaling
    logits_dtype: Callable[[np.dtype], np.dtype]


LINEAGES = {
    "meta": Lineage("meta", wide_dtype, over_root_width, wide_dtype),
    "hf": Lineage("hf", unchanged, times_inverse_root_width, unchanged),
}


def lineage_named(name: str) -> Lineage:
    """Return the lineage "meta" or "hf"."""
    if name not in LINEAGES:
        raise BadRequest("lineage", expected=" or ".join(LINEAGES), found=shown(name))
    return LINEAGES[name]
