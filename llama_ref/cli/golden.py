"""`llama-ref golden make | check | show`: golden outputs for the author of a backend.

llama-ref golden make golden                     a bundle, with no download
llama-ref golden check golden mine.safetensors   which operation is wrong, and why
llama-ref golden show golden                     what is in a bundle, and why each case is
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from pathlib import Path

from llama_ref import launcher, mpi
from llama_ref.checkpoint.staging import write_text
from llama_ref.cli.golden_answer import answer_or_compare
from llama_ref.cli.golden_report import report_lines
from llama_ref.cli.terminal import Paint, Progress, label, print_json, print_lines, size, table
from llama_ref.errors import BadRequest, printable
from llama_ref.golden import suite
from llama_ref.golden.bundle import Bundle
from llama_ref.golden.checking import check
from llama_ref.golden.making import case_names, make
from llama_ref.golden.manifest import FINGERPRINT, FULL, MANIFEST, TIERS
from llama_ref.golden.rendering import html_page, junit_xml
from llama_ref.golden.spreading import ALONE
from llama_ref.golden.styles import PRECISIONS

ACTIONS = ("make", "check", "show", "answer")
DESCRIPTION = (
    "make    write a golden bundle: the truth of every operation in float64, on a few tokens that\n"
    "        show mistakes, and how far legal rounding is from it. No download.\n"
    "check   compare what a backend dumped with a bundle; say which operation is wrong, and why.\n"
    "        With --ops alone, run the cases of single operations against a Python module.\n"
    "show    print what is in a bundle, and why each case is there.\n"
    "answer  one pass of a model of any size in float32, as a small file; or, with a file that is\n"
    "        there, the same pass again, and at which layer the numbers part.\n"
    "Exit code of check: 0 if nothing is wrong, 1 if something is, 2 if it cannot be told."
)
EXAMPLE = """\
  llama-ref golden make golden
  llama-ref golden show golden
  llama-ref golden check golden mine.safetensors --html report.html
  llama-ref golden check --ops my_backend.ops
  llama-ref golden answer 405b.json --model synthetic:llama-3.1-405b"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("action", choices=ACTIONS)
    add(
        "paths",
        nargs="*",
        type=Path,
        metavar="PATH",
        help="OUT; or BUNDLE CANDIDATE; or BUNDLE; or FILE",
    )
    made = parser.add_argument_group("make")
    made.add_argument(
        "--model",
        default="golden-tiny",
        help="a preset (%(default)s), synthetic:NAME?n_layers=2, or a checkpoint folder",
    )
    made.add_argument("--cases", help="names with commas, or shapes, or all; see --list-cases")
    made.add_argument("--list-cases", action="store_true", help="print the names of all cases")
    made.add_argument("--tier", choices=TIERS, default=FULL, help="default: %(default)s")
    made.add_argument("--taps", help="keep these alone, with commas: 'L*.out,logits'")
    made.add_argument(
        "--ranks", type=int, default=1, help="cut layers over so many ranks (%(default)s)"
    )
    made.add_argument("--seed", type=int, default=0, help="of weights and tokens (%(default)s)")
    made.add_argument("--overwrite", action="store_true", help="replace a bundle that is there")
    answered = parser.add_argument_group("answer")
    answered.add_argument("--tokens", type=int, default=16, help="of the prompt (%(default)s)")
    answered.add_argument("--memory", metavar="SIZE", help="of the weights of files at a time: 2GB")
    _add_options_of_check(parser)
    add("--json", action="store_true", help="print one JSON object")


def _add_options_of_check(parser: argparse.ArgumentParser) -> None:
    checked = parser.add_argument_group("check")
    checked.add_argument(
        "--dtype", choices=PRECISIONS, help="what the backend computes in; default: read off"
    )
    checked.add_argument(
        "--names", help="llama_ref, hf, meta, ggml, or a JSON file that maps names"
    )
    checked.add_argument("--case", help="the case of a dump whose names say none")
    checked.add_argument("--weights", type=Path, help="the checkpoint a bundle was made from")
    checked.add_argument("--ops", help="a module or .py file with functions like llama_ref.ops")
    checked.add_argument("--flags-off", default="", help="with --ops: flags of cases to leave out")
    checked.add_argument("--html", type=Path, help="write the report as one page")
    checked.add_argument("--junit", type=Path, help="write it as JUnit XML")


def run(options: argparse.Namespace) -> int:
    """Make, check, show or answer."""
    if options.action == "answer":
        (path,) = _paths(options, "FILE")
        return answer_or_compare(path, options)
    return {"make": _make, "check": _check, "show": _show}[options.action](options)


def _paths(options: argparse.Namespace, *names: str) -> list[Path]:
    """Return the paths, if there are as many as the action takes."""
    if len(options.paths) != len(names):
        raise BadRequest(
            f"golden {options.action}",
            expected=" ".join(names),
            found=f"{len(options.paths)} paths",
            next_step="see llama-ref golden --help",
        )
    return options.paths


def _make(options: argparse.Namespace) -> int:
    if options.list_cases:
        print_lines(case_names(options.model, options.seed))
        return 0
    (out,) = _paths(options, "OUT")
    with Progress("making golden outputs") as progress:
        bundle = make(
            options.model,
            out,
            cases=None if options.cases is None else options.cases.split(","),
            tier=options.tier,
            taps=None if options.taps is None else options.taps.split(","),
            n_ranks=options.ranks,
            seed=options.seed,
            overwrite=options.overwrite,
            advance=progress.advance,
            crew=mpi.MpiCrew() if launcher.is_running() else ALONE,
        )
    if options.json:
        print_json(_summary(bundle))
        return 0
    print(f"{label(str(out))}: {_held(bundle)}")
    print("Run the cases with your backend, dump what you can under the names of the taps, and")
    print(f"  llama-ref golden check {label(str(out))} YOUR_DUMP")
    return 0


def _check(options: argparse.Namespace) -> int:
    if options.ops:
        return _check_ops(options)
    bundle, candidate = _paths(options, "BUNDLE", "CANDIDATE")
    with Progress("checking") as progress:
        report = check(
            bundle,
            candidate,
            dtype=options.dtype,
            names=options.names,
            case=options.case,
            weights=options.weights,
            advance=progress.advance,
        )
    if options.html or options.junit:
        for path, render in ((options.html, html_page), (options.junit, junit_xml)):
            if path:
                write_text(path, render(report))
    if options.json:
        print_json(report.as_dict())
    else:
        print_lines(report_lines(report, Paint(sys.stdout)))
    return report.exit_code


def _check_ops(options: argparse.Namespace) -> int:
    """Run the cases of single operations against a module."""
    if options.paths:
        raise BadRequest("golden check --ops", expected="no paths beside it", found="some")
    flags_off = tuple(filter(None, options.flags_off.split(",")))
    results = suite.check_ops(suite.load_ops(options.ops), flags_off=flags_off)
    if options.json:
        print_json(suite.ops_report(results))
    else:
        print_lines(suite.ops_report_lines(results))
    return suite.exit_code(results)


def _show(options: argparse.Namespace) -> int:
    (path,) = _paths(options, "BUNDLE")
    bundle = Bundle(path)
    if options.json:
        print_json(_summary(bundle))
        return 0
    paint, manifest = Paint(sys.stdout), bundle.manifest
    print(paint("bold", f"{label(path.name)}: {_held(bundle)}"))
    made_by = manifest.made_by
    print(f"  made by llama_ref {label(made_by['llama_ref'])}, NumPy {label(made_by['numpy'])}")
    for name, spec in manifest.models.items():
        head, *_ = spec.config.describe().splitlines()
        weights = ", ".join(f"{key} {value}" for key, value in spec.as_dict().items())
        print(f"  model {label(name)}: {printable(head)}; {printable(weights)}")
    print("\n" + paint("bold", "cases"))
    for case in bundle.cases:
        calls = f"{len(case.chunks)} calls" if len(case.chunks) > 1 else "one call"
        n_tokens = f"{len(case.ids)} tokens" if len(case.ids) > 1 else "1 token"
        places = f"positions {case.positions[0]} to {case.positions[-1]}"
        print(f"  {paint('bold', label(case.name))}  {n_tokens} in {calls}, {places}")
        print(_indented(printable(case.why)))
        if case.catches:
            text = printable("catches " + ", ".join(case.catches))
            print(_indented(text, hanging=2))
    print("\n" + paint("bold", "files"))
    rows = [(label(name), size(stated["bytes"])) for name, stated in manifest.files.items()]
    print_lines(table([*rows, (MANIFEST, size((path / MANIFEST).stat().st_size))], "<>"), "  ")
    return 0


def _indented(text: str, hanging: int = 0) -> str:
    """Return text under the name of a case; names in it, which have hyphens, stay whole."""
    margin = " " * 6
    further = margin + " " * hanging
    return textwrap.fill(
        text, 78, initial_indent=margin, subsequent_indent=further, break_on_hyphens=False
    )


def _held(bundle: Bundle) -> str:
    """Say in a line what a bundle holds."""
    n_taps = sum(len(bundle.taps(case)) for case in bundle.cases)
    n_bytes = sum(stated["bytes"] for stated in bundle.manifest.files.values())
    kind = "sketched taps" if bundle.manifest.tier == FINGERPRINT else "float64 taps"
    return f"{len(bundle.cases)} cases, {n_taps:,} {kind}, {size(n_bytes)}"


def _summary(bundle: Bundle) -> dict[str, object]:
    return {"path": str(bundle.path), **bundle.manifest.as_dict()}
