"""The pytest plugin, run as a backend's author runs it: pytest in a folder of theirs."""

import os
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from llama_ref.golden import suite

PLUGIN = "llama_ref.golden.suite.pytest_plugin"
OPS = """
from llama_ref.golden.suite.own import swiglu

def softmax(x):
    return x / x.sum(axis=-1, keepdims=True)

def embed(ids, table, *, dtype):
    raise RuntimeError("no embedding yet")
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "ops.py").write_text(OPS)
    return tmp_path


def run_pytest(folder, *arguments):
    """Run pytest with this plugin and no other, whatever is installed; return it when done."""
    path = os.pathsep.join([str(Path(suite.__file__).parents[3]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": path}
    command = [sys.executable, "-m", "pytest", "-p", PLUGIN, "-p", "no:cacheprovider", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def statuses(junit):
    """Read a JUnit file: (group, name) to what became of it."""
    return {
        (case.get("classname"), case.get("name")): case[0].tag if len(case) else "passed"
        for case in ET.parse(junit).iter("testcase")
    }


def test_each_case_is_a_test(folder):
    """One test per case, beside the author's own; missing functions are skipped and say so."""
    (folder / "test_own.py").write_text("def test_own():\n    pass\n")
    done = run_pytest(folder, "--llama-ref-ops", "ops.py", "--junitxml", "junit.xml", "-rs")
    found = statuses(folder / "junit.xml")
    assert found.pop(("test_own", "test_own")) == "passed"
    expected = {"pass": "passed", "fail": "failure", "missing": "skipped"}
    assert found == {
        (f"llama_ref.{r.op}", r.case): expected[r.status]
        for r in suite.check_ops(suite.load_ops(str(folder / "ops.py")))
    }
    assert done.returncode == 1
    assert f"collected {1 + len(found)} items" in done.stdout
    assert "ops.py has no function rope_table" in done.stdout


def test_a_failure_is_told_in_words(folder):
    """A failure prints the case, what is wrong and why it exists; an exception, where it arose."""
    done = run_pytest(folder, "--llama-ref-ops", "ops.py", "-k", "square or tie")
    assert "_ llama_ref/softmax/float32, square _" in done.stdout
    assert "softmax/float32, square: y is wrong: off by " in done.stdout
    assert "; classic mistakes that it catches: first axis, not normalised, base 2\n" in done.stdout
    assert 'raise RuntimeError("no embedding yet")\nRuntimeError: no embedding yet' in done.stdout
    assert "implementation.py" not in done.stdout  # where our frames are


def test_cases_are_chosen_by_name_and_by_flag(folder):
    """What -k and the flags leave out counts as deselected."""
    flags = "--llama-ref-flags-off=16-bit,float64"
    done = run_pytest(folder, "--llama-ref-ops", "./ops.py", flags, "-k", "swiglu")
    wanted = suite.cases(["swiglu"], ["16-bit", "float64"])
    n_cases = len(suite.cases())
    assert done.returncode == 0
    assert f"{len(wanted)} passed, {n_cases - len(wanted)} deselected" in done.stdout
    assert f"collected {n_cases} items" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--llama-ref-ops", "nowhere"], "ERROR: implementation of the ops nowhere"),
        (["--llama-ref-ops", "ops.py", "--llama-ref-flags-off", "fp64"], "found 'fp64'"),
    ],
    ids=["module", "flag"],
)
def test_wrong_options_are_usage_errors(folder, arguments, said):
    """A module that is not there or a misspelt flag ends the run with pytest's code for that."""
    done = run_pytest(folder, *arguments)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert said in done.stderr + done.stdout


def test_without_its_option_it_does_nothing(folder):
    """Other people's runs get no test of ours, no warning, and not one module beyond the plugin."""
    packages = {"llama_ref", "llama_ref.lazy", "llama_ref.golden", "llama_ref.golden.suite", PLUGIN}
    (folder / "test_own.py").write_text(
        "import sys\n\n"
        "def test_own():\n"
        "    ours = {name for name in sys.modules if name.startswith('llama_ref')}\n"
        f"    assert ours == {packages}\n"
        "    assert 'numpy' not in sys.modules\n"
    )
    done = run_pytest(folder, "-W", "error")
    assert done.returncode == 0, done.stdout
    assert "1 passed in" in done.stdout


def test_installing_the_package_registers_it():
    """The project file names the plugin under the group that pytest looks in."""
    root = Path(__file__).resolve().parents[2]
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"]["pytest11"] == {"llama_ref": PLUGIN}
