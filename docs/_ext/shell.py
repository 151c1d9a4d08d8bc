"""For the code of pages: commands, shown as they are typed, with what they print."""

import shlex
import subprocess
import sys

PROGRAMS = {"llama-ref": [sys.executable, "-m", "llama_ref"], "python": [sys.executable]}


def run(command, *, code=0, lines=None, quiet=False):
    """Run a command here, and show it with what it prints.

    Parameters
    ----------
    command : str
        Its first word is `llama-ref` or `python`.
    code : int
        The exit code that it should have; another one stops the page.
    lines : int, optional
        How many lines of the output to show.
    quiet : bool
        Whether to show nothing.
    """
    program, *words = shlex.split(command)
    ran = subprocess.run([*PROGRAMS[program], *words], capture_output=True, text=True, check=False)
    if ran.returncode != code:
        raise RuntimeError(f"{command}: exit code {ran.returncode}\n{ran.stdout}{ran.stderr}")
    if quiet:
        return
    shown = ran.stdout.rstrip().splitlines()
    if lines is not None and len(shown) > lines:
        shown = [*shown[:lines], "…"]
    print("\n".join([f"$ {command}", *shown, *([f"exit code {code}"] if code else [])]))
