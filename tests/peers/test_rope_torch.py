"""RoPE against torch and transformers: frequencies, tables and rotations, mostly to the bit."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers.models.llama import modeling_llama

from llama_ref.config.presets import FACTOR_8, FACTOR_32
from llama_ref.numerics import dtype_named, ulp_distance
from llama_ref.ops.rope import rope_half_split, rope_interleaved, rope_table
from llama_ref.ops.rope_frequencies import rope_frequencies, stretched_frequencies
from tests.models import TINY
from tests.peers import torch_meta
from tests.peers.arrays import TORCH_DTYPES, to_numpy, to_torch
from tests.peers.hf_peer import hf_config
from tests.peers.trials import ROUNDED, assert_rounded_alike, normal


@pytest.mark.parametrize("theta", [10_000.0, 500_000.0])
@pytest.mark.parametrize("scaling", [None, FACTOR_8, FACTOR_32], ids=["plain", "8", "32"])
@pytest.mark.parametrize("head_dim", [2, 4, 8, 16, 32, 64, 128])
def test_frequencies_to_the_bit(head_dim, scaling, theta):
    """With head widths that are powers of two, float32 frequencies are torch's to the bit."""
    config = replace(TINY, head_dim=head_dim, rope_theta=theta, rope_scaling=scaling)
    found_P = our_frequencies(config)
    assert np.array_equal(found_P, hf_frequencies(config))
    assert np.array_equal(found_P, to_numpy(torch_meta.frequencies(config)))


@pytest.mark.parametrize("theta", [10_000.0, 500_000.0, 1_000_000.0])
def test_frequencies_of_any_width(theta):
    """For every even head width up to 256 float32 frequencies are within two steps of torch's."""
    for head_dim in range(2, 257, 2):
        config = replace(TINY, head_dim=head_dim, rope_theta=theta, rope_scaling=None)
        assert ulp_distance(our_frequencies(config), hf_frequencies(config)).max() <= 2


@pytest.mark.parametrize("theta", [10_000.0, 500_000.0, 1_000_000.0])
def test_stretching_to_the_bit(theta):
    """From equal frequencies, of any width, the stretched ones are torch's to the bit."""
    for head_dim in range(2, 257, 2):
        plain_P = rope_frequencies(head_dim, theta=theta, dtype=np.dtype(np.float32))
        for scaling in (FACTOR_8, FACTOR_32, replace(FACTOR_8, factor=5.0, low_freq_factor=1.5)):
            found_P = stretched_frequencies(plain_P, **vars(scaling))
            assert np.array_equal(found_P, to_numpy(torch_meta.scaled(to_torch(plain_P), scaling)))


def our_frequencies(config):
    plain_P = rope_frequencies(config.head_dim, theta=config.rope_theta, dtype=np.dtype(np.float32))
    if config.rope_scaling is None:
        return plain_P
    return stretched_frequencies(plain_P, **vars(config.rope_scaling))


def hf_frequencies(config):
    return to_numpy(modeling_llama.LlamaRotaryEmbedding(hf_config(config)).inv_freq)


@pytest.mark.parametrize("dtype", ROUNDED)
def test_tables_at_any_position(dtype):
    """Cosines and sines at 2,000 positions up to 131,071 are transformers' and torch.polar's."""
    position_T = np.random.default_rng(0).integers(0, 131_072, 2000)
    config = replace(TINY, head_dim=128)
    frequency_P = our_frequencies(config)
    rotary = modeling_llama.LlamaRotaryEmbedding(hf_config(config))
    peer = rotary(
        torch.zeros(1, dtype=TORCH_DTYPES[dtype]),
        torch.tensor(position_T)[None],
    )
    for found_TP, expected in zip(
        rope_table(position_T, frequency_P, dtype=dtype_named(dtype)), peer, strict=True
    ):
        assert_rounded_alike(found_TP, to_numpy(expected[0, :, :64]), "table")
    angles = torch.outer(torch.tensor(position_T, dtype=torch.float32), to_torch(frequency_P))
    turn = torch.polar(torch.ones_like(angles), angles)
    cos_TP, sin_TP = rope_table(position_T, frequency_P, dtype=np.dtype(np.float32))
    assert np.abs(cos_TP - to_numpy(turn.real)).max() <= 2.0**-23
    assert np.abs(sin_TP - to_numpy(turn.imag)).max() <= 2.0**-23


@pytest.mark.parametrize("dtype", [*ROUNDED, "float64"])
def test_half_split_rotation_to_the_bit(dtype):
    """With one table, half-split rotation is transformers' to the bit in every dtype."""
    x_TNH = normal((200, 3, 64), dtype)
    cos_TP, sin_TP = random_table(dtype)
    doubled = (torch.cat((to_torch(t),) * 2, dim=-1)[None] for t in (cos_TP, sin_TP))
    heads = to_torch(x_TNH)[None].transpose(1, 2)
    y = modeling_llama.apply_rotary_pos_emb(heads, heads, *doubled)[0][0].transpose(0, 1)
    assert np.array_equal(rope_half_split(x_TNH, cos_TP, sin_TP), to_numpy(y))


@pytest.mark.parametrize("dtype", ROUNDED)
def test_interleaved_rotation(dtype):
    """With one float32 table, interleaved rotation is a product of complex numbers, rounded."""
    x_TNH = normal((200, 3, 64), dtype)
    cos_TP, sin_TP = random_table("float32")
    turn = torch.complex(to_torch(cos_TP), to_torch(sin_TP))
    y_TNH = to_numpy(torch_meta.rotate(to_torch(x_TNH)[None], turn)[0])
    assert_rounded_alike(rope_interleaved(x_TNH, cos_TP, sin_TP), y_TNH, "q_rope")


def random_table(dtype):
    angle_TP = np.random.default_rng(1).uniform(-7, 7, (200, 32))
    return np.cos(angle_TP).astype(dtype_named(dtype)), np.sin(angle_TP).astype(dtype_named(dtype))
