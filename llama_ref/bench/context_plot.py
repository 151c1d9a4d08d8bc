"""What a longer context costs, as a picture: a token's time, and a prompt's memory.

Needs matplotlib: `pip install 'llama_ref[notebook]'`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llama_ref.bench.context import Context
from llama_ref.checkpoint.staging import writing
from llama_ref.errors import BadRequest, Unsupported

SUFFIXES = (".svg", ".png", ".pdf")


def check_plot(path: Path) -> None:
    """Raise, before anything is measured, if no picture can be written to this path.

    Raises
    ------
    BadRequest
        If its suffix is that of no picture.
    Unsupported
        If matplotlib is not installed.
    """
    if path.suffix not in SUFFIXES:
        raise BadRequest("--plot", expected="a file in .svg, .png or .pdf", found=str(path))
    try:
        import matplotlib  # noqa: F401, PLC0415 - an extra
    except ModuleNotFoundError:
        raise Unsupported(
            "--plot",
            expected="matplotlib",
            found="no such package",
            next_step="python -m pip install 'llama_ref[notebook]'",
        ) from None


def plot_contexts(contexts: Sequence[Context], path: Path) -> None:
    """Draw a token's time and a prompt's memory against the length of the context.

    Parameters
    ----------
    contexts : sequence of Context
        In any order.
    path : Path
        In .svg, .png or .pdf; replaced if it is there.

    Raises
    ------
    BadRequest, Unsupported, BadFile
        If it is no picture, there is no matplotlib, or the file cannot be written.
    """
    check_plot(path)
    from matplotlib.figure import Figure  # noqa: PLC0415 - an extra

    rows = sorted(contexts)
    lengths = [row.n_tokens for row in rows]
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    time, memory = figure.subplots(1, 2)
    time.plot(lengths, [1e3 * row.attention_seconds for row in rows], "o-", label="attention")
    time.plot(lengths, [1e3 * row.other_seconds for row in rows], "s--", label="the rest")
    time.set(title="one token", ylabel="milliseconds")
    time.legend(frameon=False)
    memory.plot(lengths, [row.prompt_bytes / 1e9 for row in rows], "o-")
    memory.set(title="a prompt in one pass", ylabel="memory in GB")
    for axes in (time, memory):
        axes.set(xlabel="tokens of context", xlim=(0, None), ylim=(0, None))
        axes.spines[["top", "right"]].set_visible(False)
    metadata = {"Date": None} if path.suffix == ".svg" else {}
    with writing(path):
        figure.savefig(path, metadata=metadata)
