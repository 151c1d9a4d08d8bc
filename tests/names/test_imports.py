"""Imports point downwards, and each module loads only its own leaves."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import llama_ref

PACKAGE = Path(llama_ref.__file__).parent
ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
    if path != PACKAGE / "__init__.py"
)
CORE = {"numpy", "ml_dtypes", "tiktoken", "sentencepiece", "safetensors", "threadpoolctl"}
PEERS_OF_BENCH = {"torch", "transformers", "llama_cpp", "gguf"}
OPTIONAL = {"bench.contestants": PEERS_OF_BENCH}
OPTIONAL |= {"bench.gguf_file": PEERS_OF_BENCH, "checkpoint.gguf": {"gguf"}}
OPTIONAL |= {"mpi": {"mpi4py"}}
OPTIONAL |= {f"golden.suite.pytest_{name}": {"pytest"} for name in ("plugin", "items")}
OPTIONAL |= {f"golden.capture.{name}": PEERS_OF_BENCH for name in ("hf", "hf_hooks")}
OPTIONAL |= {f"golden.capture.ggml_{name}": PEERS_OF_BENCH for name in ("run", "calls")}
OPTIONAL |= {name: {"matplotlib"} for name in ("bench.context_plot", "sampling.explanation_views")}
OPTIONAL |= {m: {"llguidance"} for m in MODULES if m.startswith("constrain.")}
OPTIONAL |= {m: {"starlette", "uvicorn", "msgspec"} for m in MODULES if m.startswith("serve.")}


def source(module):
    path = PACKAGE.joinpath(*module.split("."))
    return path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"


def imported(module):
    """Return what a module imports anywhere in it, `if TYPE_CHECKING` left out."""
    tree = ast.parse(source(module).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            submodules = [f"{node.module}.{alias.name}" for alias in node.names]
            found = [name for name in submodules if name.removeprefix("llama_ref.") in MODULES]
            yield from found or [node.module]


def table():
    """Read the import table of docs/architecture.md: module -> what it may import."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`[^|]+`) +\| ([^|]*) *\|$", text, re.MULTILINE)
    return {
        module: set(re.findall(r"`([^`]+)`", allowed))
        for modules, allowed in rows
        for module in re.findall(r"`([^`]+)`", modules)
    }


def room(module, rooms):
    """Return the row of the table that a module belongs to: its own, or that of its package."""
    while module not in rooms:
        module, dot, _ = module.rpartition(".")
        if not dot:
            return None
    return module


@pytest.mark.parametrize("module", MODULES)
def test_imports_follow_the_table(module):
    """A module imports only what the table of docs/architecture.md allows its row."""
    rooms = table()
    own = room(module, rooms)
    assert own, f"docs/architecture.md has no row for {module}"
    for name in imported(module):
        if name.startswith("llama_ref."):
            other = room(name.removeprefix("llama_ref."), rooms)
            assert other == own or other in rooms[own], f"{module} imports {name}"


def test_the_table_has_no_cycle():
    """Rows of the table can be ordered so that each imports only rows before it."""
    rooms = table()
    assert len(rooms) >= 15
    placed = set()
    while len(placed) < len(rooms):
        ready = {module for module, allowed in rooms.items() if allowed <= placed} - placed
        assert ready, f"a cycle among {sorted(set(rooms) - placed)}"
        placed |= ready


@pytest.mark.parametrize("module", MODULES)
def test_only_the_stated_packages_are_used(module):
    """Outside the standard library a module imports the core dependencies and nothing else."""
    allowed = CORE | OPTIONAL.get(module, set()) | set(sys.stdlib_module_names) | {"llama_ref"}
    assert {name.partition(".")[0] for name in imported(module)} <= allowed
    assert "pickle" not in set(imported(module))


def loaded_by(statement):
    """Return the modules of this package and its dependencies that a fresh process ends up with."""
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    names = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.split()
    return {n for n in names if n.startswith("llama_ref") or n in CORE | {"torch", "regex"}}


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("import llama_ref", {"llama_ref", "llama_ref.lazy"}),
        (
            "from llama_ref.ops.rope import rope_interleaved",
            {"llama_ref", "llama_ref.lazy", "llama_ref.ops", "llama_ref.ops.rope"}
            | {"llama_ref.numerics", "llama_ref.errors", "numpy", "ml_dtypes"},
        ),
        (
            "from llama_ref.sampling import sample",
            {"llama_ref", "llama_ref.lazy", "llama_ref.sampling", "llama_ref.ops"}
            | {f"llama_ref.sampling.{m}" for m in ("checks", "params", "pipeline", "profiles")}
            | {f"llama_ref.sampling.{m}" for m in ("shortcuts", "steps", "stream")}
            | {"llama_ref.ops.softmax", "llama_ref.numerics", "llama_ref.errors"}
            | {"numpy", "ml_dtypes"},
        ),
    ],
)
def test_an_import_loads_its_leaves_alone(statement, expected):
    """Taking one op or one function out of the package loads nothing it does not use."""
    assert loaded_by(statement) == expected


def test_the_model_loads_without_any_tokenizer():
    """Importing the model and the loop loads no tokenizer engine, no writer and no peer."""
    loaded = loaded_by("import llama_ref.model, llama_ref.generation")
    assert not loaded & {"tiktoken", "sentencepiece", "torch", "regex", "safetensors"}


def test_every_public_name_arrives():
    """Each name that llama_ref hands on lazily can be had, and dir() lists it."""
    for name in llama_ref._HOMES:
        assert getattr(llama_ref, name) is not None
        assert name in dir(llama_ref)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        llama_ref.nothing  # noqa: B018
