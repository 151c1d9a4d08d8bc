"""The second witness: each op in forty decimal digits, from its formula alone.

A golden is what torch computed. Before it is written, this says that torch computed the right
thing: the two agree to within the rounding of the golden's dtype. Arrays hold mpmath numbers, so
the formulas read as they do in the papers.
"""

import mpmath
import numpy as np

mpmath.mp.dps = 40
_exp = np.vectorize(mpmath.exp, otypes=[object])
_sqrt = np.vectorize(mpmath.sqrt, otypes=[object])
_cos = np.vectorize(mpmath.cos, otypes=[object])
_sin = np.vectorize(mpmath.sin, otypes=[object])


def exact(array):
    """Return the numbers of a float array as mpmath numbers."""
    return np.vectorize(mpmath.mpf, otypes=[object])(np.asarray(array).astype(np.float64))


def linear(x, weight):
    return exact(x) @ exact(weight).T


def rms_norm(x, gain, eps):
    x = exact(x)
    mean_square = (x * x).sum(axis=-1, keepdims=True) / x.shape[-1]
    return exact(gain) * x / _sqrt(mean_square + mpmath.mpf(eps))


def rope_frequencies(head_dim, theta, scaling):
    f = [mpmath.mpf(theta) ** (-mpmath.mpf(2 * p) / head_dim) for p in range(head_dim // 2)]
    return np.array([_stretched(one, **scaling) if scaling else one for one in f], dtype=object)


def _stretched(f, factor, low_freq_factor, high_freq_factor, original_context):
    turns = original_context * f / (2 * mpmath.pi)
    if turns < low_freq_factor:
        return f / mpmath.mpf(factor)
    if turns > high_freq_factor:
        return f
    s = (turns - low_freq_factor) / (high_freq_factor - low_freq_factor)
    return (1 - s) * f / mpmath.mpf(factor) + s * f


def rope_table(position, frequency):
    angle = exact(position)[:, None] * exact(frequency)
    return _cos(angle), _sin(angle)


def rope(x, cos, sin, pairing):
    x, cos, sin = exact(x), exact(cos)[:, None], exact(sin)[:, None]
    P = x.shape[-1] // 2
    halves = {"half_split": (np.s_[:P], np.s_[P:]), "interleaved": (np.s_[::2], np.s_[1::2])}
    first, second = halves[pairing]
    a, b = x[..., first], x[..., second]
    turned = np.empty_like(x)
    turned[..., first], turned[..., second] = a * cos - b * sin, a * sin + b * cos
    return turned


def softmax(x):
    x = exact(x)
    weights = _exp(x - x.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def attention(query, key, value):
    """Return scores (N, T, S), probabilities and mixed values (T, N, H), one head at a time."""
    (T, N, H), (S, K, _) = query.shape, key.shape
    query, key, value = exact(query), exact(key), exact(value)
    scores, probs = np.full((2, N, T, S), mpmath.mpf(0))
    ctx = np.full((T, N, H), mpmath.mpf(0))
    for n in range(N):
        k = n // (N // K)
        scores[n] = query[:, n] @ key[:, k].T / mpmath.sqrt(H)
        for t in range(T):
            seen = S - T + t + 1
            probs[n, t, :seen] = softmax(scores[n, t, :seen])
            ctx[t, n] = probs[n, t, :seen] @ value[:seen, k]
    return scores, probs, ctx


def swiglu(gate, up):
    gate = exact(gate)
    return gate / (1 + _exp(-gate)) * exact(up)


def confirm(golden, truth, n_roundings, where):
    """Raise unless every element is within so many roundings of the truth.

    A rounding moves a number by half a unit of the last place; sums get their allowance in units
    of the largest number, in the precision they are made in (float32 for 16-bit results).
    """
    truth = truth.astype(np.float64)
    eps = {2: 2.0**-8, 4: 2.0**-24, 8: 2.0**-53}[golden.dtype.itemsize]
    if golden.dtype == np.float16:
        eps = 2.0**-11
    sums = 16 * (2.0**-53 if golden.dtype == np.float64 else 2.0**-24)
    error = np.abs(golden.astype(np.float64) - truth)
    bound = n_roundings * eps * np.abs(truth) + (sums + n_roundings * eps / 8) * np.abs(truth).max()
    if not (error <= bound).all():
        raise SystemExit(f"{where}: torch is {np.max(error / bound):.3g} bounds from the truth")
