"""The eight operations of a Llama, one file each: pure functions of arrays."""

from llama_ref.lazy import names_of

_OPS = ("attention", "embed", "linear", "rms_norm", "rope", "rope_frequencies", "softmax", "swiglu")
__getattr__ = names_of(__name__, {op: f"{__name__}.{op}" for op in _OPS})


def __dir__() -> list[str]:
    return sorted({*globals(), *_OPS})
