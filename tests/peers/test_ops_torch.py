"""The ops against torch and transformers on more numbers than a golden holds.

In 16 bits an elementwise op sees 65,536 inputs, so all of them are tried. Where a test says "to the
bit", float32 arithmetic leaves no choice; elsewhere a sum or an exponential may end a float32 unit
apart, and one result in hundreds falls on the other side of a tie.
"""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from transformers.models.llama import modeling_llama

from llama_ref.numerics import ACTIVATION_DTYPES, dtype_named, ulp_distance
from llama_ref.ops.attention import (
    attention_mix,
    attention_probs,
    attention_scores,
    over_root_width,
    times_inverse_root_width,
)
from llama_ref.ops.embed import embed
from llama_ref.ops.linear import linear
from llama_ref.ops.rms_norm import rms_norm
from llama_ref.ops.softmax import softmax
from llama_ref.ops.swiglu import swiglu
from tests.peers import torch_meta
from tests.peers.arrays import to_numpy, to_torch
from tests.peers.trials import ROUNDED, SIXTEEN_BITS, all_numbers, assert_rounded_alike, normal


@pytest.mark.parametrize("dtype", SIXTEEN_BITS)
def test_every_tie_of_a_float32_table_is_rounded_as_torch_rounds_it(dtype):
    """Embedding rounds float32 to 16 bits as torch does, at every number, tie and neighbour."""
    numbers = all_numbers(dtype).astype(np.float32)
    middles = numbers[:-1] / 2 + numbers[1:] / 2
    near = [np.nextafter(middles, np.float32(side)) for side in (-np.inf, np.inf)]
    table_VD = np.concatenate([numbers, middles, *near])[:, None]
    table_VD = table_VD[np.abs(table_VD[:, 0]) <= np.abs(numbers).max()]
    ids_T = np.arange(len(table_VD))
    y_TD = embed(ids_T, table_VD, dtype=dtype_named(dtype))
    assert np.array_equal(y_TD, to_numpy(to_torch(table_VD, dtype)))


@pytest.mark.parametrize("dtype", ROUNDED)
@pytest.mark.parametrize("n_tokens", [1, 7, 40])
def test_linear(n_tokens, dtype):
    """A product with a float32 weight is that of F.linear with the weight rounded on loading."""
    x_TD, weight_FD = normal((n_tokens, 512), dtype), normal((300, 512), "float32", 0.05, seed=1)
    y_TF = to_numpy(F.linear(to_torch(x_TD), to_torch(weight_FD, dtype)))
    assert_rounded_alike(linear(x_TD, weight_FD), y_TF, "q")


@pytest.mark.parametrize("peer", ["transformers", "meta"])
@pytest.mark.parametrize("dtype", ROUNDED)
def test_rms_norm(dtype, peer):
    """Norms of vectors of many magnitudes are those of both released codes."""
    magnitude_T1 = np.logspace(-4, 3, 48, dtype=np.float32)[:, None]
    x_TD = (normal((48, 512), "float32") * magnitude_T1).astype(dtype_named(dtype))
    gain_D = normal(512, dtype, 0.2, seed=1) + dtype_named(dtype).type(1)
    if peer == "meta":
        y = torch_meta.rms_norm(to_torch(x_TD), to_torch(gain_D), 1e-5)
    else:
        norm = modeling_llama.LlamaRMSNorm(512, 1e-5)
        norm.weight.data = to_torch(gain_D)
        y = norm(to_torch(x_TD))
    assert_rounded_alike(rms_norm(x_TD, gain_D, eps=1e-5), to_numpy(y), "attn_norm")


@pytest.mark.parametrize("dtype", ROUNDED)
def test_softmax(dtype):
    """Softmax is F.softmax in float32, rounded once, for flat rows and for peaked ones."""
    spread_T1 = np.logspace(-2, 2, 48, dtype=np.float32)[:, None]
    x = (normal((48, 300), "float32") * spread_T1).astype(dtype_named(dtype))
    y = F.softmax(to_torch(x), dim=-1, dtype=torch.float32).to(to_torch(x).dtype)
    assert_rounded_alike(softmax(x), to_numpy(y), "probs")


@pytest.mark.parametrize("dtype", ROUNDED)
@pytest.mark.parametrize("head_dim", [2, 10, 16, 64, 80, 96, 128])
def test_scalings_to_the_bit(head_dim, dtype):
    """Every 16-bit score, and float32 ones, divided or multiplied by the root of H are torch's."""
    scores = all_numbers(dtype) if dtype in SIXTEEN_BITS else normal(100_000, dtype)
    divided = to_torch(scores) / math.sqrt(head_dim)
    multiplied = to_torch(scores) * head_dim**-0.5
    assert np.array_equal(over_root_width(scores, head_dim), to_numpy(divided))
    assert np.array_equal(times_inverse_root_width(scores, head_dim), to_numpy(multiplied))


@pytest.mark.parametrize("dtype", SIXTEEN_BITS)
def test_silu_of_every_number(dtype):
    """SwiGLU with up = 1 is F.silu at every 16-bit number: at most a few ties fall otherwise."""
    gate_TF = all_numbers(dtype)[None]
    y_TF = swiglu(gate_TF, np.ones_like(gate_TF))
    steps = ulp_distance(y_TF, to_numpy(F.silu(to_torch(gate_TF))))
    assert steps.max() <= 1
    assert np.count_nonzero(steps) <= 6


@pytest.mark.parametrize("dtype", ROUNDED)
def test_swiglu(dtype):
    """Gate and up projections meet as silu(gate) * up does in torch."""
    gate_TF, up_TF = normal((40, 300), dtype, 3.0), normal((40, 300), dtype, seed=1)
    y = F.silu(to_torch(gate_TF)) * to_torch(up_TF)
    assert_rounded_alike(swiglu(gate_TF, up_TF), to_numpy(y), "act")


@pytest.mark.parametrize("n_kv_heads", [1, 2, 8])
@pytest.mark.parametrize("dtype", ROUNDED)
def test_attention_step_by_step(dtype, n_kv_heads):
    """Each of the three steps, from the peer's own input, is Meta's: 8 queries of 90 positions."""
    query_TNH, key_SKH, value_SKH = (
        normal((n, heads, 64), dtype, seed=seed)
        for seed, (n, heads) in enumerate([(8, 8), (90, n_kv_heads), (90, n_kv_heads)])
    )
    tensors = (to_torch(x)[None] for x in (query_TNH, key_SKH, value_SKH))
    mask = torch_meta.causal_mask(8, 82, to_torch(query_TNH).dtype)
    scores_NTS, probs_NTS, ctx_TNH = (to_numpy(x[0]) for x in torch_meta.attend(*tensors, mask))

    found = attention_scores(query_TNH, key_SKH, scaling=over_root_width)
    assert_rounded_alike(found.reshape(8, 8, 90), scores_NTS, "scores")
    as_groups = (n_kv_heads, 8 // n_kv_heads, 8, 90)
    found = attention_probs(scores_NTS.reshape(as_groups))
    assert_rounded_alike(found.reshape(8, 8, 90), probs_NTS, "probs")
    found = attention_mix(probs_NTS.reshape(as_groups), value_SKH)
    assert_rounded_alike(found, ctx_TNH, "ctx")


def test_all_dtypes_are_tried():
    """Were another activation dtype added, this file would have to learn of it."""
    assert set(ACTIVATION_DTYPES) == {*ROUNDED, "float64"}
