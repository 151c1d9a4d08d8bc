"""Bundles of several ranks: what each adds to a sum is golden, and whose part is wrong is said."""

import json

import numpy as np
import pytest

import llama_ref
from llama_ref.errors import BadFile, BadRequest
from llama_ref.golden import make
from llama_ref.golden.manifest_reading import parse_manifest
from llama_ref.golden.styles import PRECISIONS
from llama_ref.ranks import trace_ranks
from llama_ref.trace import tap_names
from tests.golden.conftest import TWO_LAYERS
from tests.golden.ported import checked, ported, row_of

CASES = ["five", "decode"]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """Bundles of two layers, by the number of ranks that they are cut over."""
    folder = tmp_path_factory.mktemp("ranks")
    return {n: make(TWO_LAYERS, folder / str(n), cases=CASES, n_ranks=n) for n in (2, 4)}


def test_parts_are_those_of_the_emulated_ranks(bundles):
    """In float64 every tap is what `trace_ranks` computes, and the parts are among them."""
    model = llama_ref.load(TWO_LAYERS, dtype="float64")
    for case in bundles[2].cases:
        assert bundles[2].taps(case) == tap_names(2, 2)
        traced = trace_ranks(model, case.ids, 2, case.positions)
        for tap in set(bundles[2].taps(case)) & set(traced):
            truth = bundles[2].truth(case, tap)
            assert np.allclose(truth, traced[tap], rtol=0, atol=1e-12 * np.abs(truth).max()), tap
        assert {"L01.attn_out.rank1", "L00.ffn_out.rank0"} <= set(traced)


@pytest.mark.parametrize("n_ranks", [2, 4])
def test_each_part_has_an_envelope(bundles, n_ranks):
    """It has numbers in every precision, and coarser ones allow more."""
    parts = [tap for tap in tap_names(2, n_ranks) if ".rank" in tap]
    assert len(parts) == 4 * n_ranks
    for case in bundles[n_ranks].cases:
        for tap in parts:
            at_op = bundles[n_ranks].envelope(case, tap)[:, 0, 0, 0]
            sizes = [at_op[PRECISIONS.index(p)] for p in ("float32", "float16", "bfloat16")]
            assert 0 < sizes[0] < sizes[1] < sizes[2]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("n_ranks", [2, 4])
def test_a_port_of_several_ranks_is_right(bundles, tmp_path, n_ranks, dtype):
    """A port that rounds each part and each sum passes at every tap, and every part is judged."""
    report = checked(bundles[n_ranks], ported(bundles[n_ranks], None, dtype), tmp_path, dtype=dtype)
    assert (report.verdict, report.unmatched, report.absent) == ("pass", [], {})
    assert sum(".rank" in row.tap for row in report.rows) == 4 * n_ranks * len(CASES)
    assert max(row.local.rho for row in report.rows) < 2


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_emulated_ranks_are_right(bundles, tmp_path, dtype):
    """What `trace_ranks` hands out passes as it is, but for the heads of single ranks."""
    model = llama_ref.load(TWO_LAYERS, dtype=dtype)
    dump = {
        f"{case.name}/{tap}": array
        for case in bundles[2].cases
        for tap, array in trace_ranks(model, case.ids, 2, case.positions).items()
    }
    report = checked(bundles[2], dump, tmp_path)
    assert report.verdict == "pass"
    refused = {tensor.reason for tensor in report.unmatched}
    assert all("of one rank are no tap; put those of all side by side" in why for why in refused)
    assert len(report.unmatched) == 2 * (2 * 11 + 1) * len(CASES)


def test_a_port_of_one_rank_is_right_too(bundles, tmp_path):
    """Who has no parts is checked by the rest; the parts are named as not dumped."""
    whole = make(TWO_LAYERS, tmp_path / "whole", cases=CASES)
    report = checked(bundles[4], ported(whole), tmp_path)
    assert report.verdict == "pass"
    assert all(".rank" in tap for taps in report.absent.values() for tap in taps)


def test_the_rank_whose_part_is_wrong_is_named(bundles, tmp_path):
    """Of one rank that lost a channel, its part is the first wrong tap; those of others pass."""
    dump = ported(bundles[4])
    lost = dump["decode/L01.attn_out.rank2"].copy()
    lost[:, 7] = 0
    dump["decode/L01.attn_out"] = (
        dump["decode/L01.attn_out"] - dump["decode/L01.attn_out.rank2"] + lost
    )
    dump["decode/L01.attn_out.rank2"] = lost
    report = checked(bundles[4], dump, tmp_path)
    assert report.first == ("decode", "L01.attn_out.rank2")
    assert all(
        row_of(report, "decode", f"L01.attn_out.rank{rank}").status == "pass" for rank in (0, 1, 3)
    )


@pytest.mark.parametrize(
    ("mistake", "tap"),
    [
        ("all-reduce-missing", "L00.attn_out"),
        ("all-reduce-twice", "L00.attn_out"),
        ("output-columns-of-other-rank", "L00.attn_out.rank0"),
        ("output-weight-transposed", "L00.attn_out.rank0"),
        ("residual-of-every-rank", "L00.ffn_inp"),
    ],
)
@pytest.mark.parametrize("n_ranks", [2, 4])
def test_mistakes_of_ranks_are_told_from_those_of_sums(bundles, tmp_path, n_ranks, mistake, tap):
    """Where parts are right and their sum is not, the sum is at fault; the cause is named."""
    report = checked(bundles[n_ranks], ported(bundles[n_ranks], mistake), tmp_path)
    assert (report.first[1], report.cause.id) == (tap, mistake)
    assert report.confidence == "certain"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("five/L00.attn_out.rank4", "the case has 4 ranks, numbered from 0"),
        ("five/L00.q.rank0", "put those of all side by side, as L00.q"),
        ("five/L02.attn_out.rank0", "the model has 2 layers"),
        ("five/L00.attn.rank0", "no naming scheme knows its name"),
        ("five/L00.attn_out.rankx", "no naming scheme knows its name"),
    ],
)
def test_a_part_that_cannot_be_is_refused(bundles, tmp_path, name, reason):
    """A rank or a tap that is not there is listed with the reason."""
    dump = {"five/L00.attn_out": np.ones((5, 256), np.float32), name: np.ones((5, 256), np.float32)}
    report = checked(bundles[4], dump, tmp_path)
    assert [tensor.name for tensor in report.unmatched] == [name]
    assert reason in report.unmatched[0].reason


def test_parts_need_a_bundle_that_is_cut(tmp_path):
    """Against a bundle of one rank they are listed, with how to make one of several."""
    bundle = make(TWO_LAYERS, tmp_path / "b", cases=["two"])
    whole = np.ones((2, 256), np.float32)
    report = checked(bundle, {"L00.attn_out": whole, "L00.attn_out.rank0": whole}, tmp_path)
    assert "golden make --ranks" in report.unmatched[0].reason


@pytest.mark.parametrize("n_ranks", [0, -1, 3, 16])
def test_ranks_must_divide_heads_and_channels(tmp_path, n_ranks):
    """Nothing is made over a number of ranks that does not."""
    with pytest.raises(BadRequest, match="number of ranks: expected a divisor of 8 heads"):
        make(TWO_LAYERS, tmp_path / "b", cases=["two"], n_ranks=n_ranks)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("n_ranks", [0, 3, 2**40, "2", None, 2.0])
def test_a_manifest_with_impossible_ranks_is_refused(bundles, n_ranks):
    """So it is where the number is none."""
    file = bundles[2].path / "manifest.json"
    manifest = json.loads(file.read_text("utf-8"))
    manifest["cases"][0]["n_ranks"] = n_ranks
    with pytest.raises(BadFile, match=r"n_ranks|ranks that its heads"):
        parse_manifest(manifest, file)


def test_a_manifest_that_says_nothing_of_ranks_is_of_one(bundles):
    """As those were that were written before there were any."""
    manifest = json.loads((bundles[2].path / "manifest.json").read_text("utf-8"))
    del manifest["cases"][0]["n_ranks"]
    assert [case.n_ranks for case in parse_manifest(manifest, "m").cases] == [1, 2]


def test_more_ranks_than_anybody_has_are_refused(bundles):
    """A manifest whose model has heads enough for a million ranks costs no memory."""
    file = bundles[2].path / "manifest.json"
    manifest = json.loads(file.read_text("utf-8"))
    config = manifest["models"]["main"]["config"]
    config |= dict.fromkeys(("d_model", "n_heads", "d_ff"), 2**16) | {
        "n_kv_heads": 1,
        "head_dim": 2,
    }
    manifest["cases"] = manifest["cases"][:1]
    manifest["cases"][0] |= {"n_ranks": 2**16}
    with pytest.raises(BadFile, match="ranks that its heads"):
        parse_manifest(manifest, file)
