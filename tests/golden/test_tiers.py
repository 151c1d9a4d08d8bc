"""What a bundle holds: the tiers, and the taps that were asked for."""

import numpy as np
import pytest

from llama_ref.__main__ import CANNOT_RUN, main
from llama_ref.checkpoint import write_safetensors
from llama_ref.errors import BadRequest
from llama_ref.golden import check, make

MODEL = "synthetic:golden-tiny?n_layers=2"


def held(bundle):
    return {tap for case in bundle.cases for tap in bundle.taps(case)}


def test_a_dump_is_the_truth_of_a_full_bundle(tmp_path):
    """A dump has every tap of a full bundle, the same numbers, and no envelope."""
    full = make(MODEL, tmp_path / "full", cases=["five"])
    dump = make(MODEL, tmp_path / "dump", cases=["five"], tier="dump")
    (case,) = dump.cases
    assert dump.taps(case) == full.taps(case) and len(dump.taps(case)) == 2 * 17 + 3
    for tap in dump.taps(case):
        assert dump.truth(case, tap).dtype == np.float64
        scale = np.abs(full.truth(case, tap)).max()
        assert np.abs(dump.truth(case, tap) - full.truth(case, tap)).max() <= 1e-12 * scale
        assert dump.envelope(case, tap) is None


def test_nothing_is_judged_by_a_dump(tmp_path, capsys):
    """Without an envelope there is no verdict: an error that names the tiers that have one."""
    dump = make(MODEL, tmp_path / "dump", cases=["five"], tier="dump", taps=["logits"])
    (case,) = dump.cases
    write_safetensors(tmp_path / "x.safetensors", {"five/logits": dump.truth(case, "logits")})
    with pytest.raises(BadRequest, match="tier full or fingerprint"):
        check(dump, tmp_path / "x.safetensors")
    assert main(["golden", "check", str(dump.path), str(tmp_path / "x.safetensors")]) == CANNOT_RUN
    assert "envelope" in capsys.readouterr().err


@pytest.mark.parametrize("tier", ["full", "fingerprint", "dump"])
def test_only_the_taps_that_were_asked_for(tier, tmp_path):
    """Patterns choose among the taps, in every tier."""
    bundle = make(MODEL, tmp_path / "some", cases=["two"], tier=tier, taps=["L*.out", "logits"])
    assert held(bundle) == {"L00.out", "L01.out", "logits"}


def test_a_pattern_that_fits_nothing_is_refused(tmp_path):
    """A misspelled tap is an error, and nothing is written."""
    with pytest.raises(BadRequest, match=r"L\*\.output"):
        make(MODEL, tmp_path / "none", cases=["two"], taps=["L*.output"])
    assert not (tmp_path / "none").exists()
