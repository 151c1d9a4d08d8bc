"""The readable twin of the engine gives the engine's ids, and shows how it comes to them."""

import random

import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st

from llama_ref import bpe
from llama_ref.errors import BadRequest
from llama_ref.text import kinds
from llama_ref.tokenizer.rank_file import parse_ranks
from tests.tokenizer.files import META_PATTERN, RANKS, UNREACHABLE
from tests.tokenizer.golden_ids import GOLDEN_IDS

CODE_POINTS = [point for point in range(0x110000) if not 0xD800 <= point < 0xE000]


def engine_of(ranks, pattern=META_PATTERN):
    """Return tiktoken over a vocabulary, put together without the package."""
    return tiktoken.Encoding("twin", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})


@pytest.fixture(scope="module")
def engine():
    """The engine over the small vocabulary."""
    return engine_of(RANKS)


def characters_of(pattern):
    """Return the code points that the engine's regular expressions match."""
    engine = engine_of({bytes([byte]): byte for byte in range(256)}, pattern)
    matched = engine.decode(engine.encode_ordinary("".join(map(chr, CODE_POINTS))))
    return set(matched)


@pytest.mark.slow
def test_every_character_has_the_kind_that_the_engine_sees():
    """B9-150: all code points fall into the engine's classes, whatever Python's Unicode."""
    letters, numbers, blanks = map(characters_of, (r"\p{L}+", r"\p{N}+", r"\s+"))
    expected = [
        "R" if c in "\r\n" else "B" if c == " " else "L" if c in letters else "N" if c in numbers
        else "S" if c in blanks else "P"
        for c in map(chr, CODE_POINTS)
    ]  # fmt: skip
    assert kinds("".join(map(chr, CODE_POINTS))) == "".join(expected)


EDITIONS = {
    "B9-150 letter of Unicode 14": (0xC5D, "L"),
    "B9-150 letters of Unicode 15": (0x1E4D0, "L"),
    "B9-150 number of Unicode 15": (0x1D2C0, "N"),
    "B9-150 ideograph of Unicode 15.1": (0x2EBF0, "L"),
    "B9-150 letters of Unicode 16": (0x105C0, "L"),
    "B9-150 number of Unicode 16": (0x11BF0, "N"),
    "B9-150 letter of Unicode 17, after the engine": (0x88F, "P"),
    "B9-150 ideograph of Unicode 17, after the engine": (0x323B0, "P"),
    "B9-150 digit of Unicode 17, after the engine": (0x11DE0, "P"),
    "B9-150 unassigned": (0x378, "P"),
}


@pytest.mark.parametrize(("point", "kind"), EDITIONS.values(), ids=EDITIONS)
def test_kind_of_late_characters_is_pinned(engine, point, kind):
    """B9-150: characters newer than Python's or the engine's Unicode get the ids of the engine."""
    assert kinds(chr(point)) == kind
    text = f"a{chr(point)}b 1{chr(point)}2 {chr(point) * 4}"
    assert bpe.encode(text, RANKS) == engine.encode_ordinary(text)


@given(st.text())
def test_ids_are_those_of_the_engine(engine, text):
    """Any Unicode text gets the ids that tiktoken gives it."""
    assert bpe.encode(text, RANKS) == engine.encode_ordinary(text)


@given(st.text(alphabet="'sSſtTdDmMlLvVrReE \n\r\ta1é٣½!\u3000\x1c", max_size=40))
def test_ids_of_hard_texts_are_those_of_the_engine(engine, text):
    """Texts of apostrophes, blanks and digits, where rules meet, get the engine's ids too."""
    assert bpe.encode(text, RANKS) == engine.encode_ordinary(text)
    assert "".join(piece.text for piece in bpe.split(text)) == text


@given(
    st.lists(st.binary(min_size=2, max_size=4).map(lambda b: bytes(c % 3 + 97 for c in b))),
    st.text(alphabet="abc", max_size=60),
)
def test_merges_are_those_of_the_engine(tokens, text):
    """Any vocabulary over three letters merges a word as tiktoken does."""
    ranks = {bytes([byte]): byte for byte in range(256)}
    for token in tokens:
        ranks.setdefault(token, len(ranks))
    assert bpe.encode(text, ranks) == engine_of(ranks).encode_ordinary(text)


@pytest.mark.real
@pytest.mark.parametrize(("text", "ids"), GOLDEN_IDS, ids=[ascii(text) for text, _ in GOLDEN_IDS])
def test_golden_ids(llama3_ranks, text, ids):
    """The ids that tiktoken gave for real texts come out of the steps as well."""
    assert bpe.encode(text, llama3_ranks) == ids


@pytest.fixture(scope="module")
def llama3_ranks(llama3_ranks_file):
    """The ranks of Llama 3."""
    return parse_ranks(llama3_ranks_file.read_bytes(), file=llama3_ranks_file)


@pytest.mark.real
def test_whole_piece_comes_first(llama3_ranks):
    """' Việt' is one token when looked up, and three when merged: the merges never reach it."""
    piece = " Việt".encode()
    assert bpe.encode_piece(piece, llama3_ranks) == [101798]  # " Việt"
    assert [llama3_ranks[part] for part in bpe.merged(piece, llama3_ranks)] == [
        11655,  # " Vi"
        26298,  # "ệ"
        83,  # "t"
    ]


def test_a_token_without_merges_is_found_whole_and_only_so():
    """The small vocabulary has such a token too."""
    assert bpe.encode_piece(UNREACHABLE, RANKS) == [RANKS[UNREACHABLE]]
    assert bpe.merged(UNREACHABLE, RANKS) == [bytes([byte]) for byte in UNREACHABLE]


PIECES = {
    "contraction": ("it's", [("it", "word"), ("'s", "contraction")]),
    "contraction in capitals": ("IT'LL", [("IT", "word"), ("'LL", "contraction")]),
    "contraction with a long s": ("it'ſ", [("it", "word"), ("'ſ", "contraction")]),
    "no contraction after a blank": (" 'll", [(" '", "signs"), ("ll", "word")]),
    "one sign may begin a word": ("(a)", [("(a", "word"), (")", "signs")]),
    "a line end may not": ("\na", [("\n", "line_ends"), ("a", "word")]),
    "digits from the left": ("12345", [("123", "digits"), ("45", "digits")]),
    "a digit may not either": ("1a", [("1", "digits"), ("a", "word")]),
    "an information separator is a sign": ("\x1c!", [("\x1c!", "signs")]),
    "no blank before digits": (" 12", [(" ", "blanks"), ("12", "digits")]),
    "signs up to the line's end": (" !?\n\n ", [(" !?\n\n", "signs"), (" ", "gap")]),
    "blanks up to the last line end": (" \n \n  a", [(" \n \n", "line_ends"), (" ", "gap"),
                                                     (" a", "word")]),
    "blanks at the end": ("a  ", [("a", "word"), ("  ", "gap")]),
}  # fmt: skip


@pytest.mark.parametrize(("text", "pieces"), PIECES.values(), ids=PIECES)
def test_pieces_name_their_rule(text, pieces):
    """Each alternative of the rule cuts what its name says."""
    assert bpe.split(text) == pieces


def test_states_show_each_merge():
    """The film of a word begins with its bytes and joins the pair of lowest rank each time."""
    ranks = {token: rank for rank, token in enumerate([b"a", b"b", b"c", b"ab", b"bc", b"abc"])}
    assert list(bpe.states(b"abcbc", ranks)) == [
        [b"a", b"b", b"c", b"b", b"c"],
        [b"ab", b"c", b"b", b"c"],
        [b"ab", b"c", b"bc"],
        [b"abc", b"bc"],
    ]
    assert list(bpe.merges(b"abcbc", ranks)) == [(0, 1, 2, 3), (3, 4, 5, 4), (0, 2, 3, 5)]


def test_leftmost_of_equal_pairs_merges_first():
    """Of equal pairs the left one goes first: 'aaa' is 'aa' and 'a', never 'a' and 'aa'."""
    assert bpe.merged(b"aaa", {b"a": 0, b"aa": 1}) == [b"aa", b"a"]


def test_empty_text_has_no_pieces():
    """Nothing comes of nothing."""
    assert bpe.split("") == bpe.encode("", RANKS) == list(bpe.merges(b"", RANKS)) == []


def test_lone_surrogate_is_refused():
    """Half a surrogate pair has no bytes to merge."""
    with pytest.raises(BadRequest, match=r"text\[1\]"):
        bpe.encode("a\udc00", RANKS)


def test_vocabulary_without_a_byte_is_refused():
    """A byte that is no token is named."""
    with pytest.raises(BadRequest, match=r"b'b'"):
        bpe.encode("ab", {b"a": 0})


class CountingRanks(dict):
    """A vocabulary that counts how often it is asked, which is the work that merging is made of."""

    questions = 0

    def get(self, piece, default=None):
        self.questions += 1
        return super().get(piece, default)


def questions_to_merge(n_bytes):
    """Return how often the vocabulary is asked about one piece of random letters."""
    ranks = CountingRanks(RANKS)
    bpe.merged(bytes(random.Random(n_bytes).choices(b"theringon", k=n_bytes)), ranks)
    return ranks.questions


def test_work_is_not_quadratic_in_a_piece():
    """Merging asks about each byte at most three times, however long the piece is."""
    for n_bytes in (1_000, 64_000):
        assert n_bytes - 1 <= questions_to_merge(n_bytes) <= 3 * n_bytes
