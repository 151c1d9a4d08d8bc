"""Hugging Face's tokenizer.json gives the ids that Meta's ranks give (bad-inputs B8, good rows)."""

import pytest

from llama_ref.errors import BadFile
from llama_ref.tokenizer import load_tokenizer
from llama_ref.tokenizer.special_tokens import NAMINGS
from tests.tokenizer.files import (
    MERGED,
    META_PATTERN,
    RANKS,
    REMOVE,
    SPECIAL_NAMES,
    UNREACHABLE,
    edited,
    model,
    spelled,
    tokenizer_json,
    write_json,
)

N = len(RANKS)

GOOD_VARIANTS = {
    "B8-127 merges as pairs": model(
        merges=[merge.split(" ") for merge in tokenizer_json()["model"]["merges"]]
    ),
    "no trim_offsets": edited("pre_tokenizer", "pretokenizers", 1, "trim_offsets", value=REMOVE),
    "empty affixes": model(continuing_subword_prefix="", end_of_word_suffix=""),
    "no post-processor": edited("post_processor", value=None),
    "a template alone": edited(
        "post_processor", value=tokenizer_json()["post_processor"]["processors"][1]
    ),
    "special tokens in another order": edited(
        "added_tokens", value=tokenizer_json()["added_tokens"][::-1]
    ),
}
TEXT = " the inner étoile Việt, in 12345 🦙🦙 here…\r\n\t rating  "


@pytest.mark.parametrize("content", GOOD_VARIANTS.values(), ids=GOOD_VARIANTS)
def test_spellings_of_the_same_tokenizer_give_the_same_ids(tmp_path, small, content):
    """What a tokenizer.json may write in several ways changes no id."""
    tokenizer = load_tokenizer(write_json(tmp_path, content), vocab_size=N + 4)
    assert tokenizer.ranks == RANKS
    assert tokenizer.encode(TEXT) == small.encode(TEXT)
    assert list(tokenizer.special_tokens.items()) == [
        (name, N + place) for place, name in enumerate(SPECIAL_NAMES)
    ]
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.stop_ids) == (N, N + 1, (N + 1, N + 2))


def test_ignore_merges_false_is_honoured(tmp_path, small):
    """B8-128: where pieces are not looked up whole, a token without merges is never given."""
    tokenizer = load_tokenizer(write_json(tmp_path, model(ignore_merges=False)))
    word = UNREACHABLE.decode()
    assert small.encode(word) == [RANKS[UNREACHABLE]]
    assert tokenizer.encode(word) == [RANKS[bytes([byte])] for byte in UNREACHABLE]
    assert tokenizer.encode(" the inner") == small.encode(" the inner")
    assert tokenizer.decode([RANKS[UNREACHABLE]]) == word


def test_one_merge_a_token_is_enough(tmp_path, small):
    """A list with the merges that training made, one a token, loads and gives the same ids."""
    cuts = {b" the": (b" t", b"he"), b"ing": (b"in", b"g"), b"\xf0\x9f\xa6": (b"\xf0\x9f", b"\xa6")}
    merges = [cuts.get(token, (token[:1], token[1:])) for token in MERGED]
    content = model(merges=[f"{spelled(left)} {spelled(right)}" for left, right in merges])
    tokenizer = load_tokenizer(write_json(tmp_path, content))
    assert tokenizer.encode(TEXT) == small.encode(TEXT)


def test_vocabulary_of_another_size_is_refused(tmp_path):
    """B8-135: a good file with more or fewer tokens than the model is refused."""
    path = write_json(tmp_path, tokenizer_json())
    for size in (N + 3, N + 5):
        with pytest.raises(BadFile, match=f"expected {size} .*found {N + 4}"):
            load_tokenizer(path, vocab_size=size)


def test_the_pattern_is_that_of_meta(small):
    """The rule that files are compared with is the one in Meta's code, letter for letter."""
    assert small._engine._pat_str == META_PATTERN


@pytest.mark.real
@pytest.mark.slow
def test_both_real_files_give_one_tokenizer(tmp_path, llama3_ranks_file):
    """The real ranks, written as Hugging Face's converter writes them, read back the same."""
    from_ranks = load_tokenizer(llama3_ranks_file, naming="hf")
    content = tokenizer_json(from_ranks.ranks, NAMINGS["hf"])
    assert len(content["model"]["merges"]) == 280_147
    from_json = load_tokenizer(write_json(tmp_path, content), vocab_size=128_256)
    assert from_json.ranks == from_ranks.ranks
    assert from_json.special_tokens == from_ranks.special_tokens
    assert from_json.stop_ids == from_ranks.stop_ids == (128_001, 128_008, 128_009)
    assert from_json.encode(TEXT) == from_ranks.encode(TEXT)
