"""Arrays between torch and NumPy, bit for bit; bfloat16, which NumPy lacks, goes as integers."""

import numpy as np
import torch

from llama_ref.golden.capture.hf_hooks import to_numpy  # noqa: F401  (handed on)
from llama_ref.numerics import BFLOAT16, dtype_named

TORCH_DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def to_torch(array, dtype=None):
    """Return a copy of an array as a tensor, of its own dtype or rounded by torch to another."""
    array = np.ascontiguousarray(array)
    if array.dtype == BFLOAT16:
        tensor = torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    else:
        tensor = torch.from_numpy(array.copy())
    return tensor if dtype is None else tensor.to(TORCH_DTYPES[str(dtype_named(dtype))])
