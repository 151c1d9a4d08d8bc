"""Differential tests of the tokenizer: live tiktoken with Meta's rule, and live `tokenizers`."""

import pytest
import tiktoken
import tiktoken.load
import tokenizers

from llama_ref import bpe
from llama_ref.tokenizer import load_tokenizer
from llama_ref.tokenizer.special_tokens import NAMINGS
from tests.peers.text_samples import generated, prose_and_code
from tests.tokenizer.files import META_PATTERN, edited, model, tokenizer_json, write_json

pytestmark = [pytest.mark.real, pytest.mark.slow]


@pytest.fixture(scope="module")
def engine(llama3_ranks_file):
    """Bare tiktoken over the real ranks, loaded by tiktoken."""
    return tiktoken.Encoding(
        "llama3",
        pat_str=META_PATTERN,
        mergeable_ranks=tiktoken.load.load_tiktoken_bpe(str(llama3_ranks_file)),
        special_tokens={},
    )


@pytest.fixture(scope="module")
def json_file(engine, tmp_path_factory):
    """The real ranks as a tokenizer.json, written without the package."""
    content = tokenizer_json(engine._mergeable_ranks, NAMINGS["hf"])
    return write_json(tmp_path_factory.mktemp("peer"), content)


@pytest.fixture(scope="module")
def peer(json_file):
    """Hugging Face's tokenizer over that file."""
    return tokenizers.Tokenizer.from_file(str(json_file))


@pytest.fixture(scope="module")
def ours(llama3_ranks_file):
    """Our tokenizer, from the rank file."""
    return load_tokenizer(llama3_ranks_file, naming="hf")


@pytest.fixture(scope="module")
def from_json(json_file):
    """Our tokenizer, from the tokenizer.json."""
    return load_tokenizer(json_file)


@pytest.fixture(scope="module")
def strings():
    """100,000 strings of every kind."""
    return generated(100_000)


@pytest.fixture(scope="module")
def long_text():
    """More than a megabyte of prose and code."""
    text = prose_and_code(1_500_000)
    assert len(text.encode()) > 1_500_000
    return text


def differing(texts, ours, theirs):
    """Return the first texts whose ids differ, with both lists of ids."""
    rows = [(t, a, b) for t, a, b in zip(texts, ours, theirs, strict=True) if a != b]
    return rows[:3]


def peer_ids(peer, texts):
    """Return the ids that Hugging Face's tokenizer gives."""
    return [encoding.ids for encoding in peer.encode_batch(texts, add_special_tokens=False)]


def test_generated_strings_have_the_ids_of_tiktoken(ours, engine, strings):
    """On 100,000 strings the ids are those of the bare engine."""
    assert not differing(strings, map(ours.encode, strings), map(engine.encode_ordinary, strings))


def test_generated_strings_have_the_ids_of_tokenizers(from_json, ours, peer, strings):
    """On 100,000 strings the ids are those of `tokenizers`, special tokens in text included."""
    ids = [from_json.encode(text, allowed_special="all") for text in strings]
    assert not differing(strings, ids, peer_ids(peer, strings))
    assert not differing(
        strings, ids, [ours.encode(text, allowed_special="all") for text in strings]
    )
    assert sum(max(row, default=0) >= 128_000 for row in ids) > 1_000


def test_special_names_as_text_have_the_ids_of_tokenizers(from_json, peer, strings):
    """Told to take special tokens for text, `tokenizers` gives what we give by default."""
    texts = [text for text in strings if "<|" in text]
    assert len(texts) > 5_000
    peer.encode_special_tokens = True
    try:
        theirs = peer_ids(peer, texts)
    finally:
        peer.encode_special_tokens = False
    assert not differing(texts, map(from_json.encode, texts), theirs)


def test_generated_strings_have_the_ids_of_the_twin(ours, strings):
    """On 100,000 strings the step-by-step encoder gives the same ids."""
    twin = [bpe.encode(text, ours.ranks) for text in strings]
    assert not differing(strings, map(ours.encode, strings), twin)


def test_generated_strings_come_back(ours, strings):
    """Decoded whole and streamed, all strings come back from their ids."""
    for text in strings:
        ids, decoder = ours.encode(text), ours.stream()
        assert ours.decode(ids) == text
        assert "".join(map(decoder.push, ids)) + decoder.finish() == text


def test_prose_and_code_have_the_ids_of_all_peers(ours, from_json, engine, peer, long_text):
    """A megabyte and a half of the standard library has one list of ids, however it is made."""
    ids = ours.encode(long_text, exact=True)
    assert ids == engine.encode_ordinary(long_text)
    assert ids == from_json.encode(long_text, exact=True)
    assert ids == bpe.encode(long_text, ours.ranks)
    assert ids == peer.encode(long_text, add_special_tokens=False).ids
    assert ours.decode(ids) == peer.decode(ids, skip_special_tokens=False) == long_text


def test_merging_without_looking_up_has_the_ids_of_tokenizers(tmp_path, engine, strings):
    """With ignore_merges false, the ids are those that merging alone gives in `tokenizers`."""
    content = tokenizer_json(engine._mergeable_ranks, NAMINGS["hf"])
    content["model"]["ignore_merges"] = False
    path = write_json(tmp_path, content)
    lost = [token.decode() for token in engine.token_byte_values() if is_utf8(token)]
    texts = [*strings[:5_000], *lost[100_256:], " Việt"]
    theirs = peer_ids(tokenizers.Tokenizer.from_file(str(path)), texts)
    ours = load_tokenizer(path)
    assert not differing(texts, (ours.encode(t, allowed_special="all") for t in texts), theirs)


def is_utf8(token):
    """Return whether bytes are whole characters."""
    try:
        token.decode()
    except UnicodeDecodeError:
        return False
    return True


SMALL = {
    "small": tokenizer_json(),
    "pairs": model(merges=[merge.split(" ") for merge in tokenizer_json()["model"]["merges"]]),
    "no lookup": model(ignore_merges=False),
    "own special tokens": edited("added_tokens", 3, "content", value="<tool>"),
}


@pytest.mark.parametrize("content", SMALL.values(), ids=SMALL)
def test_small_vocabulary_has_the_ids_of_tokenizers(tmp_path, strings, content):
    """Files with few tokens, in every spelling, mean to us what they mean to `tokenizers`."""
    path = write_json(tmp_path, content)
    ours, peer = load_tokenizer(path), tokenizers.Tokenizer.from_file(str(path))
    texts = [*strings[:5_000], "Việt", " the inner<tool>ing"]
    ids = [ours.encode(text, allowed_special="all") for text in texts]
    assert not differing(texts, ids, peer_ids(peer, texts))
    assert [ours.decode(row) for row in ids] == peer.decode_batch(ids, skip_special_tokens=False)


def test_trained_tokenizer_has_the_ids_of_tokenizers(tmp_path, strings, long_text):
    """A vocabulary that `tokenizers` trains, one merge a token, loads and gives its ids."""
    trained = tokenizers.Tokenizer(tokenizers.models.BPE())
    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(META_PATTERN), "isolated")
    byte_level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trained.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([split, byte_level])
    trained.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=2_000, initial_alphabet=alphabet, show_progress=False
    )
    trained.train_from_iterator(long_text[:300_000].splitlines(keepends=True), trainer)
    trained.add_special_tokens(["<|begin_of_text|>", "<|end_of_text|>"])
    path = tmp_path / "tokenizer.json"
    trained.save(str(path))
    ours, texts = load_tokenizer(path, vocab_size=2_002), [*strings[:5_000], long_text[-100_000:]]
    ids = [ours.encode(text, allowed_special="all", exact=True) for text in texts]
    assert not differing(texts, ids, peer_ids(trained, texts))
