"""A tokenizer with all special tokens of Llama 3, one id per byte and no merge."""

import pytest

from llama_ref.cli.demo_checkpoint import write_demo
from llama_ref.tokenizer import load_tokenizer


@pytest.fixture(scope="session")
def demo_tokenizer(tmp_path_factory):
    """Byte b is id b, special token i is id 256 + i."""
    folder = tmp_path_factory.mktemp("chat") / "demo"
    write_demo(folder)
    return load_tokenizer(folder)
