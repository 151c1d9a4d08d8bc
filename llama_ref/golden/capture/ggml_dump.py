"""What llama.cpp's own debugging tools leave behind: excerpts as text, and the last logits.

`llama-eval-callback` and `llama-debug --verbose` print every node: name, operation, sizes, and of
each axis the first and the last three entries, to four decimals:

    common_debug_cb_eval:  norm-0 = (f32)  RMS_NORM(embd{64, 5, 1, 1}, }) = {64, 5, 1, 1}
        [
            [
                [     -0.1234,       0.5678,       1.0000,    ...,       0.2500,       0.3000,  …

That shows whether a node is right to 5e-5 in some places. It finds most mistakes and none of the
subtle ones, and nothing can be replayed from it. `llama-debug --save-logits` writes the logits of
the last token as bare float32, and the tokens of the prompt as bare int32. These tools tokenise a
prompt: they run neither given ids nor given positions. For every number of every case use
`ggml_run`, or its ten lines of C.

Source: common/debug.cpp and examples/debug/debug.cpp in ggml-org/llama.cpp, of 2026; earlier forms,
which print the first three alone or another number of blanks, are read as well.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from llama_ref.errors import BadFile, LimitExceeded, shown
from llama_ref.files import read_bytes
from llama_ref.golden.capture.ggml_nodes import Heads, as_tap, tap_of
from llama_ref.golden.capture.taps import Taps

HEADER = re.compile(
    r"\w: +(\S[^=]*?) = \((\w+)\) +([A-Z_0-9]+)\(.*\}\) = \{([0-9]{1,12}(?:, [0-9]{1,12}){3})\}"
)
LARGEST_TEXT = 2**28
LARGEST_NODE = 2**28
AT_AN_END = 3
UNSEEN = "not printed"


@dataclass(frozen=True)
class Excerpt:
    """Some of the entries of a node.

    Attributes
    ----------
    name, op : str
        The node, `Qcur-0`, and its operation, `ROPE`.
    index : tuple of ndarray
        For each of the four axes, slowest first, which entries are known.
    values : ndarray, float64
        What stands at those.
    shape : tuple of int
        Of the whole node.
    """

    name: str
    op: str
    index: tuple[np.ndarray, ...]
    values: np.ndarray
    shape: tuple[int, ...]

    def node(self) -> np.ndarray:
        """Return the whole node, float64, with NaN for what is not known.

        Raises
        ------
        LimitExceeded
            If it has more than 2^28 entries.
        """
        if math.prod(self.shape) > LARGEST_NODE:
            raise LimitExceeded(
                f"node {shown(self.name)}", expected="at most 2^28 entries", found=self.shape
            )
        array = np.full(self.shape, np.nan)
        array[np.ix_(*self.index)] = self.values
        return array


def read_eval_callback(path: str | os.PathLike[str]) -> dict[str, list[Excerpt]]:
    """Read what `llama-eval-callback` or `llama-debug` printed; other lines are passed over.

    Parameters
    ----------
    path : path-like
        The output, at most 256 MiB.

    Returns
    -------
    dict of str to list of Excerpt
        Under `Qcur-0 (ROPE)`, one for each time that a node of this name and operation was
        computed. Nodes of which nothing was printed are left out.

    Raises
    ------
    BadFile
        If no node is in it, or the entries of one are not those that its sizes call for.
    LimitExceeded
        If it is larger.
    """
    lines = read_bytes(path, limit=LARGEST_TEXT).decode(errors="replace").splitlines()
    found: dict[str, list[Excerpt]] = {}
    for header, rows in _nodes(lines):
        name, _, op, sizes = header.groups()
        if rows:
            shape = tuple(int(size) for size in reversed(sizes.split(", ")))
            excerpt = _excerpt(name, op, shape, rows, path)
            found.setdefault(f"{name} ({op})", []).append(excerpt)
    if not found:
        raise BadFile(
            "printed nodes",
            expected="lines like `common_debug_cb_eval: embd = (f32) GET_ROWS(…}) = {64, 5, 1, 1}`",
            found="none",
            next_step="llama-debug prints nodes with --verbose",
            file=path,
        )
    return found


def taps_of(excerpts: Mapping[str, list[Excerpt]], n_layers: int, heads: Heads) -> Taps:
    """Return the taps among excerpts, with NaN wherever nothing was printed.

    Parameters
    ----------
    excerpts : mapping of str to list of Excerpt
        From `read_eval_callback`; the calls of one pass, in order.
    n_layers : int
    heads : Heads

    Returns
    -------
    Taps
        float64, in the axes of `trace.LAYER_TAPS`.
    """
    calls: list[dict[str, np.ndarray]] = [{} for _ in range(max(map(len, excerpts.values())))]
    for nodes in excerpts.values():
        seen = 0
        for call, excerpt in zip(calls, nodes, strict=False):
            tap = tap_of(excerpt.name, excerpt.op, n_layers)
            if tap is not None:
                seen += excerpt.shape[-2]  # T; only kq and kq_soft_max, N T S, look at it
                call[tap] = as_tap(tap, excerpt.node(), seen, heads)
    taps = Taps()
    taps.join(calls, n_layers)
    taps.note_missing(n_layers, {"": UNSEEN})
    return taps


def read_saved_logits(path: str | os.PathLike[str]) -> np.ndarray:
    """Read the `.bin` of `llama-debug --save-logits`.

    Returns
    -------
    ndarray of shape (1, V), float32
        The logits after the last token of the prompt.
    """
    return _numbers(path, "<f4").reshape(1, -1)


def read_saved_tokens(path: str | os.PathLike[str]) -> np.ndarray:
    """Read the `-tokens.bin` of `llama-debug --save-logits`: shape (T,), int32."""
    return _numbers(path, "<i4")


def _numbers(path: str | os.PathLike[str], dtype: str) -> np.ndarray:
    """Return a file of bare four-byte numbers."""
    data = read_bytes(path, limit=LARGEST_TEXT)
    if not data or len(data) % 4:
        raise BadFile("saved numbers", expected="4 bytes each", found=f"{len(data)}", file=path)
    return np.frombuffer(data, dtype).astype(dtype[1:])


def _nodes(lines: list[str]) -> Iterator[tuple[re.Match[str], list[list[float]]]]:
    """Yield each header with the rows of numbers that follow it."""
    header: re.Match[str] | None = None
    rows: list[list[float]] = []
    for line in lines:
        found = HEADER.search(line)
        if found:
            if header:
                yield header, rows
            header, rows = found, []
        elif header and (row := _row(line.strip())):
            rows.append(row)
    if header:
        yield header, rows


def _row(line: str) -> list[float] | None:
    """Return the numbers of `[ 0.1, 0.2, ..., 0.3 ],`, or None if the line is no such thing."""
    if not (line.startswith("[") and line.endswith(("]", "],"))):
        return None
    words = [word.strip() for word in line.strip("[],").split(",")]
    try:
        return [float(word) for word in words if word not in ("", "...")]
    except ValueError:
        return None


def _excerpt(
    name: str,
    op: str,
    shape: tuple[int, ...],
    rows: list[list[float]],
    path: str | os.PathLike[str],
) -> Excerpt:
    """Say where in the node the printed rows stand: three at both ends of an axis, or at its begin.

    Raises
    ------
    BadFile
        If there are too many or too few.
    """
    for tail in (AT_AN_END, 0):
        index = tuple(_printed(size, tail) for size in shape)
        counts = tuple(len(entries) for entries in index)
        if len(rows) == math.prod(counts[:-1]) and {len(row) for row in rows} == {counts[-1]}:
            return Excerpt(name, op, index, np.array(rows).reshape(counts), shape)
    raise BadFile(
        f"node {shown(name)} of sizes {list(shape[::-1])}",
        expected=f"{math.prod(counts[:-1])} rows of {counts[-1]}, or more",
        found=f"{len(rows)} of {shown(sorted({len(row) for row in rows}))}",
        next_step="is the file whole?",
        file=path,
    )


def _printed(size: int, tail: int) -> np.ndarray:
    """Return which entries of an axis are printed."""
    if size <= AT_AN_END + tail:
        return np.arange(size)
    return np.r_[np.arange(AT_AN_END), np.arange(size - tail, size)]
