"""An implementation by name: `my_backend.ops`, or the path of a Python file.

A dotted name is looked up where Python looks for modules. The current folder is not among those
places when `llama-ref` runs: what lies in a stranger's folder is not to be run for having the right
name. A file is run because its path was given, `./ops.py`, and may import what lies beside it.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from llama_ref.errors import BadRequest, printable, shown


def load_ops(name: str) -> ModuleType:
    """Import the module that holds the functions under test.

    Parameters
    ----------
    name : str
        A dotted module name, or the path of a file, which ends in `.py`.

    Returns
    -------
    module

    Raises
    ------
    BadRequest
        If there is no such module or file, or it raises while it is imported. It may not end the
        program either: a module that calls `sys.exit(0)` would pass for a good backend.
    """
    is_file = name.endswith(".py") or os.sep in name
    try:
        return _from_file(Path(name)) if is_file else importlib.import_module(name)
    except (Exception, SystemExit) as error:
        found = f"{type(error).__name__}: {shown(str(error))}"
        raise BadRequest(
            f"implementation of the ops {printable(name)}",
            expected="a Python file that runs" if is_file else "a module that Python can import",
            found=found,
            next_step=None if is_file else _next_step(name, error),
        ) from error


def _next_step(name: str, error: BaseException) -> str | None:
    """Say what to do about a module that is not found, if it is that one that is not."""
    absent = getattr(error, "name", None) if isinstance(error, ModuleNotFoundError) else None
    if absent is None or not f"{name}.".startswith(f"{absent}."):
        return None
    return (
        "install the package it belongs to (`python -m pip install -e .`), or give the path of "
        "the file, such as ./my_backend/ops.py"
    )


def _from_file(path: Path) -> ModuleType:
    name = f"ops_under_test_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError("not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses and the like look their module up
    try:
        with _importable(path.resolve().parent):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let a file import what lies beside it, as Python does for a script, while it is loaded."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
