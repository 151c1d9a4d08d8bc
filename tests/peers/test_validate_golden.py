"""`python -m weights_tools validate`, on the CPU: the tables that anyone with a GPU can make."""

import json
import re

import numpy as np
import pytest

from llama_ref.golden import make
from llama_ref.golden.styles import STYLES
from weights_tools.__main__ import main
from weights_tools.validate_golden import run_peers
from weights_tools.validate_peers import DTYPES, Peer, transformers_peers
from weights_tools.validate_tally import Tally


def test_a_quick_run_on_the_cpu_passes(capsys):
    """Transformers passes in three dtypes and attentions; each style has its rho, left out."""
    assert main(["validate", "--device", "cpu", "--quick", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"llama_ref", "torch", "transformers", "device"} <= found["versions"].keys()
    assert [peer["implementation"] for peer in found["peers"]] == [
        f"transformers, {dtype}, {attention}"
        for dtype in DTYPES
        for attention in ("eager", "sdpa", "sdpa, math")
    ]
    for peer in found["peers"]:
        assert peer["taps"] > 100 and peer["failed"] == 0
        assert 0 < peer["cumulative"]["rho"] < 3 and 0.5 < peer["local"]["rho"] < 3
        assert re.fullmatch(r"[a-z0-9-]+/[A-Za-z0-9_.]+ seed 0", peer["local"]["where"])
    left_out = {style["implementation"]: style["local"]["rho"] for style in found["left_out"]}
    assert list(left_out) == [style.name for style in STYLES]
    assert left_out["float32, sums in a row"] > 3 > left_out["bfloat16, flash"] > 0.5


def test_an_implementation_that_is_wrong_fails(tmp_path):
    """One whose queries are doubled fails there, and is counted, with where it is worst."""
    right = next(p for p in transformers_peers("cpu") if p.name == "transformers, float32, eager")

    def doubled(folder, cases):
        taps = right.run(folder, cases)
        return taps | {name: 2 * x for name, x in taps.items() if name.endswith(".q")}

    bundle = make("golden-tiny", tmp_path / "bundle", cases=["five"])
    tallies = {name: Tally(name, "float32") for name in ("right", "wrong")}
    peers = [right._replace(name="right"), Peer("wrong", "float32", doubled)]
    run_peers(peers, bundle, tmp_path, 0, tallies)
    assert tallies["right"].n_failed == 0 < tallies["wrong"].n_failed
    assert tallies["right"].n_taps == tallies["wrong"].n_taps == len(bundle.taps(bundle.cases[0]))
    assert tallies["wrong"].local[0] > 1e6
    assert re.fullmatch(r"five/L0\d\.q(_rope)? seed 0", tallies["wrong"].local[1])


def test_an_infinite_rho_is_json():
    """What is no number is a string in JSON, and counts are left out where nothing was judged."""
    tally = Tally("mine", "float32")
    tally.add("five/L00.q", np.inf, np.nan)
    assert tally.as_dict() == {
        "implementation": "mine",
        "class": "float32",
        "local": {"rho": "inf", "where": "five/L00.q"},
        "cumulative": {"rho": 0.0, "where": ""},
    }


@pytest.mark.parametrize("device", ["cuda:99", "abacus"])
def test_a_device_that_is_not_there_is_refused(device, capsys):
    """The exit code is 2 and one line says which device it was."""
    assert main(["validate", "--device", device]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"device: expected one that torch can use here, found '{device}'" in said
