"""The 256 special tokens: ids that everybody shares, names that two sources give differently."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_ref.errors import BadRequest
from llama_ref.tokenizer import load_tokenizer
from llama_ref.tokenizer.requests import any_of
from tests.tokenizer.files import (
    RANKS,
    rank_lines,
    tokenizer_json,
    write_json,
    write_rank_file,
)

# Offset after the ranks: 128,000 in the real file. The table of model-facts, section 4.7.
META = {
    0: "begin_of_text",
    1: "end_of_text",
    2: "reserved_special_token_0",
    3: "reserved_special_token_1",
    4: "finetune_right_pad_id",
    5: "step_id",
    6: "start_header_id",
    7: "end_header_id",
    8: "eom_id",
    9: "eot_id",
    10: "python_tag",
    11: "image",
    12: "reserved_special_token_2",
    13: "reserved_special_token_3",
    255: "reserved_special_token_245",
}
HF = META | {
    5: "reserved_special_token_2",
    11: "reserved_special_token_3",
    12: "reserved_special_token_4",
    13: "reserved_special_token_5",
    255: "reserved_special_token_247",
}
N = len(RANKS)


@pytest.mark.parametrize(("naming", "names"), [("meta", META), ("hf", HF)])
def test_names_are_the_published_ones(tmp_path, naming, names):
    """Each naming gives the published names to the 256 ids after the ranks."""
    tokenizer = load_tokenizer(write_rank_file(tmp_path), naming=naming)
    assert list(tokenizer.special_tokens.values()) == list(range(N, N + 256))
    for offset, name in names.items():
        assert tokenizer.special_tokens[f"<|{name}|>"] == N + offset
        assert tokenizer.decode([N + offset]) == f"<|{name}|>"


@pytest.mark.real
def test_ids_of_llama_3(llama3):
    """In the real vocabulary the special tokens are 128,000 to 128,255."""
    assert llama3.vocab_size == 128_256
    assert llama3.bos_id == 128_000  # <|begin_of_text|>
    assert llama3.eos_id == 128_001  # <|end_of_text|>
    assert llama3.stop_ids == (
        128_001,  # <|end_of_text|>
        128_008,  # <|eom_id|>
        128_009,  # <|eot_id|>
    )
    assert llama3.special_id("<|start_header_id|>") == 128_006
    assert llama3.special_id("<|end_header_id|>") == 128_007
    assert llama3.special_id("<|python_tag|>") == 128_010


def test_meaningful_names_are_understood_in_either_naming(tmp_path):
    """Names that only Meta gives are understood where Hugging Face calls the token reserved."""
    tokenizer = load_tokenizer(write_rank_file(tmp_path), naming="hf")
    assert "<|step_id|>" not in tokenizer.special_tokens
    assert tokenizer.special_id("<|step_id|>") == N + 5
    assert tokenizer.special_id("<|image|>") == N + 11
    assert tokenizer.encode("<|step_id|>", allowed_special={"<|step_id|>"}) == [N + 5]
    [span] = tokenizer.spans("<|step_id|>", allowed_special={"<|step_id|>"})
    assert (span.start, span.end) == (0, len("<|step_id|>"))


def test_reserved_names_are_those_of_the_naming_alone(tmp_path):
    """A reserved name means another id in the other naming, and is never borrowed from it."""
    meta = load_tokenizer(write_rank_file(tmp_path))
    hf = load_tokenizer(write_rank_file(tmp_path), naming="hf")
    assert meta.special_id("<|reserved_special_token_2|>") == N + 12
    assert hf.special_id("<|reserved_special_token_2|>") == N + 5
    with pytest.raises(BadRequest, match="naming"):
        meta.special_id("<|reserved_special_token_247|>")


def test_names_of_a_tokenizer_json_are_its_own(tmp_path):
    """A file that names its special tokens is taken at its word; nothing is borrowed over it."""
    names = ("<|begin_of_text|>", "<|end_of_text|>", "<a>", "<b>", "<c>", "<d>", "<|eot_id|>")
    tokenizer = load_tokenizer(write_json(tmp_path, tokenizer_json(special_names=names)))
    assert tuple(tokenizer.special_tokens) == names
    assert tokenizer.stop_ids == (N + 1, N + 6)
    with pytest.raises(BadRequest, match="step_id"):
        tokenizer.special_id("<|step_id|>")


def test_unknown_naming_is_refused(tmp_path):
    """There are two namings; another is refused by name."""
    with pytest.raises(BadRequest, match=r"naming: .*found 'llama'"):
        load_tokenizer(write_rank_file(tmp_path), naming="llama")


@pytest.mark.parametrize("n_ranks", [256, 300])
def test_special_ids_follow_the_ranks(tmp_path, n_ranks):
    """A vocabulary of another size moves the special ids with it."""
    ranks = {bytes([byte]): byte for byte in range(256)}
    ranks |= {b"%03d" % rank: rank for rank in range(256, n_ranks)}
    tokenizer = load_tokenizer(write_rank_file(tmp_path, rank_lines(ranks)))
    assert tokenizer.vocab_size == n_ranks + 256
    assert (tokenizer.bos_id, tokenizer.eos_id) == (n_ranks, n_ranks + 1)
    assert tokenizer.stop_ids == (n_ranks + 1, n_ranks + 8, n_ranks + 9)


few_letters = st.text("ab|.", min_size=1, max_size=6)


@given(st.frozensets(few_letters, min_size=1, max_size=12), st.text("ab|.", max_size=40))
def test_law_a_branching_pattern_splits_as_a_plain_one(names, text):
    """Sharing beginnings changes nothing: the names one by one, longest first, find the same."""
    in_turn = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    assert any_of(names).split(text) == re.split(f"({in_turn})", text)


def test_names_that_begin_one_another_make_a_pattern():
    """256 names, each the beginning of the next, are no deep pattern, and the longest is found."""
    names = frozenset("<" * n for n in range(1, 257))
    assert any_of(names).split("a" + "<" * 300 + "b") == ["a", "<" * 256, "", "<" * 44, "b"]
