"""Tokenizers in the manner of Llama 2, against the C++ engine and a recorded C program."""

import io
import json
import random

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from llama_ref.errors import BadFile, BadRequest, LimitExceeded, Unsupported
from llama_ref.tokenizer import (
    SentencePieceTokenizer,
    Span,
    load_tokenizer,
    sentencepiece_model,
)

SENTENCES = ["the sun shines on the sea", "she sells sea shells", "sons and sisters, 12 of them"]
LLAMA_LIKE = {
    "model_type": "bpe",
    "vocab_size": 330,
    "byte_fallback": True,
    "normalization_rule_name": "identity",
    "remove_extra_whitespaces": False,
    "hard_vocab_limit": False,
    "minloglevel": 2,
}


def train(**changes):
    """Return the bytes of a sentencepiece model trained on three sentences."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 20), model_writer=model, **(LLAMA_LIKE | changes)
    )
    return model.getvalue()


@pytest.fixture(scope="module")
def model_bytes():
    """A model of 330 pieces at most, of the kind Llama 2 has."""
    return train()


@pytest.fixture(scope="module")
def spm(model_bytes):
    """Our tokenizer over that model."""
    return SentencePieceTokenizer(model_bytes, file="tokenizer.model")


@pytest.fixture(scope="module")
def engine(model_bytes):
    """The engine itself over the same model."""
    return sentencepiece.SentencePieceProcessor(model_proto=model_bytes)


def streamed(tokenizer, ids):
    """Return the joined text of a stream."""
    decoder = tokenizer.stream()
    return "".join(map(decoder.push, ids)) + decoder.finish()


@pytest.mark.real
def test_stories_match_the_recorded_program(stories, stories_folder):
    """Ids and text are those that llama2.c recorded, whole and streamed, after BOS and without."""
    expected = json.loads((stories_folder / "expected.json").read_text())
    for text, ids in expected["encode"].items():
        assert stories.encode(text) == ids
        assert stories.decode(ids) == text
    ids = expected["greedy_ids"]
    assert expected["text"].startswith("Once upon a time")
    for prompt in ([], [1]):
        assert stories.decode(prompt + ids) == expected["text"]
        assert streamed(stories, prompt + ids) == expected["text"]


@pytest.mark.real
def test_stories_facts(stories):
    """The model has 512 pieces, BOS 1 and EOS 2, and stops at its EOS."""
    assert (stories.vocab_size, stories.bos_id, stories.eos_id) == (512, 1, 2)
    assert stories.stop_ids == (2,)
    assert stories.special_tokens == {"<s>": 1, "</s>": 2}
    assert stories.encode("Once", bos=True, eos=True) == [1, 403, 2]
    assert stories.token_bytes(403) == b" Once"
    assert stories.token_bytes(1) == b""


@given(st.text())
def test_ids_are_those_of_the_engine(spm, engine, text):
    """Any text gets the engine's ids, and comes back unless it holds the sign for a blank."""
    ids = spm.encode(text)
    assert ids == engine.encode(text)
    assert spm.decode(ids) == streamed(spm, ids) == text.replace("▁", " ")


def test_decoding_is_that_of_the_engine(spm, engine):
    """Any ids give the engine's text, as long as their bytes are UTF-8."""
    rng = random.Random(1)
    byte_ids = [i for i in range(spm.vocab_size) if engine.is_byte(i) and i >= 3 + 0x80]
    others = [i for i in range(spm.vocab_size) if i not in byte_ids]
    for _ in range(2_000):
        ids = rng.choices(others, k=rng.randrange(8))
        assert spm.decode(ids) == streamed(spm, ids) == engine.decode(ids), ids


FIRST_BLANKS = {
    "a word loses its blank": (["▁the"], "the"),
    "BOS is not the beginning of the text": (["<s>", "▁the"], "the"),
    "two control pieces neither": (["</s>", "<s>", "▁the"], "the"),
    "the second word keeps it": (["▁the", "▁the"], "the the"),
    "a lone blank is lost": (["▁", "▁the"], " the"),
    "bytes begin a text": (["<0x0A>", "▁the"], "\n the"),
    "a byte that is a blank is text": (["<0x20>", "▁the"], "  the"),
    "half a character begins a text": (["<0xC3>", "▁the"], "\ufffd the"),
    "the unknown piece begins a text": (["<unk>", "▁the"], " ⁇  the"),
}


@pytest.mark.parametrize(("pieces", "text"), FIRST_BLANKS.values(), ids=FIRST_BLANKS)
def test_first_blank_is_dropped_once(spm, engine, pieces, text):
    """The blank in front of a text goes, as in the engine, and no other."""
    ids = [engine.piece_to_id(piece) for piece in pieces]
    assert spm.decode(ids) == streamed(spm, ids) == engine.decode(ids) == text


def test_finished_stream_begins_a_new_text(spm, engine):
    """After `finish` the next blank is again the first of a text."""
    decoder, the = spm.stream(), engine.piece_to_id("▁the")
    assert [decoder.push(the), decoder.push(the), decoder.finish()] == ["the", " the", ""]
    assert decoder.push(the) == "the"


@pytest.mark.parametrize("text", ["sons", "s", "she sells seas", "<s>s</s>", "ss ss"])
def test_no_letter_s_is_eaten(spm, text):
    """Text that begins or ends with the letters of `<s>` keeps them (likejazz/llama3.np #3)."""
    ids = spm.encode(text, bos=True, eos=True)
    assert spm.decode(ids) == spm.decode(ids, skip_special=True) == streamed(spm, ids) == text


def test_control_names_in_text_are_text(spm):
    """B9-143: `</s>` typed by a user ends nothing, unless that name is allowed."""
    assert spm.eos_id not in spm.encode("the</s>")
    ids = spm.encode("the</s>sea", allowed_special={"</s>"})
    assert ids == [*spm.encode("the"), spm.eos_id, *spm.encode("sea")]


def test_invalid_utf8_is_replaced_as_in_python(spm, engine):
    """Bytes that are no UTF-8 become U+FFFD, one for each beginning of a character."""
    ids = [engine.piece_to_id(f"<0x{byte:02X}>") for byte in b"\xf0\x9f\xa6\xff"]
    assert spm.decode(ids) == streamed(spm, ids) == "\ufffd\ufffd"
    assert spm.decode_bytes(ids) == b"\xf0\x9f\xa6\xff"


def test_spans_cover_the_text(spm, engine):
    """The blank put in front is part of no byte of the text; each piece spans its own bytes."""
    the, blank = engine.piece_to_id("▁the"), engine.piece_to_id("▁")
    llama = [engine.piece_to_id(f"<0x{byte:02X}>") for byte in "🦙".encode()]
    assert spm.spans("the the", bos=True) == [Span(1, 0, 0), Span(the, 0, 3), Span(the, 3, 7)]
    assert spm.spans("🦙") == [
        Span(blank, 0, 0),
        *(Span(token_id, place, place + 1) for place, token_id in enumerate(llama)),
    ]
    assert spm.spans("▁the")[-1] == Span(the, 0, 6)


@given(st.text())
def test_spans_follow_each_other(spm, text):
    """Spans leave no byte of the text out."""
    spans = spm.spans(text)
    assert [span.start for span in spans] == [0, *(span.end for span in spans)][: len(spans)]
    assert (spans[-1].end if spans else 0) == len(text.encode())


@pytest.mark.parametrize("text", [b"the", None, "a\ud800"], ids=ascii)
def test_what_is_no_text_is_refused(spm, text):
    """B9-137, B9-138: the engine's own errors do not show."""
    with pytest.raises(BadRequest, match="text"):
        spm.encode(text)


def test_cut_model_is_refused(model_bytes, tmp_path):
    """A model file that ends early, wherever it ends, is refused."""
    path = tmp_path / "tokenizer.model"
    for end in range(17, len(model_bytes), 97):
        path.write_bytes(model_bytes[:end])
        with pytest.raises((BadFile, Unsupported), match=r"tokenizer\.model"):
            load_tokenizer(path)


def test_model_of_another_size_is_refused(model_bytes, tmp_path):
    """A sentencepiece model that does not fit the embedding is refused like any other."""
    path = tmp_path / "tokenizer.model"
    path.write_bytes(model_bytes)
    size = load_tokenizer(path).vocab_size
    with pytest.raises(BadFile, match=f"expected {size + 1} tokens"):
        load_tokenizer(path, vocab_size=size + 1)


OTHER_MODELS = {
    "NFKC": {"normalization_rule_name": "nmt_nfkc"},
    "blanks merged": {"remove_extra_whitespaces": True},
    "no bytes": {"byte_fallback": False, "vocab_size": 60},
    "blank as suffix": {"treat_whitespace_as_suffix": True},
    "whole words": {"model_type": "word", "byte_fallback": False, "vocab_size": 16},
    "unigram": {"model_type": "unigram", "vocab_size": 300},
    "characters": {"model_type": "char"},
}


@pytest.mark.parametrize("changes", OTHER_MODELS.values(), ids=OTHER_MODELS)
def test_model_that_loses_text_is_refused(changes):
    """A model under which text does not come back is of no Llama, and is refused."""
    with pytest.raises(Unsupported, match="sentencepiece model"):
        SentencePieceTokenizer(train(**changes), file="tokenizer.model")


def with_field(message, number, value):
    """Return a protobuf message with one more field of bytes; of a part given twice, both count."""
    head = bytes([number << 3 | 2, len(value) & 127 | 128, len(value) >> 7])
    return message + head + value


@pytest.mark.parametrize("after", [b"", b"\x10\x00"], ids=["alone", "before an empty one"])
def test_model_that_rewrites_one_word_is_refused(model_bytes, tmp_path, after):
    """A table that turns "yes" into "no", and no other text, is seen though no probe shows it."""
    rules = tmp_path / "rules.tsv"
    rules.write_text("79 65 73\t6E 6F\n")
    evil = train(normalization_rule_tsv=str(rules))
    engine = sentencepiece.SentencePieceProcessor(model_proto=evil)
    assert engine.decode(engine.encode("yes")) == "no"
    with pytest.raises(Unsupported, match="a table by which it rewrites text"):
        SentencePieceTokenizer(evil, file="tokenizer.model")
    table = engine.serialized_model_proto()
    table = table[table.rindex(b"user_defined") :][len(b"user_defined") :]
    spliced = with_field(model_bytes, 3, table + after)
    assert sentencepiece.SentencePieceProcessor(model_proto=spliced).normalize("yes") == "▁no"
    with pytest.raises(Unsupported, match="a table by which it rewrites text"):
        SentencePieceTokenizer(spliced, file="tokenizer.model")


def test_model_without_a_piece_for_the_blank_is_refused(model_bytes):
    """Its blanks would be written in bytes, and come back as U+2581."""
    blank = b"\n\x03" + "▁".encode()
    assert model_bytes.count(blank) == 1
    broken = model_bytes.replace(blank, b"\n\x03" + "☃".encode())
    with pytest.raises(Unsupported, match=r"comes back as .*u2581a"):
        SentencePieceTokenizer(broken, file="tokenizer.model")


def test_fields_that_the_engine_does_not_know_are_passed_over(model_bytes, engine):
    """Numbers of 4 and 8 bytes, and groups, change nothing: nor does a part that is a number."""
    unknown = b"\x49" + bytes(8) + b"\x4d" + bytes(4) + b"\x4b\x08\x05\x4c"
    unknown += b"\x15\xff\xff\xff\xff" + b"\x18\x05" + b"\x19" + b"\xff" * 8
    spm = SentencePieceTokenizer(model_bytes + unknown, file="tokenizer.model")
    assert spm.encode("the sea") == engine.encode("the sea")


def test_more_pieces_than_any_llama_has_are_refused(model_bytes, monkeypatch):
    """The table of pieces is not made for a model of a million."""
    monkeypatch.setattr(sentencepiece_model, "MAX_PIECES", 329)
    n_pieces = sentencepiece.SentencePieceProcessor(model_proto=model_bytes).vocab_size()
    with pytest.raises(LimitExceeded, match=f"pieces: expected at most 329, found {n_pieces}"):
        SentencePieceTokenizer(model_bytes, file="tokenizer.model")


def test_model_without_a_blank_in_front_keeps_every_blank():
    """Where no blank is put in front of a text, none is dropped."""
    model = train(add_dummy_prefix=False)
    spm = SentencePieceTokenizer(model, file="tokenizer.model")
    engine = sentencepiece.SentencePieceProcessor(model_proto=model)
    for text in ("the sea", " the sea", "  the sea"):
        ids = spm.encode(text)
        assert ids == engine.encode(text)
        assert spm.decode(ids) == streamed(spm, ids) == engine.decode(ids) == text
        assert spm.spans(text)[0].start == 0 < spm.spans(text)[0].end
