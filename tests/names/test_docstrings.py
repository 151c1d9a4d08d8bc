"""What a reader is promised: docstrings on public names, sources in ops, laws that exist."""

import ast
import re
from pathlib import Path

import pytest

import llama_ref
import weights_tools

PACKAGE = Path(llama_ref.__file__).parent
TOOLS = Path(weights_tools.__file__).parent
TESTS = Path(__file__).resolve().parents[1]
SOURCES = sorted([*PACKAGE.rglob("*.py"), *TOOLS.rglob("*.py")])
OPS = sorted((PACKAGE / "ops").glob("[a-z]*.py"))


def public_functions(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    holders = [tree, *(node for node in tree.body if isinstance(node, ast.ClassDef))]
    for holder in holders:
        for node in holder.body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                yield node


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE.parent)))
def test_functions_and_files_are_short(path):
    """A function has at most 40 lines below its docstring, a file at most 350 in all."""
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 350
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            has_docstring = ast.get_docstring(node) is not None
            first = node.body[1 if has_docstring and len(node.body) > 1 else 0]
            assert node.end_lineno - first.lineno < 40, node.name


@pytest.mark.parametrize("path", OPS, ids=lambda p: p.stem)
def test_ops_state_their_source_and_rounding(path):
    """Each op names the released code it follows; what rounds says where, under Precision."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert "Source:" in ast.get_docstring(tree)
    main = next(node for node in public_functions(path) if node.name in (path.stem, "rope_table"))
    assert "Precision:" in ast.get_docstring(main)
    assert "Examples" in ast.get_docstring(main)


@pytest.mark.parametrize("path", OPS, ids=lambda p: p.stem)
def test_ops_have_a_test_file_of_the_same_name(path):
    """ops/x.py stands beside tests/ops/test_x.py."""
    assert (TESTS / "ops" / f"test_{path.stem}.py").is_file()


def test_every_test_makes_a_claim():
    """Every test function has a docstring, and no product code holds a leftover."""
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                assert ast.get_docstring(node), f"{path.name}: {node.name} claims nothing"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE.parent)))
def test_no_unsafe_reader_and_no_leftover(path):
    """The package never imports pickle, evaluates text, or keeps notes to self."""
    text = path.read_text(encoding="utf-8")
    code = ast.unparse(ast.parse(text))
    assert not re.search(r"import pickle|\bpickle\.|(?<![.\w])(eval|exec)\(|__import__\(", code)
    assert not re.search("allow_pickle=True|yaml.load", code)
    assert not re.search(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b", text)
