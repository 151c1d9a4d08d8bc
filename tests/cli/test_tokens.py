"""`llama-ref tokens`: ids, pieces and places; the other way; colours, and nothing dangerous."""

import io
import json
import re
from itertools import pairwise

import pytest

from llama_ref.__main__ import CANNOT_RUN, main
from tests.cli.commands import on_a_terminal

COLOUR = re.compile(r"\x1b\[[\d;]*m")


def lines(capsys, *words):
    """Run and return the lines of the output."""
    assert main(["tokens", *map(str, words)]) == 0
    return capsys.readouterr().out.splitlines()


def report(capsys, *words):
    """Run with --json and return what was reported."""
    assert main(["tokens", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.real
def test_ids_and_pieces_of_llama_3(llama3_ranks_file, capsys):
    """The table shows the published ids, each with its bytes and its piece, in columns."""
    assert lines(capsys, llama3_ranks_file, "hello world!", "--bos") == [
        "    id  bytes  piece",
        "128000      —  <|begin_of_text|>",
        ' 15339    0–5  "hello"',
        '  1917   5–11  " world"',
        '     0  11–12  "!"',
        "",
        "4 tokens, 12 bytes of UTF-8, 12 characters",
    ]


@pytest.mark.real
def test_exact_leaves_out_the_cuts_of_long_texts(llama3_ranks_file, capsys):
    """60,000 blanks are 470 ids uncut, and 471 as Meta cuts them."""
    found = report(capsys, llama3_ranks_file, " " * 60_000, "--exact")
    assert len(found["ids"]) == 470


def test_a_pipe_receives_the_decoded_text_alone(small_checkpoint, capsys):
    """--decode takes ids with commas or blanks, and adds no line feed."""
    assert main(["tokens", str(small_checkpoint), "--decode", "104, 105 10"]) == 0
    assert capsys.readouterr().out == "hi\n"
    found = report(capsys, small_checkpoint, "--decode", "195,169")
    assert found == {"ids": [195, 169], "text": "é", "hex": "c3a9"}


def test_special_names_are_text_unless_allowed(small_checkpoint, capsys):
    """A special token's name becomes its id with --special, and ordinary pieces without."""
    text = "a<|eot_id|>"
    special = report(capsys, small_checkpoint, text, "--special")
    assert special["ids"] == [97, 265]  # "a", <|eot_id|>
    assert [token["special"] for token in special["tokens"]] == [False, True]
    assert [token["end"] for token in special["tokens"]] == [1, len(text)]
    assert report(capsys, small_checkpoint, text)["ids"] == [*text.encode()]


@pytest.mark.real
def test_pieces_of_sentencepiece(stories_folder, capsys):
    """A blank that sentencepiece puts in front covers no byte of the text."""
    found = report(capsys, stories_folder, 'Lily said, "Hi!" é', "--bos")
    # The ids were recorded from the sentencepiece library; see expected.json.
    assert found["ids"] == [1, 317, 336, 432, 313, 440, 417, 443, 436, 410, 485]
    assert found["tokens"][0]["piece"] == "<s>"
    assert found["tokens"][1]["piece"] == " Lily"
    assert (found["tokens"][1]["start"], found["tokens"][1]["end"]) == (0, 4)
    assert found["tokens"][-1]["end"] == len('Lily said, "Hi!" é'.encode())


def test_bytes_that_are_no_text_are_shown_in_hexadecimal(small_checkpoint, capsys):
    """In a vocabulary of single bytes, two halves of a character are shown as their bytes."""
    assert lines(capsys, small_checkpoint, 'é"\\\n')[1:6] == [
        "195    0–1  c3",
        "169    1–2  a9",
        ' 34    2–3  "\\""',
        ' 92    3–4  "\\\\"',
        ' 10    4–5  "\\n"',
    ]
    assert report(capsys, small_checkpoint, "é")["tokens"] == [
        {"id": 195, "piece": None, "hex": "c3", "start": 0, "end": 1, "special": False},
        {"id": 169, "piece": None, "hex": "a9", "start": 1, "end": 2, "special": False},
    ]


def test_an_empty_text_has_no_tokens(small_checkpoint, capsys):
    """The empty text is a text."""
    assert lines(capsys, small_checkpoint, "") == ["0 tokens, 0 bytes of UTF-8, 0 characters"]
    assert report(capsys, small_checkpoint, "") == {"ids": [], "tokens": []}


def test_without_a_text_the_tokenizer_is_described(small_checkpoint, capsys):
    """Its size, its special tokens, and what they do."""
    text = lines(capsys, small_checkpoint)
    assert text[0] == "Llama3Tokenizer: 512 tokens, 256 of them special"
    assert text[2:4] == [
        "256  <|begin_of_text|>               begins a text",
        "257  <|end_of_text|>                 ends a text",
    ]
    assert "265  <|eot_id|>                      ends generation" in text
    found = report(capsys, small_checkpoint)
    assert (found["vocab_size"], found["bos_id"], found["stop_ids"]) == (512, 256, [257, 264, 265])


def test_standard_input_is_taken_byte_for_byte(small_checkpoint, monkeypatch, capsys):
    """A line feed at the end of the input is a token like any other."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a\r\n")))
    assert report(capsys, small_checkpoint, "-")["ids"] == [97, 13, 10]


@pytest.mark.parametrize(
    "words",
    [
        ["--decode", "1,x"],
        ["--decode", "512"],
        ["--decode", "-1"],
        ["--decode", "٣"],
        ["--decode", "9" * 5000],
        ["text", "--decode", "1"],
        ["half a surrogate \udcff"],
    ],
    ids=["letter", "beyond", "negative", "Arabic digit", "5,000 digits", "text too", "surrogate"],
)
def test_what_is_no_id_or_text_is_exit_code_2(small_checkpoint, words, capsys):
    """Bad ids and bad text are refused in one short line."""
    assert main(["tokens", str(small_checkpoint), *words]) == CANNOT_RUN
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and len(captured.err) < 500


def test_hostile_text_is_escaped_in_the_table(small_checkpoint, capsys):
    """No control character of the text is in the output, on a terminal or not."""
    text = "\x1b]0;t\x07\r\x9b2J"
    assert "\x1b" not in "".join(lines(capsys, small_checkpoint, text))
    code, seen = on_a_terminal("tokens", small_checkpoint, text)
    plain = COLOUR.sub("", seen)
    assert code == 0
    assert r"\x1b]0;t\x07\r\x9b2J" in plain
    assert not set(plain) & {"\x1b", "\x07", "\r", "\x9b"}


def test_a_terminal_shows_the_text_in_colours_that_never_cut_a_character(small_checkpoint):
    """Neighbouring tokens differ in colour; the bytes of one character share one."""
    code, seen = on_a_terminal("tokens", small_checkpoint, "aé羊b\nc")
    assert code == 0
    text = seen.partition("\n\n")[0]
    coloured = re.findall(r"\x1b\[(30;\d+)m(.*?)\x1b\[0m", text)
    assert [piece for _, piece in coloured] == ["a", "é", "羊", "b", "c"]
    assert all(one[0] != next_[0] for one, next_ in pairwise(coloured))
