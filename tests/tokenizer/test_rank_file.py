"""Meta's tokenizer.model: what is read, and every damaged file refused (bad-inputs B7)."""

import base64
import hashlib
import json
import re
import warnings

import pytest
import tiktoken.load

from llama_ref.errors import BadFile, LimitExceeded, UnknownFileWarning
from llama_ref.tokenizer import load_tokenizer
from llama_ref.tokenizer.merge_list import unreachable
from llama_ref.tokenizer.rank_file import parse_ranks
from tests.tokenizer.files import (
    RANKS,
    UNREACHABLE,
    rank_lines,
    tokenizer_json,
    write_rank_file,
)

LINES = rank_lines()


def changed(number, line):
    """Return the good lines with one of them (counted from 1) replaced."""
    return [*LINES[: number - 1], line, *LINES[number:]]


BAD_LINES = {
    "B7-115 not base64": (changed(3, b"!!!! 2"), "line 3"),
    "B7-115 padding missing": (changed(3, b"Iw= 2"), "line 3"),
    "B7-115 padding inside": (changed(3, b"I=w= 2"), "line 3"),
    "B7-115 URL-safe alphabet": (changed(200, b"_w== 199"), "line 200"),
    "B7-115 non-canonical last bits": (changed(3, b"Ix== 2"), "line 3"),
    "B7-115 junk inside": (changed(3, b"I*w== 2"), "line 3"),
    "B7-116 rank missing": (changed(5, b"JQ=="), "line 5"),
    "B7-116 rank empty": (changed(5, b"JQ== "), "line 5"),
    "B7-116 extra column": (changed(5, b"JQ== 4 4"), "line 5"),
    "B7-116 two blanks": (changed(5, b"JQ==  4"), "line 5"),
    "B7-116 tab": (changed(5, b"JQ==\t4"), "line 5"),
    "B7-116 rank 4.0": (changed(5, b"JQ== 4.0"), "line 5"),
    "B7-116 rank -4": (changed(5, b"JQ== -4"), "line 5"),
    "B7-116 rank +4": (changed(5, b"JQ== +4"), "line 5"),
    "B7-116 rank 0_4": (changed(5, b"JQ== 0_4"), "line 5"),
    "B7-116 rank 0x4": (changed(5, b"JQ== 0x4"), "line 5"),
    "B7-116 rank 04": (changed(5, b"JQ== 04"), "line 5"),
    "B7-116 rank in Arabic digits": (changed(5, "JQ== ٤".encode()), "line 5"),
    "B7-116 rank of 5,000 digits": (changed(5, b"JQ== " + b"4" * 5000), "line 5"),
    "B7-116 rank 2^63": (changed(5, b"JQ== 9223372036854775808"), "rank 4"),
    "B7-117 rank twice": (changed(5, b"JQ== 3"), "rank 3"),
    "B7-117 token twice": (changed(5, LINES[3].split()[0] + b" 4"), "line 5"),
    "B7-117 line twice": ([*LINES[:5], *LINES[4:]], "line 6"),
    "B7-117 gap": (changed(len(LINES), LINES[-1].split()[0] + b" 1000"), f"rank {len(RANKS) - 1}"),
    "B7-117 starts at 1": (
        [b"%b %d" % (line.split()[0], rank + 1) for rank, line in enumerate(LINES)],
        "rank 0",
    ),
    "B7-117 line lost": ([*LINES[:100], *LINES[101:]], "rank 100"),
    "B7-117 byte uncovered": (rank_lines({b"ab": 0, b"a": 1, b"b": 2}), "byte 0x00"),
    "B7-118 empty token": (changed(5, b" 4"), "line 5"),
    "B7-118 empty token, padded": (changed(5, b"==== 4"), "line 5"),
    "B7-118 token of 1,025 bytes": (
        changed(len(LINES), base64.b64encode(b"a" * 1025) + b" %d" % (len(LINES) - 1)),
        f"line {len(LINES)}",
    ),
    "B7-118 token of 7 MB": (
        changed(len(LINES), base64.b64encode(b"a" * 7_000_000) + b" %d" % (len(LINES) - 1)),
        f"line {len(LINES)}",
    ),
    "B7-119 blank line between": (changed(5, b""), "line 5"),
    "B7-119 cut in a line": ([*LINES[:-1], LINES[-1][:4]], f"line {len(LINES)}"),
}


@pytest.mark.parametrize(("lines", "place"), BAD_LINES.values(), ids=BAD_LINES)
def test_damaged_line_is_named(tmp_path, lines, place):
    """The error names the file and the line, rank or byte that is wrong."""
    path = write_rank_file(tmp_path, lines)
    with pytest.raises(BadFile, match=f"^{re.escape(str(path))}: {place}: ") as error:
        load_tokenizer(path)
    assert len(str(error.value)) < 1000


OTHER_FILES = {
    "B7-119 empty": (b"", "an empty file"),
    "B7-119 blank lines only": (b"\n\n  \n", "an empty file"),
    "B7-119 LFS pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        "git lfs",
    ),
    "B7-119 HTML": (b"<!doctype html><html>", "HTML"),
    "B7-119 UTF-16": ("IQ== 0\n".encode("utf-16"), "UTF-16"),
    "B7-119 byte-order mark": (b"\xef\xbb\xbfIQ== 0\n", "byte-order mark"),
    "B7-119 NUL": (b"IQ== 0\n\0\0\0\0", "binary"),
    "B7-119 gzip": (b"\x1f\x8b\x08\x00" + b"x" * 50, "gzip"),
    "B7-119 JSON": (json.dumps(tokenizer_json()).encode(), "JSON"),
}


@pytest.mark.parametrize(("data", "kind"), OTHER_FILES.values(), ids=OTHER_FILES)
def test_other_kind_of_file_is_named(tmp_path, data, kind):
    """A file of another kind in the place of a rank file is called by its name."""
    path = tmp_path / "tokenizer.model"
    path.write_bytes(data)
    with pytest.raises(BadFile, match=kind):
        load_tokenizer(path)


def test_sentencepiece_model_is_no_rank_file(stories_model_bytes):
    """B7-119: the reader of ranks knows a Llama 2 model when it meets one."""
    with pytest.raises(BadFile, match="sentencepiece"):
        parse_ranks(stories_model_bytes, file="tokenizer.model")


def test_file_beyond_16_mib_is_refused(tmp_path):
    """B7-118: a rank file is not read beyond its limit, which the message names."""
    path = tmp_path / "tokenizer.model"
    with path.open("wb") as file:
        file.truncate(16 * 2**20 + 1)
    with pytest.raises(LimitExceeded, match="16,777,216"):
        load_tokenizer(path)


@pytest.mark.parametrize("line", [b"", LINES[0]], ids=["blank", "full"])
def test_more_lines_than_any_llama_has_are_refused(tmp_path, line):
    """A file of short lines is counted before each becomes an object."""
    path = write_rank_file(tmp_path, [*LINES, *[line] * 2**18, LINES[0]])
    with pytest.raises(LimitExceeded, match="lines: expected at most 262,144"):
        load_tokenizer(path)


def test_many_lines_of_another_kind_are_named(tmp_path):
    """An indented tokenizer.json under the other name is still called JSON."""
    path = write_rank_file(tmp_path, [b"{"] + [b' "a": 1,'] * 2**18)
    with pytest.raises(BadFile, match=r"JSON: a tokenizer\.json keeps its name"):
        load_tokenizer(path)


GOOD_FILES = {
    "B7-120 CRLF": b"\r\n".join(LINES) + b"\r\n",
    "B7-120 no final newline": b"\n".join(LINES),
    "B7-120 blank end": b"\n".join(LINES) + b"\n\n\n",
    "B7-120 shuffled lines": b"\n".join(LINES[::-1]) + b"\n",
}


@pytest.mark.parametrize("data", GOOD_FILES.values(), ids=GOOD_FILES)
def test_layout_of_lines_is_free(tmp_path, data):
    """Line ends, blank lines at the end and the order of lines change nothing."""
    path = tmp_path / "tokenizer.model"
    path.write_bytes(data)
    assert list(load_tokenizer(path).ranks.items()) == list(RANKS.items())


def test_token_without_merges_is_found_whole(small):
    """B7-118: a token that no merge can build is read, and found when a piece is exactly it."""
    assert small.encode(UNREACHABLE.decode()) == [RANKS[UNREACHABLE]]


def test_vocabulary_of_another_size_is_refused(tmp_path):
    """B7-121: a good file with another number of tokens than the model is refused."""
    path = write_rank_file(tmp_path)
    with pytest.raises(BadFile, match=r"expected 128256 .*found 526"):
        load_tokenizer(path, vocab_size=128256)
    assert load_tokenizer(path, vocab_size=526).vocab_size == 526


def test_256_bytes_make_a_vocabulary(tmp_path):
    """Ranks for the single bytes alone are enough; special ids follow them."""
    lines = rank_lines({bytes([byte]): byte for byte in range(256)})
    tokenizer = load_tokenizer(write_rank_file(tmp_path, lines), vocab_size=512)
    assert tokenizer.encode("é", bos=True) == [256, 0xC3, 0xA9]
    assert tokenizer.stop_ids == (257, 264, 265)


def test_unknown_file_of_128_000_ranks_is_a_warning(tmp_path):
    """B7-122: a file of Llama 3's size and not its content loads, and the warning lists hashes."""
    ranks = RANKS | {b"%d" % n: n for n in range(len(RANKS), 128_000)}
    path = write_rank_file(tmp_path, rank_lines(ranks))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.warns(UnknownFileWarning, match=f"{digest}.*82e9d319") as caught:
        tokenizer = load_tokenizer(path)
    assert tokenizer.vocab_size == 128_256
    assert caught[0].filename == __file__


@pytest.mark.real
def test_real_file_has_the_published_content(llama3_ranks_file):
    """The real file's hash is the official one, and loading it warns of nothing."""
    data = llama3_ranks_file.read_bytes()
    assert hashlib.sha256(data).hexdigest() == (
        "82e9d31979e92ab929cd544440f129d9ecd797b69e327f80f17e1c50d5551b55"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokenizer = load_tokenizer(llama3_ranks_file, vocab_size=128_256)
    assert tokenizer.ranks == tiktoken.load.load_tiktoken_bpe(str(llama3_ranks_file))
    assert list(tokenizer.ranks.values()) == list(range(128_000))
    assert max(map(len, tokenizer.ranks)) == 128


@pytest.mark.real
@pytest.mark.slow
def test_real_file_facts(llama3):
    """588 tokens cannot be built by merges, all of them late; 1,352 are not UTF-8 alone."""
    lost = unreachable(llama3.ranks)
    assert len(lost) == 588
    assert min(llama3.ranks[token] for token in lost) >= 100_256
    assert sum(not is_utf8(token) for token in llama3.ranks) == 1_352


def is_utf8(token):
    """Return whether bytes are whole characters."""
    try:
        token.decode()
    except UnicodeDecodeError:
        return False
    return True
