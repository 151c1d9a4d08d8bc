"""The documentation says what is there: links lead somewhere, names exist, numbers are computed.

Building the pages runs their code (see `docs/conf.py`) and takes half a minute; what can be checked
without that is checked here.
"""

import ast
import functools
import importlib
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import llama_ref as lr
from llama_ref.__main__ import VERBS
from llama_ref.config import PRESETS
from llama_ref.ops.rope_frequencies import rope_frequencies, stretched_frequencies
from tests.models import tiny_ids, tiny_model

PACKAGE = Path(lr.__file__).parent
ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
NOTEBOOK = DOCS / "notebooks" / "ten_minutes.py"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), NOTEBOOK])
PAGES = [page for page in PAGES if not {"_build", "jupyter_execute"} & set(page.parts)]
SOURCES = sorted(PACKAGE.rglob("*.py"))
WORDS = {word for path in SOURCES for word in re.findall(r"\w+", path.read_text("utf-8"))}

# Names in code spans that are other programs', or the documentation's own.
FOREIGN = {
    *("sentencepiece", "safetensors", "tiktoken", "pickle", "ml_dtypes", "shared", "eval"),
    *("kq", "kqv_out", "hidden_states", "original", "order", "lr", "md", "README", "CHANGELOG"),
    *("CONTRIBUTING", "jupytext", "peers", "docs", "python", "ruff", "mypy", "assert"),
    *("weights_tools", "int8", "savez"),
}


def page_name(page):
    return str(page.relative_to(ROOT))


def prose(page):
    """Return a page without its fenced blocks; of a notebook, its Markdown cells."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".py":
        cells = re.findall(r"# %% \[markdown\]\n((?:#.*\n)+)", text)
        text = "\n\n".join(re.sub("^# ?", "", cell, flags=re.MULTILINE) for cell in cells)
    return re.sub(r"^(`{3,}|:{3,}).*?^\1 *$", "", text, flags=re.MULTILINE | re.DOTALL)


def headings(page):
    """Return the anchors of a page, as Sphinx and code hosts make them of its headings."""
    titles = re.findall(r"^#+ +(.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def blocks(page):
    """Return (language, content) of every fenced block."""
    text = page.read_text(encoding="utf-8")
    return re.findall(r"^```([^\n]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def code_spans(page):
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(page))]


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_links_lead_to_pages_and_headings(page):
    """Every relative link names a file that exists, and a heading that this file has."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        other = (page.parent / path).resolve() if path else page
        assert other.is_file(), target
        assert not anchor or anchor in headings(other), target


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_tables_of_contents_name_pages(page):
    """Every entry of a toctree is a page."""
    for language, content in blocks(page):
        if language == "{toctree}":
            entries = [line for line in content.split() if not line.startswith(":")]
            captions = re.findall(r":caption: (.*)", content)
            for entry in set(entries) - {word for line in captions for word in line.split()}:
                found = [(page.parent / entry).with_suffix(end).is_file() for end in (".md", ".py")]
                assert any(found), entry


def test_every_page_is_in_a_table_of_contents():
    """No page of the site is out of reach."""
    listed = {
        (page.parent / entry).resolve()
        for page in PAGES
        for language, content in blocks(page)
        if language == "{toctree}"
        for entry in content.split()
    }
    site = [page for page in PAGES if DOCS in page.parents and "figures" not in page.parts]
    unlisted = {page.with_suffix("") for page in site} - listed
    assert unlisted == {DOCS / "index"}


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_paths_and_tests_that_are_named_exist(page):
    """A path in a code span is there, and a test named after `::` is defined in it."""
    for span in code_spans(page):
        path, _, test = span.partition("::")
        if not re.fullmatch(r"(llama_ref|tests|docs)/[\w./]+", path):
            continue
        root = PACKAGE.parent if path.startswith("llama_ref/") else ROOT
        assert (root / path).exists(), span
        assert not test or f"def {test}(" in (root / path).read_text(encoding="utf-8"), span


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_names_in_code_spans_exist(page):
    """A name that a page puts in code is one that the package uses, and so is its attribute."""
    for span in code_spans(page):
        name = re.fullmatch(r"([A-Za-z_]\w*(?:\.\w+)*)(?:\(.*\)|=.*)?", span)
        if not name or (ROOT / span).is_file():
            continue
        first, *rest = name[1].split(".")
        assert {first, *rest} <= WORDS | FOREIGN, span
        if first == "lr":
            assert hasattr(lr, rest[0]), span
        elif rest and first in class_homes():
            assert has_attribute(first, rest[0]), span


@functools.cache
def class_homes():
    """Return the module of every class of the package."""
    return {
        node.name: "llama_ref." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        for path in SOURCES
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef)
    }


def has_attribute(class_name, attribute):
    owner = getattr(importlib.import_module(class_homes()[class_name]), class_name)
    return hasattr(owner, attribute) or attribute in getattr(owner, "__dataclass_fields__", {})


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_commands_that_are_named_exist(page):
    """Every `llama-ref VERB`, in prose and in blocks, is a verb."""
    text = page.read_text(encoding="utf-8")
    for verb in re.findall(r"(?:^|`|&& )llama-ref ([a-z]+)", text, re.MULTILINE):
        assert verb in VERBS


def test_the_first_block_of_the_readme_is_two_commands():
    """The README's first block holds the main job and the tests, a line each."""
    language, content = blocks(ROOT / "README.md")[0]
    assert language == ""
    assert content.splitlines() == [
        "python -m pip install -e . && llama-ref demo",
        'python -m pip install -e ".[test]" && python -m pytest -q',
    ]


def test_the_example_of_the_readme_prints_what_it_says(tmp_path):
    """The README's Python block, run in an empty folder, prints the block below it."""
    python, text = [content for language, content in blocks(ROOT / "README.md") if language][:2]
    code = f"import sys\nsys.path.insert(0, {str(PACKAGE.parent)!r})\n{python}"
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert ran.stdout == text


def test_every_verb_has_its_section():
    """The page on the command line shows the help of every verb."""
    page = DOCS / "command-line.md"
    shown = [content.strip() or language for language, content in blocks(page)]
    assert [word.split()[-1] for word in shown if "{command-help}" in word] == list(VERBS)


def test_every_op_has_its_page():
    """Each op has a page of its name with its docstrings and its golden cases."""
    for path in (PACKAGE / "ops").glob("[a-z]*.py"):
        text = (DOCS / "ops" / f"{path.stem}.md").read_text(encoding="utf-8")
        assert f"automodule:: llama_ref.ops.{path.stem}\n" in text
        assert f"{{golden-cases}} {path.stem}\n" in text


def test_every_module_of_the_spine_is_in_the_reference():
    """What can be imported from outside is on a page of the reference; inner parts need not be."""
    text = "\n".join(page.read_text("utf-8") for page in (DOCS / "api").glob("*.md"))
    documented = set(re.findall(r"automodule:: (llama_ref\.\S+)", text))
    spine = {f"llama_ref.{path.stem}" for path in PACKAGE.glob("[a-z]*.py")} - {"llama_ref.lazy"}
    assert documented >= spine
    for module in documented:
        importlib.import_module(module)


def test_the_notebook_owns_nothing():
    """The notebook takes everything from the package and defines one function: its check."""
    tree = ast.parse(NOTEBOOK.read_text(encoding="utf-8"))
    defined = [n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef)]
    assert defined == ["check"]
    assert any(isinstance(node, ast.Assert) for node in tree.body), "the answer is not checked"


def test_bands_of_the_frequencies_are_those_the_page_names():
    """The pairs kept, blended and divided are those on the page on conventions."""
    text = (DOCS / "conventions.md").read_text(encoding="utf-8")
    for name in ("llama-3.1-8b", "llama-3.2-1b"):
        config = lr.preset(name)
        plain = rope_frequencies(config.head_dim, theta=config.rope_theta, dtype=np.float64)
        stretched = stretched_frequencies(plain, **vars(config.rope_scaling))
        ratio = plain / stretched
        kept, divided = np.flatnonzero(ratio == 1), np.flatnonzero(ratio == ratio.max())
        blended = range(kept[-1] + 1, divided[0])
        stated = f"0–{kept[-1]}, {divided[0]}–{len(plain) - 1} "
        assert f"H = {config.head_dim}" in text
        assert stated in text
        assert f"{blended[0]}–{blended[-1]}" in text


def test_numbers_in_prose_follow_from_the_blueprints():
    """A fifth of a 1B model is its head; presets named in prose and tables are all there are."""
    config = lr.preset("llama-3.2-1b")
    assert 0.18 < config.vocab_size * config.d_model / config.n_params < 0.22
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for name in re.findall(r"\"(llama-(?:guard-)?[\d.]+-\d+b)\"", text):
            assert name in PRESETS


def test_objects_show_themselves():
    """Config, Model and Trace are tables in a notebook, closed tags, foreign text escaped."""
    model = tiny_model(name="<i>&")
    for shown in (model.config, model, model.trace(tiny_ids(3))):
        html = shown._repr_html_()
        tags = re.findall(r"<(/?)([a-z]+)[^>]*>", html)
        for tag in {tag for _, tag in tags}:
            assert tags.count(("", tag)) == tags.count(("/", tag)), tag
        assert "<table" in html
        assert "<i>" not in html
        assert "background" not in html
