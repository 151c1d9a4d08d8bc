"""Ids to text: what is no id, what is no text, and one id at a time (bad-inputs B9)."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_ref.errors import BadRequest
from tests.tokenizer.files import RANKS

N = len(RANKS)
LISTS_OF_IDS = st.lists(st.integers(0, N + 255))


BAD_IDS = {
    "B9-147 -1": -1,
    "B9-147 one beyond": N + 256,
    "B9-147 True": True,
    "B9-147 numpy True": np.True_,
    "B9-147 1.0": 1.0,
    "B9-147 numpy 1.0": np.float32(1),
    "B9-147 2^63": 2**63,
    "B9-147 a string": "1",
    "B9-147 None": None,
    "B9-147 a list": [1],
    "B9-147 an array": np.arange(3),
}


@pytest.mark.parametrize("bad", BAD_IDS.values(), ids=BAD_IDS)
def test_what_is_no_id_is_named_with_its_position(small, bad):
    """B9-147: an id out of range, or no integer, is refused wherever ids are taken."""
    with pytest.raises(BadRequest, match=r"ids\[2\]"):
        small.decode([0, 1, bad])
    with pytest.raises(BadRequest, match=r"ids\[0\]"):
        small.token_bytes(bad)
    with pytest.raises(BadRequest, match=r"ids\[0\]"):
        small.stream().push(bad)


@pytest.mark.parametrize(
    "ids", ["12", b"12", 5, None, np.float32(3), np.array(5), np.eye(2), np.zeros(2)], ids=repr
)
def test_what_is_no_list_of_ids_is_refused(small, ids):
    """B9-147: text, a single number, a matrix or an array of floats is no list of ids."""
    with pytest.raises(BadRequest, match="ids"):
        small.decode(ids)


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint16])
def test_arrays_of_integers_are_ids(small, dtype):
    """Integer arrays, and NumPy integers in a list, decode as Python integers do."""
    ids = small.encode(" the inner")
    assert small.decode(np.array(ids, dtype)) == small.decode(list(np.array(ids, dtype)))
    assert small.decode(np.array(ids, dtype)) == " the inner"


def test_special_ids_decode_to_their_names_or_to_nothing(small):
    """B9-149: a special id shows its name, which encodes back to it, or is skipped on request."""
    ids = [N, *small.encode("in"), N + 9]
    assert small.decode(ids) == "<|begin_of_text|>in<|eot_id|>"
    assert small.encode(small.decode(ids), allowed_special="all") == ids
    assert small.decode(ids, skip_special=True) == "in"
    assert small.token_bytes(N + 9) == b"<|eot_id|>"


def test_bytes_that_are_no_utf8_become_the_replacement_character(small):
    """What is no character is shown as U+FFFD, and its bytes are kept beside."""
    half = RANKS[b"\xf0\x9f"]
    assert small.decode([RANKS[b"a"], half]) == "a\ufffd"
    assert small.decode_bytes([RANKS[b"a"], half]) == b"a\xf0\x9f"


def streamed(tokenizer, ids, **options):
    """Return what a stream gives for each id, and at the end."""
    decoder = tokenizer.stream(**options)
    return [*map(decoder.push, ids), decoder.finish()]


def test_half_a_character_is_held_back(small):
    """B9-148: a character of four bytes in two tokens comes with the second."""
    ids = [RANKS[b"a"], RANKS[b"\xf0\x9f\xa6"], RANKS[b"\x99"], RANKS[b"b"]]
    assert streamed(small, ids) == ["a", "", "🦙", "b", ""]


@given(LISTS_OF_IDS, st.booleans())
def test_streaming_is_decoding(small, ids, skip):
    """B9-148: the texts of a stream, joined, are the text of the whole, for any ids."""
    texts = streamed(small, ids, skip_special=skip)
    assert "".join(texts) == small.decode(ids, skip_special=skip)


@given(st.text())
def test_stream_of_a_text_never_shows_half_a_character(small, text):
    """B9-148: while a text streams, what has come is always a beginning of it."""
    so_far = ""
    for part in streamed(small, small.encode(text)):
        so_far += part
        assert text.startswith(so_far)
    assert so_far == text


def test_finish_gives_up_a_character_and_starts_anew(small):
    """B9-148: bytes that nothing completed become U+FFFD at the end, and only then."""
    decoder = small.stream()
    assert decoder.push(RANKS[b"\xf0\x9f"]) == ""
    assert decoder.finish() == "\ufffd"
    assert decoder.finish() == ""
    assert decoder.push(RANKS[b"a"]) == "a"


def test_bad_id_leaves_a_stream_as_it_was(small):
    """After a refused id the stream goes on where it stood, half a character in hand."""
    decoder = small.stream()
    assert decoder.push(RANKS[b"\xc3"]) == ""
    with pytest.raises(BadRequest):
        decoder.push(-1)
    assert decoder.push(RANKS[b"\xa9"]) == "é"


@pytest.mark.real
def test_emoji_stream_of_llama_3(llama3):
    """A llama comes with its last byte, and any ids stream as they decode."""
    assert streamed(llama3, [9468, 99, 247, 0]) == ["", "", "🦙", "!", ""]
    rng = random.Random(0)
    ids = [rng.randrange(llama3.vocab_size) for _ in range(2_000)]
    assert "".join(streamed(llama3, ids)) == llama3.decode(ids)
