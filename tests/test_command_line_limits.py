"""Command lines that a stranger's text or folder could turn against the machine they run on."""

import json
import sys
import warnings

import pytest

from llama_ref.__main__ import CANNOT_RUN, main
from llama_ref.cli.demo import MAX_PROMPT
from llama_ref.cli.demo_checkpoint import write_demo


def test_demo_takes_no_prompt_whose_intermediates_fill_the_memory(tmp_path, capsys):
    """The scores of n tokens are n times n numbers for every head of every layer."""
    write_demo(tmp_path / "demo")
    prompt = "x" * MAX_PROMPT  # and the token that begins the text
    assert main(["demo", str(tmp_path / "demo"), "--prompt", prompt]) == CANNOT_RUN
    assert "--prompt: expected at most 512 tokens" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["tokens", "generate"])
def test_closed_standard_input_is_an_error_of_ours(tmp_path, capsys, monkeypatch, verb):
    """`llama-ref tokens PATH - <&-` says so in one line."""
    write_demo(tmp_path / "demo")
    monkeypatch.setattr(sys, "stdin", None)
    assert main([verb, str(tmp_path / "demo"), "-"]) == CANNOT_RUN
    assert "standard input: expected a text, found nothing" in capsys.readouterr().err


def test_closed_standard_error_changes_no_exit_code(tmp_path, capsys, monkeypatch):
    """`2>&-` loses the messages, and puts none of them among the results."""
    write_demo(tmp_path / "demo")
    for path, code in ((tmp_path / "demo", 0), (tmp_path / "nowhere", CANNOT_RUN)):
        monkeypatch.setattr(sys, "stderr", None)
        assert main(["generate", str(path), "x", "--ids", "--max-tokens", "2"]) == code
        assert "llama-ref" not in capsys.readouterr().out
        sys.stderr.close()


@pytest.mark.parametrize("action", ["error", "ignore", "always"])
def test_warnings_are_lines_whatever_python_was_told(tmp_path, capsys, action):
    """A neighbour that cannot be read is one line on standard error under `python -W error` too."""
    write_demo(tmp_path / "demo")
    neighbour = json.dumps({"dim": "\x1b[31m"})
    (tmp_path / "demo" / "params.json").write_text(neighbour, encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter(action)
        assert main(["inspect", str(tmp_path / "demo")]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("llama-ref: warning: config.json is used") and line.isprintable()
