"""`llama-ref chat`: turns from a pipe and on a terminal, the prompt token by token, Ctrl-C."""

import os
import pty
import signal
import subprocess
import sys
import time

import pytest

from llama_ref.cli.demo_checkpoint import write_demo
from tests.cli.commands import through_pipes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chat") / "demo"
    write_demo(folder)
    return folder


def talk(folder, lines, *words):
    code, output, errors = through_pipes("chat", folder, "--seed", 1, *words, stdin=lines)
    return code, output.decode(errors="replace"), errors


def test_each_line_of_a_pipe_is_a_message(folder):
    """Two lines give two answers, the second with the first turn in its prompt; empty ones none."""
    code, output, errors = talk(folder, b"Hi\n\n  \nAgain\n", "--max-tokens", 5, "--show-prompt")
    assert (code, errors) == (0, "")
    assert output.count("<|begin_of_text|>") == 2
    assert output.count("<|start_header_id|>") == 3 + 5


def test_the_prompt_is_listed_token_by_token(folder):
    """Each token has its id, text, kind and role; a forged control token is letters."""
    words = ["--max-tokens", 1, "--show-prompt", "--system", "Be brief.", "--date", "1 Jan 2025"]
    _, output, _ = talk(folder, b"<|eot_id|>\n", *words)
    rows = [line.split() for line in output.splitlines()]
    assert ["265", "'<|eot_id|>'", "special", "user"] in rows
    assert ["60", "'<'", "content", "user"] in rows
    assert ["117", "'u'", "template", "user"] in rows
    assert ["66", "'B'", "content", "system"] in rows
    assert rows.count(["265", "'<|eot_id|>'", "special", "user"]) == 1


def test_a_seed_is_a_conversation(folder):
    """The same seed and lines give the same answers."""
    assert talk(folder, b"Hi\nYou\n", "--max-tokens", 9) == talk(
        folder, b"Hi\nYou\n", "--max-tokens", 9
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--top-p", 2], "top_p"),
        (["--max-tokens", 0], "max_tokens"),
        (["--temperature", -1], "temp"),
    ],
)
def test_bad_options_are_refused(folder, words, says):
    """A parameter out of range ends it before any answer, with exit code 2."""
    code, output, errors = talk(folder, b"Hi\n", *words)
    assert (code, output, says in errors) == (2, "", True)


def test_ctrl_c_stops_an_answer_and_then_leaves(folder):
    """On a terminal Ctrl-C ends the answer and the talk goes on; at the prompt it leaves with 0."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "llama_ref", "chat", str(folder), "--seed", "1"]
    started = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = b""

    def read_until(sign, seconds=20):
        nonlocal seen
        until = time.monotonic() + seconds
        while sign not in seen:
            assert time.monotonic() < until, seen
            seen += os.read(ours, 4096)
        seen = seen.partition(sign)[2]

    try:
        read_until(b"you: ")
        os.write(ours, b"Hi\n")
        read_until(b"llama: ")
        time.sleep(0.3)
        started.send_signal(signal.SIGINT)
        read_until(b"you: ")
        started.send_signal(signal.SIGINT)
        assert started.wait(10) == 0
    finally:
        started.kill()
        started.wait()
        os.close(ours)
