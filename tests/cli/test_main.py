"""The frame around every verb: help, exit codes, one-line errors, signals, closed pipes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from llama_ref.__main__ import CANNOT_RUN, INTERRUPTED, READER_GONE, VERBS, main
from tests.cli.commands import CLEAN, ROOT, start, through_pipes


def modules_loaded_by(code):
    """The names of all modules in a new interpreter that ran the code."""
    code += "\nimport sys; print(*sys.modules, file=sys.stderr)"
    environment = CLEAN | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    return set(ended.stderr.split())


def test_help_is_answered_without_numpy():
    """`llama-ref --help` imports no verb and no NumPy."""
    loaded = modules_loaded_by("from llama_ref.__main__ import main; main(['--help'])")
    assert not {"numpy", "llama_ref.cli", "llama_ref.model"} & loaded


def test_the_library_does_not_load_the_command_line():
    """`import llama_ref` and loading a model's modules import nothing of `cli`."""
    loaded = modules_loaded_by("import llama_ref; llama_ref.load, llama_ref.generate")
    assert not [name for name in loaded if name.startswith("llama_ref.cli")]
    assert "argparse" not in loaded


def test_one_verb_does_not_import_another():
    """Only the module of the chosen verb is imported."""
    loaded = modules_loaded_by("from llama_ref.__main__ import main; main(['tokens', '--help'])")
    assert "llama_ref.cli.tokens" in loaded
    assert not {"llama_ref.cli.generate", "llama_ref.cli.doctor", "llama_ref.model"} & loaded


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_with_an_example(verb, capsys):
    """`llama-ref VERB --help` exits with 0 and shows a command that begins with that verb."""
    assert main([verb, "--help"]) == 0
    text = capsys.readouterr().out
    assert "example:" in text
    assert f"\n  llama-ref {verb}" in text
    assert max(map(len, text.splitlines())) <= 100


def test_help_names_every_verb(capsys):
    """The list of verbs is complete, and a command without a verb shows it as an error."""
    assert main(["--help"]) == 0
    good = capsys.readouterr()
    assert all(f"\n  {verb} " in good.out for verb in VERBS)
    assert main([]) == CANNOT_RUN
    bad = capsys.readouterr()
    assert (bad.out, bad.err) == ("", good.out)


def test_version(capsys):
    """`--version` prints the version of the package."""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == "llama_ref 0.1.0\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nosuchverb"], "nosuchverb"),
        (["--nosuchoption"], "VERB"),
        (["tokens"], "path"),
        (["tokens", "a", "b", "--nosuchoption"], "--nosuchoption"),
        (["generate", "a", "--max", "3"], "--max"),
        (["generate", "a", "--max-tokens", "many"], "'many'"),
        (["generate", "a", "--dtype", "int8"], "int8"),
    ],
    ids=["verb", "option", "no path", "option of a verb", "abbreviation", "number", "choice"],
)
def test_wrong_usage_is_one_line_and_exit_code_2(words, said, capsys):
    """A command that cannot be understood exits with 2 and one line that names the word."""
    assert main(words) == CANNOT_RUN
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("llama-ref") and captured.err.count("\n") == 1
    assert said in captured.err


@pytest.mark.parametrize("verb", ["generate", "tokens", "inspect", "demo"])
def test_a_path_that_is_not_there_is_one_line_and_exit_code_2(verb, tmp_path, capsys):
    """An error of the library becomes one line that names the file."""
    assert main([verb, str(tmp_path / "absent")]) == CANNOT_RUN
    captured = capsys.readouterr()
    assert captured.err.startswith("llama-ref: ") and captured.err.count("\n") == 1
    assert "absent" in captured.err and "No such file" in captured.err


@pytest.mark.parametrize("verb", ["generate", "tokens", "inspect"])
def test_a_hostile_path_is_escaped(verb, tmp_path, capsys):
    """Escape codes and line ends in a path do not reach the terminal."""
    assert main([verb, str(tmp_path / "a\x1b[31m\nred\u202e")]) == CANNOT_RUN
    said = capsys.readouterr().err
    assert r"a\x1b[31m\nred\u202e" in said
    assert "\x1b" not in said and said.count("\n") == 1


def test_hostile_words_are_escaped_in_usage_errors(capsys):
    """A word that no option explains is repeated without its escape codes."""
    assert main(["tokens", "a", "b", "\x1b]0;title\x07"]) == CANNOT_RUN
    said = capsys.readouterr().err
    assert r"\x1b]0;title\x07" in said and "\x1b" not in said


def test_an_unknown_vocabulary_is_a_warning_in_one_line(tmp_path, capsys):
    """A warning of the library is a line on standard error; the result stands on its own."""
    from base64 import b64encode

    single = [bytes([i]) for i in range(256)]
    pairs = [bytes([i, j]) for i in range(256) for j in range(256)]
    triples = [b"a" + pair for pair in pairs]
    tokens = (single + pairs + triples)[:128_000]
    path = tmp_path / "tokenizer.model"
    path.write_bytes(b"".join(b64encode(t) + b" %d\n" % i for i, t in enumerate(tokens)))
    assert main(["tokens", str(path), "a", "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith('{"ids": [97]')
    assert captured.err.startswith("llama-ref: warning: ") and captured.err.count("\n") == 1


def test_ctrl_c_ends_a_generation_without_a_traceback(small_checkpoint):
    """SIGINT while tokens stream ends the process with 130 and says nothing."""
    process = start(
        *("generate", small_checkpoint, "--ids", "--max-tokens", 100_000, "--temperature", 0),
        *("--stop-id", 511),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout.read(12)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (INTERRUPTED, b"")


def test_a_closed_pipe_ends_the_program_quietly(small_checkpoint):
    """When the reader goes away, as `head` does, there is no traceback; the exit code is 141."""
    process = start(
        *("generate", small_checkpoint, "--ids", "--max-tokens", 100_000, "--stop-id", 511),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout.read(12)
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert (process.wait(timeout=30), errors) == (READER_GONE, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_one_line_and_exit_code_2(small_checkpoint):
    """Output that cannot be written is an error, never a success."""
    with Path("/dev/full").open("wb") as full:
        process = start("tokens", small_checkpoint, "a", stdout=full, stderr=subprocess.PIPE)
        errors = process.communicate(timeout=30)[1].decode()
    assert process.returncode == CANNOT_RUN
    assert errors == f"llama-ref: cannot write: {os.strerror(28)}\n"


def test_output_is_utf8_under_any_locale(small_checkpoint):
    """A locale that knows only ASCII changes nothing in what a pipe receives."""
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    code, output, errors = through_pipes(
        "tokens", small_checkpoint, "--decode", "227,129,130", environment=ascii_only
    )
    assert (code, output.decode(), errors) == (0, "あ", "")
