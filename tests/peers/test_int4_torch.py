"""INT4 against torch: its quantised operators, the released forward pass restated, a rotation."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.ao.quantization.fx._decomposed  # registers the operators

import llama_ref as lr
from llama_ref.checkpoint import open_meta, synthetic, write_hf
from llama_ref.checkpoint.int4 import Adaptor, GroupedRows, SumOfMatrices
from llama_ref.config import to_hf_dict
from llama_ref.dynamic_quantisation import int8_per_token, rounded_to_int8
from llama_ref.hadamard import hadamard
from llama_ref.ops.linear import linear
from tests.models import TINY
from weights_tools.__main__ import main
from weights_tools.quantising import int4_by_group

OPS = torch.ops.quantized_decomposed
SIZES = {"d_model": 64, "n_heads": 8, "n_kv_heads": 4, "head_dim": 8, "d_ff": 128}
CONFIG = replace(TINY, **SIZES, vocab_size=96)


def activations(seed, scale=1.0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((20, 96), np.float32) * np.float32(scale)
    x[3], x[4] = 0, np.abs(x[4])
    x[5, 7] *= 100
    return x


@pytest.mark.parametrize("scale", [1e-4, 1.0, 300.0])
def test_dynamic_int8_is_torchs_operator(scale):
    """Scales, zeros and numbers of each token are those of torch's choose and quantise."""
    x = activations(0, scale)
    q, s, z = int8_per_token(x)
    theirs = torch.from_numpy(x)
    scales, zeros = OPS._choose_qparams_per_token_asymmetric_impl(theirs, torch.int8)
    expected = OPS.quantize_per_token(theirs, scales, zeros, -128, 127, torch.int8)
    assert np.array_equal(s, scales.float().numpy())
    assert np.array_equal(z, zeros.numpy())
    assert np.mean(q == expected.numpy()) > 0.999  # torch divides in float64
    assert np.abs(q.astype(int) - expected.numpy()).max() <= 1


def test_groups_of_four_bits_are_torchs_operator():
    """Numbers and scales of the writer give back what torch's operator makes of them."""
    w = activations(1)
    q, scale = int4_by_group(w, 32)
    s, zeros = torch.from_numpy(scale), torch.zeros(scale.shape)
    theirs = OPS.quantize_per_channel_group(torch.from_numpy(w), s, zeros, -8, 7, torch.int8, 32)
    assert np.mean(q == theirs.numpy()) > 0.999  # torch multiplies with 1 / scale
    back = OPS.dequantize_per_channel_group(
        torch.from_numpy(q), s, zeros, -8, 7, torch.int8, 32, torch.float32
    )
    ours = GroupedRows(q, scale, None, "w")
    assert np.array_equal(np.asarray(ours), back.numpy())
    assert np.array_equal(ours.rows(3, 9), back.numpy()[3:9])


@pytest.mark.parametrize("rank", [0, 4])
def test_a_product_is_the_released_one(rank):
    """Dynamic activations, 4-bit weights and the adaptor beside them, restated in torch."""
    rng = np.random.default_rng(2)
    x, w = activations(3), rng.standard_normal((40, 96), np.float32)
    q, scale = int4_by_group(w, 32)
    matrix = GroupedRows(q, scale, rounded_to_int8, "w")
    x_t, s = torch.from_numpy(x), torch.from_numpy(scale)
    scales, zeros = OPS._choose_qparams_per_token_asymmetric_impl(x_t, torch.int8)
    x_q = OPS.quantize_per_token(x_t, scales, zeros, -128, 127, torch.int8)
    x_dq = (x_q.double() - zeros) * scales
    w_dq = OPS.dequantize_per_channel_group(
        torch.from_numpy(q), s, torch.zeros(s.shape), -8, 7, torch.int8, 32, torch.float32
    ).double()
    expected = x_dq @ w_dq.T
    if rank:
        down, up = (rng.standard_normal(n, np.float32) for n in ((rank, 96), (40, rank)))
        matrix = SumOfMatrices(matrix, Adaptor(down, up, 2.0))
        expected += (
            2.0
            * (x_t.double() @ torch.from_numpy(down).double().T)
            @ torch.from_numpy(up).double().T
        )
        whole = w_dq.numpy() + 2.0 * up.astype(np.float64) @ down
        np.testing.assert_allclose(np.asarray(matrix), whole, rtol=0, atol=1e-5)
    ours = linear(x, matrix)
    step = scales.numpy().max() * np.abs(w_dq.numpy()).max()  # one number may be rounded otherwise
    assert np.abs(ours - expected.numpy()).max() <= step
    assert np.median(np.abs(ours - expected.numpy())) <= 1e-4


@pytest.mark.parametrize("n", [1, 2, 8, 128, 8192])
def test_hadamard_is_the_direct_product(n):
    """The fast transform is x H, with H by its definition; and H is its own inverse."""
    rng = np.random.default_rng(4)
    x = rng.standard_normal((3, n))
    ours = hadamard(x)
    if n <= 1024:
        direct = torch.ones(1, 1, dtype=torch.float64)
        while direct.shape[0] < n:
            two = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
            direct = torch.kron(two, direct) / 2**0.5
        np.testing.assert_allclose(ours, x @ direct.numpy(), rtol=0, atol=1e-12)
    np.testing.assert_allclose(hadamard(ours), x, rtol=0, atol=1e-12)
    single = hadamard(x.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, ours, rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("int4")
    write_hf(root / "whole", to_hf_dict(CONFIG), synthetic.checkpoint(CONFIG))
    for kind in ("int4", "int4-spinquant"):
        assert main(["quantise", str(root / "whole"), str(root / kind), "--to", kind]) == 0
    return root


@pytest.mark.parametrize("kind", ["int4", "int4-spinquant"])
def test_a_quantised_model_is_the_restated_one(kind, folders):
    """The feed-forward network of a layer, from the stored numbers, with torch's operators."""
    model = lr.load(folders / kind, quantised_activations=True)
    stored, layer = open_meta(folders / kind), model.weights.layers[0]

    def product(x, name, turned=False):
        if turned:
            n = x.shape[1]
            direct = torch.ones(1, 1)
            while direct.shape[0] < n:
                direct = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]]), direct) / 2**0.5
            x = x @ direct
        s, z = OPS._choose_qparams_per_token_asymmetric_impl(x, torch.int8)
        q = OPS.quantize_per_token(x, s, z, -128, 127, torch.int8)
        x = ((q.double() - z) * s).float()
        owner = f"layers.0.feed_forward.{name}"
        scales = torch.from_numpy(np.array(stored[f"{owner}.scales"]))
        w = OPS.dequantize_per_channel_group(
            torch.from_numpy(np.array(stored[f"{owner}.weight"])),
            scales,
            torch.zeros(scales.shape),
            -8,
            7,
            torch.int8,
            32,
            torch.float32,
        )
        return x @ w.T

    x = np.random.default_rng(5).standard_normal((9, CONFIG.d_model), np.float32)
    gate, up = (product(torch.from_numpy(x), name) for name in ("w1", "w3"))
    hidden = torch.nn.functional.silu(gate) * up
    theirs = product(hidden, "w2", turned=kind != "int4").numpy()
    from llama_ref.ops.swiglu import swiglu

    ours = linear(swiglu(linear(x, layer.w_gate_FD), linear(x, layer.w_up_FD)), layer.w_down_DF)
    assert np.abs(ours - theirs).max() <= 0.02 * theirs.std()
    assert np.median(np.abs(ours - theirs)) <= 1e-5


def test_a_rotated_file_without_the_rotation_is_another_model(folders, tmp_path):
    """The classic mistake: without the online transform the numbers are unrelated."""
    right = lr.load(folders / "int4-spinquant").logits([1, 2, 3, 4])
    plain = lr.load(folders / "int4").logits([1, 2, 3, 4])
    params = folders / "int4-spinquant" / "params.json"
    before = params.read_text()
    said = json.loads(before)
    said["quantization_args"]["spinquant"] = False
    try:
        params.write_text(json.dumps(said))
        wrong = lr.load(folders / "int4-spinquant").logits([1, 2, 3, 4])
    finally:
        params.write_text(before)
    assert np.corrcoef(right.ravel(), plain.ravel())[0, 1] > 0.9
    assert np.corrcoef(wrong.ravel(), plain.ravel())[0, 1] < 0.9
