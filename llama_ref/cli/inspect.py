"""`llama-ref inspect`: what a checkpoint is, what it holds, where each tensor lives, what is wrong.

Headers only, unless asked to `--check`: then every number is read once, for NaN, infinities,
matrices that are one number all over, checksums, and a tied head that differs from its embedding.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from llama_ref.checkpoint.stored import Checkpoint
from llama_ref.cli.checks import Finding, contents, structure, tokenizer_of
from llama_ref.cli.inventory import Stored, rows, stored_tensors, totals
from llama_ref.cli.terminal import Paint, Progress, label, print_json, print_lines, size, table
from llama_ref.config import Config
from llama_ref.errors import printable
from llama_ref.loading import open_checkpoint
from llama_ref.tokenizer import Tokenizer

DESCRIPTION = (
    "Show the blueprint and the tensors of a checkpoint, and what is missing, unexpected or\n"
    "misshapen in it. Exit code 1 if anything is; warnings do not count."
)
EXAMPLE = """\
  llama-ref inspect path/to/checkpoint
  llama-ref inspect path/to/checkpoint --check"""


MANY_FILES = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add(
        "path",
        help="folder in the HF or the Meta layout, GGUF file, or synthetic:PRESET",
    )
    add("--all", action="store_true", help="a line for every tensor: layers are not folded")
    add("--check", action="store_true", help="read everything: NaN, checksums, tied matrices")
    add("--json", action="store_true", help="print one JSON object")


@dataclass
class Inspection:
    """All that was found out."""

    checkpoint: Checkpoint
    config: Config
    tensors: list[Stored]
    files: dict[str, int]
    tokenizer: Tokenizer | None
    findings: list[Finding]
    is_checked: bool

    @property
    def exit_code(self) -> int:
        """1 if anything is wrong."""
        return int(any(not finding.is_warning for finding in self.findings))


def run(options: argparse.Namespace) -> int:
    """Inspect, and print as asked."""
    inspection = _inspect(options.path, check=options.check)
    if options.json:
        print_json(_report(inspection))
    else:
        _print(inspection, fold=not options.all)
    return inspection.exit_code


def _inspect(path: str, *, check: bool) -> Inspection:
    checkpoint, config = open_checkpoint(path)
    tensors = stored_tensors(checkpoint, config)
    tokenizer, problems = tokenizer_of(checkpoint, config)
    findings = structure(checkpoint, config) + problems
    if check:
        n_bytes = sum(tensor.n_bytes for tensor in tensors)
        n_readings = 2 if checkpoint.layout == "meta" else 1  # checksums, then numbers
        with Progress(f"reading {size(n_bytes)}", n_readings * n_bytes) as progress:
            findings += contents(checkpoint, config, progress.advance)
    names = sorted({file for tensor in tensors for file in tensor.files})
    files = {name: (checkpoint.folder / name).stat().st_size for name in names}
    return Inspection(checkpoint, config, tensors, files, tokenizer, findings, check)


def _print(inspection: Inspection, *, fold: bool) -> None:
    """Print everything as sections of aligned lines."""
    paint, files = Paint(sys.stdout), list(inspection.files)
    head, *facts = inspection.config.describe().splitlines()
    print(paint("bold", head))
    layout, pairing = inspection.checkpoint.layout, _pairing(inspection.checkpoint)
    facts.append(f"  layout   {layout}: {pairing}")
    facts.append(f"  text     {_tokenizer_line(inspection.tokenizer)}")
    columns = shutil.get_terminal_size().columns
    for fact in facts:
        print(textwrap.fill(fact, columns, subsequent_indent=" " * 11))

    _print_section(paint, "files", _file_lines(inspection, fold=fold))
    lines = table(
        rows(inspection.tensors, files, fold=fold),
        "<<<><",
        paint=paint,
        styles=("", "dim", "", "", "dim"),
    )
    _print_section(paint, "tensors", lines)
    sums = [
        (dtype, _count(count, "tensor"), size(n_bytes))
        for dtype, (count, n_bytes) in totals(inspection.tensors).items()
    ]
    _print_section(paint, "total", table(sums, "<>>"))
    _print_findings(paint, inspection)


def _print_section(paint: Paint, heading: str, lines: Iterable[str]) -> None:
    print("\n" + paint("bold", heading))
    print_lines(lines, indent="  ")


def _print_findings(paint: Paint, inspection: Inspection) -> None:
    """Print what is wrong, or that nothing is, and how far that was looked into."""
    print()
    for finding in inspection.findings:
        word = paint("yellow", "warning") if finding.is_warning else paint("red", finding.kind)
        print(f"{word}: {finding.thing}: {printable(finding.detail)}")
    n_wrong = sum(not finding.is_warning for finding in inspection.findings)
    if n_wrong:
        print(paint("red", _count(n_wrong, "finding")))
    elif inspection.is_checked:
        print(paint("green", "Nothing is wrong: every number was read."))
    else:
        print(paint("green", "Nothing is wrong with names, shapes and dtypes."), end=" ")
        print("--check reads the numbers too.")


def _file_lines(inspection: Inspection, *, fold: bool) -> list[str]:
    """Return a numbered line for each file; of many, the first and the last."""
    if not inspection.files:
        return ["none: every number is computed when it is needed"]
    held = Counter(file for tensor in inspection.tensors for file in tensor.files)
    rows = [
        (f"[{number}]", label(name), _count(held[name], "tensor"), size(n_bytes))
        for number, (name, n_bytes) in enumerate(inspection.files.items(), start=1)
    ]
    if fold and len(rows) > MANY_FILES:
        rows = [*rows[: MANY_FILES - 2], ("…", "", "", ""), rows[-1]]
    lines = table(rows, "><>>")
    return [*lines, f"{_count(len(held), 'file')}, {size(sum(inspection.files.values()))}"]


def _pairing(checkpoint: Checkpoint) -> str:
    return {
        "hf": "Hugging Face names; RoPE pairs are half a head apart",
        "meta": "Meta's names; RoPE pairs are neighbours",
        "gguf": "llama.cpp's names; RoPE pairs are neighbours",
    }[checkpoint.layout]


def _tokenizer_line(tokenizer: Tokenizer | None) -> str:
    if tokenizer is None:
        return "no usable tokenizer: the model can be run on ids alone"
    name = Path(tokenizer.file or "").name
    stops = ", ".join(map(str, tokenizer.stop_ids))
    return (
        f"{name}: {tokenizer.vocab_size:,} tokens, begins with {tokenizer.bos_id}, stops at {stops}"
    )


def _report(inspection: Inspection) -> dict[str, object]:
    tokenizer = inspection.tokenizer
    return {
        "path": str(inspection.checkpoint.path),
        "layout": inspection.checkpoint.layout,
        "config": asdict(inspection.config),
        "n_params": inspection.config.n_params,
        "files": [{"name": name, "bytes": n} for name, n in inspection.files.items()],
        "tensors": [
            {
                "name": tensor.name,
                "dtype": tensor.dtype,
                "shape": tensor.shape,
                "bytes": tensor.n_bytes,
                "files": tensor.files,
            }
            for tensor in inspection.tensors
        ],
        "totals": {
            dtype: {"tensors": count, "bytes": n_bytes}
            for dtype, (count, n_bytes) in totals(inspection.tensors).items()
        },
        "tokenizer": tokenizer
        and {
            "kind": type(tokenizer).__name__,
            "vocab_size": tokenizer.vocab_size,
            "bos_id": tokenizer.bos_id,
            "stop_ids": list(tokenizer.stop_ids),
        },
        "findings": [asdict(finding) for finding in inspection.findings],
        "checked": inspection.is_checked,
    }


def _count(n: int, thing: str) -> str:
    return f"{n:,} {thing}" + ("" if n == 1 else "s")
