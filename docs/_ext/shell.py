"""For the code of pages: commands, shown as they are typed, with what they print."""

import shlex
import subprocess
import sys

PROGRAMS = {"llama-ref": [sys.executable, "-m", "llama_ref"], "python": [sys.executable]}


def run(command, *, lines=None, quiet=False):
    """Run a command here and show it with its standard output; return its exit code.

    Parameters
    ----------
    command : str
        Its first word is `llama-ref` or `python`.
    lines : int, optional
        How many lines of the output to show.
    quiet : bool
        Whether to show nothing, unless it fails.
    """
    program, *words = shlex.split(command)
    ran = subprocess.run([*PROGRAMS[program], *words], capture_output=True, text=True, check=False)
    if ran.returncode not in (0, 1):
        raise RuntimeError(f"{command}: exit code {ran.returncode}\n{ran.stderr}")
    if quiet:
        return ran.returncode
    shown = ran.stdout.rstrip().splitlines()
    if lines is not None and len(shown) > lines:
        shown = [*shown[:lines], "…"]
    print("\n".join([f"$ {command}", *shown]))
    if ran.returncode:
        print(f"exit code {ran.returncode}")
    return ran.returncode
