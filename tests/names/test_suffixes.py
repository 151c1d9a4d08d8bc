"""Shape suffixes are promises; these tests keep them while the model runs."""

import ast
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import llama_ref
from tests.models import tiny_ids, tiny_model

PACKAGE = Path(llama_ref.__file__).parent
SUFFIX = re.compile(r"(?:^|[a-z0-9]_)([A-Z1]+)$")
KEY = set(re.findall(r"(?:^|\s{2,})([A-Z1])  \S", llama_ref.__doc__, re.MULTILINE))


def check_locals(frame, seen):
    """Within one call a letter means one size, and a suffix has one letter per axis."""
    sizes = {"1": 1}
    for name, value in frame.f_locals.items():
        match = SUFFIX.search(name)
        if match and name != match[1] and isinstance(value, np.ndarray):
            where = f"{frame.f_code.co_qualname}: {name} has shape {value.shape}"
            assert value.ndim == len(match[1]), where
            for letter, size in zip(match[1], value.shape, strict=True):
                known = sizes.setdefault(letter, size)
                assert known == size, f"{where}, but {letter} = {known} here"
            seen.add((Path(frame.f_code.co_filename).name, name))


def run_watched(work):
    """Run `work` with every return of a function of the package checked; return what was seen."""
    seen = set()

    def profile(frame, event, arg):
        if event == "return" and frame.f_code.co_filename.startswith(str(PACKAGE)):
            check_locals(frame, seen)

    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(None)
    return seen


@pytest.mark.parametrize("layout", ["hf", "meta"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_suffixed_local_has_the_shape_its_name_says(layout, dtype):
    """No suffixed name of the forward pass lies, in either layout, packed, cached or traced."""

    def work():
        model = tiny_model(dtype, layout=layout, lineage=layout)
        caches = [model.new_cache(), model.new_cache(capacity=20)]
        model.forward_packed([tiny_ids(5), tiny_ids(7)], caches)
        model.forward_packed([tiny_ids(3), tiny_ids(1)], caches, last=2)
        model.trace(tiny_ids(4))

    seen = run_watched(work)
    files = {file for file, _ in seen}
    ops = {path.name for path in (PACKAGE / "ops").glob("[a-z]*.py")} - {"softmax.py"}
    assert files >= ops | {"model.py", "cache.py", "packing.py"}
    assert len(seen) >= 70


def test_the_watch_notices_a_lie():
    """The check above fails on a function whose suffix is wrong."""

    def liar():
        hidden_TD, gain_D = np.zeros((3, 4)), np.zeros(5)
        check_locals(sys._getframe(), set())
        return hidden_TD, gain_D

    with pytest.raises(AssertionError, match="gain_D has shape"):
        liar()


def sources():
    return sorted(PACKAGE.rglob("*.py"))


def identifiers(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Attribute):
            yield node.attr


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_every_suffix_letter_is_in_the_key(path):
    """A suffix uses only letters that llama_ref/__init__.py explains."""
    assert set("TSDVFNKGHPL1") <= KEY
    for name in identifiers(ast.parse(path.read_text(encoding="utf-8"))):
        match = re.fullmatch(r"[a-z0-9_]*[a-z0-9]_([A-Z1]+)", name)
        assert not match or set(match[1]) <= KEY, name


def einsum_lies(source):
    """Return every einsum of a source whose terms are not the suffixes of its operands."""
    lies = []
    for call in ast.walk(ast.parse(source)):
        if not (isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "einsum"):
            continue
        terms = call.args[0].value.partition("->")[0].split(",")
        names = [ast.unparse(operand).rpartition("_")[2] for operand in call.args[1:]]
        if [term.strip() for term in terms] != names:
            lies.append(ast.unparse(call))
    return lies


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_einsum_letters_are_those_of_its_operands(path):
    """Each term of an einsum is the suffix of the array it is given."""
    assert einsum_lies(path.read_text(encoding="utf-8")) == []


def test_the_einsum_check_notices_a_lie():
    """The check above passes a true einsum and finds one with swapped letters."""
    assert einsum_lies('np.einsum("TKGH,SKH->KGTS", query_TKGH, layer.key_SKH)') == []
    assert len(einsum_lies('np.einsum("TKGH,KSH->KGTS", query_TKGH, key_SKH)')) == 1
