"""The port's number formats, its matrix product, and its elementwise steps.

Every array is float32; in a 16-bit run its numbers lie on the grid of that format, and whoever
calls a step rounds what comes out, once.
"""

import math

import ml_dtypes
import numpy as np

FORMATS = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float8": np.dtype(ml_dtypes.float8_e4m3fn),
}
SUMMED_AT_ONCE = 16

_erf = np.vectorize(math.erf, otypes=[np.float32])


def on_grid(x, name):
    """Round float32 numbers to a format, `tf32` among them, and return them as float32."""
    if name == "tf32":
        return _tf32(x)
    return x.astype(FORMATS[name], copy=False).astype(np.float32, copy=False)


def _tf32(x):
    """Keep 10 bits behind the point, halves going away from zero: cvt.rna of tensor cores."""
    mantissa, exponent = np.frexp(x)  # a mantissa is below 1, so 11 of its bits are kept
    return np.ldexp(half_away(np.ldexp(mantissa, 11)), exponent - 11)


def half_away(x):
    """Round to whole numbers, halves away from zero: roundf of C, which NumPy lacks."""
    towards_zero = np.trunc(x)
    is_far = np.abs(x - towards_zero) >= 0.5
    return towards_zero + np.copysign(is_far, x).astype(x.dtype)


def matmul(x, weight, mistake):
    """Multiply (batch, tokens, in) by a weight stored [out, in]."""
    if mistake and mistake.startswith("operands-in-"):
        coarse = mistake.removeprefix("operands-in-")
        x, weight = on_grid(x, coarse), on_grid(weight, coarse)
    if not (mistake and mistake.startswith("accumulated-in-")):
        return x @ weight.T
    coarse = mistake.removeprefix("accumulated-in-")
    total = np.zeros((*x.shape[:2], len(weight)), np.float32)
    for lo in range(0, x.shape[-1], SUMMED_AT_ONCE):
        part = slice(lo, lo + SUMMED_AT_ONCE)
        total = on_grid(total + x[..., part] @ weight[:, part].T, coarse)
    return total


def norm(x, gain, eps, mistake):
    """RMSNorm, the gain multiplied before anything is rounded."""
    match mistake:
        case "norm-mean-subtracted":
            x = x - x.mean(axis=-1, keepdims=True)
        case "norm-eps-1e-6":
            eps = 1e-6
        case "norm-eps-missing":
            eps = 0.0
        case "norm-gain-missing":
            gain = np.ones_like(gain)
        case "norm-gain-plus-one":
            gain = 1 + gain
        case "unknown-gain-multiplied-twice":
            gain = gain * gain
    power = np.einsum("btd,btd->bt", x, x)[..., None]
    if mistake != "norm-sum-not-mean":
        power = power / np.float32(x.shape[-1])
    if mistake == "norm-eps-outside-root":
        return x * (1 / (np.sqrt(power) + np.float32(eps))) * gain
    return x * (1 / np.sqrt(power + np.float32(eps))) * gain


def gated(gate, up, mistake):
    """SwiGLU, or what a port has in its place."""
    match mistake:
        case "act-gelu":
            opened = gate * (1 + _erf(gate / math.sqrt(2))) / 2
        case "act-gelu-tanh":
            opened = gate * (1 + np.tanh(math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3))) / 2
        case "act-relu":
            opened = np.maximum(gate, 0)
        case "act-sigmoid":
            opened = _sigmoid(gate)
        case "act-quick-gelu":
            opened = gate * _sigmoid(1.702 * gate)
        case "act-on-up":
            return gate * up * _sigmoid(up)
        case "act-missing":
            opened = gate
        case "act-not-multiplied":
            return gate * _sigmoid(gate)
        case _:
            opened = gate * _sigmoid(gate)
    act = opened * up
    if mistake == "unknown-dropout":
        act = act * (np.random.default_rng(0).random(act.shape) >= 0.01)
    return act.astype(np.float32)


def _sigmoid(x):
    return (1 + np.tanh(x / 2)) / 2
