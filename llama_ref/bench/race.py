"""Timing contestants against each other: turn by turn in one run, judged by the median ratio.

A shared machine speeds up and slows down by factors while it works. Times taken minutes apart say
little; the ratio of two times taken seconds apart, over several turns, says something.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from statistics import median
from typing import IO, Any, NamedTuple, cast

from llama_ref.errors import BadRequest, shown

ISOLATED = (sys.executable, "-P")  # finds no modules in the current folder
THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


def run_apart(module: str, arguments: Sequence[object], *, threads: int | None = None) -> Any:
    """Run the program in a module of `bench` in a process of its own; return what it prints.

    Parameters
    ----------
    module : str
        Prints one JSON value.
    arguments : sequence
        Of its main function, as JSON can hold them.
    threads : int, optional
        For BLAS there; by default as here.

    Raises
    ------
    BadRequest
        If it fails; with its last words.
    """
    limits = {} if threads is None else dict.fromkeys(THREAD_VARIABLES, str(threads))
    ran = subprocess.run(
        [*ISOLATED, "-m", f"llama_ref.bench.{module}", json.dumps(arguments)],
        env=os.environ | limits,
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode:
        last_words = ran.stderr.strip().splitlines()[-1:]
        expected = "a program that ends"
        raise BadRequest(f"bench, {module}", expected=expected, found=shown(last_words))
    return json.loads(ran.stdout)


class Turn(NamedTuple):
    """Tokens per second of one turn of one contestant."""

    prefill: float
    decode: float


def race(
    entries: Mapping[str, Path], *, n_prompt: int, n_decode: int, rounds: int, threads: int
) -> dict[str, list[Turn]]:
    """Let each contestant run in turn, round by round.

    Parameters
    ----------
    entries : mapping of contestant name to path
        What each is to load: a folder, or a GGUF file for llama.cpp.
    n_prompt, n_decode : int
        Tokens of the prompt, and tokens decoded after it.
    rounds : int
        Turns of each; one more comes first and is not counted.
    threads : int
        For everyone.

    Returns
    -------
    dict of contestant name to list of Turn

    Raises
    ------
    BadRequest
        If a contestant cannot be started, or stops.
    """
    turns: dict[str, list[Turn]] = {name: [] for name in entries}
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(Worker(name, path, threads)) for name, path in entries.items()
        }
        for round_number in range(rounds + 1):
            for name, worker in workers.items():
                prompt_seconds, decode_seconds = worker.time(n_prompt, n_decode)
                if round_number:
                    turn = Turn(n_prompt / prompt_seconds, n_decode / decode_seconds)
                    turns[name].append(turn)
    return turns


def ratio(ours: list[Turn], theirs: list[Turn], what: str) -> float:
    """Return the median over rounds of our tokens per second over theirs."""
    pairs = zip(ours, theirs, strict=True)
    return median(getattr(our, what) / getattr(their, what) for our, their in pairs)


class Worker:
    """A contestant in a process of its own; leaving the `with` block ends it."""

    def __init__(self, name: str, path: Path, threads: int):
        self.name = name
        # A file, not a pipe: a library that logs much would fill a pipe and stand still.
        self.log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self.process = subprocess.Popen(
            [*ISOLATED, "-m", "llama_ref.bench.contestants", name, str(path), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env=os.environ | dict.fromkeys(THREAD_VARIABLES, str(threads)),
        )
        self.replies = cast(IO[str], self.process.stdout)
        self.questions = cast(IO[str], self.process.stdin)

    def __enter__(self) -> Worker:
        try:
            self._reply("ready")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.replies, self.questions, self.log):
            with suppress(BrokenPipeError):
                stream.close()

    def time(self, n_prompt: int, n_decode: int) -> tuple[float, float]:
        """Return the seconds of a prompt and of the tokens decoded after it."""
        self.questions.write(f"{n_prompt} {n_decode}\n")
        self.questions.flush()
        _, prompt_seconds, decode_seconds = self._reply("seconds").split()
        return float(prompt_seconds), float(decode_seconds)

    def _reply(self, word: str) -> str:
        """Return the next line that begins with `word`, past what libraries print on the way."""
        for line in self.replies:
            if line.startswith(word):
                return line
        self.log.seek(0)
        last_words = self.log.read().strip().splitlines()[-1:]
        raise BadRequest(
            f"contestant {self.name}", expected="a running program", found=shown(last_words)
        )
