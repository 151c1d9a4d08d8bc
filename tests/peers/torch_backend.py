"""A backend in torch, as its author would write one: the ops of a Llama under the suite's names."""

import torch
import torch.nn.functional as F  # noqa: N812

from tests.peers.arrays import TORCH_DTYPES, to_numpy
from tests.peers.arrays import to_torch as asarray

__all__ = ["asarray", "to_numpy"]


def wide(x):
    return x if x.dtype == torch.float64 else x.float()


def embed(ids, table, *, dtype):
    return F.embedding(ids, table).to(TORCH_DTYPES[str(dtype)])


def linear(x, weight):
    return F.linear(x, weight.to(x.dtype))


def rms_norm(x, gain, *, eps):
    unit = wide(x) * torch.rsqrt(wide(x).square().mean(-1, keepdim=True) + eps)
    return unit.to(x.dtype) * gain.to(x.dtype)


def rope_frequencies(head_dim, *, theta, dtype):
    exponents = torch.arange(0, head_dim, 2, dtype=TORCH_DTYPES[str(dtype)]) / head_dim
    return 1.0 / theta**exponents


def stretched_frequencies(
    frequency, *, factor, low_freq_factor, high_freq_factor, original_context
):
    turns = original_context * frequency / (2 * torch.pi)
    kept = ((turns - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0, 1)
    return (1 - kept) * frequency / factor + kept * frequency


def rope_table(position, frequency, *, dtype):
    angles = torch.outer(position.to(frequency.dtype), frequency)
    return tuple(x.to(TORCH_DTYPES[str(dtype)]) for x in (angles.cos(), angles.sin()))


def rope_half_split(x, cos, sin):
    cos, sin = (torch.cat((t, t), dim=-1)[:, None] for t in (cos, sin))
    first, second = x.chunk(2, dim=-1)
    return (x * cos + torch.cat((-second, first), dim=-1) * sin).to(x.dtype)


def rope_interleaved(x, cos, sin):
    pairs = torch.view_as_complex(wide(x).unflatten(-1, (-1, 2)).contiguous())
    turned = pairs * torch.complex(cos, sin)[:, None]
    return torch.view_as_real(turned).flatten(-2).to(x.dtype)


def softmax(x):
    return F.softmax(wide(x), dim=-1).to(x.dtype)


def attention(query, key, value, *, scaling):
    (T, N, H), (S, K, _) = query.shape, key.shape
    key, value = (x.repeat_interleave(N // K, dim=1).transpose(0, 1) for x in (key, value))
    scores = query.transpose(0, 1) @ key.transpose(1, 2)
    scores = scores / H**0.5 if scaling == "meta" else scores * H**-0.5
    hidden = torch.ones(T, S, dtype=torch.bool).triu(S - T + 1)
    probs = softmax(scores.masked_fill(hidden, -torch.inf))
    return (probs @ value).transpose(0, 1)


def swiglu(gate, up):
    return F.silu(gate) * up
