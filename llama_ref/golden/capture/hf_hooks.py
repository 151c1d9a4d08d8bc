"""Where the taps of transformers' Llama are: hooks on modules, wrappers around two functions.

Rotation and eager attention are functions that attention modules look up in their Python module
whenever they run; a wrapper put in their place is seen by every Llama of the process, so it records
only while an attention module of the captured model runs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np

from llama_ref.errors import BadRequest
from llama_ref.numerics import BFLOAT16

WITH_HEADS = (".q", ".k", ".v", ".ctx")


def to_numpy(tensor: Any) -> np.ndarray:
    """Return a copy of a tensor's bits on the host; bfloat16, which NumPy lacks, by ml_dtypes."""
    import torch  # noqa: PLC0415  (this module loads without)

    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(BFLOAT16).copy()
    return tensor.numpy().copy()


def scaled_scores() -> Any:
    """Return a listener that overhears, in its `with` block, scores being multiplied by H^-0.5.

    It is the one multiplication by a number in eager attention; the mask is added after it. The
    product is left in `scores` of the listener.
    """
    from torch import Tensor  # noqa: PLC0415  (this module loads without)
    from torch.overrides import TorchFunctionMode  # noqa: PLC0415

    class ScaledScores(TorchFunctionMode):
        scores: Any = None

        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            out = func(*args, **(kwargs or {}))
            if func in (Tensor.mul, Tensor.__mul__) and isinstance(args[1], float):
                self.scores = out
            return out

    return ScaledScores()


def listen(model: Any, calls: list[dict[str, np.ndarray]], stack: ExitStack) -> None:
    """Hook and wrap until the stack is left; each call of the model fills a dict of its own."""

    def keep(name: str, tensor: Any) -> None:
        if tensor.shape[0] != 1:
            raise BadRequest(
                "batch to capture", expected="one sequence", found=f"{tensor.shape[0]}"
            )
        if name.endswith(WITH_HEADS):
            tensor = tensor.unflatten(-1, (-1, head_dim))
        calls[-1][name] = to_numpy(tensor[0])

    head_dim = model.model.layers[0].self_attn.head_dim
    new_call = model.register_forward_pre_hook(lambda module, args: calls.append({}))
    stack.callback(new_call.remove)
    for module, side, name in _places(model):
        stack.callback(_hook(module, side, name, keep).remove)
    _wrap_functions(model, keep, stack)


def _places(model: Any) -> Iterator[tuple[Any, str, str]]:
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
    yield model.lm_head, "out", "logits"


def _hook(module: Any, side: str, name: str, keep: Callable[[str, Any], None]) -> Any:
    """Keep the first input or the output of a module whenever it runs."""
    if side == "in":
        return module.register_forward_pre_hook(lambda module, args: keep(name, args[0]))

    def after(module: Any, args: Any, out: Any) -> None:
        keep(name, out[0] if isinstance(out, tuple) else out)  # layers of 4.46 return tuples

    return module.register_forward_hook(after)


def _wrap_functions(model: Any, keep: Callable[[str, Any], None], stack: ExitStack) -> None:
    """Listen to rotation and eager attention, which are functions that no hook reaches.

    Both are looked up in the module of the class whenever they are called. Other models share
    them, so they record only while an attention module of this model runs.
    """
    names = {id(la.self_attn): f"L{i:02d}." for i, la in enumerate(model.model.layers)}
    running: list[str] = []

    def rotated(original: Any, *args: Any, **kwargs: Any) -> Any:
        out = original(*args, **kwargs)
        if running:
            for tap, tensor in zip(("q_rope", "k_rope"), out, strict=True):
                keep(running[-1] + tap, tensor.transpose(1, 2))
        return out

    def attended(original: Any, *args: Any, **kwargs: Any) -> Any:
        with scaled_scores() as listener:
            ctx, probs = original(*args, **kwargs)
        if running:
            for tap, tensor in (("scores", listener.scores), ("probs", probs)):
                if tensor is not None:
                    keep(running[-1] + tap, tensor)
        return ctx, probs

    for layer in model.model.layers:
        enter = layer.self_attn.register_forward_pre_hook(
            lambda module, args: running.append(names[id(module)])
        )
        leave = layer.self_attn.register_forward_hook(
            lambda module, args, out: running.clear(), always_call=True
        )
        stack.callback(enter.remove)
        stack.callback(leave.remove)
    home = sys.modules[type(model.model.layers[0].self_attn).__module__]
    for name, wrapper in (("apply_rotary_pos_emb", rotated), ("eager_attention_forward", attended)):
        _replace(home, name, wrapper, stack)


def _replace(home: Any, name: str, wrapper: Callable[..., Any], stack: ExitStack) -> None:
    """Put a wrapper in the place of a module's function, if it has one, until the stack is left."""
    original = getattr(home, name, None)
    if original is not None:
        setattr(home, name, lambda *args, **kwargs: wrapper(original, *args, **kwargs))
        stack.callback(setattr, home, name, original)
