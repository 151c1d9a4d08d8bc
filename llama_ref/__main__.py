"""The command line, `llama-ref` or `python -m llama_ref`: one verb, one module in `cli`.

    llama-ref VERB ...      ->      llama_ref.cli.VERB

Exit codes: 0 good · 1 a finding (a difference, a fault, something to fix) · 2 cannot run ·
130 interrupted by Ctrl-C · 141 whoever read the output went away. Only the module of the chosen
verb is imported, so that `llama-ref --help` costs no NumPy.

Python's `-m` looks for modules in the current folder first, before any line of this file runs. In a
folder that came from someone else, use `llama-ref` or `python -P -m llama_ref`.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NoReturn

import llama_ref
from llama_ref import launcher
from llama_ref.errors import BadRequest, LlamaRefError, printable

VERBS = {
    "demo": "a first look: write a small checkpoint, open it, run it, check it",
    "generate": "continue a text",
    "chat": "talk to a model",
    "serve": "answer requests of OpenAI's clients over HTTP",
    "tokens": "show how a text becomes token ids",
    "inspect": "show what a checkpoint holds, and what is wrong with it",
    "golden": "make golden outputs, check a backend against them, say what is wrong in it",
    "doctor": "look at this machine: versions, BLAS, threads, memory",
    "bench": "measure speed: tokens per second, limits, peers",
}
CANNOT_RUN, INTERRUPTED, READER_GONE = 2, 130, 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; no error passes as a traceback.

    Parameters
    ----------
    argv : sequence of str, optional
        The words after the program's name; by default those of this process.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not launcher.is_running():
        return _main(words)
    from llama_ref import mpi  # noqa: PLC0415 - loads NumPy

    return mpi.together(lambda: _main(words))


def _main(words: list[str]) -> int:
    """Run one command and return its exit code."""
    try:
        _prepare_output()
        with warnings.catch_warnings():
            _show_warnings_in_one_line()
            code = _run(words)
        sys.stdout.flush()
    except LlamaRefError as error:
        return _refuse(str(error))
    except MemoryError:
        return _refuse("this needs more memory than there is")
    except KeyboardInterrupt:
        if sys.stderr.isatty():  # the shell's prompt on a line of its own
            print(file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        _drop_output()
        return READER_GONE
    except OSError as error:
        _drop_output()
        return _refuse(f"cannot write: {error.strerror or error}")
    return code


class _Parser(argparse.ArgumentParser):
    """Refuses abbreviations, and escapes what it repeats: a glob may expand to a hostile name."""

    def __init__(self, **options: Any):
        super().__init__(
            allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options
        )

    def error(self, message: str) -> NoReturn:
        self.exit(CANNOT_RUN, f"{self.prog}: {printable(message)}; see {self.prog} --help\n")


def _run(words: list[str]) -> int:
    """Import the module of the verb, parse its options and run it."""
    try:
        if not words or words[0] not in VERBS:
            return _without_verb(words)
        verb = importlib.import_module(f"llama_ref.cli.{words[0]}")
        options = _parser_of(words[0], verb).parse_intermixed_args(words[1:])
    except SystemExit as stop:  # how argparse leaves, after --help and after an error
        return int(stop.code or 0)
    runs_over_ranks = words[0] == "generate" or getattr(options, "action", "") in ("answer", "make")
    if launcher.is_running() and not runs_over_ranks:
        expected = "generate, golden answer, or golden make"
        raise BadRequest("verb under mpiexec", expected=expected, found=words[0])
    return verb.run(options)


def _parser_of(name: str, verb: ModuleType) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=f"llama-ref {name}",
        description=verb.DESCRIPTION,
        epilog=f"example:\n{verb.EXAMPLE}",
    )
    verb.add_arguments(parser)
    return parser


def _without_verb(words: list[str]) -> int:
    """Answer --help, --version, and a line without a verb that exists."""
    rows = "\n".join(f"  {name:10} {summary}" for name, summary in VERBS.items())
    parser = _Parser(
        prog="llama-ref",
        usage="llama-ref VERB ...",
        description=f"{llama_ref.__doc__}".partition("\n")[0] + f"\n\nverbs:\n{rows}",
        epilog="`llama-ref VERB --help` explains one; `llama-ref demo` is a good start.",
    )
    parser.add_argument("--version", action="version", version=f"llama_ref {llama_ref.__version__}")
    parser.add_argument("verb", choices=VERBS, metavar="VERB", help=argparse.SUPPRESS)
    if not words:
        parser.print_help(sys.stderr)
        return CANNOT_RUN
    parser.parse_args(words[:1])
    return CANNOT_RUN


def _prepare_output() -> None:
    """Write UTF-8 into files and pipes whatever the locale, and never fail on a character."""
    if sys.stdout is None:  # closed by the shell: >&-
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    if sys.stderr is None:  # 2>&-: what would be said there is said nowhere
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(
                encoding=None if stream.isatty() else "utf-8", errors="backslashreplace"
            )


def _show_warnings_in_one_line() -> None:
    def show(message: Warning | str, *_: object, **__: object) -> None:
        print(f"llama-ref: warning: {printable(str(message))}", file=sys.stderr)

    # Whatever PYTHONWARNINGS says: as an error it would be a traceback.
    warnings.simplefilter("always", UserWarning)
    warnings.showwarning = show


def _refuse(reason: str) -> int:
    """Say in one line why nothing was done."""
    print(f"llama-ref: {printable(reason)}", file=sys.stderr)
    return CANNOT_RUN


def _drop_output() -> None:
    """Send what is still buffered nowhere, or the interpreter would fail on it when it exits."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
