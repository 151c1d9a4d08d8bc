"""Known answers: made in one pass, compared again, and a wrong layer named."""

import json
from pathlib import Path

import numpy as np
import pytest

import llama_ref as lr
from llama_ref.__main__ import main
from llama_ref.golden.answer import answer_text, differences, make_answer, read_answer
from llama_ref.golden.sketch import sketch

PUBLISHED = Path(__file__).parents[2] / "docs" / "known-answers"


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    path = tmp_path_factory.mktemp("answers") / "a.json"
    assert main(["golden", "answer", str(path), "--model", "golden-tiny"]) == 0
    return path


def test_an_answer_holds_what_the_model_computes(known):
    """Sizes and first numbers of each layer, highest logits, and a sketch that anybody can make."""
    answer = read_answer(known)
    model = lr.load("synthetic:golden-tiny")
    taps = model.trace(answer["ids"])
    assert list(answer["taps"]) == ["embed", *(f"L{i:02d}.out" for i in range(4))]
    for name, stated in answer["taps"].items():
        last = taps[name][-1].astype(np.float64)
        assert stated["rms"] == pytest.approx(np.sqrt(np.mean(last**2)), rel=1e-5)
        assert stated["first"] == pytest.approx(last[:8], abs=1e-5)
    logits = taps["logits"][-1]
    ids, highest = zip(*answer["logits"]["highest"], strict=True)
    assert list(ids) == np.argsort(-logits, kind="stable")[:16].tolist()
    assert highest == pytest.approx(logits[list(ids)], abs=1e-5)
    assert answer["logits"]["sketch"] == pytest.approx(sketch(logits), abs=1e-4)
    assert answer["peak_bytes"] > 1e7


def test_the_same_pass_again_is_the_same(known, capsys):
    """Run again, the logits have the same bits; another number of tokens is another question."""
    assert main(["golden", "answer", str(known), "--model", "golden-tiny", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["first"] is None
    assert said["same_bits"]
    assert max(said["differences"].values()) == 0
    words = ["--model", "golden-tiny", "--tokens", "4"]
    assert main(["golden", "answer", str(known), *words]) == 2
    assert "ids" in capsys.readouterr().err


def test_the_first_layer_that_differs_is_named(known, tmp_path, capsys):
    """Answers of a model with one wrong layer part at that layer, and the exit code is 1."""
    model = lr.load("synthetic:golden-tiny")
    wrong = make_answer(model, "synthetic:golden-tiny", 16)
    layer = model.weights.layers[2]
    object.__setattr__(layer, "attn_gain_D", layer.attn_gain_D * np.float32(1.1))
    found = make_answer(model, "synthetic:golden-tiny", 16)
    errors = differences(read_answer(known), found)
    assert next(tap for tap, error in errors.items() if error > 1e-3) == "L02.out"
    path = tmp_path / "wrong.json"
    wrong["taps"]["L01.out"]["rms"] *= 1.01
    path.write_text(answer_text(wrong))
    assert main(["golden", "answer", str(path), "--model", "golden-tiny"]) == 1
    assert "from L01.out on" in capsys.readouterr().out


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": 2}', '{"format": 1, "taps": [], "logits": {}}']
)
def test_a_file_that_is_no_answer_is_refused(text, tmp_path, capsys):
    """What is there and is no file of answers is neither believed nor replaced."""
    path = tmp_path / "a.json"
    path.write_text(text)
    assert main(["golden", "answer", str(path), "--model", "golden-tiny"]) == 2
    assert path.read_text() == text


def test_a_damaged_answer_agrees_with_nothing(known):
    """Numbers that are missing or not numbers count as different, never as equal."""
    answer = read_answer(known)
    for broken in ({}, {"rms": None, "first": []}, {"rms": 0, "first": [0] * 8}, "x", None):
        damaged = json.loads(json.dumps(answer))
        damaged["taps"]["L01.out"] = broken
        assert differences(damaged, answer)["L01.out"] == float("inf")


@pytest.mark.parametrize("path", sorted(PUBLISHED.glob("*.json")), ids=lambda path: path.stem)
def test_published_answers_are_of_the_model_they_name(path):
    """Each has the ids of the formula, as many layers as the blueprint, and what made it."""
    answer = read_answer(path)
    config = lr.loading.open_checkpoint(answer["model"])[1]
    assert len(answer["taps"]) == config.n_layers + 1
    assert answer["ids"] == lr.synthetic.token_ids(16, config.vocab_size).tolist()
    assert len(answer["logits"]["highest"]) == 16
    assert answer["seconds"] > 0
    assert answer["made_by"]["core"]


@pytest.mark.slow
def test_the_published_1b_answer_is_computed_again(capsys):
    """A full 1B from formula weights gives the published numbers on this machine."""
    path = PUBLISHED / "llama-3.2-1b.json"
    assert main(["golden", "answer", str(path), "--model", "synthetic:llama-3.2-1b?seed=0"]) == 0
    assert "the same" in capsys.readouterr().out


@pytest.mark.parametrize("sketch", [None, [], "x", ["a"], [None], [True]])
def test_a_file_of_answers_without_a_sketch_is_refused(known, tmp_path, capsys, sketch):
    """What cannot be compared with is said before the model runs."""
    answer = json.loads(known.read_text())
    if sketch is None:
        del answer["logits"]["sketch"]
    else:
        answer["logits"]["sketch"] = sketch
    path = tmp_path / "a.json"
    path.write_text(json.dumps(answer))
    code = main(["golden", "answer", str(path), "--model", "golden-tiny"])
    assert code == (1 if sketch == [] else 2)
    assert sketch == [] or "sketch" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["rms", "first"])
def test_every_number_of_the_logits_is_compared(known, tmp_path, key):
    """Not the sketch alone."""
    answer = json.loads(known.read_text())
    stated = answer["logits"][key]
    answer["logits"][key] = stated * 2 if key == "rms" else [0.0, *stated[1:]]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(answer))
    assert main(["golden", "answer", str(path), "--model", "golden-tiny"]) == 1


def test_what_cannot_come_out_well_is_refused_before_the_pass(known, tmp_path, capsys, monkeypatch):
    """Other tokens, a folder that is not there, a dtype: the model is not run."""
    monkeypatch.setattr("llama_ref.cli.golden_answer.make_answer", lambda *_: 1 / 0)
    model = ["--model", "golden-tiny"]
    for path, words in (
        (known, ["--tokens", "5"]),
        (tmp_path / "none" / "a.json", []),
        (tmp_path / "a.json", ["--dtype", "bfloat16"]),
    ):
        assert main(["golden", "answer", str(path), *model, *words]) == 2
        assert "expected" in capsys.readouterr().err
