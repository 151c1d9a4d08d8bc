"""Bundles that are made once for all tests that only read them."""

import shutil

import pytest

from llama_ref.checkpoint import write_safetensors
from llama_ref.golden import make
from tests.golden.ported import ported

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


@pytest.fixture
def bundle(one_layer, tmp_path):
    """A copy of a bundle, to be spoilt."""
    shutil.copytree(one_layer.path, tmp_path / "bundle")
    return tmp_path / "bundle"


@pytest.fixture(scope="session")
def candidate(one_layer, tmp_path_factory):
    """A right candidate for it: only the bundle can be at fault."""
    path = tmp_path_factory.mktemp("candidate") / "right.safetensors"
    write_safetensors(path, ported(one_layer))
    return path
