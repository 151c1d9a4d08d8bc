"""The truth of golden bundles against a float64 recomputation in torch."""

import numpy as np
import pytest

from llama_ref.golden import make
from tests.golden.ported import weights_of
from tests.peers.torch_float64 import float64_trace

# One unit of the last place of a frequency is 1e-11 radians at position 100,000.
NEAR, FAR = 1e-12, 1e-10


@pytest.mark.parametrize(("cases", "seed", "n"), [("all", 0, 17), ("shapes", 1, 6)])
def test_the_truth_is_another_implementations(tmp_path, cases, seed, n):
    """Every tap of every case is torch's, to 1e-12 of its root mean square, far away to 1e-10."""
    bundle = make("golden-tiny", tmp_path / "b", cases=[cases], seed=seed)
    assert len(bundle.cases) == n
    for case in bundle.cases:
        spec = bundle.spec(case)
        truth = float64_trace(spec.config, weights_of(spec), case.ids, case.positions)
        assert bundle.taps(case) == list(truth)
        bound = FAR if case.positions[-1] > 1000 else NEAR
        for tap, expected in truth.items():
            found = bundle.truth(case, tap)
            assert found.dtype == expected.dtype and found.shape == expected.shape
            size = np.sqrt(np.mean(np.square(expected)))
            assert np.abs(found - expected).max() <= bound * size, f"{case.name}/{tap}"
