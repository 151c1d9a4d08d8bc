"""transformers as a peer: its Llama in eager mode, and every intermediate of a pass as our taps.

Nothing of it is restated here. Modules are listened to with hooks; what happens between modules
(rotation, scores, probabilities) is recorded by a wrapper around the function that does it, which
calls that function and returns its result untouched.
"""

from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import torch
from torch.overrides import TorchFunctionMode
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama import modeling_llama

from tests.peers.arrays import to_numpy, to_torch


def hf_config(config):
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
        attn_implementation="eager",
    )


def hf_model(config, tensors, dtype="float32"):
    """Return transformers' model with these weights (name to float array), rounded to `dtype`."""
    model = LlamaForCausalLM(hf_config(config)).eval()
    state = {name: to_torch(array, dtype) for name, array in tensors.items()}
    if config.tied_embeddings:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    # Not model.to(dtype): that rounds the table of RoPE frequencies too, which from_pretrained
    # keeps in float32, and in bfloat16 every rotation beyond the first positions goes wrong.
    model.load_state_dict(state, strict=True, assign=True)
    return model


def hf_trace(model, ids, positions=None, past=None):
    """Run one sequence; return every tap by our names, in our layouts, in the model's dtype."""
    taps = {}
    with _listening(model, taps):
        logits = hf_logits(model, ids, positions, past)
    return {**{name: to_numpy(tensor) for name, tensor in taps.items()}, "logits": logits}


def hf_logits(model, ids, positions=None, past=None):
    """Run one sequence, after what the cache `past` holds, and return its logits."""
    seen = 0 if past is None else past.get_seq_length()
    with torch.inference_mode():
        out = model(
            torch.tensor([list(ids)]),
            position_ids=None if positions is None else torch.tensor([list(positions)]),
            # Without a mask, transformers takes every gap in the positions for the start of
            # another packed sequence, and hides from it what came before.
            attention_mask=torch.ones((1, seen + len(ids)), dtype=torch.long),
            past_key_values=past,
            use_cache=past is not None,
        )
    return to_numpy(out.logits[0])


@contextmanager
def _listening(model, taps):
    """Fill `taps` while the model runs."""
    head_dim, layer_now = model.config.head_dim, [0]

    def output(name, heads=False):
        def hook(module, args, out):
            out = (out[0] if isinstance(out, tuple) else out)[0]
            taps[name] = out.unflatten(-1, (-1, head_dim)) if heads else out

        return hook

    def first_input(name, heads=False):
        def hook(module, args):
            taps[name] = args[0][0].unflatten(-1, (-1, head_dim)) if heads else args[0][0]

        return hook

    def entering(index):
        def hook(module, args):
            layer_now[0] = index

        return hook

    def rotated(query, key, cos, sin, **kwargs):
        out = ROTATE(query, key, cos, sin, **kwargs)
        name = f"L{layer_now[0]:02d}."
        taps[name + "q_rope"], taps[name + "k_rope"] = (x[0].transpose(0, 1) for x in out)
        return out

    def attended(*args, **kwargs):
        name = f"L{layer_now[0]:02d}."
        with ScaledScores() as listener:
            ctx, probs = ATTEND(*args, **kwargs)
        taps[name + "scores"], taps[name + "probs"] = listener.scores[0], probs[0]
        return ctx, probs

    with ExitStack() as stack:
        keep = stack.enter_context
        keep(_hooked(model.model.embed_tokens.register_forward_hook(output("embed"))))
        for index, layer in enumerate(model.model.layers):
            name, attn, mlp = f"L{index:02d}.", layer.self_attn, layer.mlp
            for handle in (
                layer.register_forward_pre_hook(entering(index)),
                layer.input_layernorm.register_forward_hook(output(name + "attn_norm")),
                attn.q_proj.register_forward_hook(output(name + "q", heads=True)),
                attn.k_proj.register_forward_hook(output(name + "k", heads=True)),
                attn.v_proj.register_forward_hook(output(name + "v", heads=True)),
                attn.o_proj.register_forward_pre_hook(first_input(name + "ctx", heads=True)),
                attn.o_proj.register_forward_hook(output(name + "attn_out")),
                layer.post_attention_layernorm.register_forward_pre_hook(
                    first_input(name + "ffn_inp")
                ),
                layer.post_attention_layernorm.register_forward_hook(output(name + "ffn_norm")),
                mlp.gate_proj.register_forward_hook(output(name + "gate")),
                mlp.up_proj.register_forward_hook(output(name + "up")),
                mlp.down_proj.register_forward_pre_hook(first_input(name + "act")),
                mlp.down_proj.register_forward_hook(output(name + "ffn_out")),
                layer.register_forward_hook(output(name + "out")),
            ):
                keep(_hooked(handle))
        keep(_hooked(model.model.norm.register_forward_hook(output("final_norm"))))
        keep(patch.object(modeling_llama, "apply_rotary_pos_emb", rotated))
        keep(patch.object(modeling_llama, "eager_attention_forward", attended))
        yield


ROTATE = modeling_llama.apply_rotary_pos_emb
ATTEND = modeling_llama.eager_attention_forward


@contextmanager
def _hooked(handle):
    try:
        yield
    finally:
        handle.remove()


class ScaledScores(TorchFunctionMode):
    """Overhears the one multiplication by a number in attention: scores times H^-0.5."""

    scores = None

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func in (torch.Tensor.mul, torch.Tensor.__mul__) and isinstance(args[1], float):
            self.scores = out
        return out
