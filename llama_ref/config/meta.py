"""Meta's `params.json`, strictly, and what it does not say.

    {"dim": 4096, "n_layers": 32, "n_heads": 32, "n_kv_heads": 8, "vocab_size": 128256,
     "ffn_dim_multiplier": 1.3, "multiple_of": 1024,
     "norm_eps": 1e-05, "rope_theta": 500000.0, "use_scaled_rope": true}

Four things the file leaves out, and where they come from here:

- the feed-forward width: `feed_forward_width`, from two of its keys;
- how much RoPE is scaled. The released code has factor 8 written into it, which is right for
  Llama 3.1 and 3.3 and wrong for the 1B and 3B of 3.2, which were trained with 32 (llama-models
  issue 241). Here the factor is a key `rope_scaling_factor` that you may add, else that of the
  published model of the same shape, else an error;
- how many positions it was made for: `max_seq_len` where the file has it, else what every published
  Llama 3 has, 131,072 with scaled RoPE and 8,192 without;
- token ids: those of Llama 3 where the vocabulary has Llama 3's size, else none.

Llama Guard 3 1B INT4 (pruned) says `hidden_dim` and `rope_freq_base`; both are read.

Source: models/llama3/args.py and model.py in meta-llama/llama-models.
"""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from typing import Any

from llama_ref.config import quantisation
from llama_ref.config.blueprint import MAX_SIZE, Config, RopeScaling
from llama_ref.config.json_object import JsonObject
from llama_ref.config.presets import (
    FACTOR_8,
    LLAMA3_BOS,
    LLAMA3_EOS,
    LLAMA3_VOCAB_SIZE,
    presets_shaped_like,
)
from llama_ref.errors import shown

FIELDS = {
    "d_model": "dim",
    "n_layers": "n_layers",
    "n_heads": "n_heads",
    "n_kv_heads": "n_kv_heads",
    "vocab_size": "vocab_size",
    "context_length": "max_seq_len",
    "norm_eps": "norm_eps",
}
"""Attribute of `Config` -> key of params.json."""

OTHER_KEYS = {
    *("multiple_of", "ffn_dim_multiplier", "hidden_dim"),
    *("rope_theta", "rope_freq_base", "use_scaled_rope", "rope_scaling_factor"),
    "max_batch_size",  # the size of Meta's cache, no property of the weights
}

MAX_MULTIPLIER = 1024


def parse_meta_params(data: Any, *, file: str | os.PathLike[str], tied_embeddings: bool) -> Config:
    """Return the blueprint that the content of a params.json states.

    Parameters
    ----------
    data : dict
        The parsed file. `n_kv_heads` may be absent or null: one key/value head per query head.
    file : path-like
        Its name, for messages.
    tied_embeddings : bool
        Whether the output matrix is the embedding; the file does not say, the tensors do.

    Raises
    ------
    BadConfig
        A key is missing, of the wrong type, out of range, or contradicts another; or RoPE is scaled
        and by how much cannot be known.
    Unsupported
        A key whose effect on the numbers is not stated here, such as those of vision models,
        quantisation and LoRA.
    """
    params = JsonObject(data, file=file)
    quantised = {quantisation.ARGS, quantisation.LORA}
    params.refuse_other_keys({*FIELDS.values(), *OTHER_KEYS, *quantised})
    quantisation.parse_int4(params.data, file=file)
    d_model = params.whole("dim", 1, MAX_SIZE)
    n_heads = params.whole("n_heads", 1, MAX_SIZE)
    n_kv_heads, max_seq_len = params.get("n_kv_heads"), params.get("max_seq_len")
    hint = "the file leaves it to the tokenizer: write its number of tokens, 32000 for Llama 2"
    vocab_size = params.whole("vocab_size", 1, MAX_SIZE, hint=hint)
    theta_key, rope_theta = _theta(params)
    scaled = _flag(params, "use_scaled_rope")
    is_llama3 = vocab_size == LLAMA3_VOCAB_SIZE

    unscaled = params.build(
        Config,
        FIELDS | {"rope_theta": theta_key},
        d_model=d_model,
        n_layers=params.need("n_layers"),
        n_heads=n_heads,
        n_kv_heads=n_heads if n_kv_heads is None else n_kv_heads,
        head_dim=d_model // n_heads,
        d_ff=_d_ff(params, d_model),
        vocab_size=vocab_size,
        context_length=(131_072 if scaled else 8192) if max_seq_len is None else max_seq_len,
        norm_eps=params.need("norm_eps"),
        rope_theta=rope_theta,
        rope_scaling=None,
        tied_embeddings=tied_embeddings,
        bos_id=LLAMA3_BOS if is_llama3 else None,
        eos_ids=LLAMA3_EOS if is_llama3 else (),
    )
    return replace(unscaled, rope_scaling=_scaling(params, unscaled, scaled=scaled))


def feed_forward_width(d_model: int, multiple_of: int, multiplier: float = 1.0) -> int:
    """Return F as Meta's code derives it: 8/3 D, times `multiplier`, up to a multiple.

    Three matrices of 8/3 D hold as many weights as the two of 4 D that they replaced.

    Parameters
    ----------
    d_model, multiple_of : int
        The keys dim and multiple_of; both positive.
    multiplier : float
        The key ffn_dim_multiplier; 1 where there is none.

    Examples
    --------
    >>> feed_forward_width(4096, 1024, 1.3), feed_forward_width(16384, 4096, 1.2)
    (14336, 53248)
    """
    width = int(multiplier * int(2 * (4 * d_model) / 3))
    return multiple_of * -(-width // multiple_of)


def _d_ff(params: JsonObject, d_model: int) -> int:
    """Return F from the formula's keys, or from `hidden_dim`; from both if they agree."""
    if "hidden_dim" in params:
        stated = params.whole("hidden_dim", 1, MAX_SIZE)
        if "multiple_of" not in params:
            return stated
    multiple_of = params.whole("multiple_of", 1, MAX_SIZE)
    multiplier = params.get("ffn_dim_multiplier")
    if multiplier is None:
        multiplier = 1.0
    if type(multiplier) not in (int, float) or not 0 < multiplier <= MAX_MULTIPLIER:
        expected = f"a number above 0, at most {MAX_MULTIPLIER}"
        raise params.bad("ffn_dim_multiplier", expected=expected, found=shown(multiplier))
    derived = feed_forward_width(d_model, multiple_of, multiplier)
    if not 1 <= derived <= MAX_SIZE:
        expected = f"with dim and multiple_of, a width from 1 to {MAX_SIZE}"
        raise params.bad("ffn_dim_multiplier", expected=expected, found=derived)
    if "hidden_dim" in params and derived != stated:
        expected = f"{derived}, as dim, multiple_of and ffn_dim_multiplier say"
        raise params.bad("hidden_dim", expected=expected, found=stated)
    return derived


def _theta(params: JsonObject) -> tuple[str, Any]:
    """Return the key that states RoPE's base, and the base; two keys must agree."""
    hint = "add it: 500000.0 for Llama 3, 10000.0 for Llama 1 and 2"
    old, new = "rope_freq_base", "rope_theta"
    key = old if old in params and new not in params else new
    theta = params.need(key, hint=hint)
    if old in params and params.get(old) != theta:
        expected = f"{shown(theta)}, as {new} says"
        raise params.bad(old, expected=expected, found=shown(params.get(old)))
    return key, theta


def _flag(params: JsonObject, key: str) -> bool:
    """Return true or false; absent is false, and nothing else is either."""
    value = params.get(key) if key in params else False
    if not isinstance(value, bool):
        raise params.bad(key, expected="true or false", found=shown(value))
    return value


def _scaling(params: JsonObject, unscaled: Config, *, scaled: bool) -> RopeScaling | None:
    """Return how RoPE is scaled; only the factor differs between releases."""
    key = "rope_scaling_factor"
    if not scaled and key in params:
        expected = "no such key, because use_scaled_rope is not true"
        raise params.bad(key, expected=expected, found=shown(params.get(key)))
    if not scaled:
        return None
    factor = params.get(key) if key in params else _published_factor(params, unscaled)
    return params.build(partial(replace, FACTOR_8), {"factor": key}, factor=factor)


def _published_factor(params: JsonObject, unscaled: Config) -> float:
    """Return the factor on which all published models of this shape agree."""
    known = {
        like.name: like.rope_scaling.factor
        for like in presets_shaped_like(unscaled)
        if like.rope_scaling is not None
    }
    if len(set(known.values())) == 1:
        return next(iter(known.values()))
    models = " and ".join(f"{name} has {factor:g}" for name, factor in known.items())
    raise params.bad(
        "rope_scaling_factor",
        expected="by how much RoPE is scaled, which use_scaled_rope does not say",
        found=f"no such key, and of this shape {models or 'no model is published'}",
        next_step="add it: 8 for Llama 3.1 and 3.3, 32 for Llama 3.2 1B and 3B",
    )
