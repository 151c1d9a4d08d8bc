"""`llama-ref chat`: turns from a pipe and on a terminal, the prompt token by token, Ctrl-C."""

import os
import pty
import select
import signal
import subprocess

import pytest

from llama_ref.cli.demo_checkpoint import write_demo
from llama_ref.cli.terminal import UNSAFE, visible
from tests.cli.commands import start, through_pipes


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


@pytest.mark.parametrize("words", [[], ["--show-prompt"]])
def test_an_error_is_said_once(folder, words):
    """From a pipe an error of a message ends the talk, in one line, before any answer."""
    code, output, errors = talk(folder, b"Hi\nAgain\n", "--date", "x" * 65, *words)
    assert (code, output.strip()) == (2, "")
    assert errors.startswith("llama-ref: date: expected ")
    assert errors.count("\n") == 1


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_what_is_no_utf_8_is_refused(folder, locale):
    """A byte that is no text is an error of the input, in any locale."""
    environment = {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    code, output, errors = through_pipes("chat", folder, stdin=b"a\xff\n", environment=environment)
    assert (code, output) == (2, b"")
    assert errors.startswith("llama-ref: input: expected UTF-8")


def test_a_closed_input_is_said_to_be_closed(folder):
    """Without standard input there is no traceback but one line, and exit code 2."""
    process = start("chat", folder, stderr=subprocess.PIPE, preexec_fn=lambda: os.close(0))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert errors.startswith(b"llama-ref: standard input: ")
    assert errors.count(b"\n") == 1


class Talk:
    """`llama-ref chat` on a terminal of its own."""

    def __init__(self, folder, *words):
        self.end, theirs = pty.openpty()
        ends = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
        options = {"environment": {"TERM": "dumb", "PYTHONUTF8": "1"}, **ends}
        self.process = start("chat", folder, *words, **options)
        os.close(theirs)
        self.unread = b""

    def write(self, keys):
        os.write(self.end, keys)

    def interrupt(self):
        self.process.send_signal(signal.SIGINT)

    def until(self, sign):
        """Return what is shown before a sign, which must come within 20 seconds."""
        while sign not in self.unread:
            assert select.select([self.end], [], [], 20)[0], self.unread
            self.unread += os.read(self.end, 4096)
        before, _, self.unread = self.unread.partition(sign)
        return before.decode(errors="replace").replace("\r\n", "\n")

    def __enter__(self):
        self.until(b"you: ")
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        os.close(self.end)


LONG = ("--seed", 6)  # 557 tokens


def test_ctrl_c_stops_an_answer_and_then_leaves(folder):
    """Ctrl-C ends an answer early; what was said is in the next prompt; at the prompt it leaves."""
    with Talk(folder, *LONG) as talk_on:
        talk_on.write(b"Hi\n")
        talk_on.until(b"llama: ")
        whole = talk_on.until(b"\r\nyou: ")
    with Talk(folder, *LONG, "--show-prompt") as talk_on:
        talk_on.write(b"Hi\n")
        talk_on.until(b"llama: ")
        said = talk_on.until(b"d")  # its first letter
        talk_on.interrupt()
        said += "d" + talk_on.until(b"\r\nyou: ")
        assert 0 < len(said) < len(whole)
        assert whole.startswith(said)
        talk_on.write(b"Go on\n")
        rows = [line.split() for line in talk_on.until(b"llama: ").splitlines()]
        kept = [row for row in rows if row[-2:] == ["content", "assistant"]]
        assert kept[0][:2] == [str(ord("d")), "'d'"]
        talk_on.until(b"\r\nyou: ")
        talk_on.interrupt()
        assert talk_on.process.wait(10) == 0


def test_ctrl_d_leaves(folder):
    """The end of the input at the prompt ends the talk with 0."""
    with Talk(folder) as talk_on:
        talk_on.write(b"\x04")
        assert talk_on.process.wait(10) == 0


def test_nothing_a_model_says_acts_on_the_terminal(folder):
    """A terminal gets the answer that a pipe gets, with its control characters escaped."""
    _, plain, _ = through_pipes("chat", folder, *LONG, stdin=b"Hi\n")
    with Talk(folder, *LONG) as talk_on:
        talk_on.write(b"Hi\n")
        talk_on.until(b"llama: ")
        shown = talk_on.until(b"\r\nyou: ")
    assert UNSAFE.search(plain.decode())
    assert not UNSAFE.search(shown)
    assert shown + "\n" == visible(plain.decode())


@pytest.mark.parametrize("words", [[], ["--show-prompt"]])
def test_an_error_of_a_message_does_not_end_the_talk(folder, words):
    """A person is told, asked again, and may leave with 0."""
    with Talk(folder, "--date", "x" * 65, *words) as talk_on:
        for _ in range(2):
            talk_on.write(b"Hi\n")
            assert "llama-ref: date: expected " in talk_on.until(b"you: ")
        talk_on.write(b"\x04")
        assert talk_on.process.wait(10) == 0
