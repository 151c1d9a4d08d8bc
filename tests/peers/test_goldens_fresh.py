"""The stored goldens are what the peers compute today."""

import json

import numpy as np
import pytest

from llama_ref.checkpoint.safetensors import open_safetensors
from llama_ref.golden.suite.case import decoded
from llama_ref.golden.suite.compare import disagreement
from tests.goldens.generate import OP_CASES, OPS, encoded
from tests.goldens.make_forward import forward_goldens
from tests.goldens.stored import FOLDER
from tests.replay import assert_near


def without_results(cases):
    return [{key: value for key, value in case.items() if key != "results"} for case in cases]


@pytest.mark.parametrize("op", OPS)
def test_goldens_of_an_op(op):
    """Computed anew, the cases of an op are those stored: inputs to the bit, results as tested."""
    stored = json.loads((OP_CASES / f"{op}.json").read_text(encoding="utf-8"))["cases"]
    fresh = json.loads(json.dumps(encoded(OPS[op]())))
    assert without_results(fresh) == without_results(stored)
    for one, other in zip(fresh, stored, strict=True):
        assert list(one["results"]) == list(other["results"])
        for name, value in one["results"].items():
            problem = disagreement(decoded(value), decoded(other["results"][name]))
            assert not problem, f"{one['name']}: {problem}"


def test_goldens_of_whole_passes():
    """Computed anew, whole passes are those stored: within the bounds they are tested with."""
    stated, tensors = forward_goldens()
    stored = json.loads((FOLDER / "forward.json").read_text(encoding="utf-8"))["cases"]
    assert json.loads(json.dumps(encoded(stated))) == stored
    arrays = open_safetensors(FOLDER / "forward.safetensors")
    assert set(arrays) == set(tensors)
    for name, array in tensors.items():
        is_16_bits = (
            array.dtype.itemsize == 2 or stated[int(name.split("/")[0])]["dtype"] != "float32"
        )
        assert_near(array, np.asarray(arrays[name]), 0.05 if is_16_bits else 2e-5, name)


def test_the_goldens_are_small():
    """The op cases, which every installation carries, stay below 300 kB, whole passes below 200."""
    passes = [*FOLDER.glob("*.json"), *FOLDER.glob("*.safetensors")]
    for files, limit in ((OP_CASES.glob("*.json"), 300_000), (passes, 200_000)):
        assert 0 < sum(file.stat().st_size for file in files) < limit
