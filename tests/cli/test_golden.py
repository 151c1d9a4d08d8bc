"""`llama-ref golden`: make, show and check, their exit codes, and what they write."""

import json
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from llama_ref.__main__ import main
from llama_ref.checkpoint import write_safetensors
from llama_ref.golden import Bundle, case_names
from tests.cli.commands import on_a_terminal, start, through_pipes
from tests.golden.ported import ported

ONE_LAYER = "synthetic:golden-tiny?n_layers=1"
BACKEND = Path(__file__).parents[1] / "golden" / "numpy_backend.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A bundle made through the command line, and two candidates for it: one right, one wrong."""
    folder = tmp_path_factory.mktemp("cli")
    code = main(["golden", "make", str(folder / "b"), "--model", ONE_LAYER, "--cases", "two,five"])
    assert code == 0
    bundle = Bundle(folder / "b")
    write_safetensors(folder / "right.safetensors", ported(bundle))
    write_safetensors(folder / "wrong.safetensors", ported(bundle, "act-gelu"))
    return folder


def golden(*words):
    return main(["golden", *map(str, words)])


def test_make_says_what_it_made_and_what_to_do_next(tmp_path, capsys):
    """It ends with the size of the bundle and the command to check a dump with."""
    assert golden("make", tmp_path / "b", "--model", ONE_LAYER, "--cases", "two") == 0
    output = capsys.readouterr().out
    assert "1 cases, 20 float64 taps" in output
    assert f"llama-ref golden check {tmp_path / 'b'} YOUR_DUMP" in output


def test_make_in_json_is_the_manifest(tmp_path, capsys):
    """With --json it prints the manifest of what it made."""
    words = ["--model", ONE_LAYER, "--cases", "two", "--tier", "fingerprint", "--seed", "4"]
    assert golden("make", tmp_path / "b", *words, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["tier"] == "fingerprint" and found["path"] == str(tmp_path / "b")
    on_disk = json.loads((tmp_path / "b" / "manifest.json").read_text("utf-8"))
    assert found == {"path": found["path"], **on_disk}


def test_cases_can_be_listed_without_making_any(tmp_path, capsys):
    """--list-cases prints the names, one a line, and writes nothing."""
    assert golden("make", "--list-cases") == 0
    assert capsys.readouterr().out.splitlines() == case_names()


def test_show_explains_every_case(folder, capsys):
    """Each case has its size and its reason, each file its size, within 80 columns."""
    assert golden("show", folder / "b") == 0
    output = capsys.readouterr().out
    bundle = Bundle(folder / "b")
    words = " ".join(output.split())
    for case in bundle.cases:
        assert case.name in words and case.why in words
        assert all(mistake in words for mistake in case.catches)
    assert all(name in words for name in bundle.manifest.files) and "manifest.json" in words
    assert "synth-1" in words
    assert max(map(len, output.splitlines())) <= 100


def test_show_in_json_is_the_manifest(folder, capsys):
    """With --json a program reads what the bundle holds."""
    assert golden("show", folder / "b", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [case["name"] for case in found["cases"]] == ["two", "five"]


def test_a_strangers_bundle_does_not_colour_the_terminal(folder, tmp_path, capsys):
    """Reasons, names and versions of a foreign manifest are printed escaped."""
    shutil.copytree(folder / "b", tmp_path / "b")
    data = json.loads((tmp_path / "b" / "manifest.json").read_text("utf-8"))
    data["cases"][0] |= {"why": "\x1b[31mred", "catches": ["\x1b]0;title\x07"]}
    data["made_by"] |= {"llama_ref": "\x1b[31m", "numpy": "\r"}
    data["models"]["main"]["name"] = "\x1b[2J"
    (tmp_path / "b" / "manifest.json").write_text(json.dumps(data), encoding="utf-8")
    assert golden("show", tmp_path / "b") == 0
    output = capsys.readouterr().out
    assert all(character.isprintable() or character == "\n" for character in output)


def test_a_right_candidate_is_zero(folder, capsys):
    """Nothing wrong: PASS, code 0."""
    assert golden("check", folder / "b", folder / "right.safetensors") == 0
    output, errors = capsys.readouterr()
    assert output.startswith("PASS") and errors == ""


def test_a_wrong_candidate_is_one(folder, capsys):
    """Something wrong: FAIL, the tap, the cause, what to do; code 1, and within 80 columns."""
    assert golden("check", folder / "b", folder / "wrong.safetensors") == 1
    output, errors = capsys.readouterr()
    assert output.startswith("FAIL") and errors == ""
    assert "L00.act" in output and "act-gelu" in output
    assert max(map(len, output.splitlines())) <= 80


KEYS = {
    *("verdict", "headline", "bundle", "candidate", "precision", "first", "cause", "confidence"),
    *("residual", "runner_up", "also", "explanation", "taps", "unmatched", "absent", "notes"),
    *("logits", "seconds", "is_noise"),
}
TAP_KEYS = {
    *("case", "tap", "status", "span", "local_rho", "cumulative_rho", "local_error"),
    *("cumulative_error", "worst_index", "axes"),
}


@pytest.mark.parametrize(("candidate", "code"), [("right", 0), ("wrong", 1)])
def test_check_in_json_is_for_programs(folder, capsys, candidate, code):
    """One object with the documented keys, and every tap that was compared."""
    assert golden("check", folder / "b", folder / f"{candidate}.safetensors", "--json") == code
    found = json.loads(capsys.readouterr().out)
    assert set(found) == KEYS
    assert all(set(tap) == TAP_KEYS for tap in found["taps"])
    assert len(found["taps"]) == 2 * 20
    if code:
        assert found["verdict"] == "fail" and found["first"].endswith("/L00.act")
        assert (found["cause"], found["confidence"]) == ("act-gelu", "certain")
        assert set(found["runner_up"]) == {"cause", "title", "residual"}
    else:
        assert found["verdict"] == "pass" and found["confidence"] == "none"
        assert found["first"] is found["cause"] is found["runner_up"] is None


def test_pages_are_written_beside_the_report(folder, tmp_path, capsys):
    """--html and --junit write whole files over old ones, and leave nothing else behind."""
    page, junit = tmp_path / "r.html", tmp_path / "r.xml"
    page.write_text("old")
    words = ["--html", page, "--junit", junit]
    assert golden("check", folder / "b", folder / "wrong.safetensors", *words) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.html", "r.xml"]
    text = page.read_text("utf-8")
    assert text.lower().startswith("<!doctype html>") and "act-gelu" in text
    root = ET.parse(junit).getroot()
    assert root.tag in ("testsuites", "testsuite") and list(root.iter("failure"))
    assert "FAIL" in capsys.readouterr().out


def unwritable(tmp_path):
    (tmp_path / "folder").mkdir()
    return [tmp_path / "no" / "r.html", tmp_path / "folder", "/proc/r.html", "", "/", "."]


@pytest.mark.parametrize("option", ["--html", "--junit"])
@pytest.mark.parametrize("at", range(6))
def test_a_page_that_cannot_be_written_is_an_error(folder, tmp_path, capsys, option, at):
    """A missing folder, a folder in the place, a path that is none: code 2, in one line."""
    path = unwritable(tmp_path)[at]
    assert golden("check", folder / "b", folder / "right.safetensors", option, path) == 2
    errors = capsys.readouterr().err
    assert "cannot be written" in errors and errors.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize(
    "words",
    [
        ["check", "b"],
        ["check", "b", "right.safetensors", "more"],
        ["check", "no-such", "right.safetensors"],
        ["check", "b", "no-such.safetensors"],
        ["check", "right.safetensors", "b"],
        ["check", "b", "right.safetensors", "--dtype", "fp8"],
        ["check", "b", "right.safetensors", "--names", "keras"],
        ["check", "b", "right.safetensors", "--case", "far"],
        ["check", "b", "right.safetensors", "--weights", "b"],
        ["check", "--ops", "no_such_module"],
        ["check", "--ops", "json", "b"],
        ["show"],
        ["show", "right.safetensors"],
        ["make"],
        ["make", "b"],
        ["make", "new", "--cases", "no-such"],
        ["make", "new", "--cases", ""],
        ["make", "new", "--model", "no-such"],
        ["make", "new", "--tier", "whole"],
        ["make", "new", "--seed", "-1"],
        ["make", "new", "--seed", "1e3"],
        ["mend", "b"],
        [],
    ],
    ids=" ".join,
)
def test_what_cannot_be_done_is_two(folder, capsys, monkeypatch, words):
    """A wrong word, path or number is one line on standard error, and code 2."""
    monkeypatch.chdir(folder)
    before = sorted(folder.iterdir())
    assert golden(*words) == 2
    output, errors = capsys.readouterr()
    assert output == "" and errors.strip() and "Traceback" not in errors
    assert sorted(folder.iterdir()) == before


def test_ops_of_a_backend_are_checked(capsys):
    """--ops runs the cases of single operations; without those that round elsewhere all pass."""
    words = ["--ops", BACKEND, "--flags-off", "rounding-points,float64"]
    assert golden("check", *words) == 0
    assert golden("check", *words, "--json") == 0
    output = capsys.readouterr().out
    found = json.loads(output[output.index("{") :])
    assert found["verdict"] == "pass" and found["counts"]["fail"] == 0


def test_ops_that_round_elsewhere_are_a_finding(capsys):
    """The same backend fails the cases that ask for the rounding points of the released code."""
    assert golden("check", "--ops", BACKEND) == 1
    assert "rounding-points" in capsys.readouterr().out


def test_as_a_process_it_does_the_same(folder):
    """A real process reports through pipes, without colours, and with the code of its finding."""
    code, output, errors = through_pipes(
        "golden", "check", folder / "b", folder / "wrong.safetensors"
    )
    assert code == 1 and errors == ""
    assert output.startswith(b"FAIL") and b"\x1b" not in output


def test_on_a_terminal_the_verdict_is_coloured(folder):
    """On a terminal it is painted, and says the same."""
    code, output = on_a_terminal("golden", "check", folder / "b", folder / "right.safetensors")
    assert code == 0
    assert "\x1b[" in output and "PASS" in output


def test_whoever_stops_reading_stops_it(folder):
    """A reader that goes away ends it with its own code, and without a traceback."""
    words = ["golden", "check", folder / "b", folder / "wrong.safetensors", "--json"]
    process = start(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    errors = process.stderr.read()
    assert process.wait(timeout=60) == 141 and errors == b""
    process.stderr.close()
