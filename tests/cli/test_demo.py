"""`llama-ref demo`: a stranger's first minute works, and its checks can fail."""

import contextlib
import io
import re
import tempfile

import numpy as np
import pytest

from llama_ref.__main__ import main
from llama_ref.cli import demo
from llama_ref.cli.demo_checkpoint import write_demo
from llama_ref.loading import load
from llama_ref.model import Model
from tests.cli.commands import on_a_terminal


@pytest.fixture(scope="module")
def first_run(tmp_path_factory):
    """What `llama-ref demo` prints, and the folder it made its own folder in."""
    temporary, page = tmp_path_factory.mktemp("temporary"), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(page):
        patch.setattr(tempfile, "tempdir", str(temporary))
        assert main(["demo"]) == 0
    return page.getvalue(), temporary


def test_the_first_command_writes_opens_runs_and_agrees(first_run):
    """Without arguments: six steps, two checks that hold, a folder that can be used again."""
    text, temporary = first_run
    assert re.findall(r"^(\d)\. ", text, re.MULTILINE) == list("123456")
    assert text.count("✓") == 2 and "WRONG" not in text
    assert "the same 32 ids both ways" in text and "at all 31 positions" in text
    assert "random weights have nothing to say" in text
    (folder,) = temporary.iterdir()
    assert f"llama-ref inspect {folder}" in text
    assert load(folder).config.n_params == 242_240


def test_the_page_fits_a_terminal(first_run):
    """No line is longer than 80 columns, path aside, and the page is at most 48 lines."""
    text, temporary = first_run
    lines = text.splitlines()
    assert len(lines) <= 48
    assert max(len(line) for line in lines if str(temporary) not in line) <= 80


def test_two_machines_write_the_same_checkpoint(tmp_path):
    """The weights come from a formula: the files are equal byte for byte."""
    for name in ("a", "b"):
        write_demo(tmp_path / name)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert len(names) == 8
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.real
def test_a_checkpoint_of_ones_own(stories_folder, capsys):
    """With a path the same steps run on it, and the text is shown."""
    assert main(["demo", str(stories_folder), "--max-tokens", "12"]) == 0
    text = capsys.readouterr().out
    assert re.findall(r"^(\d)\. ", text, re.MULTILINE) == list("12345")
    assert text.count("✓") == 2
    assert '", there was a little girl named L' in text
    assert "random" not in text


def test_a_prompt_is_shown_on_one_line_and_escaped(small_checkpoint, capsys):
    """Control characters of a prompt do not reach the terminal."""
    words = ["demo", str(small_checkpoint), "--max-tokens", "2", "--prompt", "a\x1b[2J\nb"]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert r'"a\x1b[2J\nb"' in text and "\x1b" not in text


def test_without_a_tokenizer_ids_come_from_a_formula(small_checkpoint, tmp_path, capsys):
    """A checkpoint that holds weights alone can be shown too."""
    write_demo(tmp_path / "bare")
    (tmp_path / "bare" / "tokenizer.model").unlink()
    assert main(["demo", str(tmp_path / "bare"), "--max-tokens", "4"]) == 0
    assert "no tokenizer" in capsys.readouterr().out


class ForgetfulModel(Model):
    """A model whose cache is broken: each pass reads it from one position too far back."""

    def forward(self, ids, cache, **options):
        """Forget the newest position before every pass but the first."""
        if cache.length:
            cache.truncate(cache.length - 1)
        return super().forward(ids, cache, **options)


def test_a_broken_cache_is_told_loudly(small_checkpoint, capsys):
    """Where the cache loses a position, both checks fail and say WRONG."""
    good = load(small_checkpoint)
    broken = ForgetfulModel(good.config, good.weights, good.lineage, good.dtype, good.tokenizer)
    ids, show = [256, *b"a llama"], demo.Show()
    assert demo._compare_logits(show, good, ids)
    assert demo._compare_continuations(show, good, ids, 8, True)
    assert "WRONG" not in capsys.readouterr().out
    assert not demo._compare_logits(show, broken, ids)
    assert not demo._compare_continuations(show, broken, ids, 8, True)
    assert capsys.readouterr().out.count("✗ WRONG: ") == 2


def test_a_terminal_shows_the_checks_in_green(small_checkpoint):
    """Colour marks the headings and the checks, and every colour is switched off again."""
    code, seen = on_a_terminal("demo", small_checkpoint, "--max-tokens", "3")
    assert code == 0 and "\x1b[32m✓" in seen
    assert len(re.findall(r"\x1b\[\d+m", seen)) == 2 * seen.count("\x1b[0m")
    assert np.all([line.count("\x1b[") % 2 == 0 for line in seen.splitlines()])
