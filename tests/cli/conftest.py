"""The small checkpoint of the demo, written once for all tests of the command line."""

import pytest

from llama_ref.cli.demo_checkpoint import write_demo


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory):
    """A checkpoint folder with random weights in five shards, and a tokenizer of single bytes."""
    folder = tmp_path_factory.mktemp("small")
    write_demo(folder)
    return folder
