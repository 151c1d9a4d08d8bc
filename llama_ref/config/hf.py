"""Hugging Face's `config.json`, strictly: what each key means, which are harmless, what is refused.

Two spellings of RoPE are in use. Published files have `rope_theta` beside `rope_scaling`;
transformers 5 writes both into `rope_parameters`. Either will do, and both if they agree.

    "rope_theta": 500000.0,                        "rope_parameters": {
    "rope_scaling": {                                "rope_theta": 500000.0,
      "rope_type": "llama3",                         "rope_type": "llama3",
      "factor": 8.0, ... }                           "factor": 8.0, ... }

No default is filled in where peers disagree or where the number matters: a file without
`rope_theta` is refused, though transformers would read 10,000.

Source: LlamaConfig and modeling_rope_utils in huggingface/transformers 5.23.
"""

from __future__ import annotations

import os
from typing import Any

from llama_ref.config import quantisation
from llama_ref.config.blueprint import MAX_SIZE, Config, RopeScaling
from llama_ref.config.json_object import JsonObject
from llama_ref.errors import shown

FIELDS = {
    "d_model": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "d_ff": "intermediate_size",
    "vocab_size": "vocab_size",
    "context_length": "max_position_embeddings",
    "norm_eps": "rms_norm_eps",
    "tied_embeddings": "tie_word_embeddings",
    "bos_id": "bos_token_id",
    "eos_ids": "eos_token_id",
}
"""Attribute of `Config` -> key of config.json."""

ROPE_FIELDS = {
    "factor": "factor",
    "low_freq_factor": "low_freq_factor",
    "high_freq_factor": "high_freq_factor",
    "original_context": "original_max_position_embeddings",
}
"""Attribute of `RopeScaling` -> key inside rope_scaling or rope_parameters."""

ROPE_KEYS = {"rope_theta", "rope_scaling", "rope_parameters"}

# Keys that would change the numbers, with the values under which they change none.
EXPLAINED_VALUES: dict[str, tuple[object, ...]] = {
    "model_type": ("llama",),
    "architectures": (["LlamaForCausalLM"], None),
    "hidden_act": ("silu",),
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "pretraining_tp": (1, None),  # other values sum the slices of a product one by one
    "sliding_window": (None,),
    "auto_map": (None,),  # names Python code that comes with the checkpoint
    "partial_rotary_factor": (1.0,),
    "rope_interleaved": (False,),
    "is_encoder_decoder": (False,),
    "add_cross_attention": (False,),
    "chunk_size_feed_forward": (0,),
}

# Keys that change no number of the model, whatever they hold.
HARMLESS = {
    # who wrote the file, with what
    *("_name_or_path", "name_or_path", "_commit_hash", "transformers_version", "tokenizer_class"),
    *("unsloth_version", "unsloth_fixed", "transformers.js_config"),
    # the dtype to convert to on load; tensors say themselves what they are stored in
    *("torch_dtype", "dtype"),
    # training only
    *("initializer_range", "attention_dropout"),
    # padding, which packed sequences do without
    "pad_token_id",
    # how transformers runs the model and what it returns
    *("use_cache", "output_attentions", "output_hidden_states", "return_dict"),
    *("_attn_implementation", "_attn_implementation_autoset", "attn_implementation"),
    # heads for classification, which a causal model has none of
    *("id2label", "label2id", "problem_type"),
    # defaults for sampling, in old files
    *("max_length", "do_sample", "temperature", "top_p", "top_k", "repetition_penalty"),
}


def parse_hf_config(data: Any, *, file: str | os.PathLike[str]) -> Config:
    """Return the blueprint that the content of a config.json states.

    `num_key_value_heads` and `head_dim` may be absent or null, which means one key/value head per
    query head, and hidden_size / num_attention_heads. Token ids may be absent. Everything else that
    makes a number is required.

    Parameters
    ----------
    data : dict
        The parsed file.
    file : path-like
        Its name, for messages.

    Raises
    ------
    BadConfig
        A key is missing, of the wrong type, out of range, or contradicts another.
    Unsupported
        Not a Llama, or a key or value whose effect on the numbers is not stated here.
    """
    stated = JsonObject(data, file=file)
    stated.need("model_type")
    stated.refuse_other_values(EXPLAINED_VALUES)
    known = {*FIELDS.values(), *ROPE_KEYS, *EXPLAINED_VALUES, *HARMLESS, quantisation.KEY}
    stated.refuse_other_keys(known)
    quantisation.parse_fp8(stated.data, file=file)
    stated.need("hidden_act")

    d_model = stated.whole("hidden_size", 1, MAX_SIZE)
    n_heads = stated.whole("num_attention_heads", 1, MAX_SIZE)
    n_kv_heads, head_dim = stated.get("num_key_value_heads"), stated.get("head_dim")
    theta_key, rope_theta = _agreed(stated, _thetas(stated))
    _, rope_scaling = _agreed(stated, _scalings(stated))

    return stated.build(
        Config,
        FIELDS | {"rope_theta": theta_key},
        d_model=d_model,
        n_layers=stated.need("num_hidden_layers"),
        n_heads=n_heads,
        n_kv_heads=n_heads if n_kv_heads is None else n_kv_heads,
        head_dim=d_model // n_heads if head_dim is None else head_dim,
        d_ff=stated.need("intermediate_size"),
        vocab_size=stated.need("vocab_size"),
        context_length=stated.need("max_position_embeddings"),
        norm_eps=stated.need("rms_norm_eps"),
        rope_theta=rope_theta,
        rope_scaling=rope_scaling,
        tied_embeddings=stated.need("tie_word_embeddings"),
        bos_id=stated.get("bos_token_id"),
        eos_ids=token_ids(stated.get("eos_token_id")),
    )


def token_ids(value: object) -> tuple[Any, ...]:
    """Return `eos_token_id` as a tuple: it is one id, a list of them, or null.

    What stands in the tuple is checked by `Config`.
    """
    if value is None:
        return ()
    return tuple(value) if isinstance(value, list) else (value,)


def to_hf_dict(config: Config) -> dict[str, Any]:
    """Return what a config.json of this blueprint says, in the published spelling.

    Law: parse_hf_config(to_hf_dict(c)) == c.
    """
    stated = {key: getattr(config, name) for name, key in FIELDS.items()}
    scaling = config.rope_scaling
    ids = list(config.eos_ids)
    stated |= {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "eos_token_id": ids[0] if len(ids) == 1 else ids or None,
        "rope_theta": config.rope_theta,
        "rope_scaling": None
        if scaling is None
        else {"rope_type": "llama3"}
        | {key: getattr(scaling, name) for name, key in ROPE_FIELDS.items()},
    }
    return dict(sorted(stated.items()))


def _agreed(stated: JsonObject, statements: list[tuple[str, Any]]) -> tuple[str, Any]:
    """Return the first of several statements of one thing, after checking that all agree."""
    first_key, first = statements[0]
    for key, value in statements[1:]:
        if value != first:
            raise stated.bad(
                key, expected=f"{shown(first)}, as {first_key} says", found=shown(value)
            )
    return first_key, first


def _thetas(stated: JsonObject) -> list[tuple[str, Any]]:
    """Return every place that states RoPE's base: on its own, or inside either object."""
    found = [("rope_theta", stated.get("rope_theta"))] if "rope_theta" in stated else []
    for key in ("rope_scaling", "rope_parameters"):
        if stated.get(key) is not None and "rope_theta" in stated.inner(key):
            found.append((f"{key}.rope_theta", stated.inner(key).get("rope_theta")))
    hint = "Llama 1 and 2 files from before the key existed mean 10000.0: add it"
    return found or [("rope_theta", stated.need("rope_theta", hint=hint))]


def _scalings(stated: JsonObject) -> list[tuple[str, RopeScaling | None]]:
    """Return every statement about scaling; null in the old spelling states that there is none."""
    found = [
        (key, _scaling(stated.inner(key)))
        for key in ("rope_scaling", "rope_parameters")
        if stated.get(key) is not None
    ]
    if stated.get("rope_scaling") is None:
        found.insert(0, ("rope_scaling", None))
    return found if "rope_scaling" in stated else found[1:] or found


def _scaling(rope: JsonObject) -> RopeScaling | None:
    """Return what one object states about scaling."""
    kind = _rope_type(rope)
    rope.refuse_other_keys({"rope_type", "type", "rope_theta", *ROPE_FIELDS.values()})
    if kind == "llama3":
        values = {name: rope.need(key) for name, key in ROPE_FIELDS.items()}
        return rope.build(RopeScaling, ROPE_FIELDS, **values)
    for key in ROPE_FIELDS.values():
        if key in rope:
            raise rope.bad(
                key, expected="no such key under rope_type 'default'", found=shown(rope.get(key))
            )
    return None


def _rope_type(rope: JsonObject) -> str:
    """Return "llama3" or "default"; before transformers 4.43 the key was `type`."""
    key = "type" if "type" in rope and "rope_type" not in rope else "rope_type"
    kind = rope.need(key)
    if "type" in rope and rope.get("type") != kind:
        expected = f"{shown(kind)}, as rope_type says"
        raise rope.bad("type", expected=expected, found=shown(rope.get("type")))
    if kind not in ("llama3", "default"):
        raise rope.unsupported(key, expected="'llama3' or 'default'", found=shown(kind))
    return kind
