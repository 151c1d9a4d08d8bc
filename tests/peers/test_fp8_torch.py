"""FP8 and dynamic quantisation against torch: float8_e4m3fn, and the published kernels restated."""

import numpy as np
import pytest
import torch

import llama_ref as lr
from llama_ref.checkpoint import open_hf, synthetic, write_hf
from llama_ref.config import to_hf_dict
from llama_ref.config.quantisation import as_released
from llama_ref.dynamic_quantisation import fp8_per_token, int8_per_token
from llama_ref.ops.linear import linear
from tests.models import TINY
from weights_tools.__main__ import main

CONFIG = TINY.__class__(**{**vars(TINY), "n_layers": 4})


def inputs(seed, scale):
    """Return activations with an outlier, a zero token and tiny numbers among them."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((40, 96), np.float32) * np.float32(scale)
    x[3] = 0
    x[5, 7] *= 1e4
    x[6] *= np.float32(1e-6)
    return x


def fp8_in_torch(x, upper_bound):
    """Quantise each row as vLLM's tests restate quantize_fp8_per_row of FBGEMM."""
    x = torch.from_numpy(x)
    largest = x.abs().max(dim=-1).values.to(torch.float32)
    if upper_bound is not None:
        largest = largest.clamp(max=upper_bound)
    scales = (largest / 448.0)[:, None]
    scales = scales.clamp(min=1.0 / (448.0 * 512.0))
    q = (x / scales).clamp(-448.0, 448.0).to(torch.float8_e4m3fn)
    return q, scales


@pytest.mark.parametrize("upper_bound", [None, 1200.0])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0])
def test_fp8_of_each_token_is_torchs(scale, upper_bound):
    """Numbers and scales, bit for bit; and so the numbers they stand for."""
    x = inputs(0, scale)
    q, s = fp8_per_token(x, upper_bound=upper_bound)
    theirs, scales = fp8_in_torch(x, upper_bound)
    assert np.array_equal(q.view(np.uint8), theirs.view(torch.uint8).numpy())
    assert np.array_equal(s, scales.numpy())


@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0])
def test_int8_of_each_token_is_torchs(scale):
    """Numbers, scales and zeros are those of torch's own operator for dynamic quantisation."""
    x = inputs(1, scale)
    q, s, z = int8_per_token(x)
    for row in range(len(x)):
        token = torch.from_numpy(x[row])
        zero_in = torch.cat([token, torch.zeros(1)])
        least, largest = zero_in.min(), zero_in.max()
        expected_s = torch.clamp((largest - least) / 255.0, min=torch.finfo(torch.float32).eps)
        left, right = -128 + least / expected_s, 127 + largest / expected_s
        zero = -128 - least / expected_s if left + right > 0 else 127 - largest / expected_s
        expected_z = torch.clamp(zero, -128, 127).round()
        expected = torch.clamp(torch.round(token / expected_s) + expected_z, -128, 127)
        assert s[row, 0] == expected_s.numpy()
        assert z[row, 0] == int(expected_z)
        assert np.array_equal(q[row], expected.numpy().astype(np.int8))


def test_all_256_numbers_are_torchs():
    """Every float8 widens to what torch widens it to, and rounds back to itself."""
    bits = np.arange(256, dtype=np.uint8)
    ours = bits.view(lr.numerics.FLOAT8).astype(np.float32)
    theirs = torch.from_numpy(bits.copy()).view(torch.float8_e4m3fn).float().numpy()
    finite = np.isfinite(ours)
    assert finite.sum() == 254
    assert np.array_equal(finite, np.isfinite(theirs))
    assert np.array_equal(ours[finite].view(np.uint32), theirs[finite].view(np.uint32))
    assert np.array_equal(ours[finite].astype(lr.numerics.FLOAT8).view(np.uint8), bits[finite])


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("fp8")
    write_hf(root / "whole", to_hf_dict(CONFIG), synthetic.checkpoint(CONFIG))
    assert main(["quantise", str(root / "whole"), str(root / "fp8"), "--to", "fp8"]) == 0
    return root


def test_quantised_weights_are_torchs(folders):
    """The feed-forward matrices between the edge layers, and no others, are torch's float8."""
    whole, fp8 = open_hf(folders / "whole"), open_hf(folders / "fp8")
    rule, count = as_released(CONFIG), 0
    for name, array in whole.items():
        if not rule.is_quantised(name):
            assert np.array_equal(fp8[name], array)
            continue
        count += 1
        q, scales = fp8_in_torch(np.array(array), None)
        assert np.array_equal(fp8[name].view(np.uint8), q.view(torch.uint8).numpy())
        assert np.array_equal(fp8[f"{name}_scale"], scales.numpy())
        model_side = np.asarray(lr.loading.open_checkpoint(folders / "fp8")[0][name])
        assert np.array_equal(model_side, (q.float() * scales).numpy())
    assert count == 3 * (CONFIG.n_layers - 2)


def test_the_kernels_product_is_ours_to_float32_rounding():
    """sum(q_x q_w) s_x s_w, as the kernel has it, is the product of what the numbers stand for."""
    rng = np.random.default_rng(2)
    x, w = inputs(3, 1.0), rng.standard_normal((64, 96), np.float32)
    q_w, s_w = fp8_per_token(w, upper_bound=None)
    ours = linear(x, lr.checkpoint.fp8.ScaledRows(q_w, s_w, lr.dynamic_quantisation.rounded_to_fp8))
    q_x, scales = fp8_in_torch(x, 1200.0)
    kernel = (
        (q_x.double() @ torch.from_numpy(q_w.astype(np.float64)).T)
        * scales
        * torch.from_numpy(s_w).T
    )
    sums = (
        (q_x.double().abs() @ torch.from_numpy(np.abs(q_w.astype(np.float64))).T)
        * scales
        * torch.from_numpy(s_w).T
    )
    bound = 98 * 2.0**-23 * sums.numpy()
    assert (np.abs(ours - kernel.numpy()) <= bound + 1e-30).all()


def restated(x, gate, up, down):
    """Run a feed-forward network as the release does: every product in FP8, results in bfloat16."""

    def product(x, name):
        q, s = fp8_in_torch(x.float().numpy(), 1200.0)
        w, w_scale = name
        y = (q.float() @ w.float().T) * s * w_scale.T
        return y.to(torch.bfloat16)

    hidden = torch.nn.functional.silu(product(x, gate)) * product(x, up)
    return product(hidden, down)


def test_a_quantised_feed_forward_is_the_restated_one(folders):
    """In bfloat16 the whole network is within the rounding of a few products of the restatement."""
    model = lr.load(folders / "fp8", dtype="bfloat16", quantised_activations=True)
    layer, stored = model.weights.layers[1], open_hf(folders / "fp8")
    rng = np.random.default_rng(4)
    x = rng.standard_normal((12, CONFIG.d_model), np.float32)
    x_torch = torch.from_numpy(x).to(torch.bfloat16)
    names = [f"model.layers.1.mlp.{part}_proj.weight" for part in ("gate", "up", "down")]
    matrices = [
        (
            torch.from_numpy(np.array(stored[name]).view(np.uint8)).view(torch.float8_e4m3fn),
            torch.from_numpy(np.array(stored[f"{name}_scale"])),
        )
        for name in names
    ]
    theirs = restated(x_torch, *matrices).float().numpy()
    from llama_ref.ops.swiglu import swiglu

    x_TD = x.astype(lr.numerics.BFLOAT16)
    hidden = swiglu(linear(x_TD, layer.w_gate_FD), linear(x_TD, layer.w_up_FD))
    ours = linear(hidden, layer.w_down_DF).astype(np.float32)
    assert np.abs(ours - theirs).max() <= 0.05 * theirs.std()
    assert np.mean(ours == theirs) > 0.9
