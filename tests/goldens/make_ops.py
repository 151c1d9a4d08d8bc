"""Compute the goldens of the ops that see one token at a time: torch speaks, mpmath confirms."""

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from transformers.models.llama import modeling_llama

from tests.goldens import witness
from tests.goldens.drawing import case, numbers
from tests.peers.arrays import to_numpy, to_torch


def embed_cases():
    ids = np.array([4, 0, 2, 4])
    rows = numbers((5, 4), "float32")
    # 1 + 2^-8 lies half-way between two bfloat16 numbers, as do its odd multiples.
    halves = (1 + np.arange(20).reshape(5, 4) * 2.0**-8).astype(np.float32)
    cases = []

    def add(name, why, ids, table, dtype, catches):
        y = to_numpy(F.embedding(torch.tensor(ids), to_torch(table, dtype)))
        arguments = {"ids_T": ids, "table_VD": table, "dtype": dtype}
        cases.append(case(name, why, "embed", arguments, {"y_TD": y}, catches, tolerance="exact"))

    add(
        "rows of the table, repeated and out of order",
        "a look-up and nothing else: no factor, no offset",
        ids,
        rows,
        "float32",
        ["scaled by sqrt(D)", "next row"],
    )
    add(
        "float32 table, bfloat16 activations, every entry on or beside a tie",
        "a table stored wider is rounded to nearest, ties to even",
        ids,
        halves,
        "bfloat16",
        ["cut off", "ties away from zero"],
    )
    add(
        "bfloat16 table, float32 activations",
        "a table stored narrower is widened exactly",
        ids,
        numbers((5, 4), "bfloat16"),
        "float32",
        ["dtype of the table"],
    )
    add(
        "bfloat16 table, bfloat16 activations",
        "a copy, bit for bit",
        ids,
        numbers((5, 4), "bfloat16"),
        "bfloat16",
        ["scaled by sqrt(D)", "next row"],
    )
    why = "an empty call has a result of no rows, not an error"
    add("no token", why, ids[:0], rows, "float32", [])
    return cases


def linear_cases():
    cases = []

    def add(name, why, x, weight, catches, flags=()):
        y = to_numpy(F.linear(to_torch(x), to_torch(weight, x.dtype.name)))
        rounded = to_numpy(to_torch(weight, x.dtype.name))
        if y.size:
            witness.confirm(y, witness.linear(x, rounded), 1, name)
        arguments = {"x_TD": x, "weight_FD": weight}
        cases.append(case(name, why, "linear", arguments, {"y_TF": y}, catches, flags))

    add(
        "square weight, float32",
        "weights are stored [out, in]; a square one fits either way round",
        numbers((3, 6), "float32"),
        numbers((6, 6), "float32", seed=1),
        ["x W instead of x W^T"],
    )
    add(
        "one token, float32",
        "the path of generation: a matrix times a vector",
        numbers((1, 10), "float32"),
        numbers((7, 10), "float32", seed=1),
        ["computed in bfloat16"],
    )
    add(
        "forty tokens, float32",
        "the path of long prompts",
        numbers((40, 4), "float32"),
        numbers((4, 4), "float32", seed=1),
        ["computed in bfloat16", "x W instead of x W^T"],
    )
    add(
        "sums of 64 terms, bfloat16",
        "products and sums are float32; only the result is rounded",
        numbers((6, 64), "bfloat16"),
        numbers((6, 64), "bfloat16", seed=1),
        ["rounded at every addition"],
    )
    add(
        "sums of 64 terms, float16",
        "as for bfloat16",
        numbers((6, 64), "float16"),
        numbers((6, 64), "float16", seed=1),
        ["rounded at every addition"],
    )
    add(
        "float32 weight, bfloat16 activations",
        "a weight stored wider is rounded to the activations' dtype, as peers do on loading",
        numbers((4, 12), "bfloat16"),
        numbers((16, 12), "float32", seed=1),
        ["weight not rounded"],
    )
    add(
        "bfloat16 weight, float32 activations",
        "a weight stored narrower is widened, and the activations stay as they are",
        numbers((4, 12), "float32"),
        numbers((16, 12), "bfloat16", seed=1),
        ["computed in bfloat16"],
    )
    add(
        "float64",
        "float64 activations get float64 arithmetic",
        numbers((3, 8), "float64"),
        numbers((5, 8), "float64", seed=1),
        ["computed in float32"],
    )
    add(
        "D 33 and F 17, float32",
        "a kernel works in blocks, and the last block is not full",
        numbers((5, 33), "float32"),
        numbers((17, 33), "float32", seed=1),
        ["D beyond a multiple of 32 left out", "F beyond a multiple of 16 left out"],
        ["odd-sizes"],
    )
    sign = np.float16([[1, 1, -1, -1]])
    add(
        "a float16 sum that passes the largest float16 on its way",
        "60,000 + 60,000 is no float16, but the sum of all four is; sums are float32",
        300 * sign,
        np.float16([[200, 200, 200, 199], [200, 200, 199, 199]]),
        ["rounded at every addition"],
        ["range"],
    )
    why = "an empty call has a result of no rows: no logits are wanted of a chunk of a prompt"
    add("no token", why, numbers((0, 6), "float32"), numbers((4, 6), "float32", seed=1), [])
    return cases


def rms_norm_cases():
    cases = []

    def add(name, why, x, gain, eps, catches, flags=()):
        if x.dtype == np.float64:  # LlamaRMSNorm would go through float32
            y = to_numpy(F.rms_norm(to_torch(x), (x.shape[-1],), to_torch(gain), eps))
        else:
            norm = modeling_llama.LlamaRMSNorm(x.shape[-1], eps)
            norm.weight.data = to_torch(gain, x.dtype.name)
            y = to_numpy(norm(to_torch(x)))
        rounded = to_numpy(to_torch(gain, x.dtype.name))
        witness.confirm(y, witness.rms_norm(x, rounded, eps), 2, name)
        arguments = {"x_TD": x, "gain_D": gain, "eps": eps}
        cases.append(case(name, why, "rms_norm", arguments, {"y_TD": y}, catches, flags))

    gain = (0.75 + np.arange(8) / 16).astype(np.float32)
    add(
        "numbers so small that eps counts",
        "eps stands inside the root; a mean, not a sum; no centring; the gain as it is",
        numbers((3, 8), "float32", 0.008, mean=0.004),
        gain,
        1e-5,
        [
            "eps outside the root",
            "eps 1e-6",
            "sum instead of mean",
            "mean subtracted",
            "gain missing",
            "one plus gain",
            "through bfloat16",
        ],
        ["range"],
    )
    wide_gain = numbers(48, "bfloat16", 0.2, mean=1.0, seed=1)
    add(
        "bfloat16: rounded before the gain and after it",
        "both released codes round the normalised vector before the gain multiplies it",
        numbers((4, 48), "bfloat16"),
        wide_gain,
        1e-5,
        ["gain before rounding", "statistics in the dtype of x"],
    )
    add(
        "float16: squares beyond the largest float16",
        "300^2 overflows float16, so the mean square is float32; the two roundings as above",
        numbers((4, 48), "float16", 300.0),
        wide_gain.astype(np.float16),
        1e-5,
        ["gain before rounding", "statistics in the dtype of x"],
        ["range"],
    )
    add(
        "float32 gain, bfloat16 activations",
        "a gain stored wider is rounded first, as peers do on loading",
        numbers((4, 48), "bfloat16"),
        numbers(48, "float32", 0.2, mean=1.0, seed=2),
        1e-5,
        ["gain not rounded"],
    )
    add(
        "float64",
        "float64 activations get float64 arithmetic",
        numbers((3, 8), "float64"),
        gain.astype(np.float64),
        1e-5,
        ["through float32"],
    )
    zeros = numbers((3, 8), "float32", seed=3)
    zeros[1] = 0
    add(
        "a vector of zeros, as padding has, float32",
        "eps keeps it at zero: without, it is 0/0",
        zeros,
        gain,
        1e-5,
        ["eps left out", "one plus gain"],
        ["range"],
    )
    add(
        "one token of D 33, float32",
        "generation; and a kernel works in blocks, of which the last is not full",
        numbers((1, 33), "float32", seed=4),
        numbers(33, "float32", 0.2, mean=1.0, seed=5),
        1e-5,
        ["D beyond a multiple of 32 left out", "sum instead of mean"],
        ["odd-sizes"],
    )
    outlier = numbers((2, 33), "bfloat16", 0.25, seed=6)
    outlier[:, 7] = 1000
    add(
        "one channel four thousand times the others, bfloat16",
        "some channels of trained models are like that, and their square decides the sum",
        outlier,
        numbers(33, "bfloat16", 0.2, mean=1.0, seed=7),
        1e-5,
        ["statistics in the dtype of x", "sum instead of mean"],
        ["range", "rounding-points"],
    )
    return cases


def swiglu_cases():
    cases = []

    def add(name, why, gate, up, catches, flags=()):
        y = to_numpy(F.silu(to_torch(gate)) * to_torch(up))
        witness.confirm(y, witness.swiglu(gate, up), 2, name)
        arguments = {"gate_TF": gate, "up_TF": up}
        cases.append(case(name, why, "swiglu", arguments, {"y_TF": y}, catches, flags))

    curves = ["GELU", "GELU by tanh", "quick GELU", "ReLU", "sigmoid alone"]
    add(
        "float32",
        "silu(gate) * up: which curve, and which of the two it bends",
        numbers((3, 8), "float32", 2),
        numbers((3, 8), "float32", seed=1),
        [*curves, "gate and up exchanged"],
    )
    far = np.float32([[-1e4, -90, -20, 0, 20, 90, 1e4]])
    add(
        "float32, far from zero",
        "exp(10,000) is no error: silu goes to 0 on the left and to the gate itself on the right",
        far,
        np.ones_like(far),
        ["sigmoid alone", "exp of the gate overflows"],
        ["range"],
    )
    for dtype in ("bfloat16", "float16"):
        add(
            dtype,
            "silu is rounded, then the product is",
            numbers((4, 48), dtype, 2),
            numbers((4, 48), dtype, seed=1),
            ["rounded once", "computed in 16 bits", "quick GELU"],
        )
    add(
        "float64",
        "float64 stays float64",
        numbers((3, 8), "float64", 2),
        numbers((3, 8), "float64", seed=1),
        ["through float32"],
    )
    return cases
