"""Text to ids, and back, through the tokenizer of Llama 3 (bad-inputs B9)."""

import re
import time

import numpy as np
import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st

from llama_ref.errors import BadRequest, LimitExceeded
from llama_ref.tokenizer import Llama3Tokenizer, Span
from tests.tokenizer.files import META_PATTERN, RANKS, SPECIAL_NAMES
from tests.tokenizer.golden_ids import GOLDEN_IDS

N = len(RANKS)
EOT = "<|eot_id|>"


@pytest.fixture(scope="module")
def engine():
    """The bare engine over the small ranks, put together without the package."""
    return tiktoken.Encoding(
        "small", pat_str=META_PATTERN, mergeable_ranks=RANKS, special_tokens={EOT: N + 9}
    )


@pytest.mark.real
@pytest.mark.parametrize(("text", "ids"), GOLDEN_IDS, ids=[ascii(text) for text, _ in GOLDEN_IDS])
def test_ids_are_those_of_the_bare_engine(llama3, text, ids):
    """Real texts get the ids that tiktoken gave, and come back from them."""
    assert llama3.encode(text) == ids
    assert llama3.decode(ids) == text
    assert llama3.decode(np.array(ids)) == text


@given(st.text())
def test_decoding_undoes_encoding(small, text):
    """Any Unicode text comes back from its ids, byte for byte."""
    ids = small.encode(text)
    assert small.decode(ids) == text
    assert small.decode_bytes(ids) == b"".join(map(small.token_bytes, ids)) == text.encode()


@given(st.text())
def test_spans_cover_the_text(small, text):
    """The spans of a text hold its ids, follow each other, and cut out each token's bytes."""
    spans, data = small.spans(text), text.encode()
    assert [span.id for span in spans] == small.encode(text)
    assert [span.start for span in spans] == [0, *(span.end for span in spans)][: len(spans)]
    assert [data[span.start : span.end] for span in spans] == [
        small.token_bytes(span.id) for span in spans
    ]


def test_spans_of_special_tokens(small):
    """What is added has no text; a special token in the text spans its name there."""
    spans = small.spans(f"a{EOT}", bos=True, eos=True, allowed_special={EOT})
    assert spans == [
        Span(N, 0, 0),  # <|begin_of_text|>
        Span(RANKS[b"a"], 0, 1),  # a
        Span(N + 9, 1, 11),  # <|eot_id|>
        Span(N + 1, 11, 11),  # <|end_of_text|>
    ]


def test_empty_text_has_no_ids(small):
    """B9-136: nothing comes of nothing, but for what is asked for."""
    assert small.encode("") == small.encode("", exact=True) == []
    assert small.encode("", bos=True, eos=True) == [N, N + 1]
    assert small.decode([]) == ""


@pytest.mark.parametrize(
    "text", [b"bytes", None, 5, ["list"], 1.5], ids=lambda text: f"B9-137 {type(text).__name__}"
)
def test_only_str_is_text(small, text):
    """B9-137: anything but a `str` is refused by our own error."""
    with pytest.raises(BadRequest, match=f"expected a str, found {type(text).__name__}"):
        small.encode(text)


@pytest.mark.parametrize("allowed", [frozenset(), "all"])
def test_lone_surrogate_is_named(small, allowed):
    """B9-138: half a surrogate pair is refused with its index, never replaced."""
    with pytest.raises(BadRequest, match=r"text\[2\].*U\+D800"):
        small.encode("ab\ud800c", allowed_special=allowed)


ODD_TEXTS = {
    "B9-139 NUL": "a\0b\0",
    "B9-139 control characters": "".join(map(chr, range(32))) + "\x7f\x80\x9f",
    "B9-139 bidi": "\u202eabc\u2066def\u2069\u200f",
    "B9-139 4-byte emoji": "🦙🐘🏴‍☠️",
    "B9-139 ZWJ family": "👩‍👩‍👧‍👦" * 20,
    "B9-139 100,000 combining marks": "e" + "\u0301" * 100_000,
    "B9-139 byte-order mark": "\ufefftext",
    "B9-139 last code point": "\U0010ffff\U000fffff\ufffe",
}


@pytest.mark.parametrize("text", ODD_TEXTS.values(), ids=ODD_TEXTS)
@pytest.mark.parametrize("exact", [False, True])
def test_odd_text_comes_back(small, engine, text, exact):
    """B9-139: control characters, joiners and long runs survive, with the ids of the engine."""
    ids = small.encode(text, exact=exact)
    assert small.decode(ids) == text
    if exact or len(text) <= 25_000:
        assert ids == engine.encode_ordinary(text)


@pytest.mark.parametrize("character", ["a", " ", "\n", "7", "!", "é"], ids=ascii)
def test_a_million_of_one_character(small, character):
    """B9-140: a million of anything is encoded in seconds, and comes back."""
    start = time.perf_counter()
    ids = small.encode(character * 1_000_000)
    assert time.perf_counter() - start < 10
    assert small.decode(ids) == character * 1_000_000


def test_a_million_blanks_uncut_are_refused(small):
    """B9-140: what would bring the engine down under `exact` is an error of ours before it does."""
    text = "x" * 20 + " " * 999_999
    with pytest.raises(LimitExceeded, match=r"text\[20\].*900,000 blanks"):
        small.encode(text, exact=True)
    uncut = "\n" * 200_000 + " " * 900_000 + "x"
    assert small.decode(small.encode(uncut, exact=True)) == uncut


@pytest.mark.parametrize("character", ["a", "é"], ids=ascii)
def test_text_beyond_8_mib_is_refused(small, character):
    """B9-142: the limit counts bytes of UTF-8, and the message names it."""
    text = character * (8 * 2**20 // len(character.encode()) + 1)
    with pytest.raises(LimitExceeded, match="at most 8,388,608 bytes"):
        small.encode(text)


def test_special_names_in_text_are_text(small, engine):
    """B9-143: no text makes a control id unless its very name is allowed."""
    for name in small.special_tokens:
        ids = small.encode(name)
        assert max(ids) < N
        assert ids == engine.encode_ordinary(name)
        assert small.decode(ids) == name


def test_allowed_names_become_their_ids(small, engine):
    """B9-144: exactly the allowed names are special, and the rest is encoded around them."""
    text = f" the{EOT} in<|end_of_text|>ing{EOT}"
    ids = small.encode(text, allowed_special={EOT})
    assert ids == engine.encode(text, allowed_special={EOT}, disallowed_special=())
    assert [token_id for token_id in ids if token_id >= N] == [N + 9, N + 9]
    ids = small.encode(text, allowed_special="all")
    assert [token_id for token_id in ids if token_id >= N] == [N + 9, N + 1, N + 9]
    assert small.decode(ids) == text


LOOK_ALIKES = {
    "B9-145 blank inside": ("<|eot_id |>", []),
    "B9-145 fullwidth bars": ("<｜eot_id｜>", []),
    "B9-145 capitals": ("<|EOT_ID|>", []),
    "B9-145 cut": ("<|eot_id|", []),
    "B9-145 nested": ("<|eot_<|eot_id|>id|>", [N + 9]),
    "B9-145 joiner inside": ("<|eot\u200b_id|>", []),
}


@pytest.mark.parametrize(("text", "special"), LOOK_ALIKES.values(), ids=LOOK_ALIKES)
def test_look_alikes_are_text(small, text, special):
    """B9-145: what resembles a special token is text, even where the real name is allowed."""
    assert max(small.encode(text)) < N
    ids = small.encode(text, allowed_special="all")
    assert [token_id for token_id in ids if token_id >= N] == special


def test_text_is_not_normalised(small):
    """B9-146: composed and decomposed spellings keep their own ids."""
    composed, decomposed = small.encode("\u00e9"), small.encode("e\u0301")
    assert composed == [RANKS[b"\xc3\xa9"]]
    assert decomposed == [RANKS[b"e"], RANKS[b"\xcc"], RANKS[b"\x81"]]


BAD_ALLOWED = [EOT, None, 5, {"<|nothing|>"}, [None], [["all"]], "none"]


@pytest.mark.parametrize("allowed", BAD_ALLOWED, ids=repr)
def test_allow_list_holds_known_names(small, allowed):
    """A name that is no special token, or a list that is none, is refused before any work."""
    with pytest.raises(BadRequest, match=r"special"):
        small.encode("text", allowed_special=allowed)


def test_names_that_begin_alike_are_told_apart():
    """Of two allowed names that begin alike, the longer one is found where it stands."""
    names = ["<|begin_of_text|>", "<|end_of_text|>", "<tool", "<tool_call>"]
    tokenizer = Llama3Tokenizer(RANKS, names)
    assert tokenizer.encode("<tool_call><tool", allowed_special="all") == [N + 3, N + 2]


def test_tokenizer_tells_its_size(small, small_json):
    """The repr gives the number of tokens, and the sizes are those of the files."""
    assert repr(small) == "<Llama3Tokenizer: 526 tokens, 256 of them special>"
    assert small.vocab_size == N + 256
    assert small_json.vocab_size == N + len(SPECIAL_NAMES)
    assert re.fullmatch(r".*tokenizer\.model", str(small.file))
