"""What `llama-ref bench` prints of its figures."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from llama_ref.bench.context import Context
from llama_ref.bench.packed import Packed
from llama_ref.bench.race import Turn
from llama_ref.cli.terminal import Paint, print_lines, seconds, size, table
from llama_ref.config import Config
from llama_ref.numerics import dtype_named

WHAT = Turn._fields  # prefill, decode
BAR = 30


def print_figures(config: Config, figures: dict[str, Any], options: argparse.Namespace) -> None:
    """Print tables of everything that was measured."""
    paint, stored = Paint(sys.stdout), figures["stored"]
    print(paint("bold", f"{config.n_params:,} parameters, {stored}, {options.threads} threads"))
    print_lines(table(_machine_rows(config, figures), "<<"), indent="  ")
    print("\n" + paint("bold", f"tokens/s: prompt of {options.prompt}, {options.decode} decoded"))
    speeds: list[tuple[str, ...]] = [("", "prompt", "of limit", "decode", "of limit")]
    for name, speed in figures["tokens_per_second"].items():
        speeds.append(_row(name, speed, figures["fraction_of_limit"][name]))
    speeds.append(_row("limit", figures["limit_tokens_per_second"], {}))
    for name, ratios in figures["ratio_to"].items():
        speeds.append(_row(f"ours / {name}", ratios, {}, digits=2))
    print_lines(table(speeds, "<>>>>"), indent="  ")
    if "context" in figures:
        print("\n" + paint("bold", "time of a token after a context"))
        rows = _context_rows([Context(**row) for row in figures["context"]])
        print_lines(table(rows, ">>>>><"), indent="  ")
    if "packed" in figures:
        print("\n" + paint("bold", "tokens/s: requests decoded at once"))
        print_lines(
            table([_packed_row(Packed(**row)) for row in figures["packed"]], ">>>"), indent="  "
        )


def _machine_rows(config: Config, figures: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what there is to say beside tokens per second."""
    startup, stored = figures["startup"], figures["stored"]
    rows = [
        ("import", f"{1e3 * startup['import_seconds']:.0f} ms beyond NumPy"),
        (
            "open",
            f"{1e3 * startup['open_seconds']:.0f} ms, {startup['open_bytes'] / 1e6:.1f} MB "
            f"of memory for {dtype_named(stored).itemsize * config.n_params / 1e9:.1f} GB",
        ),
        (
            "machine",
            f"reads {figures['bytes_per_second'] / 1e9:.1f} GB/s, "
            f"multiplies {figures['flops_per_second'] / 1e9:.0f} GFLOP/s",
        ),
    ]
    speed, share = figures["formula"].values()
    rows.append(("formula", f"{speed / 1e9:.2f} G weights/s on one core, {share:.0%} of limit"))
    choosing = [f"{name} {1e3 * took:.2f}" for name, took in figures["choosing"].items()]
    rows.append(("choose", f"ms: {', '.join(choosing)}"))
    if "encoding" in figures:
        megabytes = figures["encoding"]["bytes_per_second"] / 1e6
        share = figures["encoding"]["ratio_to_tiktoken"]
        rows.append(("encode", f"{megabytes:.1f} MB/s, {share:.2f} of bare tiktoken"))
    if "stream" in figures:
        speed, share, peak = figures["stream"].values()
        said = f"{speed / 1e9:.2f} GB/s cold in {size(peak)}, {share:.2f} of plain reading"
        rows.append(("stream", said))
    return rows


def _context_rows(rows: list[Context]) -> list[tuple[str, ...]]:
    """Return the cost at each length, with a bar for the time of a token: attention, the rest."""
    longest = max(row.attention_seconds + row.other_seconds for row in rows)
    table_rows: list[tuple[str, ...]] = [
        ("context", "attention", "the rest", "prompt", "its memory", "")
    ]
    for row in rows:
        bar = "▓" * round(BAR * row.attention_seconds / longest)
        bar += "░" * round(BAR * row.other_seconds / longest)
        times = (seconds(row.attention_seconds), seconds(row.other_seconds))
        cost = (seconds(row.prompt_seconds), size(row.prompt_bytes))
        table_rows.append((f"{row.n_tokens:,}", *times, *cost, bar))
    return table_rows


def _packed_row(row: Packed) -> tuple[str, ...]:
    return str(row.n_requests), f"{row.tokens_per_second:.1f}", f"{row.ratio_to_one:.2f} of one"


def _row(
    name: str, values: dict[str, float], fractions: dict[str, float], digits: int = 1
) -> tuple[str, ...]:
    cells = [name]
    for what in WHAT:
        fraction = f"{fractions[what]:.0%}" if fractions else ""
        cells += [f"{values[what]:.{digits}f}", fraction]
    return tuple(cells)
