"""Replay: every step of a forward pass, each started from a peer's own numbers.

Left to itself, a pass in bfloat16 drifts away from any peer: one rounding that falls the other way
moves everything after it. Started anew from the peer's numbers at every step, it either takes that
step as the peer does, to the bit, or it does not, and then the step is wrong, at any depth.

A tap is handed the model's own array, so a tap that overwrites it decides what the next step reads.
"""

import ml_dtypes
import numpy as np

from llama_ref.numerics import dtype_named, round_to, ulp_distance, widen

ROUNDED_TWICE = ("attn_norm", "ffn_norm", "final_norm", "scores", "act")


def replayed(model, peer, ids, positions=None, cache=None):
    """Run the model, each step from the peer's taps; return what it computed at every tap."""
    computed = {}

    def overwrite(name, array):
        computed[name] = array.copy()
        array[...] = peer[name]

    model.forward(ids, cache or model.new_cache(), positions=positions, tap=overwrite)
    return computed


def assert_same_steps(computed, peer, dtype):
    """Fail unless every tap is the peer's in the sense of `assert_step`."""
    for name, found in computed.items():
        assert found.dtype == peer[name].dtype, name
        # Logits of lineage meta are 16-bit numbers, widened: compared as what they are.
        found_16, expected_16 = (round_to(x, dtype_named(dtype)) for x in (found, peer[name]))
        assert_step(found_16, expected_16, name)


def assert_step(found, expected, name):
    """Fail unless 99 of 100 elements are the peer's bit for bit, and the rest as near as can be.

    Sums are made in float32 by either side, in an order of its own, so a result that lies beside a
    tie may be rounded to the next number up or down. Three things make that more than one step:

    - Cancellation. Where a sum ends near zero, its float32 noise is many steps of a small number.
      Excused is what stays below 2^-18 of the tap's root mean square, where that noise is.
    - A second rounding. Norms, scores and activations are rounded, multiplied, rounded again: one
      step of the first rounding may be two of the second.
    - Rotation in 16 bits subtracts two rounded products: one step of a product may be many of
      their difference. Excused is one step at the largest magnitude of the same head.
    """
    assert found.shape == expected.shape, name
    steps, wide = ulp_distance(found, expected), widen(expected)
    unequal = np.count_nonzero(steps)
    assert unequal <= max(1, found.size // 100), f"{name}: {unequal} of {found.size} differ"

    kind = name.rpartition(".")[2]
    excused = 2.0**-18 * np.sqrt(np.mean(wide * wide))
    if kind in ("q_rope", "k_rope"):
        step = float(ml_dtypes.finfo(found.dtype).eps)
        excused = np.maximum(excused, step * np.abs(wide).max(axis=-1, keepdims=True))
    n_steps = 2 if kind in ROUNDED_TWICE else 1
    off = (steps > n_steps) & (np.abs(widen(found) - wide) > excused)
    assert not off.any(), f"{name}: {steps[off].max()} steps at {np.argwhere(off)[0]}"


def assert_near(found, expected, bound, name=""):
    """Fail if any element is off by more than `bound` standard deviations of what is expected."""
    assert found.dtype == expected.dtype, name
    assert found.shape == expected.shape, name
    error = largest_error(found, expected)
    assert error <= bound, f"{name}: off by {error:.2g} standard deviations, not {bound:g}"


def largest_error(found, expected):
    """Return max |found - expected| in units of the standard deviation of `expected`."""
    wide = widen(expected).astype(np.float64)
    return float(np.abs(widen(found) - wide).max() / wide.std())
