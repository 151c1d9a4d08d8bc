"""No false alarm: what had no part in the envelope passes; what rounds too coarsely does not."""

import math

import pytest
import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from llama_ref.checkpoint.write import write_safetensors
from llama_ref.golden import check
from llama_ref.golden.grids import to_tf32
from llama_ref.golden.report import FAIL, INHERITS
from llama_ref.golden.taps import kind_of
from weights_tools.validate_golden import run_bundle
from weights_tools.validate_peers import transformers_peers

PEERS = {peer.name.removeprefix("transformers, "): peer for peer in transformers_peers("cpu")}
IN_A_KERNEL = {"scores", "probs"}


@pytest.fixture(scope="session")
def dumped(golden, tmp_path_factory):
    """Return a function that runs a peer on a bundle, once, and returns the bundle and the dump."""
    done = {}

    def run(name, seed, mode=None):
        if (name, seed, mode) not in done:
            path = tmp_path_factory.mktemp("candidate") / "taps.safetensors"
            with mode() if mode else torch.inference_mode():
                write_safetensors(path, run_bundle(PEERS[name], *golden(seed)))
            done[name, seed, mode] = path
        return golden(seed)[0], done[name, seed, mode]

    return run


def rhos(report):
    """Return the ratio of every step and of everything up to it."""
    judged = [r for row in report.rows for r in (row.local, row.cumulative) if r is not None]
    return [r.rho for r in judged if not math.isnan(r.rho)]


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_transformers_passes(dtype, attention, seed, dumped):
    """Every tap of seven shapes passes in its own class, none is left out, and no choice flips."""
    bundle, path = dumped(f"{dtype}, {attention}", seed)
    report = check(bundle, path, dtype=dtype)
    assert len({case.model for case in bundle.cases}) == 7
    there = {
        (case.name, tap)
        for case in bundle.cases
        for tap in bundle.taps(case)
        if attention == "eager" or kind_of(tap) not in IN_A_KERNEL
    }
    assert {(row.case, row.tap) for row in report.rows} == there
    assert len(rhos(report)) == 2 * len(there)
    assert not [row for row in report.rows if row.status in (FAIL, INHERITS)]
    assert report.verdict != FAIL and report.exit_code == 0


def test_the_class_is_read_off_the_numbers(dumped):
    """A dump of 16 bits passes in its class without being told, one of float32 in its own."""
    for dtype in ("float32", "bfloat16", "float16"):
        report = check(*dumped(f"{dtype}, eager", 0))
        assert (report.precision, report.exit_code) == (dtype, 0)


@pytest.mark.parametrize(("dtype", "off"), [("bfloat16", 10_000), ("float16", 1_000)])
def test_sixteen_bits_are_no_float32(dtype, off, dumped):
    """Judged as float32 they fail from the first norm on, and the report says what they are."""
    report = check(*dumped(f"{dtype}, eager", 0), dtype="float32")
    assert report.exit_code == 1
    assert kind_of(report.first[1]) == "attn_norm"
    assert max(rhos(report)) > off
    assert report.notes[0] == (
        f"Judged as float32, as asked, though its numbers are {dtype}: "
        f"--dtype {dtype} is the class for those."
    )


def test_float32_passes_in_every_class(dumped):
    """Whoever rounds finer than he may is right: float32 passes as anything coarser."""
    for precision in ("float32-kv16", "tf32", "float16", "bfloat16"):
        assert check(*dumped("float32, sdpa", 0), dtype=precision).verdict == "pass"


class TensorCores(TorchFunctionMode):
    """Rounds the operands of every product of matrices to TF32, as tensor cores do."""

    PRODUCTS = (functional.linear, torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in self.PRODUCTS:
            rounded = [torch.from_numpy(to_tf32(operand.numpy())) for operand in args[:2]]
            args = (*rounded, *args[2:])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_tf32_is_a_class_of_its_own(attention, dumped):
    """With operands rounded to TF32 it passes as tf32 and fails as float32, with that as cause."""
    bundle, path = dumped(f"float32, {attention}", 0, TensorCores)
    assert check(bundle, path, dtype="tf32").verdict == "pass"
    report = check(bundle, path, dtype="float32")
    assert report.exit_code == 1
    assert kind_of(report.first[1]) == "q"  # norms have no products
    assert (report.cause.id, report.confidence) == ("operands-in-tf32", "certain")
