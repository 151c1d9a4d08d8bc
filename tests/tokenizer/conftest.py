"""Tokenizers that the tests share: a small one of 270 ranks, and the real ones."""

import pytest

from llama_ref.tokenizer import load_tokenizer
from tests.tokenizer.files import tokenizer_json, write_json, write_rank_file


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """A tokenizer of 270 ranks and 256 special tokens, from a rank file."""
    return load_tokenizer(write_rank_file(tmp_path_factory.mktemp("ranks")))


@pytest.fixture(scope="session")
def small_json(tmp_path_factory):
    """The same ranks from a tokenizer.json, with four special tokens."""
    return load_tokenizer(write_json(tmp_path_factory.mktemp("json"), tokenizer_json()))


@pytest.fixture(scope="session")
def llama3(llama3_ranks_file):
    """The tokenizer of Llama 3."""
    return load_tokenizer(llama3_ranks_file)


@pytest.fixture(scope="session")
def stories(stories_folder):
    """The sentencepiece tokenizer of the stories260k model."""
    return load_tokenizer(stories_folder)


@pytest.fixture
def stories_model_bytes(stories_folder):
    """The bytes of a sentencepiece model file."""
    return (stories_folder / "tokenizer.model").read_bytes()
