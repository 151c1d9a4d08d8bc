"""Meta's cutting of long texts, against a re-statement of its loop over characters (B9-141)."""

import random

import pytest
import tiktoken

from llama_ref.tokenizer.cutting import cut
from tests.tokenizer.files import META_PATTERN, RANKS


def cut_character_by_character(text, *, longest=400_000, run=25_000):
    """Cut as Meta's code does: count the characters since the last change of class."""
    parts = []
    for begin in range(0, len(text), longest):
        part, length, was_blank = "", 0, None
        for character in text[begin : begin + longest]:
            length = length + 1 if character.isspace() == was_blank else 1
            was_blank = character.isspace()
            if length > run:
                parts.append(part)
                part, length = "", 1
            part += character
        parts.append(part)
    return parts


def long_text(seed):
    """Return words and gaps whose lengths lie around the limits."""
    rng = random.Random(seed)
    lengths = [1, 2, 5, 12_499, 12_500, 12_501, 24_999, 25_000, 25_001, 37_500, 50_000, 50_001]
    runs = []
    for _ in range(rng.randrange(1, 25)):
        alphabet = rng.choice(["ab é🦙", " \n\t\u3000", "xyz", "\x1c\x1d "])
        runs.append("".join(rng.choices(alphabet, k=rng.choice(lengths))))
    return "".join(runs)


TEXTS = {
    "B9-141 400,000 characters": "word " * 80_000,
    "B9-141 400,001 characters": "word " * 80_000 + "w",
    "B9-141 a run of 25,000": "a" * 25_000,
    "B9-141 a run of 25,001": "a" * 25_001,
    "B9-141 25,000 and 25,001 blanks": " " * 25_000 + "a" + " " * 25_001,
    "B9-141 a run across 400,000": "a " * 199_995 + "b" * 60_000,
    "B9-141 a run that begins between blocks": "a " * 6_000 + "b" * 25_001 + " c" * 10,
    "B9-141 information separators are blanks": "\x1c\x1d\x1e\x1f" * 6_250 + "\x1f",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_cuts_are_those_of_the_loop(text):
    """The fast cut finds the same slices as the loop over characters."""
    assert list(cut(text)) == cut_character_by_character(text)


@pytest.mark.parametrize("seed", range(12))
def test_cuts_of_random_runs_are_those_of_the_loop(seed):
    """Runs of random lengths around the limits are cut alike."""
    text = long_text(seed)
    assert list(cut(text)) == cut_character_by_character(text)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_both_modes_give_the_ids_of_their_side(small, text):
    """By default the ids are those of Meta's slices, with `exact` those of the whole text."""
    engine = tiktoken.Encoding(
        "small", pat_str=META_PATTERN, mergeable_ranks=RANKS, special_tokens={}
    )
    slices = engine.encode_ordinary_batch(cut_character_by_character(text))
    assert small.encode(text) == [token_id for ids in slices for token_id in ids]
    assert small.encode(text, exact=True) == engine.encode_ordinary(text)
    assert small.decode(small.encode(text)) == text


def test_a_special_token_across_a_cut_is_text(small):
    """The cut comes before the search for special tokens, as in Meta's code."""
    text = "a " * 199_998 + "<|eot_id|>"
    assert small.special_id("<|eot_id|>") not in small.encode(text, allowed_special="all")
    assert small.special_id("<|eot_id|>") in small.encode(text, allowed_special="all", exact=True)


@pytest.mark.real
def test_60_000_blanks(llama3):
    """The published example: 471 ids by Meta's code, 470 uncut."""
    assert len(llama3.encode(" " * 60_000)) == 471
    assert len(llama3.encode(" " * 60_000, exact=True)) == 470
