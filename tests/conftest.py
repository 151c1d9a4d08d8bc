"""Where the tests find the real model and tokenizer files, and how they behave without them.

A clone on its own holds no trained weights and no Llama 3 tokenizer. Tests that need one carry the
mark `real`; they are collected when the folder `shared` stands beside the clone, and the header of
the run says which it was. Continuous integration sets LLAMA_REF_REQUIRE_REAL=1, which turns an
absent folder into an error instead.
"""

import os
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[1].parent / "shared"
STORIES = SHARED / "models" / "stories260k"
LLAMA3_RANKS = SHARED / "tokenizers" / "llama3" / "tokenizer.model"
PRESENT = STORIES.is_dir() and LLAMA3_RANKS.is_file()


def pytest_configure(config):
    config.addinivalue_line("markers", "real: needs the real model and tokenizer files")
    if os.environ.get("LLAMA_REF_REQUIRE_REAL") and not PRESENT:
        raise pytest.UsageError("LLAMA_REF_REQUIRE_REAL is set, but the real files are absent")


def pytest_report_header():
    return f"real model and tokenizer files: {'present' if PRESENT else 'absent, tests deselected'}"


def pytest_collection_modifyitems(config, items):
    if not PRESENT:
        absent = [item for item in items if item.get_closest_marker("real")]
        config.hook.pytest_deselected(items=absent)
        items[:] = [item for item in items if item not in set(absent)]


@pytest.fixture(scope="session")
def stories_folder():
    """The trained 260k-parameter Llama as an HF folder: GQA, tied, sentencepiece."""
    return STORIES


@pytest.fixture(scope="session")
def llama3_ranks_file():
    """Meta's tokenizer.model for Llama 3: 128,000 ranks."""
    return LLAMA3_RANKS
