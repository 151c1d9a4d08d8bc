"""Peers: torch and transformers, quiet, on one thread, and never asking the network.

llama.cpp's binding takes minutes to compile, so it is a peer on request: with it (extra `ggml`) its
tests are collected, without it they are not, and the header of the run says which it was.
Continuous integration sets LLAMA_REF_REQUIRE_GGML=1, which turns its absence into an error.
"""

import importlib.util
import os
from functools import cache

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

import torch

torch.set_num_threads(1)

HAS_GGML = all(importlib.util.find_spec(name) for name in ("llama_cpp", "gguf"))
collect_ignore = [] if HAS_GGML else ["test_capture_llama_cpp.py", "test_golden_llama_cpp.py"]


SHAPES_AND_CHUNKS = ("five", "decode", "shapes")
"""Cases of seven shapes, two of them in several calls."""


@pytest.fixture(scope="session")
def golden(tmp_path_factory):
    """Return a function from seed to a bundle of seven shapes and the folders of its models."""
    from llama_ref.golden import make
    from weights_tools.validate_golden import write_models

    @cache
    def of_seed(seed):
        folder = tmp_path_factory.mktemp("golden")
        bundle = make("golden-tiny", folder / "bundle", cases=SHAPES_AND_CHUNKS, seed=seed)
        return bundle, write_models(bundle, folder / "models")

    return of_seed


def pytest_configure(config):
    if os.environ.get("LLAMA_REF_REQUIRE_GGML") and not HAS_GGML:
        raise pytest.UsageError("LLAMA_REF_REQUIRE_GGML is set, but llama_cpp or gguf is absent")


def pytest_report_header():
    return f"llama.cpp: {'present' if HAS_GGML else 'absent, its tests not collected'}"
