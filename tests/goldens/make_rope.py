"""Compute the goldens of RoPE: transformers' class and function, Meta's formulas, mpmath."""

from dataclasses import asdict, replace

import numpy as np
import torch
from transformers.models.llama import modeling_llama

from llama_ref.config import RopeScaling
from llama_ref.config.presets import FACTOR_8, FACTOR_32
from tests.goldens import witness
from tests.goldens.drawing import case, numbers
from tests.models import TINY
from tests.peers import torch_float64, torch_meta
from tests.peers.arrays import to_numpy, to_torch
from tests.peers.hf_peer import hf_config

POSITIONS = np.array([0, 1, 257, 8191, 100_003, 131_071])


def frequencies(config, dtype):
    """Return what transformers computes, in float32; in float64 the formula in torch."""
    if dtype == "float32":
        return to_numpy(modeling_llama.LlamaRotaryEmbedding(hf_config(config)).inv_freq)
    return to_numpy(torch_float64.frequencies(config))


def rope_frequencies_cases():
    cases = []

    def add(name, why, head_dim, theta, scaling, dtype, catches):
        stated = None if scaling is None else asdict(scaling)
        config = replace(TINY, head_dim=head_dim, rope_theta=theta, rope_scaling=scaling)
        f = frequencies(config, dtype)
        truth = witness.rope_frequencies(head_dim, theta, stated).astype(np.float64)
        error = np.abs(f - truth) / truth
        if error.max() > 64 * np.finfo(f.dtype).eps:
            raise SystemExit(f"{name}: torch is {error.max():.3g} from the truth")
        if scaling is None:
            function = "rope_frequencies"
            arguments = {"head_dim": head_dim, "theta": theta, "dtype": dtype}
        else:
            function = "stretched_frequencies"
            arguments = {"frequency_P": frequencies(replace(config, rope_scaling=None), dtype)}
            arguments |= stated
        results = {"frequency_P": f}
        cases.append(case(name, why, function, arguments, results, catches, tolerance="each"))

    plain = ["theta 10,000", "exponent p/H", "exponent counts from 1"]
    bands = ["not stretched", "every pair stretched", "blend the wrong way round", "no blend"]
    for dtype in ("float32", "float64"):
        add(f"H 128, {dtype}", "Llama 3.0", 128, 5e5, None, dtype, plain)
        add(f"H 128, factor 8, {dtype}", "Llama 3.1", 128, 5e5, FACTOR_8, dtype, [*bands, "8 ↔ 32"])
        add(f"H 64, factor 32, {dtype}", "3.2 1B", 64, 5e5, FACTOR_32, dtype, [*bands, "8 ↔ 32"])
    add("H 128, factor 32, float64", "3.2 3B", 128, 5e5, FACTOR_32, "float64", ["8 ↔ 32"])
    add("H 128, theta 10,000, float32", "Llama 2", 128, 1e4, None, "float32", ["exponent p/H"])
    add(
        "H 64, theta 10,000, factor 8, float32",
        "number / tensor is two roundings in torch, and here they show",
        64,
        1e4,
        FACTOR_8,
        "float32",
        ["not stretched"],
    )
    add(
        "H 32, original context 7,000, float32",
        "a context that is no power of two: the second number / tensor shows as well",
        32,
        1e4,
        replace(FACTOR_8, original_context=7000),
        "float32",
        ["constants of Llama 3.1"],
    )
    add(
        "H 16, other bands, float64",
        "low, high and the original context are parameters, not constants",
        16,
        5e5,
        RopeScaling(4.0, low_freq_factor=2.0, high_freq_factor=5.0, original_context=4096),
        "float64",
        ["constants of Llama 3.1"],
    )
    return cases


def rope_table_cases():
    config = replace(TINY, head_dim=8, rope_scaling=FACTOR_8)
    rotary = modeling_llama.LlamaRotaryEmbedding(hf_config(config))
    frequency = to_numpy(rotary.inv_freq)
    cases = []

    def add(name, why, frequency, dtype, cos, sin, catches, flags=(), positions=POSITIONS):
        # A float32 angle near 131,071 is itself rounded, by up to 2^-8: the truth takes it as is.
        angle = positions.astype(frequency.dtype)[:, None] * frequency
        for found, true in zip(
            (cos, sin), witness.rope_table(np.ones(1), angle.ravel()), strict=True
        ):
            witness.confirm(found, true.reshape(angle.shape), 1, name)
        arguments = {"position_T": positions, "frequency_P": frequency, "dtype": dtype}
        results = {"cos_TP": cos, "sin_TP": sin}
        cases.append(case(name, why, "rope_table", arguments, results, catches, flags))

    def of_transformers(positions, dtype="float32"):
        x = torch.zeros(1, dtype=to_torch(np.zeros(1), dtype).dtype)
        return (to_numpy(t[0, :, :4]) for t in rotary(x, torch.tensor(positions)[None]))

    wrong = ["positions from 1", "positions in bfloat16", "turned the other way"]
    wrong += ["positions counted in the call"]
    for dtype, more in (("float32", []), ("bfloat16", ["not rounded"]), ("float16", [])):
        cos, sin = of_transformers(POSITIONS, dtype)
        why = "lineage hf: computed in float32, then rounded to the activations' dtype"
        flags = ["float32-angles"]
        add(f"transformers, {dtype}", why, frequency, dtype, cos, sin, wrong + more, flags)
    angles = torch.outer(torch.tensor(POSITIONS, dtype=torch.float32), to_torch(frequency))
    turn = torch.polar(torch.ones_like(angles), angles)
    why = "lineage meta: angles are float32 products, at 131,071 too"
    cos, sin = to_numpy(turn.real), to_numpy(turn.imag)
    more = [*wrong, "angles in float64"]
    add("Meta, float32", why, frequency, "float32", cos, sin, more, ["float32-angles"])
    powers = np.array([0, 1, 2, 64, 8192, 65_536])
    why = "the float32 product with a power of two is exact: so are all angles, however computed"
    more = ["positions from 1", "turned the other way", "positions counted in the call"]
    cos, sin = of_transformers(powers)
    add("powers of two, float32", why, frequency, "float32", cos, sin, more, positions=powers)
    why = "generation far into a text: the position is not that of the token in this call"
    far = np.array([65_536])
    cos, sin = of_transformers(far)
    add("one token at 65,536, float32", why, frequency, "float32", cos, sin, more, positions=far)
    exact = to_numpy(torch_float64.frequencies(config))
    angles = torch.outer(torch.tensor(POSITIONS).double(), to_torch(exact))
    why = "float64 activations get float64 angles"
    add("float64", why, exact, "float64", to_numpy(angles.cos()), to_numpy(angles.sin()), wrong)
    return cases


def rope_cases():
    cases = rope_table_cases()
    config = replace(TINY, head_dim=8, rope_scaling=FACTOR_8)
    rotary = modeling_llama.LlamaRotaryEmbedding(hf_config(config))
    angles = torch.outer(torch.tensor(POSITIONS, dtype=torch.float32), rotary.inv_freq)

    def add(name, why, pairing, x, cos, sin, y, n_roundings, catches, flags=()):
        witness.confirm(y, witness.rope(x, cos, sin, pairing), n_roundings, name)
        arguments = {"x_TNH": x, "cos_TP": cos, "sin_TP": sin}
        function, results = f"rope_{pairing}", {"y_TNH": y}
        cases.append(case(name, why, function, arguments, results, catches, flags))

    wrong = ["the other pairing", "turned the other way", "not turned", "angles of the next token"]
    for dtype in ("float32", "bfloat16", "float16", "float64"):
        x = numbers((6, 2, 8), dtype)
        cos, sin = (to_torch(to_numpy(t), dtype) for t in (angles.cos(), angles.sin()))
        # transformers wants (batch, heads, tokens, channels), and its table twice over.
        heads = to_torch(x)[None].transpose(1, 2)
        doubled = (torch.cat((t, t), dim=-1)[None] for t in (cos, sin))
        y = modeling_llama.apply_rotary_pos_emb(heads, heads, *doubled)[0]
        rounds = ["rounded once"] if dtype in ("bfloat16", "float16") else []
        add(
            f"half-split, transformers, {dtype}",
            "channel p turns with channel p + H/2; every product and sum in the table's dtype",
            "half_split",
            x,
            to_numpy(cos),
            to_numpy(sin),
            to_numpy(y[0].transpose(0, 1)),
            3,
            wrong + rounds,
        )
    for dtype in ("float32", "bfloat16", "float16"):
        x = numbers((6, 2, 8), dtype, seed=1)
        turn = torch.polar(torch.ones_like(angles), angles)
        y = to_numpy(torch_meta.rotate(to_torch(x)[None], turn)[0])
        rounds = ["table rounded"] if dtype in ("bfloat16", "float16") else []
        add(
            f"interleaved, Meta, {dtype}",
            "neighbouring channels turn together; rotated in float32, then rounded once",
            "interleaved",
            x,
            to_numpy(turn.real),
            to_numpy(turn.imag),
            y,
            2,
            wrong + rounds,
        )
    # Three pairs: half of the channels is no multiple of two, and halves and pairs differ in all.
    x = numbers((1, 1, 6), "float32", seed=2)
    angles = torch.tensor([[0.5, 1.5, 2.5]])
    turn, cos, sin = torch.polar(torch.ones_like(angles), angles), angles.cos(), angles.sin()
    doubled = (torch.cat((t, t), dim=-1)[None] for t in (cos, sin))
    heads = to_torch(x)[None].transpose(1, 2)
    half_split = modeling_llama.apply_rotary_pos_emb(heads, heads, *doubled)[0][0].transpose(0, 1)
    for pairing, y in (
        ("half_split", half_split),
        ("interleaved", torch_meta.rotate(to_torch(x)[None], turn)[0]),
    ):
        add(
            f"{pairing.replace('_', '-')}, one token, one head of width 6, float32",
            "the smallest call there is, and a width that four does not divide",
            pairing,
            x,
            to_numpy(cos),
            to_numpy(sin),
            to_numpy(y),
            3,
            wrong[:3],
            ["odd-sizes"],
        )
    return cases
