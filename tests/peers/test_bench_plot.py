"""`llama-ref bench --plot`, with the matplotlib that draws it."""

import pytest

from llama_ref.bench.context import Context
from llama_ref.bench.context_plot import plot_contexts
from llama_ref.errors import BadFile, BadRequest

ROWS = [Context(512, 6e-4, 8e-3, 0.5, 8 * 10**7), Context(2048, 2e-3, 8e-3, 2.4, 3 * 10**8)]


@pytest.mark.parametrize(("name", "begins"), [("a.svg", b"<?xml"), ("a.png", b"\x89PNG")])
def test_costs_are_drawn(name, begins, tmp_path):
    """A picture of the kind that the suffix says, over what was there."""
    path = tmp_path / name
    for _ in range(2):
        plot_contexts(ROWS, path)
        assert path.read_bytes().startswith(begins)


def test_what_cannot_be_drawn_is_refused(tmp_path):
    """Another suffix, or a folder that is not there."""
    with pytest.raises(BadRequest, match=r"\.svg"):
        plot_contexts(ROWS, tmp_path / "a.txt")
    with pytest.raises(BadFile, match="cannot be written"):
        plot_contexts(ROWS, tmp_path / "none" / "a.svg")
