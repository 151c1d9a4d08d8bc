"""The pages on golden outputs say all there is: every key, every style, every mistake."""

import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import llama_ref as lr
from llama_ref.golden import MISTAKES, make, mistakes
from llama_ref.golden.manifest import Manifest
from llama_ref.golden.report import Report
from llama_ref.golden.styles import PRECISIONS, STYLES

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs" / "golden"


def code_of(name):
    """Return what stands in code spans of a page, outside of its blocks."""
    text = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return set(re.findall(r"`([^`]+)`", text))


def keys_of(value):
    """Yield every key of a JSON object that is a name of the format, and not of a user's thing."""
    if isinstance(value, list):
        for item in value:
            yield from keys_of(item)
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from keys_of(inner)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Manifest:
    """The manifest of the smallest bundle."""
    return make("golden-tiny", tmp_path_factory.mktemp("golden") / "bundle", cases=["one"]).manifest


def test_the_page_names_every_key_of_a_manifest(manifest):
    """The page on the format has each key of a real manifest in code."""
    stated = manifest.as_dict()
    foreign = {*stated["files"], *stated["models"], *stated["envelope"]["styles"]}
    foreign |= {*manifest.taps["one"], *PRECISIONS} - {"main"}
    assert set(keys_of(stated)) - foreign <= code_of("bundle-format")


def test_the_page_names_every_key_of_a_report():
    """The page on the format has each key of the JSON of a check in code."""
    report = Report("pass", "", "", "", "float32")
    assert set(report.as_dict()) <= code_of("bundle-format")


def test_the_page_names_every_style():
    """Each legal way to round stands in the table of styles by its name behind the class."""
    text = (PAGES / "numerics.md").read_text(encoding="utf-8")
    for style in STYLES:
        own = style.name.replace(f"{style.precision}, ", "16 bits, ")
        assert style.name in text or own in text, style.name


def test_every_mistake_is_on_the_page_of_causes():
    """Each module of mistakes is shown once, and together they are all there are."""
    text = (PAGES / "causes.md").read_text(encoding="utf-8")
    shown = re.findall(r"^```\{mistakes\} (\w+)$", text, re.MULTILINE)
    assert len(shown) == len(set(shown))
    found = [m.id for name in shown for m in modules()[name].MISTAKES]
    assert sorted(found) == sorted(MISTAKES)


def modules():
    """Return the modules that hold mistakes, by name."""
    names = [module.name for module in pkgutil.iter_modules(mistakes.__path__)]
    loaded = {name: importlib.import_module(f"{mistakes.__name__}.{name}") for name in names}
    return {name: module for name, module in loaded.items() if hasattr(module, "MISTAKES")}


@pytest.mark.slow
def test_the_second_example_of_the_readme_prints_what_it_says(tmp_path):
    """The README's example of a check, run in an empty folder, prints the block below it."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    python, printed = (
        re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)[1]
        for language in ("python", "text")
    )
    code = f"import sys\nsys.path.insert(0, {str(Path(lr.__file__).parents[1])!r})\n{python}"
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert ran.stdout == printed
