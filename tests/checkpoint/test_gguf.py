"""GGUF: read strictly, a Llama explained whole, and there and back without a bit lost."""

import contextlib
import json
import re
import struct
import time

import numpy as np
import pytest

import llama_ref as lr
from llama_ref.checkpoint import Checkpoint, open_gguf, open_hf
from llama_ref.checkpoint.gguf import BlockMatrix
from llama_ref.checkpoint.gguf_blueprint import blueprint_of
from llama_ref.checkpoint.gguf_header import read_gguf_header
from llama_ref.errors import BadConfig, BadFile, LimitExceeded, LlamaRefError, Unsupported
from llama_ref.tokenizer.gguf_vocabulary import tokenizer_of
from tests.checkpoint.gguf_files import (
    ARRAY,
    BOOL,
    F32,
    GOOD,
    ONE,
    STRING,
    U32,
    U64,
    entry,
    gguf,
    tensor,
    text,
)
from weights_tools.__main__ import main


def written(tmp_path, *args, **changes):
    path = tmp_path / "x.gguf"
    path.write_bytes(gguf(*args, **(GOOD | changes if not args else changes)))
    return path


def test_a_good_file_is_read(tmp_path):
    """Entries of every kind, and a tensor whose axes the file has the other way round."""
    entries = [
        entry("general.architecture", STRING, "llama"),
        entry("a", ARRAY, (STRING, ["x", "", "é"])),
        entry("b", ARRAY, (F32, [1.5, -2.0])),
        entry("c", BOOL, 1),
        entry("d", U64, 2**63),
        entry("general.alignment", U32, 64),
    ]
    raw = gguf(entries, GOOD["tensors"])
    raw += bytes(-len(raw) % 64)
    path = tmp_path / "x.gguf"
    path.write_bytes(raw + ONE)
    header = read_gguf_header(path)
    assert header.entries == {
        "general.architecture": "llama",
        "a": ["x", "", "é"],
        "b": [1.5, -2.0],
        "c": True,
        "d": 2**63,
        "general.alignment": 64,
    }
    a = open_gguf(path)["a"]
    assert a.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert not a.flags.writeable


HUGE = {"n_tensors": 2**63, "n_entries": 2**63}
F16 = 1
BAD = {
    "magic": ({"magic": b"GGUP"}, BadFile),
    "version 1": ({"version": 1}, Unsupported),
    "version 4": ({"version": 4}, Unsupported),
    "big-endian": ({"version": 0x03000000}, Unsupported),
    "2^63 tensors": ({"n_tensors": 2**63}, BadFile),
    "2^63 entries": ({"n_entries": 2**63}, BadFile),
    "one tensor too many": ({"n_tensors": 2}, BadFile),
    "one entry too many": ({"n_entries": 2}, BadFile),
    "key too long": ({"entries": [b"\xff" * 8 + b"abc"]}, BadFile),
    "key empty": ({"entries": [entry("", U32, 1)]}, BadFile),
    "key twice": ({"entries": [entry("a", U32, 1)] * 2}, BadFile),
    "key no UTF-8": ({"entries": [entry(b"\xff", U32, 1)]}, BadFile),
    "text no UTF-8": ({"entries": [entry("a", STRING, b"\xc3")]}, BadFile),
    "kind 13": ({"entries": [text("a") + b"\x0d\0\0\0" + bytes(8)]}, BadFile),
    "bool 2": ({"entries": [entry("a", BOOL, 2)]}, BadFile),
    "array of 2^60": (
        {"entries": [text("a") + b"\x09\0\0\0\x08\0\0\0" + b"\0" * 7 + b"\x10"]},
        BadFile,
    ),
    "arrays in arrays": ({"entries": [text("a") + b"\x09\0\0\0" * 5000]}, BadFile),
    "alignment 0": ({"entries": [entry("general.alignment", U32, 0)]}, BadFile),
    "alignment 3": ({"entries": [entry("general.alignment", U32, 3)]}, BadFile),
    "alignment 24": ({"entries": [entry("general.alignment", U32, 24)]}, BadFile),
    "alignment a text": ({"entries": [entry("general.alignment", STRING, "32")]}, BadFile),
    "5 axes": ({"tensors": [tensor("a", (1, 1, 1, 1, 8), 0, 0)]}, BadFile),
    "no axis": ({"tensors": [tensor("a", (), 0, 0)]}, BadFile),
    "axis 0": ({"tensors": [tensor("a", (4, 0), 0, 0)]}, LimitExceeded),
    "axis 2^32": ({"tensors": [tensor("a", (4, 2**32), 0, 0)]}, LimitExceeded),
    "product wraps": ({"tensors": [tensor("a", (2**31, 2**31, 2**31), 0, 0)]}, LimitExceeded),
    "type 99": ({"tensors": [tensor("a", (4, 2), 99, 0)]}, Unsupported),
    "half a block": ({"tensors": [tensor("a", (4, 2), 2, 0)]}, BadFile),
    "offset past the end": ({"tensors": [tensor("a", (4, 2), 0, 2**40)]}, BadFile),
    "offset wraps": ({"tensors": [tensor("a", (4, 2), 0, 2**64 - 32)]}, BadFile),
    "offset leaves a hole": (
        {"tensors": [tensor("a", (4,), 0, 0), tensor("b", (4,), 0, 64)], "data": bytes(96)},
        BadFile,
    ),
    "overlap": ({"tensors": [tensor("a", (4,), 0, 0), tensor("b", (4,), 0, 0)]}, BadFile),
    "misaligned": ({"tensors": [tensor("a", (4,), 0, 0), tensor("b", (4,), 0, 16)]}, BadFile),
    "name twice": (
        {"tensors": [tensor("a", (8,), 0, 0), tensor("a", (8,), 0, 32)], "data": bytes(64)},
        BadFile,
    ),
    "data cut": ({"data": ONE[:-1]}, BadFile),
    "bytes behind": ({"data": ONE + bytes(33)}, BadFile),
}


@pytest.mark.parametrize("case", BAD)
def test_a_malformed_file_is_refused_at_once(case, tmp_path):
    """Each is an error of ours that names the file and the thing, with nothing allocated."""
    changes, error = BAD[case]
    path = written(tmp_path, **changes)
    with pytest.raises(error, match=r"x\.gguf"):
        open_gguf(path)


def test_any_cut_and_any_changed_byte_is_our_error_or_a_file(tmp_path):
    """Every beginning of a file is refused; a changed byte leads to no error but ours."""
    whole = gguf(**GOOD)
    path = tmp_path / "x.gguf"
    for n in range(len(whole)):
        path.write_bytes(whole[:n])
        with pytest.raises(BadFile):
            open_gguf(path)
    rng = np.random.default_rng(0)
    for _ in range(400):
        data = bytearray(whole)
        data[rng.integers(len(data))] = rng.integers(256)
        path.write_bytes(data)
        with contextlib.suppress(LlamaRefError):
            open_gguf(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("gguf")
    assert main(["synthetic", "golden-tiny", str(root / "hf")]) == 0
    assert main(["convert", str(root / "hf"), str(root / "x.gguf"), "--format", "gguf"]) == 0
    return root


def test_there_and_back_no_bit_is_lost(folder, tmp_path):
    """HF to GGUF and back: the same names, dtypes, shapes and bits, and the same blueprint."""
    assert main(["convert", str(folder / "x.gguf"), str(tmp_path / "back")]) == 0
    before, after = open_hf(folder / "hf"), open_hf(tmp_path / "back")
    assert list(before) == list(after)
    for name, array in before.items():
        assert array.dtype == after[name].dtype
        assert array.tobytes() == after[name].tobytes()
    texts = [(where / "config.json").read_text() for where in (folder / "hf", tmp_path / "back")]
    assert json.loads(texts[0]) == json.loads(texts[1])


def test_a_gguf_file_computes_what_the_folder_does(folder):
    """In either lineage, streamed or not; only the pairing of the rows differs."""
    expected = lr.load(folder / "hf").logits([1, 2, 3])
    model = lr.load(folder / "x.gguf", lineage="hf")
    assert model.tokenizer is None
    assert model.weights.pairing == "interleaved"
    for model in (model, lr.load(folder / "x.gguf", lineage="hf", mmap=False)):  # noqa: B020
        np.testing.assert_allclose(model.logits([1, 2, 3]), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("old", "new", "error", "says"),
    [
        (b"llama\x14", b"llamb\x14", Unsupported, "general.architecture"),
        (b"llama.block_count", b"llama.block_cound", Unsupported, "block_cound"),
        (b"attention.value_length", b"attention.value_lengtx", Unsupported, "lengtx"),
        (b"blk.0.attn_q", b"blk.0.attn_x", BadFile, "attn_q"),
        (b"no_vocab", b"whatever", Unsupported, "tokenizer.ggml.model"),
    ],
)
def test_what_is_not_explained_is_refused(old, new, error, says, folder, tmp_path):
    """Another architecture, an unknown key, a renamed tensor, another vocabulary: an error each."""
    data = (folder / "x.gguf").read_bytes()
    if old not in data:
        old, new = old[:-1], new[:-1]
    path = tmp_path / "x.gguf"
    path.write_bytes(data.replace(old, new, 1))
    with pytest.raises(error, match=re.escape(says)):
        lr.load(path)


def test_factors_of_another_scaling_are_refused(folder, tmp_path):
    """RoPE's factors are those of Llama 3.1's scaling, or the file is not run."""
    header = read_gguf_header(folder / "x.gguf")
    at = next(t.start for t in header.tensors if t.name == "rope_freqs.weight")
    data = bytearray((folder / "x.gguf").read_bytes())
    data[at : at + 4] = np.float32(1.5).tobytes()
    (tmp_path / "x.gguf").write_bytes(data)
    with pytest.raises(Unsupported, match="rope_freqs"):
        lr.load(tmp_path / "x.gguf")


def test_writing_refuses_what_stands_there_and_what_is_no_gguf(folder, tmp_path, capsys):
    """A file is never replaced, and its name says what it is."""
    before = (folder / "x.gguf").read_bytes()
    assert main(["convert", str(folder / "hf"), str(folder / "x.gguf"), "--format", "gguf"]) == 2
    assert "nothing there" in capsys.readouterr().err
    assert (folder / "x.gguf").read_bytes() == before
    assert main(["convert", str(folder / "hf"), str(tmp_path / "x"), "--format", "gguf"]) == 2
    assert ".gguf" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


NUMBERS = {
    "embedding_length": (U32, 64),
    "block_count": (U32, 1),
    "attention.head_count": (U32, 4),
    "feed_forward_length": (U32, 64),
    "context_length": (U32, 64),
    "attention.layer_norm_rms_epsilon": (F32, 1e-5),
    "rope.freq_base": (F32, 500_000.0),
}


@pytest.mark.parametrize(
    ("key", "kind", "value"),
    [
        *((f"llama.{key}", STRING, "many") for key in NUMBERS),
        *((f"llama.{key}", ARRAY, (U32, [1, 2])) for key in NUMBERS),
        ("llama.rope.freq_base", F32, 0.0),
        ("llama.rope.freq_base", F32, float("nan")),
        ("llama.attention.key_length", STRING, "x"),
        ("llama.attention.value_length", ARRAY, (U32, [16])),
        ("llama.vocab_size", F32, 8.0),
        ("tokenizer.ggml.eos_token_id", ARRAY, (U32, [1, 2])),
        ("tokenizer.ggml.bos_token_id", STRING, "<s>"),
        ("llama.rope.scaling.type", STRING, "yarn"),
        ("llama.expert_count", U32, 8),
    ],
)
def test_numbers_of_the_wrong_kind_are_our_errors(key, kind, value, tmp_path):
    """A text or an array in the place of a number is refused by its key, also beside factors."""
    stated = {f"llama.{name}": pair for name, pair in NUMBERS.items()} | {key: (kind, value)}
    entries = [entry("general.architecture", STRING, "llama")]
    entries += [entry(name, *pair) for name, pair in stated.items()]
    tensors = [
        tensor("token_embd.weight", (64, 8), 0, 0),
        tensor("rope_freqs.weight", (8,), 0, 2048),
    ]
    path = written(tmp_path, entries=entries, tensors=tensors, data=bytes(2048) + b"\0\0\x80?" * 8)
    with pytest.raises(LlamaRefError):
        lr.load(path)


def test_a_blueprint_without_what_it_needs_is_refused(tmp_path):
    """A file that states no sizes names the first that is missing."""
    path = written(tmp_path)
    with pytest.raises(BadConfig, match=r"llama\.embedding_length"):
        lr.load(path)


def sparse(tmp_path, head, n_bytes):
    """Write a file that claims much and takes little: the rest is a hole."""
    path = tmp_path / "x.gguf"
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + n_bytes)
    return path


def test_a_long_text_is_refused_before_it_is_read(tmp_path):
    """Four gigabytes of text, in a file that takes a page of the disk, are beyond the limit."""
    n = 2**32
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("a") + struct.pack("<IQ", STRING, n)
    with pytest.raises(LimitExceeded, match="at most 16,777,216 bytes"):
        read_gguf_header(sparse(tmp_path, head, n))


def test_arrays_together_have_a_limit(tmp_path):
    """Many arrays, each within it, are refused where their sum is not."""
    n, numbers = 2**20, struct.pack("<I", U64)
    entries = [text(k) + struct.pack("<I", ARRAY) + numbers for k in "abc"]
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 3)
    path = tmp_path / "x.gguf"
    with path.open("wb") as file:
        file.write(head)
        for one in entries:
            file.write(one + struct.pack("<Q", n))
            file.seek(8 * n, 1)
        file.truncate(file.tell())
    with pytest.raises(LimitExceeded, match="with those of the arrays before it"):
        read_gguf_header(path)


def test_factors_of_any_size_are_refused_unread(folder):
    """RoPE's factors that are as many as a disk holds are not read into memory to be refused."""
    header = read_gguf_header(folder / "x.gguf")
    checkpoint = open_gguf(folder / "x.gguf")
    huge = np.lib.stride_tricks.as_strided(np.ones(1, np.float32), (2**40,), (0,))
    tensors = {name: checkpoint[name] for name in checkpoint} | {"rope_freqs.weight": huge}
    other = Checkpoint(checkpoint.path, "gguf", tensors, checkpoint.files)
    with pytest.raises(Unsupported, match="rope_freqs"):
        blueprint_of(header, other, "x.gguf")


def test_many_tensors_of_one_name_are_refused_at_once(tmp_path):
    """Twenty thousand tensors, the last named as the first, cost no square of their number."""
    names = [f"t{i}" for i in range(20_000)] + ["t0"]
    tensors = [tensor(name, (8,), 0, 32 * i) for i, name in enumerate(names)]
    path = tmp_path / "x.gguf"
    path.write_bytes(gguf(tensors=tensors, data=bytes(32 * len(names))))
    start = time.process_time()
    with pytest.raises(BadFile, match="tensor 't0': expected once, found twice"):
        read_gguf_header(path)
    assert time.process_time() - start < 5


def test_no_rows_of_a_block_matrix_are_no_rows():
    """Asked for none, it returns none, of the right width, without the package gguf."""
    blocks = BlockMatrix(np.zeros((4, 18), np.uint8), "Q4_0", 32)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("llama_ref.checkpoint.gguf._package", lambda: (None, None))
        assert blocks.rows(2, 2).shape == (0, 32)


def test_scores_beyond_float32_are_refused():
    """A vocabulary whose scores no sentencepiece model can hold is our error."""
    entries = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": ["a", "b"],
        "tokenizer.ggml.scores": [1e300, 0.0],
        "tokenizer.ggml.token_type": [1, 1],
    }
    with pytest.raises(BadFile, match="scores: expected numbers that float32 holds"):
        tokenizer_of(entries, file="x.gguf")
