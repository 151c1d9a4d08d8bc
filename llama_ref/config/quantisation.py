"""How a config.json says that matrices are stored in 8 bits: the FP8 release of 405B.

    "quantization_config": {
      "quant_method": "fbgemm_fp8",
      "activation_scale_ub": 1200.0,                     of activations, in the release's kernels
      "modules_to_not_convert": ["lm_head", ...]         what stays in 16 bits
    }

In that release only the feed-forward matrices are in 8 bits, and those of the first and the last
layer are not.

Source: FbgemmFp8Config in huggingface/transformers; models/llama3/quantization in
meta-llama/llama-models.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from llama_ref.config.blueprint import Config
from llama_ref.config.json_object import JsonObject
from llama_ref.errors import shown

KEY, METHOD = "quantization_config", "fbgemm_fp8"
FIELDS = ("quant_method", "activation_scale_ub", "modules_to_not_convert")
UPPER_BOUND = 1200.0
FEED_FORWARD = ("gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Fp8:
    """Which matrices are in float8, and how activations are cut off when they are quantised too.

    Attributes
    ----------
    upper_bound : float
        Of the largest magnitude of a token that counts.
    kept : frozenset of str
        Names of modules that are in 16 bits, as in `model.layers.0.mlp.gate_proj`.
    """

    upper_bound: float
    kept: frozenset[str]

    def is_quantised(self, name: str) -> bool:
        """Tell whether a stored matrix is in 8 bits: a projection that is not among those kept."""
        module = name.removesuffix(".weight")
        is_projection = module.endswith("_proj") or module == "lm_head"
        return is_projection and not any(
            module == kept or module.startswith(f"{kept}.") for kept in self.kept
        )

    def as_dict(self) -> dict[str, Any]:
        """Return what a config.json says of it."""
        values = (METHOD, self.upper_bound, sorted(self.kept))
        return dict(zip(FIELDS, values, strict=True))


def parse_fp8(data: dict[str, Any], *, file: str | os.PathLike[str]) -> Fp8 | None:
    """Return what a parsed config.json says of quantisation; None if nothing is quantised.

    Raises
    ------
    BadConfig
        If it is malformed.
    Unsupported
        If it is another method than that of the FP8 release.
    """
    if data.get(KEY) is None:
        return None
    stated = JsonObject(data, file=file).inner(KEY)
    stated.refuse_other_values({"quant_method": (METHOD,)})
    stated.need("quant_method")
    stated.refuse_other_keys(FIELDS)
    bound, kept = stated.get(FIELDS[1]), stated.get(FIELDS[2])
    if type(bound) not in (int, float) or not 0 < bound < float("inf"):
        raise stated.bad(FIELDS[1], expected="a positive number", found=shown(bound))
    kept = [] if kept is None else kept
    if not isinstance(kept, list) or not all(isinstance(name, str) and name for name in kept):
        raise stated.bad(FIELDS[2], expected="a list of module names", found=shown(kept))
    return Fp8(float(bound), frozenset(kept))


def as_released(config: Config) -> Fp8:
    """Return which matrices of a blueprint are in 8 bits if it is quantised as 405B was.

    Examples
    --------
    >>> from llama_ref.config import preset
    >>> fp8 = as_released(preset("llama-3.1-405b"))
    >>> [fp8.is_quantised(f"model.layers.{i}.mlp.up_proj.weight") for i in (0, 1, 124, 125)]
    [False, True, True, False]
    >>> fp8.is_quantised("model.layers.5.self_attn.q_proj.weight")
    False
    """
    last = config.n_layers - 1
    attention = [f"model.layers.{i}.self_attn" for i in range(config.n_layers)]
    edges = [f"model.layers.{i}.mlp.{name}" for i in {0, last} for name in FEED_FORWARD]
    return Fp8(UPPER_BOUND, frozenset(["lm_head", *attention, *edges]))
