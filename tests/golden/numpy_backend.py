"""A small backend to check: NumPy, written without a look at llama_ref, fused as fast kernels are.

Every function computes in float32, whatever comes in, and rounds once, at the end. That is legal,
but not where the released codes round, so such a backend leaves out the cases with the flags
`rounding-points` and `float64`.
"""

import numpy as np


def fused(kernel):
    """Hand a kernel float32 arrays; round what it returns to the dtype of its first array."""

    def wrapped(first, *rest, **stated):
        wide = (np.asarray(array, np.float32) for array in (first, *rest))
        return kernel(*wide, **stated).astype(first.dtype)

    return wrapped


def embed(ids, table, *, dtype):
    return np.take(table, ids, axis=0).astype(dtype)


@fused
def linear(x, weight):
    return np.einsum("td,fd->tf", x, weight)


@fused
def rms_norm(x, gain, *, eps):
    return x * gain * (np.square(x).mean(axis=-1, keepdims=True) + np.float32(eps)) ** -0.5


def rope_frequencies(head_dim, *, theta, dtype):
    powers = -np.log(theta) * np.arange(head_dim // 2) / (head_dim / 2)
    return np.exp(powers).astype(dtype)


def stretched_frequencies(
    frequency, *, factor, low_freq_factor, high_freq_factor, original_context
):
    turns = original_context * frequency / (2 * np.pi)
    kept = np.clip((turns - low_freq_factor) / (high_freq_factor - low_freq_factor), 0, 1)
    return (frequency * (kept + (1 - kept) / factor)).astype(frequency.dtype)


def rope_table(position, frequency, *, dtype):
    turn = np.exp(1j * np.outer(position.astype(np.float32), frequency).astype(np.float64))
    return turn.real.astype(dtype), turn.imag.astype(dtype)


@fused
def rope_half_split(x, cos, sin):
    turned = (cos + 1j * sin)[:, None] * (
        x[..., : x.shape[-1] // 2] + 1j * x[..., x.shape[-1] // 2 :]
    )
    return np.concatenate([turned.real, turned.imag], axis=-1)


@fused
def rope_interleaved(x, cos, sin):
    turned = (cos + 1j * sin)[:, None] * (x[..., 0::2] + 1j * x[..., 1::2])
    return np.stack([turned.real, turned.imag], axis=-1).reshape(x.shape)


@fused
def softmax(x):
    with np.errstate(over="ignore"):
        exp = np.exp(x - x.max(axis=-1, keepdims=True))
    return exp / exp.sum(axis=-1, keepdims=True)


@fused
def attention(query, key, value, *, scaling):
    """Attend one query at a time, to what it may see; one way of scaling serves both lineages."""
    past, group = len(key) - len(query), query.shape[1] // key.shape[1]
    ctx = np.empty_like(query)
    for t, n in np.ndindex(query.shape[:2]):
        seen, head = past + t + 1, n // group
        probs = softmax(key[:seen, head] @ query[t, n] * np.float32(query.shape[2] ** -0.5))
        ctx[t, n] = probs @ value[:seen, head]
    return ctx


@fused
def swiglu(gate, up):
    with np.errstate(over="ignore"):
        return gate / (1 + np.exp(-gate)) * up
