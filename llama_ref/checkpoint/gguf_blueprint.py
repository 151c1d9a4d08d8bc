"""What a GGUF file says of its model, strictly: a key is used, or changes nothing, or is refused.

RoPE's scaling is not among them. Converters write what it does, a factor for each pair of channels,
as a tensor: `rope_freqs.weight`. It is explained here, by the scaling of Llama 3.1 whose factors
they are, or the file is refused.

Source: docs/gguf.md in ggml-org/ggml; conversion of Llama in ggml-org/llama.cpp.
"""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np

from llama_ref.checkpoint.gguf_header import Header
from llama_ref.checkpoint.stored import Checkpoint
from llama_ref.config.blueprint import MAX_SIZE, Config, RopeScaling
from llama_ref.config.json_object import JsonObject
from llama_ref.errors import Unsupported, shown
from llama_ref.ops.rope_frequencies import rope_frequencies, stretched_frequencies

FACTORS = "rope_freqs.weight"
EMBEDDING, HEAD = "token_embd.weight", "output.weight"
PREFIX = "llama."
FIELDS = {
    "d_model": "llama.embedding_length",
    "n_layers": "llama.block_count",
    "n_heads": "llama.attention.head_count",
    "n_kv_heads": "llama.attention.head_count_kv",
    "head_dim": "llama.attention.key_length",
    "d_ff": "llama.feed_forward_length",
    "vocab_size": "llama.vocab_size",
    "context_length": "llama.context_length",
    "norm_eps": "llama.attention.layer_norm_rms_epsilon",
    "rope_theta": "llama.rope.freq_base",
    "bos_id": "tokenizer.ggml.bos_token_id",
    "eos_ids": "tokenizer.ggml.eos_token_id",
}
"""Attribute of `Config` -> key of the file."""

EXPLAINED_VALUES: dict[str, tuple[object, ...]] = {
    "general.architecture": ("llama",),
    "llama.rope.scaling.type": ("none",),
    "llama.rope.scaling.factor": (1.0,),
    "llama.rope.scale_linear": (1.0,),
    "llama.rope.scaling.attn_factor": (1.0,),
    "llama.expert_count": (0,),
    "llama.expert_used_count": (0,),
    "llama.attention.sliding_window": (0,),
}
"""Keys that would change the numbers, with the values under which they change none."""

OTHER_KEYS = {"llama.attention.value_length", "llama.rope.dimension_count"}
END_KEYS = tuple(f"tokenizer.ggml.{end}_token_id" for end in ("eos", "eot", "eom"))
ORIGINAL_CONTEXT, LOW, HIGH = 8192, 1.0, 4.0
"""Of the scaling that Llama 3.1, 3.2 and 3.3 share; only the factor differs."""
TOLERANCE = 1e-4
"""Of a factor: converters compute it in an order of their own."""


def blueprint_of(header: Header, checkpoint: Checkpoint, path: str | os.PathLike[str]) -> Config:
    """Return the blueprint that a GGUF file states.

    Parameters
    ----------
    header : Header
    checkpoint : Checkpoint
        Its tensors: the embedding has as many rows as there are tokens, and a file without a head
        ties it to the embedding.
    path : path-like
        For messages.

    Raises
    ------
    BadConfig
        If a key is missing, of another type, or contradicts another.
    Unsupported
        If the model is no Llama, or a key may change its numbers in a way that is not known here.
    """
    stated = JsonObject(header.entries, file=path)
    stated.need("general.architecture")
    stated.refuse_other_values(EXPLAINED_VALUES)
    known = {*FIELDS.values(), *EXPLAINED_VALUES, *OTHER_KEYS}
    for key in header.entries:
        if key.startswith(PREFIX) and key not in known:
            expected = "only keys whose effect on the numbers is known"
            raise stated.unsupported(f"key {shown(key)}", expected=expected, found="one more")
    d_model = stated.whole(FIELDS["d_model"], 1, MAX_SIZE)
    n_heads = stated.whole(FIELDS["n_heads"], 1, MAX_SIZE)
    n_kv_heads = stated.get(FIELDS["n_kv_heads"])
    head_dim = _head_dim(stated, d_model // n_heads)
    rope_theta = _theta(stated)
    n_rows = checkpoint[EMBEDDING].shape[0] if EMBEDDING in checkpoint else None
    vocab_size = stated.get(FIELDS["vocab_size"])
    ends = [stated.whole(key, 0, MAX_SIZE) for key in END_KEYS if key in stated]
    return stated.build(
        Config,
        FIELDS,
        d_model=d_model,
        n_layers=stated.need(FIELDS["n_layers"]),
        n_heads=n_heads,
        n_kv_heads=n_heads if n_kv_heads is None else n_kv_heads,
        head_dim=head_dim,
        d_ff=stated.need(FIELDS["d_ff"]),
        vocab_size=n_rows if vocab_size is None else vocab_size,
        context_length=stated.need(FIELDS["context_length"]),
        norm_eps=_decimal(stated.need(FIELDS["norm_eps"])),
        rope_theta=rope_theta,
        rope_scaling=_scaling(checkpoint, head_dim, rope_theta, path),
        tied_embeddings=HEAD not in checkpoint,
        bos_id=stated.get(FIELDS["bos_id"]),
        eos_ids=tuple(dict.fromkeys(ends)),
    )


def _head_dim(stated: JsonObject, by_default: int) -> Any:
    """Return the width of a head, which up to three keys state."""
    keys = [FIELDS["head_dim"], *sorted(OTHER_KEYS)]
    found = {key: stated.get(key) for key in keys if key in stated}
    for key, value in found.items():
        if value != next(iter(found.values())):
            raise stated.bad(key, expected=next(iter(found.values())), found=shown(value))
    return next(iter(found.values()), by_default)


def _theta(stated: JsonObject) -> float:
    """Return the base of RoPE; a file without one means 10,000."""
    key = FIELDS["rope_theta"]
    value = stated.get(key) if key in stated else 10_000.0
    if type(value) is not float or not 0 < value < float("inf"):
        raise stated.bad(key, expected="a positive number", found=shown(value))
    return _decimal(value)


def _decimal(value: Any) -> Any:
    """Return the shortest decimal of a float32: the file has 1e-5 as 9.99999974737875e-06."""
    return float(str(np.float32(value))) if type(value) is float else value


def _scaling(
    checkpoint: Checkpoint, head_dim: Any, theta: Any, path: str | os.PathLike[str]
) -> RopeScaling | None:
    """Return the scaling whose factors the file has."""
    if FACTORS not in checkpoint:
        return None
    stored = checkpoint[FACTORS]
    n_pairs = head_dim // 2 if type(head_dim) is int else 0
    is_short = math.prod(stored.shape) == n_pairs  # before anything of it is read
    factor_P = np.asarray(stored, np.float64).reshape(-1) if is_short else np.empty(0)
    if factor_P.size and np.isfinite(factor_P).all() and factor_P.size * 2 == head_dim:
        factor = float(f"{factor_P.max():.6g}")
        if factor == 1 and np.all(factor_P == 1):
            return None
        scaling = RopeScaling(factor, LOW, HIGH, ORIGINAL_CONTEXT) if factor >= 1 else None
        if scaling and np.allclose(factors_of(scaling, head_dim, theta), factor_P, rtol=TOLERANCE):
            return scaling
    raise Unsupported(
        f"tensor {FACTORS}",
        expected=f"the factors of Llama 3.1's scaling, for {head_dim} channels of a head",
        found=shown(factor_P[:8].tolist()),
        next_step="a scaling of another kind is not known here",
        file=path,
    )


def factors_of(scaling: RopeScaling, head_dim: int, theta: float) -> np.ndarray:
    """Return by how much a scaling slows each pair down: an array of shape (P,), float64."""
    frequency_P = rope_frequencies(head_dim, theta=theta, dtype=np.dtype(np.float64))
    return frequency_P / stretched_frequencies(frequency_P, **vars(scaling))
