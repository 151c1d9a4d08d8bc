"""The port's RoPE: two channels of a head are one complex number, and turning it is a product.

Arrays are (batch, heads, tokens, width), positions (batch, tokens).
"""

import math
from types import SimpleNamespace

import numpy as np

from tests.golden.port_arithmetic import on_grid

LLAMA_3_1 = SimpleNamespace(
    factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=8192
)


def rope(x, position, config, kind, mistake):
    """Turn the heads `x` of a `kind`, `queries`, `keys` or `values`, to their positions."""
    if mistake in ("rope-missing", f"rope-missing-on-{kind}"):
        return x
    if kind == "values" and mistake != "rope-on-values":
        return x
    if mistake == f"rope-position-plus-one-on-{kind}":
        position = position + 1
    unit = _unit_numbers(x.shape[1], position, config, mistake)
    if mistake == "rope-applied-twice":
        unit = unit * unit
    z = _to_complex(x, mistake)
    if mistake == "rope-table-in-other-pairing":  # each angle twice in a row, over the whole width
        first, second = np.split(np.repeat(unit, 2, axis=-1), 2, axis=-1)
        return _from_complex((z * first).real + 1j * (z * second).imag, mistake)
    return _from_complex(z * unit, mistake)


def _unit_numbers(n_heads, position, config, mistake):
    """Return cos + i sin of every angle, (batch, heads or 1, tokens, pairs)."""
    place = position[:, None, :, None].astype(np.float32)
    if mistake == "rope-position-is-head":
        place = np.arange(n_heads, dtype=np.float32)[None, :, None, None]
    if mistake == "rope-positions-in-bfloat16":
        place = on_grid(place, "bfloat16")
    frequency = np.array(_frequencies(config, mistake), np.float32)
    if mistake == "rope-frequencies-in-bfloat16":
        frequency = on_grid(frequency, "bfloat16")
    angle = place * frequency
    if mistake == "rope-scaling-only-far" and config.rope_scaling:
        plain = np.array(_frequencies(config, "rope-scaling-missing"), np.float32)
        angle = np.where(place < config.rope_scaling.original_context, place * plain, angle)
    if mistake == "rope-angles-in-float16":  # infinite beyond 65,504: the cosine is not a number
        angle = on_grid(angle, "float16")
    cos, sin = np.cos(angle), np.sin(angle)
    if mistake == "rope-cos-sin-swapped":
        cos, sin = sin, cos
    return cos - 1j * sin if mistake == "rope-direction-flipped" else cos + 1j * sin


def _to_complex(x, mistake):
    half = x.shape[-1] // 2
    if mistake == "rope-pairing-swapped":
        return x[..., 0::2] + 1j * x[..., 1::2]
    return x[..., :half] + 1j * x[..., half:]


def _from_complex(z, mistake):
    if mistake in ("rope-pairing-swapped", "rope-halves-written-interleaved"):
        return np.stack([z.real, z.imag], axis=-1).reshape(*z.shape[:-1], -1)
    return np.concatenate([z.real, z.imag], axis=-1)


def _frequencies(config, mistake):
    """Return radians per position of every pair, as Python numbers."""
    width, step = config.head_dim, 2
    theta = 10_000 if mistake == "rope-theta-10000" else config.rope_theta
    if mistake == "rope-exponent-halved":
        step = 1
    if mistake == "rope-exponent-of-model-width":
        width = config.d_model
    plain = [math.exp(-step * p / width * math.log(theta)) for p in range(config.head_dim // 2)]
    scaling = config.rope_scaling
    if scaling is None and mistake == "rope-scaling-uncalled-for":
        scaling = LLAMA_3_1
    if scaling is None or mistake == "rope-scaling-missing":
        return plain
    stretched = [_stretched(frequency, scaling, mistake) for frequency in plain]
    if mistake == "rope-factors-inverted":
        return [one * one / slowed for one, slowed in zip(plain, stretched, strict=True)]
    return stretched


def _stretched(frequency, scaling, mistake):
    """Llama 3.1's rule for one pair, by how often it turns in the original context."""
    factor = {"rope-factor-8": 8.0, "rope-factor-32": 32.0}.get(mistake, scaling.factor)
    full_turn = 1.0 if mistake == "rope-wavelength-without-2pi" else 2 * math.pi
    turns = scaling.original_context * frequency / full_turn
    if mistake == "rope-scaling-linear" or turns < scaling.low_freq_factor:
        return frequency / factor
    if turns > scaling.high_freq_factor or mistake == "rope-smooth-missing":
        return frequency
    span = scaling.high_freq_factor - scaling.low_freq_factor
    kept = (turns - scaling.low_freq_factor) / span
    if mistake == "rope-smooth-inverted":
        kept = 1 - kept
    return frequency * (kept + (1 - kept) / factor)
