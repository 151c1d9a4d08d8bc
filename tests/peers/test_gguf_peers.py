"""GGUF against the package gguf, which reads the same tensors, and llama.cpp, which runs them."""

import ctypes
from dataclasses import replace

import gguf
import llama_cpp
import numpy as np
import pytest

import llama_ref as lr
from llama_ref.bench.gguf_file import write_gguf
from llama_ref.checkpoint import open_gguf, synthetic, write_hf
from llama_ref.checkpoint.gguf_header import STORAGE, read_gguf_header
from llama_ref.config import to_hf_dict
from llama_ref.config.presets import FACTOR_8
from llama_ref.golden.capture.ggml_run import LlamaCpp
from llama_ref.golden.cases import Case
from llama_ref.tokenizer import Llama3Tokenizer, load_tokenizer
from llama_ref.tokenizer.byte_alphabet import to_text
from tests.models import TINY
from tests.peers.text_samples import generated, prose_and_code
from weights_tools.__main__ import main

SIZES = {"d_model": 256, "n_heads": 8, "n_kv_heads": 2, "head_dim": 32, "d_ff": 512}
CONFIG = replace(TINY, **SIZES, vocab_size=512, rope_scaling=FACTOR_8)
IDS = tuple(range(5, 45))
QUANTISED = {"Q8_0": 7, "Q4_0": 2, "Q4_K": 15, "Q6_K": 18, "Q5_K": 17, "Q2_K": 10, "Q3_K": 12}
"""Type of most matrices, and the number of the mixture that llama.cpp makes of it."""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Return files in float types that the package wrote, and ours, by dtype."""
    folder = tmp_path_factory.mktemp("gguf")
    write_hf(folder / "hf", to_hf_dict(CONFIG), synthetic.checkpoint(CONFIG))
    paths = {dtype: folder / f"{dtype}.gguf" for dtype in ("float32", "bfloat16")}
    for dtype, path in paths.items():
        write_gguf(folder / "hf", path, dtype)
    for dtype in ("float32", "bfloat16", "float16"):
        paths[f"our {dtype}"] = folder / f"our-{dtype}.gguf"
        words = ["--format", "gguf", "--dtype", dtype]
        assert main(["convert", str(folder / "hf"), str(paths[f"our {dtype}"]), *words]) == 0
    return paths


@pytest.fixture(scope="module")
def quantised(files, tmp_path_factory):
    """Return files that llama.cpp quantised, by type."""
    folder, paths = tmp_path_factory.mktemp("quantised"), {}
    for kind, number in QUANTISED.items():
        paths[kind] = folder / f"{kind}.gguf"
        params = llama_cpp.llama_model_quantize_default_params()
        params.ftype = number
        failed = llama_cpp.llama_model_quantize(
            str(files["float32"]).encode(), str(paths[kind]).encode(), ctypes.byref(params)
        )
        assert not failed
    return paths


def assert_tensors_are_the_packages(path):
    """Compare every tensor with what the package makes of the same file; return their types."""
    ours, kinds = open_gguf(path), set()
    theirs = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    assert list(ours) == list(theirs)
    for name, tensor in theirs.items():
        expected = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        found = np.asarray(ours[name], np.float32)
        assert found.shape == expected.shape
        assert np.array_equal(found, expected), name
        kinds.add(tensor.tensor_type.name)
    return kinds


@pytest.mark.parametrize(
    "dtype", ["float32", "bfloat16", "our float32", "our bfloat16", "our float16"]
)
def test_float_tensors_are_those_of_the_package(dtype, files):
    """F32, F16 and BF16, written by the package and by ours."""
    kinds = assert_tensors_are_the_packages(files[dtype])
    short = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}[dtype.split()[-1]]
    assert kinds == {"F32", short}


@pytest.mark.parametrize("kind", QUANTISED)
def test_quantised_tensors_are_those_of_the_package(kind, quantised):
    """Every mixture that llama.cpp makes; some rows alone are the same rows."""
    assert kind in assert_tensors_are_the_packages(quantised[kind])
    matrix = open_gguf(quantised[kind])["blk.0.ffn_up.weight"]
    assert np.array_equal(matrix.rows(3, 70), np.asarray(matrix)[3:70])


def test_the_entries_are_those_of_the_package(files):
    """Each key and value, the vocabulary left out."""
    for path in files.values():
        ours = read_gguf_header(path).entries
        theirs = gguf.GGUFReader(path).fields
        stated = {k: f.contents() for k, f in theirs.items() if not k.startswith("GGUF.")}
        assert ours == stated


@pytest.mark.parametrize("dtype", ["float32", "our float32", "bfloat16", "our bfloat16"])
def test_logits_are_llama_cpps(dtype, files):
    """On float files they differ by no more than llama.cpp's own arithmetic is off from float64."""
    path = files[dtype]
    case = Case("case", "a prompt", IDS, tuple(range(len(IDS))), (len(IDS),))
    with LlamaCpp(path) as peer:
        theirs = peer.run(case)["logits"].astype(np.float64)
    ours = lr.load(path).logits(IDS).astype(np.float64)
    truth = lr.load(path, dtype="float64").logits(IDS)
    noise = np.abs(theirs - truth).max()
    assert np.abs(ours - theirs).max() <= 1.1 * noise + 2e-5 * truth.std()
    assert noise < (1e-4 if "float32" in dtype and "b" not in dtype else 0.1) * truth.std()


@pytest.mark.parametrize("kind", QUANTISED)
def test_quantised_models_choose_as_llama_cpp_does(kind, quantised):
    """llama.cpp rounds activations to 8 bits on top; the logits agree to a few percent."""
    case = Case("case", "a prompt", IDS, tuple(range(len(IDS))), (len(IDS),))
    with LlamaCpp(quantised[kind]) as peer:
        theirs = peer.run(case)["logits"].astype(np.float64)
    ours = lr.load(quantised[kind]).logits(IDS).astype(np.float64)
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.995


def test_block_sizes_are_those_of_the_package():
    """Each type has the number, block and bytes that the package gguf states."""
    for code, (name, block, n_bytes) in STORAGE.items():
        kind = gguf.GGMLQuantizationType[name]
        assert kind.value == code
        assert gguf.GGML_QUANT_SIZES[kind] == (block, n_bytes)


def vocabulary_file(path, add):
    writer = gguf.GGUFWriter(path, "llama")
    add(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


TEXTS = [
    "",
    "Hello world",
    "  two  blanks ",
    "naïve café ½ 羊驼 🦙",
    "a\n\n b\t",
    "x = 1234567;",
    "'s DON'T",
]


@pytest.mark.real
def test_a_llama_3_vocabulary_in_a_file_is_the_tokenizer(tmp_path, llama3_ranks_file):
    """Tokens and merges as converters write them give the ids of the rank file."""
    original = load_tokenizer(llama3_ranks_file)
    ranks = sorted(original.ranks, key=original.ranks.get)
    pairs = [
        (original.ranks[token], f"{to_text(token[:i])} {to_text(token[i:])}")
        for token in ranks
        for i in range(1, len(token))
        if token[:i] in original.ranks and token[i:] in original.ranks
    ]
    names = sorted(original.special_tokens, key=original.special_tokens.get)

    def add(writer):
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("llama-bpe")
        writer.add_token_list([*map(to_text, ranks), *names])
        writer.add_token_types([1] * len(ranks) + [3] * len(names))
        writer.add_token_merges([merge for _, merge in sorted(pairs)])

    tokenizer = load_tokenizer(vocabulary_file(tmp_path / "v.gguf", add))
    assert isinstance(tokenizer, Llama3Tokenizer)
    assert tokenizer.special_tokens == original.special_tokens
    for each in TEXTS:
        assert tokenizer.encode(each) == original.encode(each)


@pytest.mark.real
def test_a_sentencepiece_vocabulary_in_a_file_is_the_tokenizer(tmp_path, stories_folder):
    """Pieces, scores and kinds give the ids of the model that they were taken from."""
    import sentencepiece

    original = load_tokenizer(stories_folder)
    engine = sentencepiece.SentencePieceProcessor(
        model_file=str(stories_folder / "tokenizer.model")
    )
    n = engine.vocab_size()
    kinds = [
        2 if engine.is_unknown(i) else 3 if engine.is_control(i) else 6 if engine.is_byte(i) else 1
        for i in range(n)
    ]

    def add(writer):
        writer.add_tokenizer_model("llama")
        writer.add_token_list([engine.id_to_piece(i) for i in range(n)])
        writer.add_token_scores([engine.get_score(i) for i in range(n)])
        writer.add_token_types(kinds)
        writer.add_bos_token_id(engine.bos_id())
        writer.add_eos_token_id(engine.eos_id())
        writer.add_unk_token_id(engine.unk_id())

    tokenizer = load_tokenizer(vocabulary_file(tmp_path / "v.gguf", add))
    assert tokenizer.special_tokens == original.special_tokens
    assert (tokenizer.bos_id, tokenizer.eos_id) == (original.bos_id, original.eos_id)
    for each in TEXTS:
        assert tokenizer.encode(each) == original.encode(each)
        assert tokenizer.decode(tokenizer.encode(each)) == each


SMALL = {"d_model": 64, "n_heads": 4, "n_kv_heads": 2, "head_dim": 16, "d_ff": 64}


@pytest.fixture(scope="module", params=["llama 3", "stories"])
def converted(request, tmp_path_factory, llama3_ranks_file, stories_folder):
    """Return a folder with a real tokenizer, and the GGUF file that it is converted to."""
    folder = tmp_path_factory.mktemp("converted")
    if request.param == "stories":
        source = stories_folder
    else:
        source = folder / "hf"
        config = replace(TINY, **SMALL, vocab_size=128_256, rope_scaling=FACTOR_8)
        write_hf(source, to_hf_dict(config), synthetic.checkpoint(config))
        (source / "tokenizer.model").write_bytes(llama3_ranks_file.read_bytes())
    assert main(["convert", str(source), str(folder / "x.gguf"), "--format", "gguf"]) == 0
    return source, folder / "x.gguf"


@pytest.mark.real
def test_llama_cpp_gives_the_ids_of_the_source(converted):
    """On generated strings, prose and code, from the file alone, as our reader does."""
    source, path = converted
    ours, from_file = load_tokenizer(source), load_tokenizer(path)
    peer = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    for text in [*TEXTS, *generated(3_000), prose_and_code(200_000)[:200_000]]:
        ids = ours.encode(text)
        assert from_file.encode(text) == ids
        if text:
            assert peer.tokenize(text.encode(), add_bos=False, special=False) == ids, text


@pytest.mark.real
def test_llama_cpp_decodes_and_adds_what_is_stated(converted):
    """A text comes back; begin-of-text is put in front; the ends are ends."""
    source, path = converted
    ours = load_tokenizer(source)
    peer = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    for text in [each for each in TEXTS if each]:
        ids = peer.tokenize(text.encode())
        assert ids == ours.encode(text, bos=True)
        # The binding drops a blank behind begin-of-text, which is right for sentencepiece alone.
        shown = ids[1:] if isinstance(ours, Llama3Tokenizer) else ids
        assert peer.detokenize(shown).decode() == text
    assert (peer.token_bos(), peer.token_eos()) == (ours.bos_id, ours.eos_id)
    ends = [ours.eos_id, *(ours.stop_ids if isinstance(ours, Llama3Tokenizer) else ())]
    vocabulary = llama_cpp.llama_model_get_vocab(peer.model)
    assert all(llama_cpp.llama_vocab_is_eog(vocabulary, token_id) for token_id in ends)
