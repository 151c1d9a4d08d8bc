"""Write the stored goldens anew: `python tests/goldens/generate.py` (needs the extra `peers`).

The cases of single ops go into the package, where a backend runs them from; whole passes stay here.
Everything a golden holds was computed by transformers, or by Meta's formulas in torch; nothing by
llama_ref, whose only part in this is the formula that weights and token ids come from. A test under
`tests/peers` computes all of it again and compares.
"""

import json
import os
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER.parents[1]))
os.environ["HF_HUB_OFFLINE"] = "1"

import mpmath  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

from llama_ref.golden.suite.case import FOLDER as OP_CASES  # noqa: E402
from tests.goldens.make_attention import attention_cases, softmax_cases  # noqa: E402
from tests.goldens.make_forward import forward_goldens  # noqa: E402
from tests.goldens.make_ops import (  # noqa: E402
    embed_cases,
    linear_cases,
    rms_norm_cases,
    swiglu_cases,
)
from tests.goldens.make_rope import rope_cases, rope_frequencies_cases  # noqa: E402

OPS = {
    "embed": embed_cases,
    "linear": linear_cases,
    "rms_norm": rms_norm_cases,
    "rope_frequencies": rope_frequencies_cases,
    "rope": rope_cases,
    "softmax": softmax_cases,
    "attention": attention_cases,
    "swiglu": swiglu_cases,
}


def main():
    """Write every file."""
    torch.set_num_threads(1)
    for op, make in OPS.items():
        write(OP_CASES / f"{op}.json", {"op": op, "made_by": versions(), "cases": make()})
    stated, tensors = forward_goldens()
    write(FOLDER / "forward.json", {"made_by": versions(), "cases": stated})
    write_tensors(FOLDER / "forward.safetensors", tensors)


def versions():
    return {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "mpmath": mpmath.__version__,
    }


def write(path, value):
    path.write_text(text(encoded(value)) + "\n", encoding="utf-8")
    print(f"{path.name:24} {path.stat().st_size:8,} bytes")


def encoded(value):
    """Return a value as JSON can hold it; arrays as {"dtype": ..., "values": nested lists}.

    Nested lists have no shape where there is nothing to nest, so empty arrays say theirs.
    """
    if isinstance(value, dict):
        return {name: encoded(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [encoded(item) for item in value]
    if isinstance(value, np.ndarray):
        shape = {} if value.size else {"shape": list(value.shape)}
        return {"dtype": value.dtype.name, **shape, "values": decimals(value)}
    return value


def decimals(array):
    """Return nested lists of the shortest decimals that read back as these very numbers."""
    if array.ndim:
        return [decimals(row) for row in array]
    if array.dtype.kind == "i":
        return int(array)
    if np.isinf(array):
        return str(float(array))
    # The shortest that tells float32 numbers apart; what is narrower is exact in float32.
    number = float(array) if array.dtype == np.float64 else float(str(np.float32(array)))
    if np.asarray(number).astype(array.dtype) != array:
        raise SystemExit(f"{array!r} does not survive as {number!r}")
    return int(number) if number == int(number) and abs(number) < 1e6 else number


def text(value, depth=0):
    """Return JSON with one line for every innermost list, so that differences are readable."""
    pad, inner = " " * depth, " " * (depth + 1)
    if isinstance(value, dict) and value:
        items = [f"{inner}{json.dumps(k)}: {text(v, depth + 1)}" for k, v in value.items()]
        return "{\n" + ",\n".join(items) + f"\n{pad}}}"
    if isinstance(value, list) and any(isinstance(item, list | dict) for item in value):
        items = [inner + text(item, depth + 1) for item in value]
        return "[\n" + ",\n".join(items) + f"\n{pad}]"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def write_tensors(path, tensors):
    from llama_ref.checkpoint.write import write_safetensors

    write_safetensors(path, tensors)
    print(f"{path.name:24} {path.stat().st_size:8,} bytes")


if __name__ == "__main__":
    main()
