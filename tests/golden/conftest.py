"""Bundles that are made once for all tests that only read them."""

import pytest

from llama_ref.golden import make

TWO_LAYERS = "synthetic:golden-tiny?n_layers=2"


@pytest.fixture(scope="session")
def one_layer(tmp_path_factory):
    """Five tokens of one layer."""
    path = tmp_path_factory.mktemp("golden") / "one-layer"
    return make("synthetic:golden-tiny?n_layers=1", path, cases=["five"])


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """Two short cases of two layers."""
    path = tmp_path_factory.mktemp("golden") / "small"
    return make(TWO_LAYERS, path, cases=["two", "five"])


@pytest.fixture(scope="session")
def shaped(tmp_path_factory):
    """Two narrow models: 19 positions up to the last, in two calls, and an output matrix each."""
    path = tmp_path_factory.mktemp("golden") / "shaped"
    return make("golden-tiny", path, cases=["gqa-8", "outliers"])


@pytest.fixture(scope="session")
def fingerprint(tmp_path_factory):
    """The fingerprint of golden-tiny as it comes by default."""
    path = tmp_path_factory.mktemp("golden") / "fingerprint"
    return make("golden-tiny", path, tier="fingerprint")
