"""How a checkpoint says that its matrices are quantised: 405B in FP8, 1B and 3B in INT4.

config.json of the FP8 release of 405B:

    "quantization_config": {
      "quant_method": "fbgemm_fp8",
      "activation_scale_ub": 1200.0,                     of activations, in the release's kernels
      "modules_to_not_convert": ["lm_head", ...]         what stays in 16 bits
    }

params.json of the INT4 releases of 1B and 3B, by QLoRA or by SpinQuant:

    "quantization_args": {"scheme": "int4_weight_int8_dynamic_activation", "group_size": 32,
                          "spinquant": true},
    "lora_args": {"rank": 16, "scale": 2.0}

Meta's own files of the FP8 release say nothing (`checkpoint.meta_fp8`).

In the FP8 release only the feed-forward matrices are in 8 bits, and those of the first and the last
layer are not.

Source: FbgemmFp8Config in huggingface/transformers; models/llama3/quantization in
meta-llama/llama-models.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from llama_ref.config.blueprint import MAX_SIZE, Config
from llama_ref.config.json_object import JsonObject
from llama_ref.errors import shown

KEY, METHOD = "quantization_config", "fbgemm_fp8"
FIELDS = ("quant_method", "activation_scale_ub", "modules_to_not_convert")
UPPER_BOUND = 1200.0
ARGS, LORA, SCHEME = "quantization_args", "lora_args", "int4_weight_int8_dynamic_activation"
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
        parts = module.split(".")
        owners = (".".join(parts[: n + 1]) for n in range(len(parts)))
        return is_projection and self.kept.isdisjoint(owners)

    def as_dict(self) -> dict[str, Any]:
        """Return what a config.json says of it."""
        values = (METHOD, self.upper_bound, sorted(self.kept))
        return dict(zip(FIELDS, values, strict=True))


@dataclass(frozen=True)
class Int4:
    """How the matrices of the releases of 1B and 3B in 4 bits are stored.

    Attributes
    ----------
    group_size : int
        Numbers of a row that share a scale.
    spinquant : bool
        Whether W_down is turned by a Hadamard matrix.
    rank : int
        Of the adaptor that is added to each matrix; 0 where there is none.
    lora_scale : float
        What the adaptor is multiplied with.
    """

    group_size: int = 32
    spinquant: bool = False
    rank: int = 0
    lora_scale: float = 1.0

    def as_dict(self) -> dict[str, Any]:
        """Return what a params.json says of it."""
        args = {"scheme": SCHEME, "group_size": self.group_size, "spinquant": self.spinquant}
        lora = {LORA: {"rank": self.rank, "scale": self.lora_scale}} if self.rank else {}
        return {ARGS: args, **lora}


def parse_int4(data: dict[str, Any], *, file: str | os.PathLike[str]) -> Int4 | None:
    """Return what a parsed params.json says of quantisation; None if nothing is quantised.

    Raises
    ------
    BadConfig
        If it is malformed.
    Unsupported
        If it is another scheme than that of 4-bit weights and 8-bit activations.
    """
    if data.get(ARGS) is None:
        if data.get(LORA) is not None:
            JsonObject(data, file=file).refuse_other_values({LORA: (None,)})
        return None
    stated = JsonObject(data, file=file).inner(ARGS)
    stated.refuse_other_values({"scheme": (SCHEME,), "spinquant": (True, False, None)})
    stated.need("scheme")
    stated.refuse_other_keys(("scheme", "group_size", "spinquant"))
    group_size = stated.whole("group_size", 1, MAX_SIZE)
    rank, scale = 0, 1.0
    if data.get(LORA) is not None:
        lora = JsonObject(data, file=file).inner(LORA)
        lora.refuse_other_keys(("rank", "scale"))
        rank, scale = lora.whole("rank", 1, MAX_SIZE), lora.need("scale")
        if type(scale) not in (int, float) or not abs(scale) < float("inf"):
            raise lora.bad("scale", expected="a number", found=shown(scale))
    spinquant = stated.get("spinquant") is True
    if spinquant and rank:
        expected = "one of a rotation (spinquant) and an adaptor (lora_args), as released"
        raise stated.unsupported("spinquant", expected=expected, found="both")
    return Int4(group_size, spinquant, rank, float(scale))


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
