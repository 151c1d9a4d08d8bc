"""`llama-ref bench`: how fast, as fractions of what the machine can do and as ratios to peers.

Without a path it writes a checkpoint of the shape of Llama 3.2 1B from formula weights. Seconds
mean little on a shared machine; every figure is a median, and a peer is timed turn by turn with us
in the same run.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from llama_ref.bench.choosing import measure_choosing
from llama_ref.bench.contestants import LONGEST
from llama_ref.bench.context import measure_context
from llama_ref.bench.context_plot import check_plot, plot_contexts
from llama_ref.bench.encoding import measure_encoding
from llama_ref.bench.formula import measure_formula
from llama_ref.bench.gguf_file import write_gguf
from llama_ref.bench.limits import PRODUCT_FLOPS, READ_BYTES, limits
from llama_ref.bench.packed import measure_packed
from llama_ref.bench.race import Turn, race, ratio
from llama_ref.bench.startup import Startup, measure_startup
from llama_ref.bench.streaming import measure_streaming
from llama_ref.checkpoint import Checkpoint, synthetic, write_hf
from llama_ref.cli.bench_report import WHAT, print_figures
from llama_ref.cli.checks import n_bytes
from llama_ref.cli.terminal import Progress, print_json
from llama_ref.config import Config, preset, to_hf_dict
from llama_ref.errors import BadRequest
from llama_ref.loading import memory_bytes, open_checkpoint
from llama_ref.names import OUTER_NAMES
from llama_ref.numerics import dtype_named, round_to

DESCRIPTION = (
    "Measure import, opening, prompt and decoding: as tokens per second, as a fraction\n"
    "of the machine's limit, and with --peers against transformers and llama.cpp, turn by turn.\n"
    "Without a path a random checkpoint of the shape of Llama 3.2 1B is written first (5 GB)."
)
EXAMPLE = """\
  llama-ref bench --layers 2
  llama-ref bench --peers transformers,llama.cpp --keep bench-1b"""

MOST_PACKED, LONGEST_CONTEXT = 256, 2**17
STREAM_PROMPT = 16
PACKAGES = {"transformers": "transformers", "llama.cpp": "llama_cpp"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("path", nargs="?", type=Path, help="a checkpoint folder of your own")
    parser.add_argument(
        "--stored",
        choices=("float32", "bfloat16"),
        default="float32",
        help="dtype of the random checkpoint, in which transformers runs too (%(default)s)",
    )
    parser.add_argument("--layers", type=int, help="shorten the random checkpoint to this many")
    parser.add_argument("--keep", type=Path, help="folder to write it to, and to find it in again")
    parser.add_argument(
        "--prompt", type=int, default=128, help="tokens of the prompt (%(default)s)"
    )
    parser.add_argument("--decode", type=int, default=16, help="tokens decoded (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each (%(default)s)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default: every core")
    parser.add_argument(
        "--peers", default="", help="transformers, llama.cpp (with gguf), or both with a comma"
    )
    parser.add_argument(
        "--tokenizer", type=Path, help="measure this Llama 3 tokenizer too, beside bare tiktoken"
    )
    parser.add_argument(
        "--packed", default="", help="decode that many requests at once too, as in 8,16"
    )
    parser.add_argument(
        "--context", default="", help="what contexts of that many tokens cost, as in 512,8192"
    )
    parser.add_argument("--plot", type=Path, help="draw that, in .svg, .png or .pdf")
    parser.add_argument(
        "--stream", metavar="SIZE", help="also read the files cold, with that much memory: 2GB"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> int:
    """Measure, and print as asked."""
    peers = [name for name in options.peers.split(",") if name]
    for name in peers:
        if name not in PACKAGES or importlib.util.find_spec(PACKAGES[name]) is None:
            raise BadRequest("--peers", expected=f"installed ones of {list(PACKAGES)}", found=name)
    _check_numbers(options)
    _numbers("--packed", options.packed, MOST_PACKED)
    _numbers("--context", options.context, LONGEST_CONTEXT)
    if options.plot:
        if not options.context:
            raise BadRequest("--plot", expected="--context beside it", found="none")
        check_plot(options.plot)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.path or _random_checkpoint(options, options.keep or Path(temporary))
        entries = dict.fromkeys(["llama_ref", "machine", *peers], folder)
        if "llama.cpp" in entries:
            entries["llama.cpp"] = _gguf(folder, options.keep or Path(temporary))
        checkpoint, config = open_checkpoint(folder)
        stored = checkpoint[OUTER_NAMES[checkpoint.layout]["embedding_VD"]].dtype
        itemsize = _bytes_per_weight(checkpoint)
        del checkpoint
        with Progress("measuring the start"):
            startup = measure_startup(folder, options.rounds)
        with Progress("racing"):
            turns = race(
                entries,
                n_prompt=options.prompt,
                n_decode=options.decode,
                rounds=options.rounds,
                threads=options.threads,
            )
        extra = _extra(folder, config, options)
    figures = _figures(config, stored, itemsize, startup, turns, options) | extra
    if options.json:
        print_json(figures)
    else:
        print_figures(config, figures, options)
    return 0


def _extra(folder: Path, config: Config, options: argparse.Namespace) -> dict[str, Any]:
    """Measure what else was asked for."""
    extra: dict[str, Any] = {}
    with Progress("computing weights"):
        extra["formula"] = measure_formula(options.rounds)._asdict()
    with Progress("choosing tokens"):
        extra["choosing"] = measure_choosing(config.vocab_size, options.rounds)
    if options.tokenizer:
        with Progress("encoding"):
            extra["encoding"] = measure_encoding(options.tokenizer, options.rounds)._asdict()
    if options.packed:
        with Progress("packing requests"):
            how = {"n_decode": options.decode, "rounds": options.rounds}
            sizes = _numbers("--packed", options.packed, MOST_PACKED)
            packed = measure_packed(folder, sizes, threads=options.threads, **how)
        extra["packed"] = [size._asdict() for size in packed]
    if options.context:
        with Progress("measuring long contexts"):
            lengths = _numbers("--context", options.context, LONGEST_CONTEXT)
            rows = measure_context(folder, lengths, threads=options.threads)
        extra["context"] = [row._asdict() for row in rows]
        if options.plot:
            plot_contexts(rows, options.plot)
    if options.stream:
        with Progress("reading files that are not in memory"):
            how = {"n_prompt": STREAM_PROMPT, "rounds": options.rounds}
            extra["stream"] = measure_streaming(folder, options.stream, **how)._asdict()
    return extra


def _check_numbers(options: argparse.Namespace) -> None:
    """Refuse numbers with which nothing can be measured, before anything is."""
    for name, value in (
        ("--rounds", options.rounds),
        ("--prompt", options.prompt),
        ("--decode", options.decode),
        ("--threads", options.threads),
        ("--layers", 1 if options.layers is None else options.layers),
    ):
        if value < 1:
            raise BadRequest(name, expected="1 or more", found=value)
    if options.prompt + options.decode > LONGEST:
        found = options.prompt + options.decode
        raise BadRequest("--prompt and --decode", expected=f"at most {LONGEST:,}", found=found)
    if options.stream:
        memory_bytes(options.stream)


def _bytes_per_weight(checkpoint: Checkpoint) -> float:
    """Return how many bytes a number of a matrix takes in the files, on average."""
    matrices = [tensor for tensor in checkpoint.values() if len(tensor.shape) == 2]
    return sum(map(n_bytes, matrices)) / sum(math.prod(tensor.shape) for tensor in matrices)


def _numbers(name: str, words: str, most: int) -> list[int]:
    """Return the numbers that an option lists."""
    numbers = [word.strip() for word in words.split(",") if word.strip()]
    for number in numbers:
        if not number.isdecimal() or not 1 <= int(number) <= most:
            expected = f"numbers from 1 to {most:,}, with commas"
            raise BadRequest(name, expected=expected, found=number)
    return [int(number) for number in numbers]


def _random_checkpoint(options: argparse.Namespace, folder: Path) -> Path:
    """Write the random checkpoint, unless it is there already."""
    config = preset("llama-3.2-1b")
    if options.layers is not None:
        config = replace(config, n_layers=options.layers)
    kind = "" if options.stored == "float32" else f"-{options.stored}"
    target = folder / f"hf-{config.n_layers}-layers{kind}"
    dtype = dtype_named(options.stored)
    if not (target / "config.json").exists():
        with Progress("writing a random checkpoint"):
            tensors = ((name, round_to(w, dtype)) for name, w in synthetic.checkpoint(config))
            write_hf(target, to_hf_dict(config), tensors)
    return target


def _gguf(folder: Path, where: Path) -> Path:
    target = where / f"{folder.name}.gguf"
    if not target.exists():
        with Progress("writing it as GGUF"):
            write_gguf(folder, target)
    return target


def _figures(
    config: Config,
    stored: np.dtype,
    itemsize: float,
    startup: Startup,
    turns: dict[str, list[Turn]],
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Return everything measured; a fraction and a ratio are medians over the turns."""
    machine, ours = turns.pop("machine"), turns["llama_ref"]
    factors = limits(config, options.prompt, itemsize)
    bounds = [Turn(*(factors[what] * getattr(turn, what) for what in WHAT)) for turn in machine]
    return {
        "stored": str(stored),
        "startup": startup._asdict(),
        "threads": options.threads,
        "flops_per_second": PRODUCT_FLOPS * median(t.prefill for t in machine) / options.prompt,
        "bytes_per_second": READ_BYTES * median(t.decode for t in machine),
        "limit_tokens_per_second": _medians(bounds),
        "tokens_per_second": {name: _medians(rows) for name, rows in turns.items()},
        "fraction_of_limit": {
            name: {what: ratio(rows, bounds, what) for what in WHAT} for name, rows in turns.items()
        },
        "ratio_to": {
            name: {what: ratio(ours, rows, what) for what in WHAT}
            for name, rows in turns.items()
            if name != "llama_ref"
        },
    }


def _medians(turns: list[Turn]) -> dict[str, float]:
    return {what: median(getattr(turn, what) for turn in turns) for what in WHAT}
