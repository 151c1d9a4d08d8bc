"""A tokenizer.json that is damaged or states another tokenizer is refused (bad-inputs B8)."""

import json

import pytest

from llama_ref.errors import BadFile, BadRequest, LimitExceeded, Unsupported
from llama_ref.tokenizer import load_tokenizer
from tests.tokenizer.files import (
    ADD,
    RANKS,
    REMOVE,
    SPECIAL_NAMES,
    UNREACHABLE,
    added,
    added_token,
    edited,
    model,
    spelled,
    tokenizer_json,
    vocab,
    write_json,
)

N = len(RANKS)
TEMPLATE = ("post_processor", "processors", 1)
SPLIT = ("pre_tokenizer", "pretokenizers", 0)
BYTE_LEVEL = ("pre_tokenizer", "pretokenizers", 1)
GOOD = json.dumps(tokenizer_json())

BAD = {
    "B8-123 type Unigram": (model(type="Unigram"), "model.type"),
    "B8-123 type missing": (edited("model", "type", value=REMOVE), "model.type"),
    "B8-123 no model": (edited("model", value=REMOVE), "model"),
    "B8-123 vocab missing": (edited("model", "vocab", value=REMOVE), "model.vocab"),
    "B8-123 vocab a list": (model(vocab=[["a", 0]]), "model.vocab"),
    "B8-123 vocab empty": (model(vocab={}), "model.vocab"),
    "B8-123 merges missing": (edited("model", "merges", value=REMOVE), "model.merges"),
    "B8-123 merges an object": (model(merges={}), "model.merges"),
    "B8-123 merges empty": (model(merges=[]), "model.merges"),
    "B8-124 id negative": (vocab(**{"!": -1}), r"model.vocab\['!'\]"),
    "B8-124 id a float": (vocab(**{"!": 0.0}), r"model.vocab\['!'\]"),
    "B8-124 id a string": (vocab(**{"!": "0"}), r"model.vocab\['!'\]"),
    "B8-124 id a bool": (vocab(**{"!": False}), r"model.vocab\['!'\]"),
    "B8-124 id twice": (vocab(**{"!": 1}), r"model.vocab\['\"'\]"),
    "B8-124 gap": (vocab(**{spelled(UNREACHABLE): N}), "model.vocab"),
    "B8-124 id beyond 2^31": (vocab(**{"!": 2**31}), r"model.vocab\['!'\]"),
    "B8-124 JSON key twice": (GOOD.replace('"!": 0,', '"!": 0, "!": 0,'), "key written twice"),
    "B8-125 key outside the alphabet": (vocab(**{"a b": N}), r"model.vocab\['a b'\]"),
    "B8-125 key beyond the alphabet": (vocab(**{"ńé中": N}), "model.vocab"),
    "B8-125 empty key": (vocab(**{"": N}), r"model.vocab\[''\]"),
    "B8-125 key of 1,025 characters": (vocab(**{"a" * 1025: N}), "model.vocab"),
    "B8-125 lone surrogate": (GOOD.replace('"!": 0', '"\\ud800": 0'), "lone surrogate"),
    "B8-125 byte uncovered": (
        edited("model", "vocab", value={"xx" if k == "A" else k: v for k, v in
                                        tokenizer_json()["model"]["vocab"].items()}),
        "byte 0x41",
    ),
    "B8-126 part unknown": (edited("model", "merges", 0, value="zz y"), r"model.merges\[0\]"),
    "B8-126 result unknown": (edited("model", "merges", 0, value="z y"), r"model.merges\[0\]"),
    "B8-126 longer than any key": (
        edited("model", "merges", 0, value="a" * 2000 + " b"), r"model.merges\[0\]"),
    "B8-126 one part": (edited("model", "merges", 1, value="he"), r"model.merges\[1\]"),
    "B8-126 three parts": (edited("model", "merges", 1, value="h e r"), r"model.merges\[1\]"),
    "B8-126 list of three": (edited("model", "merges", 1, value=["h", "e", "r"]), "merges.1"),
    "B8-126 object": (edited("model", "merges", 1, value={"h": 1, "e": 2}), "merges.1"),
    "B8-126 number": (edited("model", "merges", 1, value=5), r"model.merges\[1\]"),
    "B8-126 list of numbers": (edited("model", "merges", 1, value=[5, [6]]), "merges.1"),
    "B8-126 twice": (edited("model", "merges", ADD, value="n g"), "merges"),
    "B8-126 same merge twice": (edited("model", "merges", ADD, value="h e"), "merges.*twice"),
    "B8-126 not in the order of ids": (
        model(merges=tokenizer_json()["model"]["merges"][::-1]), "order of the ids"),
    "B8-126 a merge that the ids imply is not listed": (
        model(merges=[m for m in tokenizer_json()["model"]["merges"] if m != "h e"]),
        "no such pair"),
    "B8-129 special id twice": (
        edited("added_tokens", ADD, value=added_token(N, "<|x|>")), "twice"),
    "B8-129 special content twice": (
        edited("added_tokens", ADD, value=added_token(N + 4, "<|tool|>")), "4..content"),
    "B8-129 special content in the vocabulary": (added(content="he"), "content"),
    "B8-129 special id in the vocabulary": (added(id=5), r"added_tokens\[3\].id"),
    "B8-129 special content empty": (added(content=""), "content"),
    "B8-129 special content a number": (added(content=5), "content"),
    "B8-129 special ids with a gap": (added(id=N + 4), r"added_tokens\[3\].id"),
    "B8-129 special id missing": (edited("added_tokens", 3, "id", value=REMOVE), "id"),
    "B8-129 special id a bool": (added(id=True), r"added_tokens\[3\].id"),
    "B8-129 not special": (added(special=False), "special"),
    "B8-129 special missing": (edited("added_tokens", 3, "special", value=REMOVE), "special"),
    "B8-129 lstrip": (added(lstrip=True), "lstrip"),
    "B8-129 rstrip": (added(rstrip=True), "rstrip"),
    "B8-129 normalized": (added(normalized=True), "normalized"),
    "B8-129 single_word": (added(single_word=True), "single_word"),
    "B8-129 unknown field": (added(weight=1), "weight"),
    "B8-129 special token a string": (edited("added_tokens", 3, value="<|tool|>"), "added_tokens"),
    "B8-129 special tokens an object": (edited("added_tokens", value={}), "added_tokens"),
    "B8-130 no begin_of_text": (
        edited("added_tokens", 0, "content", value="<|start|>"), "begin_of_text"),
    "B8-130 no end_of_text": (edited("added_tokens", 1, "content", value="<|end|>"), "end_of_text"),
    "B8-130 template names an unknown token": (
        edited(*TEMPLATE, "special_tokens",
               value={"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}),
        "post_processor"),
    "B8-130 template gives another id": (
        edited(*TEMPLATE, "special_tokens", SPECIAL_NAMES[0], "ids", value=[N + 1]),
        "post_processor"),
    "B8-130 template uses what it does not state": (
        edited(*TEMPLATE, "single", 0, "SpecialToken", "id", value="<|tool|>"), "post_processor"),
    "B8-130 template step of another kind": (
        edited(*TEMPLATE, "single", 0, value=5), "post_processor"),
    "B8-130 template a number": (edited(*TEMPLATE, "single", value=5), "post_processor"),
    "B8-130 template without special tokens": (
        edited(*TEMPLATE, "special_tokens", value=REMOVE), "post_processor"),
    "B8-130 post-processor of BERT": (
        edited("post_processor", value={"type": "BertProcessing"}), "post_processor"),
    "B8-130 post-processor a list": (edited("post_processor", value=[]), "post_processor"),
    "B8-131 normalizer": (edited("normalizer", value={"type": "NFC"}), "normalizer"),
    "B8-131 no pre_tokenizer": (edited("pre_tokenizer", value=None), "pre_tokenizer"),
    "B8-131 other pre_tokenizer": (
        edited("pre_tokenizer", value={"type": "Whitespace"}), "pre_tokenizer"),
    "B8-131 three steps": (
        edited("pre_tokenizer", "pretokenizers", ADD, value={"type": "Digits"}), "pre_tokenizer"),
    "B8-131 step a string": (
        edited("pre_tokenizer", "pretokenizers", 1, value="ByteLevel"), "pre_tokenizer"),
    "B8-131 regex of GPT-2": (
        edited(*SPLIT, "pattern", "Regex", value=r"'s|'t| ?\p{L}+| ?\p{N}+|\s+"), "pre_tokenizer"),
    "B8-131 add_prefix_space": (
        edited(*BYTE_LEVEL, "add_prefix_space", value=True), "pre_tokenizer"),
    "B8-131 use_regex": (
        edited(*BYTE_LEVEL, "use_regex", value=True), "pre_tokenizer"),
    "B8-131 behaviour Removed": (edited(*SPLIT, "behavior", value="Removed"), "pre_tokenizer"),
    "B8-131 invert": (edited(*SPLIT, "invert", value=True), "pre_tokenizer"),
    "B8-131 decoder of WordPiece": (edited("decoder", value={"type": "WordPiece"}), "decoder"),
    "B8-131 no decoder": (edited("decoder", value=None), "decoder"),
    "B8-132 exponential regex": (
        edited(*SPLIT, "pattern", "Regex", value="(a+)+$"), "pre_tokenizer"),
    "B8-132 invalid regex": (edited(*SPLIT, "pattern", "Regex", value="(("), "pre_tokenizer"),
    "B8-132 regex of 1 MB": (
        edited(*SPLIT, "pattern", "Regex", value="(a?)" * 250_000), "pre_tokenizer"),
    "B8-133 dropout": (model(dropout=0.1), "model.dropout"),
    "B8-133 unk_token": (model(unk_token="<unk>"), "model.unk_token"),
    "B8-133 continuing_subword_prefix": (model(continuing_subword_prefix="##"), "prefix"),
    "B8-133 end_of_word_suffix": (model(end_of_word_suffix="</w>"), "suffix"),
    "B8-133 fuse_unk": (model(fuse_unk=True), "model.fuse_unk"),
    "B8-133 byte_fallback": (model(byte_fallback=True), "model.byte_fallback"),
    "B8-133 ignore_merges a number": (model(ignore_merges=1), "model.ignore_merges"),
    "B8-133 unknown field of the model": (model(cache_capacity=1), "cache_capacity"),
    "B8-134 truncation": (edited("truncation", value={"max_length": 512}), "truncation"),
    "B8-134 padding": (edited("padding", value={"strategy": "BatchLongest"}), "padding"),
    "B8-134 unknown field": (edited("extra", value=1), "extra"),
    "B8-134 other version": (edited("version", value="2.0"), "version"),
    "B8-123 not an object": ("[]", "tokenizer.json"),
    "B8-123 empty file": ("", "empty"),
    "B8-123 cut": (GOOD[:-20], "not JSON"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "field"), BAD.values(), ids=BAD)
def test_damaged_or_other_tokenizer_is_refused(tmp_path, content, field):
    """The error names the file and the field, and quotes no more than it must."""
    path = write_json(tmp_path, content)
    with pytest.raises((BadFile, Unsupported), match=field) as error:
        load_tokenizer(path)
    assert error.value.file == path
    assert str(path) in str(error.value)
    assert len(str(error.value)) < 1000


FOREIGN = "\x1b[31mred\u202e\n"

ANSI = {
    "template names it": edited(*TEMPLATE, "single", 0, "SpecialToken", "id", value=FOREIGN),
    "template is it": edited(*TEMPLATE, "pair", value=FOREIGN),
    "template states it": edited(*TEMPLATE, "special_tokens", FOREIGN, value={}),
    "key of the model": model(**{FOREIGN: 1}),
    "key of the file": edited(FOREIGN, value=1),
    "token": vocab(**{FOREIGN: N}),
    "merge": edited("model", "merges", 0, value=FOREIGN),
    "special token": edited("added_tokens", ADD, value=added_token(N, FOREIGN)),
}


@pytest.mark.parametrize("content", ANSI.values(), ids=ANSI)
def test_foreign_text_is_escaped_in_messages(tmp_path, content):
    """Whatever a file says, its error is one line of printable characters."""
    with pytest.raises((BadFile, Unsupported)) as error:
        load_tokenizer(write_json(tmp_path, content))
    assert str(error.value).isprintable()


def test_name_shown_as_an_example_is_escaped(tmp_path):
    """An unknown name of a special token is answered with one of the file's, escaped."""
    names = (FOREIGN, *SPECIAL_NAMES)
    content = tokenizer_json(special_names=names) | {"post_processor": None}
    tokenizer = load_tokenizer(write_json(tmp_path, content))
    with pytest.raises(BadRequest, match="a name such as") as error:
        tokenizer.special_id("<|no|>")
    assert str(error.value).isprintable()


TOO_MUCH = {
    "added tokens": (
        edited("added_tokens", value=[added_token(N + i, f"<{i}>") for i in range(1025)]),
        "added_tokens: expected at most 1,024, found 1,025",
    ),
    "one added token": (added(content="<" * 257), "content: characters: expected at most 256"),
    "tokens": (
        vocab(**{f"{i:07x}": N + i for i in range(2**18)}),
        "model.vocab: tokens: expected at most 262,144",
    ),
    "bytes of tokens": (
        vocab(**{f"{i:01024d}": N + i for i in range(2**11)}),
        "model.vocab: characters: expected at most 2,097,152",
    ),
    "values": ("[" + "[]," * 750_001 + "0]", "JSON values: expected at most 1,500,000"),
}


@pytest.mark.parametrize(("content", "message"), TOO_MUCH.values(), ids=TOO_MUCH)
def test_more_than_any_llama_has_is_refused(tmp_path, content, message):
    """What would take minutes or gigabytes is refused by a count, before it is begun."""
    with pytest.raises(LimitExceeded, match=message):
        load_tokenizer(write_json(tmp_path, content))


def test_as_many_added_tokens_as_allowed_are_found(tmp_path):
    """1,024 names, one of 256 characters, are all looked for in a text."""
    names = (*SPECIAL_NAMES, "<" * 256, *(f"<{i}>" for i in range(1019)))
    tokenizer = load_tokenizer(write_json(tmp_path, tokenizer_json(special_names=names)))
    ids = tokenizer.encode("<7>" + "<" * 256 + "<1018>", allowed_special="all")
    assert ids == [N + 5 + 7, N + 4, N + 5 + 1018]


def test_nesting_beyond_the_limit_is_refused(tmp_path):
    """B8-124: 100,000 nested lists end in a message, not in a crash."""
    with pytest.raises(LimitExceeded, match="nesting"):
        load_tokenizer(write_json(tmp_path, "[" * 100_000 + "]" * 100_000))
