"""What goes with the weights: the tokenizer, as it is and in the form that a layout reads."""

import json
import os
from dataclasses import replace

import pytest

import llama_ref as lr
from llama_ref.checkpoint import synthetic, write_hf
from llama_ref.checkpoint.gguf_header import read_gguf_header
from llama_ref.config import to_hf_dict
from llama_ref.tokenizer.special_tokens import NAMINGS
from tests.models import TINY
from tests.tokenizer.files import (
    RANKS,
    SPECIAL_NAMES,
    UNREACHABLE,
    edited,
    tokenizer_json,
    write_json,
    write_rank_file,
)
from weights_tools import new_folder
from weights_tools.__main__ import main
from weights_tools.tokenizer_files import COPIED

HF_NAMES = NAMINGS["hf"]
TEXT = f" the inner {UNREACHABLE.decode()} is on\n<|eot_id|> é 🦙"
TEMPLATE = "{{ bos_token }}{% for m in messages %}ü{% endfor %}"
FOLDERS = ["hf", "meta", "raw"]


def checkpoint(folder, n_special=256, **changes):
    """Write a small model that has embeddings for the small vocabulary."""
    sizes = {"head_dim": 4, "rope_scaling": None, "vocab_size": len(RANKS) + n_special}
    config = replace(TINY, **(sizes | changes))
    write_hf(folder, to_hf_dict(config), synthetic.checkpoint(config))
    return folder


def convert(source, out, *words):
    return main(["convert", str(source), str(out), *words])


@pytest.fixture
def ranks_folder(tmp_path):
    """Return a folder in Meta's layout, with a rank file."""
    source = checkpoint(tmp_path / "plain")
    assert convert(source, tmp_path / "ranks", "--format", "meta") == 0
    write_rank_file(tmp_path / "ranks")
    return tmp_path / "ranks"


@pytest.fixture
def json_folder(tmp_path):
    """Return a folder in the HF layout, with a tokenizer.json."""
    folder = checkpoint(tmp_path / "json")
    write_json(folder, tokenizer_json(special_names=HF_NAMES))
    return folder


def assert_same_text(one, other):
    assert one.special_tokens == other.special_tokens
    assert [one.token_bytes(i) for i in range(one.vocab_size)] == [
        other.token_bytes(i) for i in range(other.vocab_size)
    ]
    for allowed in ((), "all"):
        ids = one.encode(TEXT, allowed_special=allowed)
        assert other.encode(TEXT, allowed_special=allowed) == ids
        assert other.decode(ids) == TEXT


@pytest.mark.parametrize("words", [*(("--format", form) for form in FOLDERS), ("quantise",)])
def test_files_are_copied_byte_for_byte(tmp_path, capsys, words):
    """Every file of text lies in the new folder as it was, links followed, and is named."""
    source = checkpoint(tmp_path / "a")
    for name in COPIED:
        (source / name).write_bytes(b'{"temperature": 0.5, "of": "%b"}\r\n' % name.encode())
    write_rank_file(source)
    write_json(source, tokenizer_json(special_names=HF_NAMES))
    (source / "tokenizer_config.json").rename(tmp_path / "blob")
    (source / "tokenizer_config.json").symlink_to(tmp_path / "blob")
    (source / "training.log").write_text("not of the text")
    verb = "quantise" if words == ("quantise",) else "convert"
    more = () if verb == "quantise" else words
    assert main([verb, str(source), str(tmp_path / "b"), *more]) == 0
    for name in COPIED:
        assert (tmp_path / "b" / name).read_bytes() == (source / name).read_bytes()
        assert not (tmp_path / "b" / name).is_symlink()
    assert not (tmp_path / "b" / "training.log").exists()
    assert f"text: copied {', '.join(COPIED)}\n" in capsys.readouterr().out


def test_ranks_become_a_tokenizer_json(ranks_folder, tmp_path, capsys):
    """From Meta's layout to HF's the rank file is copied, and what transformers reads is made."""
    assert convert(ranks_folder, tmp_path / "hf") == 0
    made = "text: copied tokenizer.model; made tokenizer.json, tokenizer_config.json"
    assert made in capsys.readouterr().out
    found = json.loads((tmp_path / "hf" / "tokenizer.json").read_text("utf-8"))
    expected = tokenizer_json(special_names=HF_NAMES)
    assert found["added_tokens"] == expected["added_tokens"]
    assert found["model"] == {name: expected["model"][name] for name in found["model"]}
    before = lr.load_tokenizer(ranks_folder, naming="hf")
    assert_same_text(before, lr.load_tokenizer(tmp_path / "hf" / "tokenizer.json"))
    stated = json.loads((tmp_path / "hf" / "tokenizer_config.json").read_text())
    assert (stated["bos_token"], stated["eos_token"]) == ("<|begin_of_text|>", "<|end_of_text|>")
    assert lr.load(tmp_path / "hf").tokenizer.encode(TEXT) == before.encode(TEXT)


def test_a_tokenizer_json_becomes_ranks(json_folder, ranks_folder, tmp_path):
    """From HF's layout to Meta's the rank file is made, to the byte, and the rest is kept."""
    assert convert(json_folder, tmp_path / "meta", "--format", "meta") == 0
    made = (tmp_path / "meta" / "tokenizer.model").read_bytes()
    assert made == (ranks_folder / "tokenizer.model").read_bytes()
    kept = (tmp_path / "meta" / "tokenizer.json").read_bytes()
    assert kept == (json_folder / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("source", ["json_folder", "ranks_folder"])
@pytest.mark.parametrize("form", FOLDERS)
def test_through_gguf_and_back(source, form, tmp_path, request, capsys):
    """A GGUF file holds the vocabulary and the template, and any folder gets them back."""
    source = request.getfixturevalue(source)
    (source / "chat_template.jinja").write_text(TEMPLATE, "utf-8")
    before = lr.load_tokenizer(source, naming="hf")
    assert convert(source, tmp_path / "x.gguf", "--format", "gguf") == 0
    assert "vocabulary and chat template written" in capsys.readouterr().out
    assert_same_text(before, lr.load(tmp_path / "x.gguf").tokenizer)
    assert convert(tmp_path / "x.gguf", tmp_path / "again.gguf", "--format", "gguf") == 0
    files = (tmp_path / "x.gguf", tmp_path / "again.gguf")
    one, other = (read_gguf_header(path).entries for path in files)
    assert {**one, "general.name": None} == {**other, "general.name": None}
    assert other["tokenizer.chat_template"] == TEMPLATE
    assert convert(tmp_path / "x.gguf", tmp_path / "back", "--format", form) == 0
    assert_same_text(before, lr.load_tokenizer(tmp_path / "back", naming="hf"))
    assert (tmp_path / "back" / "chat_template.jinja").read_text("utf-8") == TEMPLATE


@pytest.mark.real
@pytest.mark.parametrize("form", FOLDERS)
def test_sentencepiece_through_gguf_and_back(stories_folder, form, tmp_path):
    """Pieces, scores and kinds are the same to the last bit after a GGUF file."""
    assert convert(stories_folder, tmp_path / "x.gguf", "--format", "gguf") == 0
    assert convert(tmp_path / "x.gguf", tmp_path / "back", "--format", form) == 0
    before = lr.load_tokenizer(stories_folder)
    for after in (lr.load(tmp_path / "x.gguf").tokenizer, lr.load_tokenizer(tmp_path / "back")):
        assert after.pieces() == before.pieces()
        assert (after.bos_id, after.eos_id) == (before.bos_id, before.eos_id)
        assert after.encode(TEXT) == before.encode(TEXT)
        assert after.decode(after.encode(TEXT)) == TEXT


@pytest.mark.slow
@pytest.mark.real
def test_the_published_ranks_come_back_to_the_byte(llama3_ranks_file, tmp_path):
    """128,000 ranks, through a GGUF file with 280,147 merges, are the published file again."""
    checkpoint(tmp_path / "a", vocab_size=128_256)
    data = llama3_ranks_file.read_bytes()
    (tmp_path / "a" / "tokenizer.model").write_bytes(data)
    assert convert(tmp_path / "a", tmp_path / "x.gguf", "--format", "gguf") == 0
    merges = read_gguf_header(tmp_path / "x.gguf").entries["tokenizer.ggml.merges"]
    assert len(merges) == 280_147
    assert convert(tmp_path / "x.gguf", tmp_path / "meta", "--format", "meta") == 0
    assert (tmp_path / "meta" / "tokenizer.model").read_bytes() == data


CONFIGS = {
    "one": {"chat_template": TEMPLATE},
    "by name": {
        "chat_template": [
            {"name": "tool_use", "template": "other"},
            {"name": "default", "template": TEMPLATE},
        ]
    },
}


@pytest.mark.parametrize("stated", CONFIGS.values(), ids=CONFIGS)
def test_a_template_of_the_config_goes_into_the_file(json_folder, tmp_path, stated):
    """tokenizer_config.json may hold the template, or several of which one is the default."""
    (json_folder / "tokenizer_config.json").write_text(json.dumps(stated))
    assert convert(json_folder, tmp_path / "x.gguf", "--format", "gguf") == 0
    entries = read_gguf_header(tmp_path / "x.gguf").entries
    assert entries["tokenizer.chat_template"] == TEMPLATE


def test_ends_are_written_under_their_own_keys(json_folder, tmp_path):
    """The end of a turn and of a message are not mixed up, in whatever order a config has them."""
    ids = [len(RANKS) + offset for offset in (1, 8, 9)]
    (json_folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ids}))
    assert convert(json_folder, tmp_path / "x.gguf", "--format", "gguf") == 0
    entries = read_gguf_header(tmp_path / "x.gguf").entries
    for key, token_id in zip(("eos", "eom", "eot"), ids, strict=True):
        assert entries[f"tokenizer.ggml.{key}_token_id"] == token_id


LEFT_OUT = {
    "never looked up": (edited("model", "ignore_merges", value=False), "gguf", "ignore_merges"),
    "own special tokens": (tokenizer_json(), "meta", "special tokens of Llama 3"),
    "another family": (edited("normalizer", value={"type": "NFC"}), "gguf", "normalizer"),
}


def out_of(tmp_path, form, name="x"):
    """Return where to write: a file of that ending, or a folder."""
    return tmp_path / (f"{name}.gguf" if form == "gguf" else name)


@pytest.mark.parametrize(("content", "form", "says"), LEFT_OUT.values(), ids=LEFT_OUT)
def test_what_a_form_cannot_state_is_left_out_and_said(tmp_path, capsys, content, form, says):
    """The weights are converted; why there is no tokenizer of that form is printed."""
    source = checkpoint(tmp_path / "a", n_special=len(SPECIAL_NAMES))
    write_json(source, content)
    out = out_of(tmp_path, form)
    assert convert(source, out, "--format", form) == 0
    line = capsys.readouterr().out.splitlines()[1]
    assert "no tokenizer written: " in line
    assert says in line
    if form == "gguf":
        assert read_gguf_header(out).entries["tokenizer.ggml.model"] == "no_vocab"
    else:
        assert sorted(p.name for p in out.iterdir() if "token" in p.name) == ["tokenizer.json"]


@pytest.mark.parametrize("form", [*FOLDERS, "gguf"])
def test_a_source_without_a_tokenizer_is_said(tmp_path, capsys, form):
    """Nothing to copy is not silence."""
    source = checkpoint(tmp_path / "a")
    assert convert(source, out_of(tmp_path, form), "--format", form) == 0
    assert "no tokenizer written: the source has none" in capsys.readouterr().out
    assert convert(source, out_of(tmp_path, form, "y"), "--format", form, "--json") == 0
    text = json.loads(capsys.readouterr().out)["text"]
    assert text == {"copied": [], "made": [], "left_out": "the source has none"}


def spoilt_size(source):
    write_json(source, tokenizer_json())


def spoilt_content(source):
    (source / "tokenizer.json").write_text('{"version": ')


def spoilt_pipe(source):
    (source / "tokenizer.json").unlink()
    os.mkfifo(source / "tokenizer.json")


def spoilt_link(source):
    (source / "tokenizer.json").unlink()
    (source / "tokenizer.json").symlink_to(source / "nowhere")


@pytest.mark.parametrize("form", ["meta", "gguf"])
@pytest.mark.parametrize("spoil", [spoilt_size, spoilt_content, spoilt_pipe, spoilt_link])
def test_a_spoilt_tokenizer_is_refused(json_folder, tmp_path, capsys, form, spoil):
    """One that is damaged, of another model, or no file at all ends it before anything is there."""
    spoil(json_folder)
    assert convert(json_folder, out_of(tmp_path, form), "--format", form) == 2
    assert "token" in capsys.readouterr().err
    assert not out_of(tmp_path, form).exists()


@pytest.mark.parametrize("form", FOLDERS)
def test_a_tokenizer_that_stands_there_is_not_replaced(json_folder, tmp_path, capsys, form):
    """A folder that has a file of one of these names is refused, and left as it is."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "tokenizer.json").write_text("precious")
    assert convert(json_folder, out, "--format", form) == 2
    assert "found 'tokenizer.json'" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["tokenizer.json"]
    assert (out / "tokenizer.json").read_text() == "precious"


def test_an_interrupted_conversion_does_not_mix_two_tokenizers(json_folder, tmp_path, monkeypatch):
    """Nothing is seen after an interrupt; a tokenizer that changed since begins it anew."""
    out, real = tmp_path / "out", new_folder._write_one

    def interrupted(path, plan):
        if plan.name == "config.json":
            raise KeyboardInterrupt
        return real(path, plan)

    monkeypatch.setattr(new_folder, "_write_one", interrupted)
    assert convert(json_folder, out, "--resume") == 130
    monkeypatch.undo()
    (partial,) = out.iterdir()
    assert (partial / "tokenizer.json").exists()
    changed = edited("added_tokens", value=tokenizer_json(special_names=HF_NAMES)["added_tokens"])
    changed["post_processor"] = None
    write_json(json_folder, changed)
    assert convert(json_folder, out, "--resume") == 0
    assert json.loads((out / "tokenizer.json").read_text()) == changed
