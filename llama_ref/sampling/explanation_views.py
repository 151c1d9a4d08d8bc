"""An explanation as a table for a notebook, and as a figure: one small picture for each step."""

from __future__ import annotations

import html
import io
from typing import TYPE_CHECKING, Any

import numpy as np

from llama_ref.errors import Unsupported

if TYPE_CHECKING:
    from llama_ref.sampling.explanation import Explanation, StepTaken

COLUMNS = 4
BEFORE, AFTER, REMOVED = "#c9ced6", "#2f6fb5", "#c0392b"


def as_html(explanation: Explanation, n: int = 10) -> str:
    """Return a table: a row for each token, a column for each step; "–" is removed."""
    columns = [("logits", explanation.model_probs_V)]
    columns += [(title_of(step), step.probs_after_V) for step in explanation.steps]
    head = "".join(f"<th>{html.escape(title)}</th>" for title, _ in columns)
    rows = []
    for i in explanation.shown_ids(n):
        cells = "".join(f"<td>{_cell(float(probs_V[i]))}</td>" for _, probs_V in columns)
        label = html.escape(explanation.label(i))
        rows.append(
            f"<tr><th>{f'<u>{label}</u>' if i == explanation.token_id else label}</th>{cells}</tr>"
        )
    left = "".join(f"<td>{np.count_nonzero(probs_V)}</td>" for _, probs_V in columns)
    return (
        f"<table><thead><tr><th>token</th>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}<tr><th>possible</th>{left}</tr></tbody>"
        f"<caption>profile {html.escape(explanation.params.profile)}; "
        f"{html.escape(explanation.outcome)}</caption></table>"
    )


def as_figure(explanation: Explanation, n: int = 10) -> Any:
    """Return a figure with one axes for each step: before in grey, after in blue, removed crossed.

    Raises
    ------
    Unsupported
        If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415  an extra
    except ImportError:
        raise Unsupported(
            "plot",
            expected="matplotlib",
            found="not installed",
            next_step="python -m pip install 'llama_ref[notebook]'",
        ) from None

    class Picture(Figure):
        """A figure of its own, outside pyplot's list, that a notebook shows all the same."""

        def _repr_png_(self) -> bytes:
            image = io.BytesIO()
            self.savefig(image, format="png", dpi=110)
            return image.getvalue()

    ids = explanation.shown_ids(n)
    n_rows = max(1, -(-len(explanation.steps) // COLUMNS))
    n_columns = min(COLUMNS, max(1, len(explanation.steps)))
    figure = Picture(figsize=(3.2 * n_columns, 2.6 * n_rows + 0.4), layout="constrained")
    grid = figure.subplots(n_rows, n_columns, squeeze=False, sharey=True)
    for axes in grid.flat[len(explanation.steps) :]:
        axes.axis("off")
    labels = [_plain(explanation.label(i)) for i in ids]
    for axes, step in zip(grid.flat, explanation.steps, strict=False):
        _draw_step(axes, step, ids, labels)
    if explanation.steps:
        grid.flat[0].legend(fontsize=7)
    figure.suptitle(
        _plain(f"profile {explanation.params.profile}; {explanation.outcome}"), fontsize=9
    )
    return figure


def title_of(step: StepTaken) -> str:
    """Return the name of a step and what it is set to, short."""
    value = str(step.value)
    return f"{step.name} {value if len(value) <= 24 else value[:23] + '…'}"


def _draw_step(axes: Any, step: StepTaken, ids: list[int], labels: list[str]) -> None:
    x = np.arange(len(ids))
    before, after = step.probs_before_V[ids], step.probs_after_V[ids]
    axes.bar(x, before, width=0.9, color=BEFORE, label="before")
    axes.bar(x, after, width=0.5, color=AFTER, label="after")
    gone = np.isin(ids, step.removed_ids)
    axes.plot(x[gone], before[gone], "x", color=REMOVED, label="removed")
    axes.set_title(_plain(title_of(step)), fontsize=9)
    axes.set_xticks(x, labels, rotation=90, fontsize=7)
    axes.tick_params(axis="y", labelsize=7)


def _cell(prob: float) -> str:
    return f"{prob:.4f}" if prob > 0 else "–"


def _plain(text: str) -> str:
    """Keep matplotlib from reading token text as mathematics."""
    return text.replace("$", r"\$")
