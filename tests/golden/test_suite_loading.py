"""An implementation by name: a module that is installed, or a file that is named."""

import sys

import pytest

from llama_ref.errors import BadRequest
from llama_ref.golden import suite

SWIGLU = "from llama_ref.ops.swiglu import swiglu\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder to work in, from which nothing is importable."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", ".")])
    return tmp_path


def passes(module):
    return {r.status for r in suite.check_ops(module, ["swiglu"])} == {"pass"}


def test_a_module_by_its_dotted_name():
    """An importable module is found by its name."""
    assert suite.load_ops("llama_ref.golden.suite.own") is suite.own


@pytest.mark.parametrize("name", ["ops.py", "./ops.py", "sub/ops.py"])
def test_a_file_by_its_path(folder, name):
    """A file is run because its path was given, and may import what lies beside it."""
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("from helper_of_ops import swiglu\n")
    (folder / name).with_name("helper_of_ops.py").write_text(SWIGLU)
    before = [*sys.path]
    assert passes(suite.load_ops(name))
    assert sys.path == before
    del sys.modules["helper_of_ops"], sys.modules["ops_under_test_ops"]


def test_a_module_in_the_current_folder_is_not_run_by_name(folder):
    """What happens to lie in the current folder is not imported; the error says how to name it."""
    (folder / "lying_about.py").write_text("raise RuntimeError('ran')\n")
    with pytest.raises(BadRequest, match=r"No module named 'lying_about'.*path of the file") as e:
        suite.load_ops("lying_about")
    assert "pip install -e ." in e.value.next_step


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1 / 0\n", "ZeroDivisionError: 'division by zero'"),
        ("import sys; sys.exit(0)\n", "SystemExit: '0'"),
        ("def f(:\n", "SyntaxError"),
        ("import no_such_package\n", "No module named 'no_such_package'"),
    ],
    ids=["raises", "exits", "no Python", "lacks a package"],
)
def test_a_file_that_does_not_run_is_refused(folder, text, said):
    """A file that raises, or ends the program, is an error with its name, and leaves no trace."""
    (folder / "broken.py").write_text(text)
    with pytest.raises(BadRequest, match=rf"ops broken\.py: expected a Python file.*{said}"):
        suite.load_ops("broken.py")
    assert "ops_under_test_broken" not in sys.modules


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("absent.py", "FileNotFoundError"),
        ("llama_ref.nothing", "No module named 'llama_ref.nothing'"),
        ("", "ValueError: 'Empty module name'"),
        (".ops", "TypeError"),
        ("ops\x1b[31m", r"ops\\x1b\[31m: expected a module"),
        ("sub/folder", "ImportError: 'not a Python file'"),
    ],
)
def test_what_is_not_there_is_refused(folder, name, said):
    """A name that leads nowhere is an error that shows it, escaped."""
    with pytest.raises(BadRequest, match=said):
        suite.load_ops(name)


def test_the_advice_is_for_the_module_that_is_absent(monkeypatch, folder):
    """Where a module is there and what it imports is not, nobody is told to install the module."""
    (folder / "needs_more.py").write_text("import no_such_package\n")
    monkeypatch.syspath_prepend(folder)
    with pytest.raises(BadRequest, match="no_such_package") as caught:
        suite.load_ops("needs_more")
    assert caught.value.next_step is None
