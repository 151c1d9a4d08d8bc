"""Converted folders against transformers: `AutoTokenizer` loads them, and gives the same ids."""

from dataclasses import replace

import pytest
from transformers import AutoTokenizer

from llama_ref.checkpoint import synthetic, write_hf
from llama_ref.config import to_hf_dict
from llama_ref.tokenizer import load_tokenizer
from tests.models import TINY
from tests.peers.text_samples import generated, prose_and_code
from weights_tools.__main__ import main

SIZES = {"d_model": 64, "n_heads": 4, "n_kv_heads": 2, "head_dim": 16, "d_ff": 64}
CONFIG = replace(TINY, **SIZES, vocab_size=128_256, rope_scaling=None, bos_id=128_000)


def convert(source, out, form):
    assert main(["convert", str(source), str(out), "--format", form]) == 0
    return out


@pytest.fixture(scope="module")
def ranks_folder(tmp_path_factory, llama3_ranks_file):
    """Return a folder in Meta's layout with the real rank file."""
    folder = tmp_path_factory.mktemp("ranks")
    write_hf(folder / "hf", to_hf_dict(CONFIG), synthetic.checkpoint(CONFIG))
    meta = convert(folder / "hf", folder / "meta", "meta")
    (meta / "tokenizer.model").write_bytes(llama3_ranks_file.read_bytes())
    return meta


@pytest.mark.real
@pytest.mark.parametrize("through", [(), ("gguf",), ("hf",)])
def test_llama_3_in_the_hf_layout_is_the_rank_file(ranks_folder, tmp_path, through):
    """From Meta's layout, directly, through a GGUF file and twice: ids and texts are the same."""
    source = ranks_folder
    for step in through:
        source = convert(source, tmp_path / f"x.{step}", step)
    peer = AutoTokenizer.from_pretrained(convert(source, tmp_path / "out", "hf"))
    ours = load_tokenizer(ranks_folder, naming="hf")
    texts = [*generated(3_000), prose_and_code(200_000)[:200_000]]
    theirs = peer(texts, add_special_tokens=False)["input_ids"]
    assert theirs == [ours.encode(text, allowed_special="all") for text in texts]
    assert peer.batch_decode(theirs) == texts
    assert peer("Hello")["input_ids"] == ours.encode("Hello", bos=True)
    assert len(peer) == ours.vocab_size
