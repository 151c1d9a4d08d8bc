"""No false alarm: llama.cpp passes, with matrices in float32 and bfloat16 and with either cache."""

import pytest

from llama_ref.checkpoint.write import write_safetensors
from llama_ref.golden import check
from llama_ref.golden.taps import kind_of
from weights_tools.validate_golden import run_bundle
from weights_tools.validate_peers import llama_cpp_peers

PEERS = {peer.name: peer for peer in llama_cpp_peers()}


def dump_of(name, bundle, folders, folder):
    write_safetensors(folder / "taps.safetensors", run_bundle(PEERS[name], bundle, folders))
    return folder / "taps.safetensors"


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", PEERS)
def test_llama_cpp_passes(name, seed, golden, tmp_path):
    """Every tap of seven shapes is there and passes in the class of its matrices and cache."""
    bundle, folders = golden(seed)
    report = check(bundle, dump_of(name, bundle, folders, tmp_path), dtype=PEERS[name].precision)
    assert [row for row in report.rows if row.status not in ("pass", "warn")] == []
    assert report.exit_code == 0
    assert len(report.rows) == sum(len(bundle.taps(case)) for case in bundle.cases)


def test_a_float16_cache_is_no_float32(golden, tmp_path):
    """Judged as float32, the default cache fails where keys and values are read, and only there."""
    bundle, folders = golden(0)
    path = dump_of("llama.cpp, float32 matrices, float16 cache", bundle, folders, tmp_path)
    report = check(bundle, path, dtype="float32")
    assert report.exit_code == 1
    own = {kind_of(row.tap) for row in report.rows if row.status == "fail"}
    assert own == {"scores", "ctx"}
