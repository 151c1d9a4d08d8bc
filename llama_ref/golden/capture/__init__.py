"""Capturing: a peer's intermediates, recorded while it runs, under our names.

    hf.py            transformers; hf_hooks.py knows where its taps are
    ggml_run.py      llama.cpp, through the callback of its Python binding: ggml_listener.py is
                     called, and ggml_calls.py reads a tensor
    ggml_dump.py     what llama.cpp's own debugging tools print and save
    ggml_nodes.py    which node of llama.cpp's graph is which tap
    taps.py          what was recorded, call after call, as the taps of a case

Each needs its framework when it is used and not before. Whatever else you have, the same is ten
lines by hand: copy each intermediate to the host, name it `case/tap`, write all of them into one
safetensors (or npz) file. With MLX, whose modules are Python objects whose class can be replaced:

    import mlx.core as mx, mlx.nn as nn
    taps, tap_of = {}, {}                                 # tap_of: id of a module -> "L00.q", ...
    for i, layer in enumerate(model.layers):
        tap_of |= {id(layer.self_attn.q_proj): f"L{i:02d}.q", id(layer.mlp.up_proj): f"L{i:02d}.up"}
    call = nn.Linear.__call__
    def recording(self, x):
        y = call(self, x)
        if id(self) in tap_of: taps["short/" + tap_of[id(self)]] = y[0]   # without the batch axis
        return y
    nn.Linear.__call__ = recording
    model(mx.array([ids])); mx.save_safetensors("candidate.safetensors", taps)

Any subset of taps will do, in float32, float16 or bfloat16, heads flat or apart: T N*H or T N H.
"""

from typing import TYPE_CHECKING

from llama_ref.lazy import names_of

_HOMES = {
    "capture_transformers": "llama_ref.golden.capture.hf",
    "LlamaCpp": "llama_ref.golden.capture.ggml_run",
    "read_eval_callback": "llama_ref.golden.capture.ggml_dump",
    "read_saved_logits": "llama_ref.golden.capture.ggml_dump",
    "hf": "llama_ref.golden.capture.hf",
    "ggml_run": "llama_ref.golden.capture.ggml_run",
    "ggml_dump": "llama_ref.golden.capture.ggml_dump",
}
__getattr__ = names_of(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


if TYPE_CHECKING:
    from llama_ref.golden.capture import ggml_dump as ggml_dump
    from llama_ref.golden.capture import ggml_run as ggml_run
    from llama_ref.golden.capture import hf as hf
    from llama_ref.golden.capture.ggml_dump import read_eval_callback as read_eval_callback
    from llama_ref.golden.capture.ggml_dump import read_saved_logits as read_saved_logits
    from llama_ref.golden.capture.ggml_run import LlamaCpp as LlamaCpp
    from llama_ref.golden.capture.hf import capture_transformers as capture_transformers
