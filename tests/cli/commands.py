"""Running the command line for real: as a process of its own, through pipes or on a terminal."""

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

COMMAND = [sys.executable, "-m", "llama_ref"]
ROOT = Path(__file__).resolve().parents[2]
# One thread: on matrices this small, several only wait for each other.
CLEAN = {"OPENBLAS_NUM_THREADS": "1"} | {
    name: value
    for name, value in os.environ.items()
    if name not in ("NO_COLOR", "TERM", "COLUMNS", "PYTHONWARNINGS")
}


def start(*words, environment=None, **options):
    """Start a command that reacts to Ctrl-C, even if this process was told to ignore it."""
    # An ignored signal is inherited by the new process, a handled one is not.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(
            [*COMMAND, *map(str, words)],
            env=CLEAN | {"PYTHONPATH": str(ROOT)} | (environment or {}),
            **options,
        )
    finally:
        signal.signal(signal.SIGINT, before)


def through_pipes(*words, stdin=b"", environment=None):
    """Run a command; return its exit code, what it wrote, and what it said on standard error."""
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    process = start(*words, environment=environment, **pipes)
    output, errors = process.communicate(stdin, timeout=60)
    return process.returncode, output, errors.decode()


def on_a_terminal(*words, environment=None):
    """Run a command whose output and errors go to one terminal; return exit code and text."""
    ours, theirs = pty.openpty()
    environment = {"TERM": "xterm", **(environment or {})}
    process = start(
        *words, environment=environment, stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True
    )
    os.close(theirs)
    chunks = []
    while True:
        try:
            chunk = os.read(ours, 65536)
        except OSError:  # how Linux reports that the other end is closed
            chunk = b""
        if not chunk:
            break
        chunks.append(chunk)
    os.close(ours)
    return process.wait(timeout=60), b"".join(chunks).decode().replace("\r\n", "\n")
