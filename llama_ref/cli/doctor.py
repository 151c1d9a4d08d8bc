"""`llama-ref doctor`: whether this machine can do the work right, and as fast as it could.

Three questions: are the libraries there, does rounding to bfloat16 follow the rule, and does BLAS
use the vector units of the CPU. The last is settled by timing: advice is given only if it helps
here.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import platform
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np

import llama_ref
from llama_ref.cli.machine import Machine, better_kernels, look, sgemm_speed
from llama_ref.cli.terminal import Paint, Progress, print_json, print_lines, size, table
from llama_ref.errors import printable
from llama_ref.numerics import BFLOAT16, round_to

DESCRIPTION = (
    "Look at what llama_ref runs on. Exit code 1 if there is something to fix; the line that\n"
    "fixes it is printed."
)
EXAMPLE = """\
  llama-ref doctor"""

LIBRARIES = ("numpy", "ml_dtypes", "tiktoken", "sentencepiece", "safetensors")
WORTH_IT = 1.1  # times faster, before a change of kernels is advised

# From the definition of the format: 8 significant bits, to nearest, ties to the even one.
BFLOAT16_ROUNDING = {
    1 + 2**-8: 1.0,
    1 + 2**-8 + 2**-20: 1 + 2**-7,
    1 + 3 * 2**-8: 1 + 2**-6,
    -257.0: -256.0,
    259.0: 260.0,
    3.4e38: float("inf"),
    2.0**-134: 0.0,
    1.5 * 2.0**-133: 2.0**-132,
}


@dataclass(frozen=True)
class Problem:
    """Something to fix, and the line that fixes it."""

    problem: str
    fix: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> int:
    """Examine, and print as asked."""
    with Progress("examining"):
        machine = look()
        versions, problems = _versions()
        speed = sgemm_speed()
        problems += _bfloat16_problems() + _kernel_problems(machine, speed)
    if options.json:
        print_json(
            {
                "versions": versions,
                "machine": asdict(machine),
                "sgemm_gflops": speed,
                "problems": [asdict(problem) for problem in problems],
            }
        )
    else:
        _print(machine, versions, speed, problems)
    return int(bool(problems))


def _versions() -> tuple[dict[str, str | None], list[Problem]]:
    """Return the version of everything the core needs, and what cannot be imported."""
    versions: dict[str, str | None] = {
        "llama_ref": llama_ref.__version__,
        "python": platform.python_version(),
    }
    problems = []
    for name in LIBRARIES:
        try:
            importlib.import_module(name)
            versions[name] = importlib.metadata.version(name)
        except ImportError as error:
            versions[name] = None
            problems.append(Problem(f"{name}: {error}", f"pip install --force-reinstall {name}"))
    return versions, problems


def _bfloat16_problems() -> list[Problem]:
    """Return whether rounding to bfloat16 leaves the rule on any of the cases that tell."""
    with np.errstate(all="ignore"):
        rounded = round_to(np.array(list(BFLOAT16_ROUNDING), np.float32), BFLOAT16).astype(
            np.float64
        )
    for found, (value, right) in zip(rounded.tolist(), BFLOAT16_ROUNDING.items(), strict=True):
        if found != right:
            return [
                Problem(
                    f"bfloat16: {value!r} is rounded to {found!r} instead of {right!r}",
                    "pip install --upgrade --force-reinstall ml_dtypes",
                )
            ]
    return []


def _kernel_problems(machine: Machine, speed: float | None) -> list[Problem]:
    """Return whether other kernels of OpenBLAS would be faster, as timed here and now."""
    is_openblas = "openblas" in machine.blas.lower()
    better = better_kernels(machine.vector_flags, machine.kernels) if is_openblas else None
    faster = sgemm_speed(better) if better and speed else None
    if not (better and speed and faster and faster > WORTH_IT * speed):
        return []
    return [
        Problem(
            f"OpenBLAS runs its {machine.kernels} kernels on a CPU that has more: "
            f"{speed:.0f} GFLOP/s, where {better} reaches {faster:.0f}",
            f"export OPENBLAS_CORETYPE={better}",
        )
    ]


def _print(
    machine: Machine,
    versions: dict[str, str | None],
    speed: float | None,
    problems: list[Problem],
) -> None:
    paint = Paint(sys.stdout)
    rows = [(name, version or "cannot be imported") for name, version in versions.items()]
    print(paint("bold", "versions"))
    print_lines(table(rows, "<<"), indent="  ")
    print("\n" + paint("bold", "machine"))
    print_lines(table(list(_wrapped(_machine_rows(machine, speed))), "<<"), indent="  ")
    print("\n" + paint("bold", "health"))
    for problem in problems:
        first, *more = textwrap.wrap(printable(problem.problem), 66)
        print(f"  {paint('red', 'to fix')}: {first}")
        print_lines(more, indent=" " * 10)
        print(f"      {paint('bold', problem.fix)}")
    if not problems:
        print(
            "  "
            + paint(
                "green", "Nothing to fix: all libraries load, bfloat16 rounds to nearest even, and"
            )
        )
        print("  " + paint("green", "BLAS uses the vector units it can."))


def _machine_rows(machine: Machine, speed: float | None) -> list[tuple[str, str]]:
    kernels = machine.kernels or "unknown"
    product = f"{speed:.0f} GFLOP/s" if speed else "did not run"
    rows = [
        ("system", f"{platform.system()} {platform.release()}, {platform.machine()}"),
        ("CPU", machine.cpu),
        ("vectors", " ".join(machine.vector_flags) or "unknown"),
        ("cores", _cores_text(machine)),
        ("memory", _memory_text(machine)),
        ("BLAS", machine.blas),
        ("kernels", kernels),
        ("threads", str(machine.threads)),
        ("product", f"float32 768 × 768: {product}"),
    ]
    rows += [(name, printable(value)) for name, value in machine.variables.items()]
    return rows


def _wrapped(rows: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Yield rows with long texts continued below: a new CPU has twenty vector extensions."""
    for name, text in rows:
        for i, line in enumerate(textwrap.wrap(text, 66)):
            yield "" if i else name, line


def _memory_text(machine: Machine) -> str:
    if machine.memory is None:
        return "unknown"
    free = machine.memory_available
    return size(machine.memory) + (f", {size(free)} of it available" if free else "")


def _cores_text(machine: Machine) -> str:
    load = "" if machine.load is None else f"; {machine.load:.1f} were busy in the last minute"
    return f"{machine.cores} usable here{load}"
