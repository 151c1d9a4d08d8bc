"""What every tensor is called, in each of the three layouts, and what shape it has.

The suffix of a role is its shape: `w_gate_FD` has F rows and D columns. One table says what files
call it; the sizes come from the blueprint.

Source of the names: convert_llama_weights_to_hf.py in huggingface/transformers; the tensor map of
the package gguf.
"""

from __future__ import annotations

from llama_ref.config import Config

LAYER_NAMES = {
    "hf": {
        "attn_gain_D": "model.layers.{}.input_layernorm.weight",
        "w_query_AD": "model.layers.{}.self_attn.q_proj.weight",
        "w_key_BD": "model.layers.{}.self_attn.k_proj.weight",
        "w_value_BD": "model.layers.{}.self_attn.v_proj.weight",
        "w_out_DA": "model.layers.{}.self_attn.o_proj.weight",
        "ffn_gain_D": "model.layers.{}.post_attention_layernorm.weight",
        "w_gate_FD": "model.layers.{}.mlp.gate_proj.weight",
        "w_up_FD": "model.layers.{}.mlp.up_proj.weight",
        "w_down_DF": "model.layers.{}.mlp.down_proj.weight",
    },
    "meta": {
        "attn_gain_D": "layers.{}.attention_norm.weight",
        "w_query_AD": "layers.{}.attention.wq.weight",
        "w_key_BD": "layers.{}.attention.wk.weight",
        "w_value_BD": "layers.{}.attention.wv.weight",
        "w_out_DA": "layers.{}.attention.wo.weight",
        "ffn_gain_D": "layers.{}.ffn_norm.weight",
        "w_gate_FD": "layers.{}.feed_forward.w1.weight",
        "w_up_FD": "layers.{}.feed_forward.w3.weight",
        "w_down_DF": "layers.{}.feed_forward.w2.weight",
    },
    "gguf": {
        "attn_gain_D": "blk.{}.attn_norm.weight",
        "w_query_AD": "blk.{}.attn_q.weight",
        "w_key_BD": "blk.{}.attn_k.weight",
        "w_value_BD": "blk.{}.attn_v.weight",
        "w_out_DA": "blk.{}.attn_output.weight",
        "ffn_gain_D": "blk.{}.ffn_norm.weight",
        "w_gate_FD": "blk.{}.ffn_gate.weight",
        "w_up_FD": "blk.{}.ffn_up.weight",
        "w_down_DF": "blk.{}.ffn_down.weight",
    },
}
OUTER_NAMES = {
    "hf": {
        "embedding_VD": "model.embed_tokens.weight",
        "final_gain_D": "model.norm.weight",
        "w_head_VD": "lm_head.weight",
    },
    "meta": {
        "embedding_VD": "tok_embeddings.weight",
        "final_gain_D": "norm.weight",
        "w_head_VD": "output.weight",
    },
    "gguf": {
        "embedding_VD": "token_embd.weight",
        "final_gain_D": "output_norm.weight",
        "w_head_VD": "output.weight",
    },
}


def expected_shapes(config: Config, layout: str) -> dict[str, tuple[int, ...]]:
    """Return every stored name of a blueprint with its shape, in the order of the forward pass."""
    sizes = {
        "V": config.vocab_size,
        "D": config.d_model,
        "F": config.d_ff,
        "A": config.n_heads * config.head_dim,
        "B": config.n_kv_heads * config.head_dim,
    }

    def shape(field: str) -> tuple[int, ...]:
        return tuple(sizes[letter] for letter in field.rpartition("_")[2])

    outer = {name: shape(field) for field, name in OUTER_NAMES[layout].items()}
    inner = {
        name.format(i): shape(field)
        for i in range(config.n_layers)
        for field, name in LAYER_NAMES[layout].items()
    }
    embedding, final_gain, head = outer
    ordered = {embedding: outer[embedding], **inner, final_gain: outer[final_gain]}
    return ordered if config.tied_embeddings else {**ordered, head: outer[head]}
