"""`llama-ref bench` on a small checkpoint: real processes, real clocks, figures that add up."""

import json

import pytest

from llama_ref.__main__ import main
from llama_ref.bench.limits import PRODUCT_FLOPS, READ_BYTES, limits
from llama_ref.bench.race import Turn, ratio
from llama_ref.cli.demo_checkpoint import write_demo
from llama_ref.config import preset


@pytest.fixture
def folder(tmp_path):
    write_demo(tmp_path / "demo")
    return tmp_path / "demo"


def test_every_figure_is_there_and_positive(folder, capsys, monkeypatch):
    """One short round gives all figures, and no process it starts runs what lies in the folder."""
    (folder / "argparse.py").write_text("raise SystemExit('ran a stranger')", encoding="utf-8")
    (folder / "numpy.py").write_text("raise SystemExit('ran a stranger')", encoding="utf-8")
    monkeypatch.chdir(folder)
    words = ["--prompt", "8", "--decode", "2", "--rounds", "1", "--threads", "1", "--json"]
    assert main(["bench", str(folder), *words]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["startup"]["import_seconds"] > 0
    assert 0 < figures["startup"]["open_seconds"] < 10
    for part in ("limit_tokens_per_second", "bytes_per_second", "flops_per_second"):
        values = figures[part].values() if isinstance(figures[part], dict) else [figures[part]]
        assert all(value > 0 for value in values)
    assert set(figures["tokens_per_second"]) == {"llama_ref"}
    assert 0 < figures["fraction_of_limit"]["llama_ref"]["decode"] < 1
    assert figures["ratio_to"] == {}
    assert figures["formula"]["elements_per_second"] > 0
    assert figures["formula"]["fraction_of_limit"] > 0


def test_packed_requests_are_measured_beside_one_alone(folder, capsys):
    """Each number of requests has the speed of all together and the ratio to one in its round."""
    words = ["--prompt", "8", "--decode", "4", "--rounds", "1", "--threads", "1"]
    assert main(["bench", str(folder), "--packed", "1,8", *words, "--json"]) == 0
    one, eight = json.loads(capsys.readouterr().out)["packed"]
    assert (one["n_requests"], eight["n_requests"]) == (1, 8)
    assert one["tokens_per_second"] > 0
    assert eight["ratio_to_one"] > 0
    assert main(["bench", str(folder), "--packed", "8,many", *words]) == 2
    assert "many" in capsys.readouterr().err


def test_contexts_are_measured_one_by_one(folder, capsys):
    """Each length has the time of a token, in attention and besides, and its memory."""
    words = ["--prompt", "8", "--decode", "2", "--rounds", "1", "--threads", "1"]
    assert main(["bench", str(folder), "--context", "16,600", *words]) == 0
    assert "600" in capsys.readouterr().out
    assert main(["bench", str(folder), "--context", "16,600", *words, "--json"]) == 0
    contexts = json.loads(capsys.readouterr().out)["context"]
    assert [each["n_tokens"] for each in contexts] == [16, 600]
    for each in contexts:
        assert each["attention_seconds"] > 0
        assert each["other_seconds"] > 0
    assert main(["bench", str(folder), "--context", "0", *words]) == 2
    assert "--context" in capsys.readouterr().err


def test_streaming_is_measured_beside_plain_reading(folder, capsys):
    """A cold pass within a budget has its speed, its ratio to reading alone, and its memory."""
    words = ["--prompt", "8", "--decode", "2", "--rounds", "1", "--threads", "1"]
    assert main(["bench", str(folder), "--stream", "100MB", *words, "--json"]) == 0
    stream = json.loads(capsys.readouterr().out)["stream"]
    assert stream["bytes_per_second"] > 0
    assert stream["ratio_to_plain"] > 0
    assert 1e7 < stream["peak_bytes"] < 1e9
    assert main(["bench", str(folder), "--stream", "little", *words]) == 2
    assert "memory" in capsys.readouterr().err


@pytest.mark.real
def test_encoding_is_measured_beside_the_bare_engine(folder, capsys, llama3_ranks_file):
    """With a tokenizer, its speed and its ratio to tiktoken's are among the figures."""
    words = ["--prompt", "8", "--decode", "2", "--rounds", "1", "--threads", "1", "--json"]
    assert main(["bench", str(folder), "--tokenizer", str(llama3_ranks_file), *words]) == 0
    encoding = json.loads(capsys.readouterr().out)["encoding"]
    assert encoding["bytes_per_second"] > 1e5
    assert 0.2 < encoding["ratio_to_tiktoken"] < 2


@pytest.mark.real
def test_encoding_of_another_engine_is_refused(folder, capsys, stories_folder):
    """A sentencepiece tokenizer has no bare tiktoken to be compared with."""
    words = ["--prompt", "8", "--decode", "2", "--rounds", "1", "--threads", "1"]
    assert main(["bench", str(folder), "--tokenizer", str(stories_folder), *words]) == 2
    assert "one of Llama 3" in capsys.readouterr().err


def test_page_fits_eighty_columns(folder, capsys):
    """The printed page names the limit and stays within a terminal."""
    words = ["--prompt", "8", "--decode", "2", "--rounds", "1", "--threads", "1"]
    assert main(["bench", str(folder), *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.strip().startswith("limit") for line in lines)
    assert max(map(len, lines)) <= 80


def test_unknown_peers_are_refused(folder, capsys):
    """A peer that does not exist is named before anything is measured."""
    assert main(["bench", str(folder), "--peers", "candle"]) == 2
    assert "candle" in capsys.readouterr().err


def test_a_contestant_that_cannot_start_is_an_error_with_its_last_words(folder, capsys):
    """A path that is no checkpoint ends the race with the reason, not with a hang."""
    (folder / "config.json").unlink()
    assert main(["bench", str(folder), "--rounds", "1"]) == 2
    assert "config.json" in capsys.readouterr().err


def test_ratio_is_the_median_over_turns():
    """Each turn is compared with the other's turn of the same round."""
    ours = [Turn(10, 1), Turn(30, 1), Turn(20, 1)]
    theirs = [Turn(10, 2), Turn(10, 2), Turn(10, 2)]
    assert ratio(ours, theirs, "prefill") == 2
    assert ratio(ours, theirs, "decode") == 0.5


def test_limits_follow_from_the_published_sizes():
    """A 1B model of 4.94 GB, at 27 GB/s, can decode no more than 5.46 tokens a second."""
    factor = limits(preset("llama-3.2-1b"), 128)["decode"]  # tokens per unit read
    assert factor * 27e9 / READ_BYTES == pytest.approx(27 / 4.943, rel=1e-3)


def test_prompt_limit_counts_the_head_once():
    """128 tokens of a 1B model are 128 times its layers and attention, and one row of its head."""
    layers = 128 * 2 * 973_078_528  # weights of 16 layers
    attention = 128 * 4 * 16 * 32 * 64 * 64  # layers, heads, width; 64 positions on average
    head = 2 * 128_256 * 2048
    factor = limits(preset("llama-3.2-1b"), 128)["prefill"]
    assert PRODUCT_FLOPS / factor == pytest.approx(layers + attention + head, rel=1e-12)


def test_a_plot_needs_contexts_and_a_suffix(folder, capsys, tmp_path):
    """Nothing is measured for a picture that cannot be drawn."""
    assert main(["bench", str(folder), "--plot", str(tmp_path / "a.svg")]) == 2
    assert "--context" in capsys.readouterr().err
    assert main(["bench", str(folder), "--context", "16", "--plot", str(tmp_path / "a.txt")]) == 2
    assert "--plot" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--rounds", "0"], "--rounds: expected 1 or more"),
        (["--decode", "0"], "--decode: expected 1 or more"),
        (["--layers", "0"], "--layers: expected 1 or more"),
        (["--prompt", "8192"], "at most 8,192"),
        (["--stream", "5"], "memory: expected bytes"),
    ],
)
def test_numbers_that_measure_nothing_are_refused_at_once(capsys, words, says):
    """Before a checkpoint of five gigabytes is written, or anything is timed."""
    assert main(["bench", *words]) == 2
    assert says in capsys.readouterr().err
