"""Files and dumps made to mislead: nothing that was not compared passes, and nothing hangs."""

import hashlib
import json
import os
import shutil
import time
import zipfile

import numpy as np
import pytest

from llama_ref.__main__ import main as llama_ref
from llama_ref.checkpoint import write_safetensors
from llama_ref.checkpoint.safetensors import open_safetensors
from llama_ref.errors import BadFile, CompareError, LimitExceeded, LlamaRefError
from llama_ref.golden import Bundle, check
from llama_ref.golden.grids import to_bfloat16
from llama_ref.golden.manifest_reading import NUMBERS_LIMIT
from llama_ref.golden.styles import PRECISIONS
from llama_ref.numerics import BFLOAT16
from tests.golden.dumps import opened, taps, write_raw, written
from tests.golden.ported import checked, ported
from tests.golden.spoiling import data_file, read_manifest, write_manifest
from weights_tools.__main__ import main as weights_tools


@pytest.fixture(scope="module")
def right(small):
    """What a right port dumps."""
    return ported(small)


@pytest.fixture(scope="module")
def printed(fingerprint):
    """What a right port dumps of a fingerprint."""
    return ported(fingerprint)


@pytest.fixture
def copied(tmp_path):
    """Copy a bundle, to be spoilt."""
    return lambda bundle: shutil.copytree(bundle.path, tmp_path / "bundle")


def without_weights(folder):
    """Make a bundle one of a checkpoint, which nobody brings: no step is replayed."""
    data = read_manifest(folder)
    for model in data["models"].values():
        model["weights"] = {"recipe": "checkpoint", "sha256": "0" * 64, "layout": "hf"}
    write_manifest(folder, data)
    return folder


def rewrite(folder, change, stem):
    """Change the arrays of a file, and state the size and hash that it has then."""
    path, data = data_file(folder, stem), read_manifest(folder)
    arrays = {name: array.copy() for name, array in open_safetensors(path).items()}
    change(arrays)
    write_safetensors(path, arrays)
    raw = path.read_bytes()
    data["files"][path.name] = {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
    write_manifest(folder, data)
    return folder


def test_some_rows_of_what_is_only_sketched_are_no_pass(copied, fingerprint, printed, tmp_path):
    """Without weights a sketch judges whole taps; garbage in the last row alone cannot be told."""
    folder = without_weights(copied(fingerprint))
    last = {name: np.full_like(array[-1:], 7) for name, array in printed.items() if "out" in name}
    with pytest.raises(CompareError, match="none that can be judged"):
        checked(folder, last, tmp_path)
    report = checked(folder, last | {"far/embed": printed["far/embed"]}, tmp_path)
    assert [row.tap for row in report.rows] == ["embed"]
    assert any("4 taps nothing can be told (far/L00.out" in note for note in report.notes)


def test_an_envelope_without_end_excuses_nothing(copied, small, right, tmp_path):
    """Where legal float16 overflows, what is 5% off is not judged, and certainly does not pass."""

    def endless(arrays):
        for name, array in arrays.items():
            if name != "five/embed":
                array[PRECISIONS.index("float16")] = np.inf

    folder = rewrite(copied(small), endless, "envelope")
    off = {name: (array * 1.05).astype(np.float16) for name, array in right.items()}
    with pytest.raises(CompareError, match="none that can be judged"):
        checked(folder, {"five/L00.q": off["five/L00.q"]}, tmp_path)


TOP = {
    "absent": lambda a: None,
    "flat": lambda a: a[:, 0],
    "of fewer tokens": lambda a: a[:3],
    "of no logit": lambda a: a[:, :0],
    "of one logit": lambda a: a[:, :1],
    "of another dtype": lambda a: a.astype(np.float32),
}


@pytest.mark.parametrize("what", ["top_ids", "top"])
@pytest.mark.parametrize("name", TOP)
def test_the_highest_logits_of_a_fingerprint_are_looked_at(copied, fingerprint, name, what):
    """Absent, or of another shape or dtype, they are an error of ours when the bundle is opened."""

    def change(arrays):
        spoilt = TOP[name](arrays.pop(f"far/logits#{what}"))
        if spoilt is not None:
            arrays[f"far/logits#{what}"] = np.ascontiguousarray(spoilt)

    with pytest.raises(BadFile, match="highest logits of 'far'"):
        Bundle(rewrite(copied(fingerprint), change, "far"))


@pytest.mark.parametrize("name", ["far/logits#top", "far/L00.out#sketch"])
def test_220_a_fingerprint_that_is_no_number_is_an_error(
    copied, fingerprint, printed, tmp_path, name
):
    """NaN in what is known of the truth is the fault of the bundle, not of the candidate."""
    folder = rewrite(copied(fingerprint), lambda arrays: arrays[name].fill(np.nan), "far")
    with pytest.raises(BadFile, match=f"truth {name}"):
        checked(folder, printed, tmp_path)


MISFITS = {
    "a row too many": lambda a: np.concatenate([a, a[:1]]),
    "a column too few": lambda a: a[:, :-1],
    "integers": lambda a: a.astype(np.int64),
    "no rows": lambda a: a[:0],
}


@pytest.mark.parametrize("name", MISFITS)
def test_a_tap_that_cannot_be_compared_is_a_finding(small, right, tmp_path, name):
    """B14-223, 224: logits that are none fail by name, though all the rest is right."""
    found = right | {"five/logits": np.ascontiguousarray(MISFITS[name](right["five/logits"]))}
    report = checked(small, found, tmp_path)
    assert (report.verdict, report.exit_code, report.first) == ("fail", 1, None)
    assert "could be compared: five/logits" in report.headline
    assert "five/logits has the name of a tap, but" in report.explanation


def test_two_tensors_of_one_tap_that_differ_are_a_finding(small, right, tmp_path):
    """Nobody can tell which one is meant, so the tap is not compared, and that is no pass."""
    found = right | {"five/model.layers.0": right["five/L00.out"] * 2}
    report = checked(small, found, tmp_path)
    assert report.verdict == "fail"
    assert {one.name for one in report.unmatched if one.is_misfit} == {
        "five/L00.out",
        "five/model.layers.0",
    }


def test_two_tensors_of_one_tap_may_be_one_widened(small, tmp_path):
    """Logits of a matrix in bfloat16 beside the same in float32 are one tap, and no finding."""
    coarse = ported(small, dtype="bfloat16")
    wide = {
        f"{case}/lm_head": coarse[f"{case}/logits"].astype(np.float32) for case in ("two", "five")
    }
    report = checked(small, coarse | wide, tmp_path)
    assert (report.verdict, report.precision) == ("pass", "bfloat16")
    assert not report.unmatched


def test_strangers_and_absent_calls_are_no_finding(small, right, tmp_path):
    """What has no tap's name, and what simply is not there, leaves the verdict to the rest."""
    found = right | {"five/buffer": np.ones((3, 3), np.float32)}
    report = checked(small, found, tmp_path)
    assert report.verdict == "pass"
    assert [one.is_misfit for one in report.unmatched] == [False]


def test_cases_that_were_not_dumped_are_named(small, right, tmp_path):
    """A dump of one case of two passes, and a note says which one it lacks."""
    found = {name: array for name, array in right.items() if name.startswith("two/")}
    report = checked(small, found, tmp_path)
    assert report.verdict == "pass"
    assert "1 of 2 cases were not dumped: five." in report.notes


@pytest.mark.parametrize("cast", [to_bfloat16, lambda a: a.astype(BFLOAT16)], ids=["grid", "dtype"])
def test_one_coarse_matrix_makes_no_coarse_port(small, right, tmp_path, cast):
    """A float32 port that rounds its queries to bfloat16 fails there: its class stays float32."""
    found = {name: cast(a) if name.endswith("L00.q") else a for name, a in right.items()}
    report = checked(small, found, tmp_path)
    assert (report.verdict, report.precision) == ("fail", "float32")
    assert report.first[1] == "L00.q"
    assert "though L00.q holds bfloat16 numbers alone" in report.notes[0]


def test_an_embedding_of_16_bits_makes_no_coarse_port(small, right, tmp_path):
    """Of a dump without matrices, table rows in bfloat16 do not decide for the rest."""
    found = {name: a for name, a in right.items() if name.endswith(("embed", ".out"))}
    found |= {n: a.astype(BFLOAT16) for n, a in found.items() if n.endswith("embed")}
    assert checked(small, found, tmp_path).precision == "float32"


def test_a_check_ends_where_the_candidate_ends(small, right, tmp_path, monkeypatch):
    """Of a dump of the embedding alone no layer is run, however deep the model is."""

    def run_layer(*_):
        raise AssertionError

    monkeypatch.setattr("llama_ref.golden.passes.run_layer", run_layer)
    found = {name: array for name, array in right.items() if name.endswith("embed")}
    assert checked(small, found, tmp_path).verdict == "pass"


def test_a_case_larger_than_any_is_refused(copied, small):
    """A manifest of a hundred thousand tokens is an error before anything is computed."""
    folder = copied(small)
    data = read_manifest(folder)
    n = 100_000
    data["cases"][0] |= {"ids": [0] * n, "positions": list(range(n)), "chunks": [n]}
    write_manifest(folder, data)
    with pytest.raises(LimitExceeded, match=f"at most {NUMBERS_LIMIT:,} numbers"):
        Bundle(folder)


def test_models_of_two_pairings_are_refused(copied, shaped):
    """Queries of a candidate can be brought into one order of channels, not into two."""
    folder = copied(shaped)
    data = read_manifest(folder)
    own = next(iter(data["models"].values()))
    own["weights"] = {"recipe": "checkpoint", "sha256": "0" * 64, "layout": "meta"}
    own["rope_pairing"] = "interleaved"
    write_manifest(folder, data)
    with pytest.raises(BadFile, match="one pairing"):
        Bundle(folder)


@pytest.mark.parametrize("kind", ["npz", "json"])
def test_more_axes_than_numpy_has_are_refused(tmp_path, kind):
    """Seventy axes of 1 in front are a batch to nobody, and an error of ours."""
    logits = taps()["logits"]
    path = written(tmp_path, {"logits": logits}, kind)
    shape = (*[1] * 70, *logits.shape)
    if kind == "json":
        described = json.loads(path.read_text())
        described["logits"]["shape"] = shape
        path.write_text(json.dumps(described))
    else:
        text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}".ljust(501) + "\n"
        head = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("logits.npy", head + logits.tobytes())
    with pytest.raises(LimitExceeded, match="at most 32 axes"):
        opened(path)


def test_an_array_whose_header_changes_before_it_is_read_is_an_error(tmp_path):
    """An archive that is written over while it is open gives no number."""
    path = written(tmp_path, {"logits": taps()["logits"]}, "npz")
    found = opened(path)
    data = path.read_bytes()
    with path.open("r+b") as file:
        file.seek(data.index(b"\x93NUMPY"))
        file.write(b"\x93NUMPX")
    with pytest.raises(BadFile, match="logits"):
        found.read("far", "logits")


def test_links_that_lead_to_themselves_are_not_read(tmp_path):
    """A loop in the folder of a dump is listed, and one in place of the dump is an error."""
    (tmp_path / "dump").mkdir()
    written(tmp_path / "dump", {"logits": taps()["logits"]})
    loop = tmp_path / "dump" / "loop"
    loop.symlink_to("loop")
    assert opened(tmp_path / "dump").notes == ["not read: loop."]
    with pytest.raises(BadFile, match="loop"):
        opened(loop)


def test_a_path_that_is_too_long_is_an_error(small, tmp_path):
    """Five thousand characters are no path of a dump and no naming scheme."""
    write_raw(tmp_path / "dump.json", {"logits": taps()["logits"]})
    for options in ({"candidate": "a" * 5000}, {"names": "a" * 5000}):
        with pytest.raises(LlamaRefError):
            check(small, **({"candidate": tmp_path / "dump.json"} | options))


HOURS = [
    "(a+)+b",
    "(a|a)*b",
    "(?P<x>a|aa)+b",
    "([a-z]|a){9,}b",
    r"(a\)|a)*b",
    "[])*]+(a|aa)*b",
    ".*" * 5 + "!",
    "a?" * 40 + "a" * 40,
    "(a|a)" * 40 + "b",
]


@pytest.mark.parametrize("pattern", HOURS)
def test_expressions_that_take_hours_are_refused(tmp_path, pattern):
    """However it is written, what multiplies the ways to match is refused before it is tried."""
    path = written(tmp_path, {"a" * 250: taps()["logits"]})
    (tmp_path / "map.json").write_text(json.dumps({pattern: "logits"}))
    start = time.perf_counter()
    with pytest.raises(BadFile, match="hours"):
        opened(path, names=tmp_path / "map.json")
    assert time.perf_counter() - start < 10


def test_expressions_of_every_day_are_read(tmp_path):
    """Four runs of characters, alternatives, sets with signs in them: none of these is refused."""
    for pattern, name, tap in (
        (r"(\w+)/step(\d+)/(\w+)_(\d+)", "run/step0/head_1", "logits"),
        (r"(?:q|k|v|o|gate|up|down|out)[(*+{]?(\d+)?", "out", "logits"),
        (r"out\(\*\)", "out(*)", "logits"),
    ):
        path = written(tmp_path, {name: taps()["logits"]})
        (tmp_path / "map.json").write_text(json.dumps({pattern: tap}))
        assert opened(path, names=tmp_path / "map.json").taps("far") == ["logits"]


def test_names_are_not_matched_without_end(tmp_path, monkeypatch):
    """A thousand slow rules on many names end after a minute, whatever each of them takes."""
    monkeypatch.setattr("llama_ref.golden.candidate.names.SECONDS_LIMIT", -1)
    path = written(tmp_path, {"out": taps()["logits"]})
    (tmp_path / "map.json").write_text(json.dumps({"out": "logits"}))
    with pytest.raises(LimitExceeded, match="names matched in"):
        opened(path, names=tmp_path / "map.json")


def test_a_report_is_written_through_no_link(small, right, tmp_path):
    """A link that waits where the report is prepared is an error, and what it leads to is kept."""
    write_safetensors(tmp_path / "right.safetensors", right)
    (tmp_path / "kept").write_text("kept")
    (tmp_path / f".report.html.{os.getpid()}").symlink_to("kept")
    words = ["check", str(small.path), str(tmp_path / "right.safetensors")]
    assert llama_ref(["golden", *words, "--html", str(tmp_path / "report.html")]) == 2
    assert (tmp_path / "kept").read_text() == "kept"
    assert not (tmp_path / "report.html").exists()


def test_weights_tools_on_a_full_disk_is_no_finding(tmp_path, monkeypatch, capsys):
    """What cannot be printed is code 2, never 1, which says that an implementation fails."""

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("weights_tools.__main__.print_json", full)
    words = ["synthetic", "golden-tiny", str(tmp_path / "out"), "--n-layers", "1", "--json"]
    assert weights_tools(words) == 2
    assert "No space left" in capsys.readouterr().err
