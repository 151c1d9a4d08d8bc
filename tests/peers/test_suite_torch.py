"""The suite of golden op cases against a backend whose arrays are not NumPy's: torch, by hooks."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from llama_ref.errors import CompareError
from llama_ref.golden import suite
from tests.peers import torch_backend


def changed(**functions):
    """Return the torch backend with other functions in some places."""
    return {**vars(torch_backend), **functions}


@pytest.mark.parametrize("case", suite.cases(), ids=str)
def test_a_torch_backend_meets_every_case(case):
    """Ops written in torch, as the released codes have them, pass in all four dtypes."""
    case.check(torch_backend)


def test_a_fused_kernel_passes_but_for_its_rounding_points():
    """The fused attention of torch fails no case but those flagged for where they round."""

    def attention(query, key, value, *, scaling):
        T, S = len(query), len(key)
        seen = torch.ones(T, S, dtype=torch.bool).tril(S - T)
        heads = (x.transpose(0, 1)[None] for x in (query, key, value))
        ctx = F.scaled_dot_product_attention(*heads, attn_mask=seen, enable_gqa=True)
        return ctx[0].transpose(0, 1)

    results = suite.check_ops(changed(attention=attention), ["attention"])
    assert {r.status for r in results if "rounding-points" not in r.flags} == {"pass"}


def test_a_tensor_without_hooks_is_explained():
    """A bfloat16 tensor, which NumPy cannot read, fails with what the backend has to add."""
    functions = changed(softmax=lambda x: torch.zeros(x.shape, dtype=torch.bfloat16))
    del functions["asarray"], functions["to_numpy"]
    case = next(case for case in suite.cases(["softmax"]) if "bfloat16" in case.flags)
    with pytest.raises(CompareError, match=r"y does not become an array.*asarray and to_numpy"):
        case.check(functions)


def test_a_tensor_changed_in_place_is_noticed():
    """An op that writes into its tensor fails, though what it returns is right."""
    functions = changed(swiglu=lambda gate, up: gate.copy_(torch_backend.swiglu(gate, up)))
    results = suite.check_ops(functions, ["swiglu"])
    changed_in = [r.case for r in results if r.problem == "swiglu changes its argument gate_TF"]
    assert len(changed_in) == len(results)


def test_a_backend_of_32_bits_says_what_it_lacks():
    """Hooks that make float32 of float64 fail the float64 cases by name; integers may be int32."""

    def narrow(array):
        tensor = torch_backend.asarray(array)
        return {torch.float64: tensor.float(), torch.int64: tensor.int()}.get(tensor.dtype, tensor)

    results = suite.check_ops(changed(asarray=narrow), ["linear", "embed"])
    failed = [r for r in results if r.status == "fail"]
    assert [r.flags for r in failed] == [["float64"]]
    assert "comes back as float32" in failed[0].problem
    assert np.all([r.status == "pass" for r in results if "float64" not in r.flags])
