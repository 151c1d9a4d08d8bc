"""`llama-ref generate`: the text, the ids, the report; a terminal sees nothing dangerous."""

import io
import json
import shutil

import pytest

from llama_ref.__main__ import CANNOT_RUN, main
from tests.cli.commands import on_a_terminal, through_pipes


def report(capsys, *words):
    """Run with --json and return what was reported."""
    assert main(["generate", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.real
def test_the_story_is_that_of_the_c_engine(stories_folder):
    """From the begin-of-text token, greedy, the output is exactly the text that llama2.c wrote."""
    expected = json.loads((stories_folder / "expected.json").read_text())
    code, output, errors = through_pipes("generate", stories_folder, "--max-tokens", 220)
    assert (code, errors) == (0, "")
    assert output.decode() == expected["text"]


@pytest.mark.real
def test_the_ids_are_those_of_the_c_engine(stories_folder, capsys):
    """--ids prints the 220 ids that llama2.c chose."""
    expected = json.loads((stories_folder / "expected.json").read_text())
    assert main(["generate", str(stories_folder), "--max-tokens", "220", "--ids"]) == 0
    assert [int(word) for word in capsys.readouterr().out.split()] == expected["greedy_ids"]


@pytest.mark.real
def test_the_report_is_that_of_the_c_engine(stories_folder, capsys):
    """--json reports the same ids and text, in float64 and from weights in memory too."""
    expected = json.loads((stories_folder / "expected.json").read_text())
    found = report(capsys, stories_folder, "--max-tokens", 220, "--widen", "--dtype=float64")
    assert found["ids"] == expected["greedy_ids"]
    assert (found["prompt_ids"], found["text"]) == (expected["prompt_ids"], expected["text"])
    assert found["finish_reason"] == "length"


@pytest.mark.real
def test_a_prompt_from_standard_input_is_that_from_the_command_line(stories_folder, capsys):
    """`-` reads the prompt byte for byte, and a prompt does not come back in the output."""
    words = ["generate", str(stories_folder), "--max-tokens", "8"]
    assert main([*words, "Once upon"]) == 0
    given = capsys.readouterr().out
    assert main([words[0], words[1], "Once upon", *words[2:]]) == 0
    assert capsys.readouterr().out == given
    code, output, _ = through_pipes(*words, "-", stdin=b"Once upon")
    assert (code, output.decode()) == (0, given)
    assert given.startswith(" a time, there was")


@pytest.mark.real
def test_a_stop_string_ends_the_text_before_it(stories_folder, capsys):
    """--stop, given twice: the text ends before whichever comes first."""
    words = ["--max-tokens", 200, "--stop", "no such text", "--stop", "park"]
    found = report(capsys, stories_folder, *words)
    whole = report(capsys, stories_folder, "--max-tokens", 200)
    assert found["text"] == whole["text"].partition("park")[0]
    assert found["finish_reason"] == "stop"


def test_the_report_is_complete(small_checkpoint, capsys):
    """--json holds ids, text, why it ended, the prompt's ids, times and speeds."""
    found = report(capsys, small_checkpoint, "hi", "--max-tokens", 3, "--stop-id", 511)
    assert found["prompt_ids"] == [256, *b"hi"]
    assert len(found["ids"]) == 3 and isinstance(found["text"], str)
    assert found["finish_reason"] == "length"
    assert found["seconds"] > 0 and found["load_seconds"] > 0
    assert found["prefill_tokens_per_second"] > 0 and found["decode_tokens_per_second"] > 0


def test_one_token_has_no_decode_speed(small_checkpoint, capsys):
    """What was not measured is null."""
    assert report(capsys, small_checkpoint, "--max-tokens", 1)["decode_tokens_per_second"] is None


def test_a_seed_is_a_text(small_checkpoint, capsys):
    """The same seed draws the same ids, and another seed draws others."""
    words = [small_checkpoint, "--max-tokens", 12, "--temperature", 1.5, "--stop-id", 511, "--seed"]
    first, again, other = (report(capsys, *words, seed)["ids"] for seed in (3, 3, 4))
    assert first == again != other


def test_top_k_1_is_greedy_at_any_temperature(small_checkpoint, capsys):
    """With one candidate left the draw has no choice."""
    words = [small_checkpoint, "--max-tokens", 8, "--stop-id", 511]
    greedy = report(capsys, *words)["ids"]
    assert report(capsys, *words, "--temperature", 2, "--top-k", 1, "--seed", 9)["ids"] == greedy
    assert report(capsys, *words, "--temperature", 2, "--top-p", 1e-6)["ids"] == greedy


def test_stop_ids_end_the_text(small_checkpoint, capsys):
    """The first stop id ends it, is the last id, and has no text."""
    whole = report(capsys, small_checkpoint, "--max-tokens", 9, "--stop-id", 511)["ids"]
    stop = whole[4]
    cut = report(capsys, small_checkpoint, "--max-tokens", 9, "--stop-id", stop, "--stop-id", 511)
    assert cut["ids"] == whole[: whole.index(stop) + 1]
    assert cut["finish_reason"] == "stop"


def test_ids_are_printed_on_one_line(small_checkpoint, capsys):
    """--ids prints numbers with blanks between them and one line feed."""
    ids = report(capsys, small_checkpoint, "--max-tokens", 5)["ids"]
    assert main(["generate", str(small_checkpoint), "--max-tokens", "5", "--ids"]) == 0
    assert capsys.readouterr().out == " ".join(map(str, ids)) + "\n"


@pytest.mark.parametrize(
    "options",
    [
        ["--max-tokens", "0"],
        ["--temperature", "nan"],
        ["--temperature", "-1"],
        ["--top-p", "0"],
        ["--top-k", "-2"],
        ["--seed", str(2**64)],
        ["--min-p", "2"],
        ["--repetition-penalty", "0"],
        ["--stop", ""],
        ["--stop-id", "512"],
        ["--stop-id", "-1"],
    ],
    ids=" ".join,
)
def test_a_parameter_out_of_range_is_exit_code_2(small_checkpoint, options, capsys):
    """A bad parameter is refused in one line, before any token is printed."""
    assert main(["generate", str(small_checkpoint), *options]) == CANNOT_RUN
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    says = ("must be", "cannot contain", "expected")
    assert any(word in captured.err for word in says)


@pytest.mark.parametrize(
    ("data", "said"),
    [(b"caf\xe9", "not UTF-8 at byte 3"), (b"a" * (8 * 2**20 + 1), "at most 8,388,608 bytes")],
    ids=["Latin-1", "too long"],
)
def test_standard_input_that_is_no_text_is_exit_code_2(
    small_checkpoint, data, said, monkeypatch, capsys
):
    """Bytes that are not UTF-8, or too many of them, are refused in one line."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert main(["generate", str(small_checkpoint), "-"]) == CANNOT_RUN
    captured = capsys.readouterr()
    assert captured.out == "" and said in captured.err and captured.err.count("\n") == 1


def test_a_checkpoint_without_tokenizer_gives_ids_alone(small_checkpoint, tmp_path, capsys):
    """Ids can be generated from the begin-of-text token of the blueprint; text is refused."""
    folder = shutil.copytree(small_checkpoint, tmp_path / "bare")
    (folder / "tokenizer.model").unlink()
    with_tokenizer = report(capsys, small_checkpoint, "--max-tokens", 4)["ids"]
    found = report(capsys, folder, "--max-tokens", 4)
    assert (found["ids"], found["text"]) == (with_tokenizer, "")
    for words in (["a prompt", "--ids"], []):
        assert main(["generate", str(folder), *words]) == CANNOT_RUN
        captured = capsys.readouterr()
        assert captured.out == "" and "tokenizer" in captured.err


def test_a_terminal_receives_no_control_characters(small_checkpoint):
    """Prompt and text are escaped on a terminal, which also sees the prompt and the speed."""
    code, seen = on_a_terminal(
        *("generate", small_checkpoint, "a\x1b]0;title\x07b", "--max-tokens", 40),
        *("--temperature", 1, "--seed", 7, "--stop-id", 511),
        environment={"NO_COLOR": "1"},
    )
    assert code == 0
    assert seen.startswith(r"a\x1b]0;title\x07b")
    assert "40 tokens, ended by its length" in seen
    assert not set(seen) & {chr(i) for i in range(0x20) if chr(i) not in "\n\t"}


def test_a_pipe_receives_the_text_itself(small_checkpoint, capsys):
    """Through a pipe not a byte is escaped, added or left out."""
    words = ["--max-tokens", 40, "--temperature", 1, "--seed", 7, "--stop-id", 511]
    text = report(capsys, small_checkpoint, *words)["text"]
    assert any(ord(sign) < 0x20 for sign in text)
    code, output, errors = through_pipes("generate", small_checkpoint, *words)
    assert (code, output.decode(), errors) == (0, text, "")
