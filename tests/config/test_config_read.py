"""Blueprints from folders on disk: strict JSON, stop tokens, neighbours that disagree."""

import json

import pytest

from llama_ref.config import read_hf_config, read_meta_params, to_hf_dict
from llama_ref.config.presets import preset
from llama_ref.errors import BadConfig, BadFile, LimitExceeded, LlamaRefError, Unsupported
from tests.config.published_configs import LLAMA_31_8B_INSTRUCT, PUBLISHED

PARAMS_8B = {
    "dim": 4096,
    "ffn_dim_multiplier": 1.3,
    "multiple_of": 1024,
    "n_heads": 32,
    "n_kv_heads": 8,
    "n_layers": 32,
    "norm_eps": 1e-05,
    "rope_theta": 500000.0,
    "use_scaled_rope": True,
    "vocab_size": 128256,
}


def write(folder, **files):
    """Write each `name=content` as name.json; bytes as they are, anything else as JSON."""
    for name, content in files.items():
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        (folder / f"{name}.json").write_bytes(data)
    return folder


def test_a_folder_lends_its_name(tmp_path):
    """The config is called what its folder is called, also when reached by a relative path."""
    folder = tmp_path / "my-llama"
    folder.mkdir()
    config = read_hf_config(write(folder, config=LLAMA_31_8B_INSTRUCT))
    assert config == preset("llama-3.1-8b")
    assert config.name == "my-llama"
    assert read_hf_config(f"{folder}/../my-llama/").name == "my-llama"


def test_a_meta_folder_is_read(tmp_path):
    """params.json with the tying that the tensors tell."""
    config = read_meta_params(write(tmp_path, params=PARAMS_8B), tied_embeddings=False)
    assert config == preset("llama-3.1-8b")
    assert config.name == tmp_path.name


@pytest.mark.real
def test_the_trained_stories_model_is_read(stories_folder):
    """stories260k: five layers of width 64, four key/value heads, tied, 260,032 parameters."""
    config = read_hf_config(stories_folder)
    assert config.n_params == 260_032
    assert (config.n_layers, config.d_model, config.n_kv_heads) == (5, 64, 4)
    assert (config.tied_embeddings, config.rope_theta, config.eos_ids) == (True, 1e4, (2,))


GENERATION = {"bos_token_id": 128000, "do_sample": True, "temperature": 0.6, "top_p": 0.9}


@pytest.mark.parametrize(
    ("generation", "eos_ids"),
    [
        ({"eos_token_id": [128001, 128008, 128009]}, (128001, 128008, 128009)),
        ({"eos_token_id": 128009}, (128009,)),
        ({"eos_token_id": None}, (128001,)),
        ({"eos_token_id": []}, (128001,)),
        ({}, (128001,)),
    ],
    ids=["list", "one", "null", "empty", "absent"],
)
def test_stop_tokens_of_generation_config_win(tmp_path, generation, eos_ids):
    """generation_config.json replaces the stop tokens if it names any; its sampling is ignored."""
    write(tmp_path, config=PUBLISHED["llama-3-8b"], generation_config=GENERATION | generation)
    assert read_hf_config(tmp_path).eos_ids == eos_ids


@pytest.mark.parametrize("ids", [[128256], -1, True, "</s>", [1, None], {}], ids=str)
def test_a_bad_stop_token_is_named_with_its_file(tmp_path, ids):
    """B4-71: an id out of range is an error of generation_config.json, not of config.json."""
    write(tmp_path, config=LLAMA_31_8B_INSTRUCT, generation_config={"eos_token_id": ids})
    with pytest.raises(BadConfig, match=r"generation_config\.json: eos_token_id: "):
        read_hf_config(tmp_path)


def test_a_damaged_generation_config_is_not_skipped(tmp_path):
    """A file that is there but cannot be read is an error, also where it is optional."""
    write(tmp_path, config=LLAMA_31_8B_INSTRUCT, generation_config=b"{")
    with pytest.raises(BadFile, match=r"generation_config\.json: not JSON"):
        read_hf_config(tmp_path)
    (tmp_path / "generation_config.json").unlink()
    (tmp_path / "generation_config.json").symlink_to(tmp_path / "absent")
    with pytest.raises(BadFile, match=r"generation_config\.json: cannot be opened"):
        read_hf_config(tmp_path)


GOOD = json.dumps(LLAMA_31_8B_INSTRUCT)


@pytest.mark.parametrize(
    ("document", "error", "message"),
    [
        pytest.param(
            GOOD[:-1].encode() + b', "hidden_size": 8192}',
            BadFile,
            "written twice.*'hidden_size'",
            id="B4-72 duplicate key",
        ),
        pytest.param(b"\xef\xbb\xbf" + GOOD.encode(), BadFile, "byte-order", id="B4-73 BOM"),
        pytest.param(GOOD.encode("utf-16"), BadFile, "UTF-16", id="B4-73 UTF-16"),
        pytest.param(b"// llama\n" + GOOD.encode(), BadFile, "not JSON", id="B4-73 comment"),
        pytest.param(b"", BadFile, "empty", id="B4-73 empty"),
        pytest.param(b"[]", BadConfig, "JSON object", id="B4-73 list"),
        pytest.param(b"null", BadConfig, "JSON object", id="B4-73 null"),
        pytest.param(b"a: !!python/object/apply:os.system [x]", BadFile, "", id="B4-73 YAML"),
        pytest.param(b"version https://git-lfs.github.com/spec", BadFile, "LFS", id="B4-73 LFS"),
        pytest.param(b"<html></html>", BadFile, "HTML", id="B4-73 HTML"),
        pytest.param(b'{"a":' * 100 + b"1" + b"}" * 100, LimitExceeded, "", id="B4-73 nested"),
        pytest.param(b'{"a":' * 10**5, LlamaRefError, "", id="B4-73 100,000 levels"),
        pytest.param(
            GOOD.replace("4096", "1" * 10_000).encode(),
            LimitExceeded,
            "JSON number",
            id="B4-73 10,000 digits",
        ),
        pytest.param(GOOD.replace("1e-05", "NaN").encode(), BadFile, "NaN", id="B4-63 NaN"),
        pytest.param(
            GOOD.replace("500000.0", "1e999").encode(), BadFile, "1e999", id="B4-64 1e999"
        ),
        pytest.param(b" " * 10**6 + b"{}", LimitExceeded, "file size", id="B4 above 1 MB"),
    ],
)
@pytest.mark.parametrize("name", ["config", "params"])
def test_a_damaged_document_is_refused(tmp_path, name, document, error, message):
    """Neither reader guesses at a document that is not strict JSON of bounded size."""
    write(tmp_path, **{name: document})
    with pytest.raises(error, match=rf"(?s)/{name}\.json: .*{message}"):
        if name == "config":
            read_hf_config(tmp_path)
        else:
            read_meta_params(tmp_path, tied_embeddings=False)


@pytest.mark.parametrize("folder", ["absent", "a\0b", "x" * 5000])
def test_an_absent_folder_is_an_error_of_ours(tmp_path, folder):
    """A folder that is not there, or cannot be, is a BadFile."""
    with pytest.raises(BadFile, match="cannot be opened"):
        read_hf_config(tmp_path / folder)
    with pytest.raises(BadFile, match="cannot be opened"):
        read_meta_params(tmp_path / folder, tied_embeddings=False)


def test_neighbours_that_agree_are_fine(tmp_path):
    """Both kinds of file for one model may lie side by side."""
    write(tmp_path, config=LLAMA_31_8B_INSTRUCT, params=PARAMS_8B)
    assert read_hf_config(tmp_path) == read_meta_params(tmp_path, tied_embeddings=False)


@pytest.mark.parametrize(
    ("change", "thing"),
    [
        ({"n_layers": 33, "rope_scaling_factor": 8.0}, "n_layers"),
        ({"rope_scaling_factor": 32.0}, "rope_scaling"),
        ({"norm_eps": 1e-6}, "norm_eps"),
        ({"use_scaled_rope": False}, "rope_scaling"),
    ],
    ids=str,
)
def test_neighbours_that_disagree_are_refused(tmp_path, change, thing):
    """B4-75: of two different blueprints in one folder, neither is chosen."""
    write(tmp_path, config=LLAMA_31_8B_INSTRUCT, params=PARAMS_8B | change)
    with pytest.raises(BadConfig, match=rf"params\.json: {thing}: .*as config\.json says"):
        read_hf_config(tmp_path)
    with pytest.raises(BadConfig, match=rf"config\.json: {thing}: .*as params\.json says"):
        read_meta_params(tmp_path, tied_embeddings=False)


def test_a_neighbour_that_cannot_be_read_is_warned_about(tmp_path):
    """Meta's own file for Llama 2 has vocab_size -1: it is not used, and that is said."""
    write(tmp_path, config=LLAMA_31_8B_INSTRUCT, params=PARAMS_8B | {"vocab_size": -1})
    with pytest.warns(UserWarning, match=r"config\.json is used, not its neighbour: .*vocab_size"):
        assert read_hf_config(tmp_path) == preset("llama-3.1-8b")


def test_a_folder_of_another_model_is_unsupported(tmp_path):
    """B4-69: a Mistral's config.json is well formed, and refused by its model type."""
    write(tmp_path, config=LLAMA_31_8B_INSTRUCT | {"model_type": "mistral", "sliding_window": 4096})
    with pytest.raises(Unsupported, match=r"config\.json: model_type: .*found 'mistral'"):
        read_hf_config(tmp_path)


def test_what_is_written_can_be_read_from_disk(tmp_path):
    """A folder with to_hf_dict as its config.json is that blueprint."""
    config = preset("golden-tiny")
    assert read_hf_config(write(tmp_path, config=to_hf_dict(config))) == config
