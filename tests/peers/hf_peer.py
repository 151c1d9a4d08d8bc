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

ROTATE = modeling_llama.apply_rotary_pos_emb
ATTEND = modeling_llama.eager_attention_forward


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


def _places(model):
    """Yield (module, "in" or "out", tap): which input or output of a module is which tap."""
    yield model.model.embed_tokens, "out", "embed"
    for index, layer in enumerate(model.model.layers):
        attn, mlp, name = layer.self_attn, layer.mlp, f"L{index:02d}."
        yield layer.input_layernorm, "out", name + "attn_norm"
        yield attn.q_proj, "out", name + "q"
        yield attn.k_proj, "out", name + "k"
        yield attn.v_proj, "out", name + "v"
        yield attn.o_proj, "in", name + "ctx"
        yield attn.o_proj, "out", name + "attn_out"
        yield layer.post_attention_layernorm, "in", name + "ffn_inp"
        yield layer.post_attention_layernorm, "out", name + "ffn_norm"
        yield mlp.gate_proj, "out", name + "gate"
        yield mlp.up_proj, "out", name + "up"
        yield mlp.down_proj, "in", name + "act"
        yield mlp.down_proj, "out", name + "ffn_out"
        yield layer, "out", name + "out"
    yield model.model.norm, "out", "final_norm"


@contextmanager
def _listening(model, taps):
    """Fill `taps` while the model runs."""
    layers = iter(range(len(model.model.layers)))  # attention runs once in each, in order
    name_now = [""]

    def rotated(query, key, cos, sin, **kwargs):
        name_now[0] = f"L{next(layers):02d}."
        out = ROTATE(query, key, cos, sin, **kwargs)
        for tap, tensor in zip(("q_rope", "k_rope"), out, strict=True):
            taps[name_now[0] + tap] = tensor[0].transpose(0, 1)
        return out

    def attended(*args, **kwargs):
        with ScaledScores() as listener:
            ctx, probs = ATTEND(*args, **kwargs)
        taps[name_now[0] + "scores"], taps[name_now[0] + "probs"] = listener.scores[0], probs[0]
        return ctx, probs

    with ExitStack() as stack:
        for module, side, tap in _places(model):
            stack.callback(_hook(module, side, tap, model.config.head_dim, taps).remove)
        stack.enter_context(patch.object(modeling_llama, "apply_rotary_pos_emb", rotated))
        stack.enter_context(patch.object(modeling_llama, "eager_attention_forward", attended))
        yield


def _hook(module, side, tap, head_dim, taps):
    """Keep the first input or the output of a module, cut into heads where the tap has heads."""

    def keep(tensor):
        cut = tap.endswith((".q", ".k", ".v", ".ctx"))
        taps[tap] = tensor[0].unflatten(-1, (-1, head_dim)) if cut else tensor[0]

    if side == "in":
        return module.register_forward_pre_hook(lambda module, args: keep(args[0]))
    return module.register_forward_hook(lambda module, args, out: keep(out))


class ScaledScores(TorchFunctionMode):
    """Overhears the one multiplication by a number in attention: scores times H^-0.5."""

    scores = None

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func in (torch.Tensor.mul, torch.Tensor.__mul__) and isinstance(args[1], float):
            self.scores = out
        return out
