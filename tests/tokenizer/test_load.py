"""Which file of a folder is the tokenizer, and what loading does not do."""

import os
import subprocess
import sys

import pytest

from llama_ref.errors import BadFile, LlamaRefError
from llama_ref.tokenizer import TOKENIZER_FILES, load_tokenizer
from tests.tokenizer.files import RANKS, tokenizer_json, write_json, write_rank_file

N = len(RANKS)


def test_a_folder_is_searched_for_both_files(tmp_path):
    """Either file of a folder is found by its name."""
    write_json(tmp_path, tokenizer_json())
    assert load_tokenizer(tmp_path).file == tmp_path / "tokenizer.json"
    assert TOKENIZER_FILES == ("tokenizer.model", "tokenizer.json")


def test_of_two_files_the_original_counts(tmp_path):
    """Beside Meta's tokenizer.model a tokenizer.json is not read, whatever it holds."""
    write_rank_file(tmp_path)
    write_json(tmp_path, "damaged")
    tokenizer = load_tokenizer(str(tmp_path))
    assert tokenizer.file == tmp_path / "tokenizer.model"
    assert tokenizer.vocab_size == N + 256


def test_folder_without_a_tokenizer_is_refused(tmp_path):
    """The error says which names were looked for."""
    with pytest.raises(BadFile, match=r"tokenizer\.model, tokenizer\.json"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("kind", ["absent", "pipe", "folder in a folder", "dangling link", "NUL"])
def test_what_is_no_regular_file_is_refused(tmp_path, kind):
    """A path to nothing, a pipe or a folder is refused, and none of them blocks."""
    path = tmp_path / "tokenizer.model"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder in a folder":
        path.mkdir()
        path = tmp_path
    elif kind == "dangling link":
        path.symlink_to(tmp_path / "nowhere")
    elif kind == "NUL":
        path = str(path) + "\0"
    with pytest.raises(BadFile):
        load_tokenizer(path)


def test_name_of_a_rank_file_is_free(tmp_path):
    """A rank file is known by its content; only JSON goes by its name."""
    assert load_tokenizer(write_rank_file(tmp_path, name="ranks.txt")).ranks == RANKS
    with pytest.raises(LlamaRefError, match="JSON"):
        load_tokenizer(write_json(tmp_path, tokenizer_json(), name="tokenizer.txt"))


def test_importing_the_package_loads_no_engine():
    """tiktoken, sentencepiece and `regex` are imported when a tokenizer needs them, not before."""
    script = (
        "import sys, llama_ref.tokenizer\n"
        "print(sorted({'tiktoken', 'sentencepiece', 'regex', 'requests'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
