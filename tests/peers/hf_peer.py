"""transformers as a peer: its Llama, and every intermediate of a pass as our taps.

Nothing of it is restated here; `llama_ref.golden.capture.hf` listens to it.
"""

from transformers import LlamaConfig, LlamaForCausalLM

from llama_ref.golden.capture.hf import capture_transformers, feed
from tests.peers.arrays import to_numpy, to_torch


def hf_config(config, attention="eager"):
    """Return the blueprint in the words of transformers."""
    rope = {"rope_theta": config.rope_theta, "rope_type": "default"}
    if config.rope_scaling:
        rope |= {
            "rope_type": "llama3",
            "factor": config.rope_scaling.factor,
            "low_freq_factor": config.rope_scaling.low_freq_factor,
            "high_freq_factor": config.rope_scaling.high_freq_factor,
            "original_max_position_embeddings": config.rope_scaling.original_context,
        }
    return LlamaConfig(
        hidden_size=config.d_model,
        num_hidden_layers=config.n_layers,
        num_attention_heads=config.n_heads,
        num_key_value_heads=config.n_kv_heads,
        head_dim=config.head_dim,
        intermediate_size=config.d_ff,
        vocab_size=config.vocab_size,
        max_position_embeddings=config.context_length,
        rms_norm_eps=config.norm_eps,
        rope_parameters=rope,
        tie_word_embeddings=config.tied_embeddings,
        bos_token_id=config.bos_id,
        eos_token_id=list(config.eos_ids) or None,
        attn_implementation=attention,
    )


def hf_model(config, tensors, dtype="float32", attention="eager"):
    """Return transformers' model with these weights (name to float array), rounded to `dtype`."""
    model = LlamaForCausalLM(hf_config(config, attention)).eval()
    state = {name: to_torch(array, dtype) for name, array in tensors.items()}
    if config.tied_embeddings:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    # Not model.to(dtype): that rounds the table of RoPE frequencies too, which from_pretrained
    # keeps in float32, and in bfloat16 every rotation beyond the first positions goes wrong.
    model.load_state_dict(state, strict=True, assign=True)
    return model


def hf_trace(model, ids, positions=None, past=None):
    """Run one sequence; return every tap by our names, in our layouts, in the model's dtype."""
    with capture_transformers(model) as taps:
        feed(model, ids, positions, past)
    return dict(taps)


def hf_logits(model, ids, positions=None, past=None):
    """Run one sequence, after what the cache `past` holds, and return its logits."""
    return to_numpy(feed(model, ids, positions, past).logits[0])
