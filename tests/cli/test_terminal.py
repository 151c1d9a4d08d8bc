"""Columns, sizes, escapes and progress of the command line."""

import io
import os
import re
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_ref.cli import terminal
from llama_ref.cli.inventory import _ranges
from tests.cli.commands import CLEAN, ROOT, on_a_terminal


@given(st.text(st.characters(codec=None)))
def test_visible_text_holds_nothing_a_terminal_acts_on(text):
    """Of all characters only line feeds and tabs of the control characters are left."""
    kept = {
        sign for sign in terminal.visible(text) if unicodedata.category(sign) in ("Cc", "Zl", "Zp")
    }
    assert kept <= {"\n", "\t"}


@given(st.text(st.characters(exclude_categories=["Cc", "Cf", "Zl", "Zp", "Cs"])))
def test_visible_text_is_otherwise_unchanged(text):
    """What a terminal only prints is not touched."""
    assert terminal.visible(text) == text


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("", 0),
        ("llama", 5),
        ("羊驼", 4),
        ("ｆｕｌｌ", 8),
        ("ﾊﾝｶｸ", 4),
        ("é", 1),
        ("e\u0301", 1),
        ("🦙", 2),
        ("a\u200db", 2),
    ],
    ids=["empty", "ASCII", "Han", "full width", "half width", "é", "e+accent", "emoji", "joiner"],
)
def test_width_counts_columns(text, columns):
    """East-Asian wide signs take two columns, accents and joiners none."""
    assert terminal.width(text) == columns


def test_columns_line_up_beside_wide_signs():
    """A cell of wide signs is padded by columns and not by characters."""
    assert terminal.table([("羊驼", "1"), ("llama", "22")], "<>") == ["羊驼    1", "llama  22"]
    assert terminal.table([], "<") == []


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (12_345, "12.3 kB"),
        (123_456, "123 kB"),
        (16_060_522_496, "16.1 GB"),
        (811_706_777_600, "812 GB"),
        (2 * 10**15, "2000 TB"),
    ],
)
def test_sizes_have_three_digits(n_bytes, text):
    """Bytes are shown in powers of ten, as model cards do."""
    assert terminal.size(n_bytes) == text


@pytest.mark.parametrize(
    ("numbers", "text"),
    [([3], "3"), ([1, 2], "1–2"), ([1, 2, 3, 5, 7, 8], "1–3, 5, 7–8")],
)
def test_ranges_join_runs(numbers, text):
    """Neighbouring numbers of files are written as a range."""
    assert _ranges(numbers) == text


def test_a_long_name_is_cut_and_escaped():
    """A name of any length fits in a line."""
    assert terminal.label("model.norm.weight") == "model.norm.weight"
    assert terminal.label("\x1b" * 10**6).startswith(r"\x1b\x1b")
    assert len(terminal.label("\x1b" * 10**6)) == terminal.LONGEST_NAME


@pytest.mark.parametrize(
    ("environment", "painted"),
    [
        ({}, "\x1b[31mtext\x1b[0m"),
        ({"NO_COLOR": ""}, "\x1b[31mtext\x1b[0m"),
        ({"NO_COLOR": "1"}, "text"),
        ({"TERM": "dumb"}, "text"),
    ],
    ids=str,
)
def test_colour_on_a_terminal_can_be_refused(environment, painted, monkeypatch):
    """NO_COLOR with any value, and a dumb terminal, get plain text."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    ours, theirs = os.openpty()
    with os.fdopen(theirs, "w") as stream:
        assert terminal.Paint(stream)("red", "text") == painted
    os.close(ours)


def test_paint_needs_a_terminal():
    """Text for anything but a terminal stays as it is."""
    assert terminal.Paint(io.StringIO())("red", "text") == "text"


PROGRESS = """
import time
from llama_ref.cli.terminal import Progress
with Progress("quick") as progress:
    time.sleep(0.1)
Progress.DELAY = Progress.INTERVAL = 0.1
with Progress("reading", 200) as progress:
    progress.advance(100)
    time.sleep(0.3)
with Progress("opening"):
    time.sleep(0.3)
"""


def test_progress_shows_what_takes_long_and_cleans_up(monkeypatch):
    """On a terminal a bar appears after a while, and its line is erased at the end."""
    monkeypatch.setattr("tests.cli.commands.COMMAND", [sys.executable, "-c", PROGRESS])
    code, seen = on_a_terminal()
    assert code == 0
    assert re.search(r"\r\x1b\[Kreading  █{12}░{12}  50%  [1-4]\d\d ms", seen)
    assert re.search(r"\r\x1b\[Kopening … [1-4]\d\d ms", seen) and "quick" not in seen
    assert seen.endswith("\r\x1b[K")


def test_progress_is_silent_in_a_pipe():
    """Logs get no bars."""
    ended = subprocess.run(
        [sys.executable, "-c", PROGRESS],
        env=CLEAN | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=True,
    )
    assert (ended.stdout, ended.stderr) == (b"", b"")
