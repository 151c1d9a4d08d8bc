"""Candidates that are wrong in ways a comparison must not miss. B14, rows 220 to 230, 239, 240."""

import json
import re

import numpy as np
import pytest

from llama_ref.__main__ import main
from llama_ref.checkpoint import write_safetensors
from llama_ref.errors import BadRequest, CompareError, LlamaRefError
from llama_ref.golden import check
from tests.golden.ported import checked, ported, row_of


@pytest.fixture(scope="module")
def right(small):
    """What a right port dumps."""
    return ported(small)


def spoilt(tensors, name, function):
    """Return a dump of which one tensor is changed, or gone."""
    found = {key: array.copy() for key, array in tensors.items()}
    found[name] = function(found[name])
    return found


def with_value(value, index=7):
    def change(array):
        array.reshape(-1)[index] = value
        return array

    return change


def test_the_right_candidate_passes(small, right, tmp_path):
    """Unspoilt, every tap of the port is within legal rounding, and nothing is left out."""
    report = checked(small, right, tmp_path)
    assert report.verdict == "pass" and report.exit_code == 0
    assert len(report.rows) == len(right) and not report.unmatched
    assert report.first is None and report.cause is None and report.absent == {}


@pytest.mark.parametrize("tap", ["embed", "L00.scores", "L01.out", "logits"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=["nan", "inf", "-inf"])
def test_220_221_no_number_in_a_candidate_is_a_finding(small, right, tmp_path, tap, value):
    """One NaN or infinity fails, and the report names the tap and the place."""
    # The element in row 3: of scores one that can be seen.
    array = right[f"five/{tap}"]
    index = np.ravel_multi_index((2, 3, 1) if tap == "L00.scores" else (3, 5), array.shape)
    report = checked(small, spoilt(right, f"five/{tap}", with_value(value, index)), tmp_path)
    assert report.verdict == "fail" and report.exit_code == 1
    assert report.first == ("five", tap)
    row = row_of(report, "five", tap)
    assert row.local.rho == np.inf
    assert row.worst_index == np.unravel_index(index, array.shape)
    assert re.search("not a number,? or infinite", report.explanation)


@pytest.mark.parametrize("tap", ["L00.q", "L00.scores", "L00.probs", "L01.out", "logits"])
@pytest.mark.parametrize(("dtype", "value"), [("float32", 3e38), ("float64", 1e300)])
def test_221_numbers_that_overflow_when_squared_are_a_finding(
    small, right, tmp_path, tap, dtype, value
):
    """Whole taps near the end of their range fail like any other, and without a warning."""
    found = right | {f"five/{tap}": np.full_like(right[f"five/{tap}"], value, dtype=dtype)}
    report = checked(small, found, tmp_path, dtype="float32")
    assert report.verdict == "fail" and report.first == ("five", tap)


def test_220_nothing_but_nan_is_a_finding(small, right, tmp_path):
    """A dump in which nothing is a number fails at its first tap."""
    nothing = {name: np.full_like(array, np.nan) for name, array in right.items()}
    report = checked(small, nothing, tmp_path)
    assert report.verdict == "fail" and report.first[1] == "embed"


def test_220_nan_behind_a_right_step_is_found_where_it_begins(small, right, tmp_path):
    """What follows from NaN is NaN in a right port as well; only the step that made it is wrong."""
    names = list(right)
    first = names.index("five/L00.ffn_out")
    spread = {
        name: np.full_like(array, np.nan)
        if name.startswith("five/") and names.index(name) >= first
        else array
        for name, array in right.items()
    }
    assert checked(small, spread, tmp_path).first == ("five", "L00.ffn_out")


def test_220_scores_that_nobody_sees_may_be_anything(small, right, tmp_path):
    """Above the diagonal minus infinity, NaN or garbage are all legal."""
    for value in (-np.inf, np.nan, 1e30):
        found = dict(right)
        for name, array in right.items():
            if name.endswith("scores"):
                hidden = np.triu(np.ones(array.shape[1:], bool), 1)
                found[name] = np.where(hidden, np.float32(value), array)
        assert checked(small, found, tmp_path).verdict == "pass"


def test_240_a_report_with_nan_is_valid_json(small, right, tmp_path, capsys):
    """What is infinite or not a number is a string or null in the JSON report; the code is 1."""
    path = tmp_path / "nan.safetensors"
    write_safetensors(path, spoilt(right, "five/L00.q", with_value(np.nan)))
    assert main(["golden", "check", str(small.path), str(path), "--json"]) == 1

    def refuse(name):
        raise AssertionError(name)

    found = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert found["first"] == "five/L00.q"
    (row,) = [row for row in found["taps"] if (row["case"], row["tap"]) == ("five", "L00.q")]
    assert row["local_rho"] == "inf" and row["status"] == "fail"


def test_222_absent_and_unknown_tensors_are_listed(small, right, tmp_path):
    """What is missing, and what nobody knows, is named; what is there is judged all the same."""
    found = {name: a for name, a in right.items() if name != "five/L01.act"}
    found["five/L07.act"] = right["five/L01.act"]
    found["five/activation"] = right["five/L01.act"]
    report = checked(small, found, tmp_path)
    assert report.absent == {"five": ["L01.act"]}
    assert {one.name for one in report.unmatched} == {"five/L07.act", "five/activation"}
    assert len(report.rows) == len(right) - 1


SHAPES = {
    "one row": lambda a: a[:1],
    "one column": lambda a: a[:, :1],
    "scalar": lambda a: np.array(a[0, 0]),
    "too long": lambda a: np.concatenate([a, a, a]),
    "no rows": lambda a: a[:0],
}


@pytest.mark.parametrize("name", SHAPES)
def test_223_a_shape_that_would_broadcast_is_not_compared(small, right, tmp_path, name):
    """Where the shape is not the tap's, the tensor is listed, or judged as the rows it has."""
    found = spoilt(right, "five/L00.out", SHAPES[name])
    report = checked(small, found, tmp_path)
    unmatched = [one for one in report.unmatched if one.name == "five/L00.out"]
    rows = [row for row in report.rows if (row.case, row.tap) == ("five", "L00.out")]
    assert len(unmatched) + len(rows) == 1
    if name == "one row":  # as the last row of five, which it is not
        assert rows[0].status == "fail"
    else:
        assert unmatched


@pytest.mark.parametrize("dtype", ["int64", "uint8", "bool", "int8"])
def test_224_226_integers_are_no_activations(small, right, tmp_path, dtype):
    """Integers are not cast to float and compared: they are listed as unmatched."""
    report = checked(small, spoilt(right, "five/logits", lambda a: a.astype(dtype)), tmp_path)
    assert [one.name for one in report.unmatched] == ["five/logits"]


def write_nothing(folder):
    write_safetensors(folder / "c.safetensors", {})


def write_strangers(folder):
    write_safetensors(folder / "c.safetensors", {"weights.1": np.ones((3, 3), np.float32)})


def write_empty_tensors(folder):
    write_safetensors(folder / "c.safetensors", {"five/logits": np.ones((0, 1024), np.float32)})


def write_text(folder):
    (folder / "c.safetensors").write_text("logits")


def write_folder(folder):
    (folder / "c.safetensors").mkdir()


CANDIDATES = [write_nothing, write_strangers, write_empty_tensors, write_text, write_folder]


@pytest.mark.parametrize("write", [*CANDIDATES, None], ids=lambda f: f.__name__ if f else "absent")
def test_225_239_nothing_compared_is_an_error(small, tmp_path, capsys, write):
    """A dump that is empty, foreign or not there is no pass and no finding: the code is 2."""
    if write:
        write(tmp_path)
    path = tmp_path / "c.safetensors"
    with pytest.raises(LlamaRefError):
        check(small, path)
    assert main(["golden", "check", str(small.path), str(path)]) == 2
    output, errors = capsys.readouterr()
    assert output == "" and errors.startswith("llama-ref: ") and errors.count("\n") == 1


def test_225_taps_that_a_fingerprint_has_not_got_are_nothing(fingerprint, tmp_path):
    """A dump of taps of which the bundle has nothing is an error, not a pass."""
    gates = ported(fingerprint, keep=lambda case, tap: tap.endswith("gate"))
    assert len(gates) == 4
    with pytest.raises(CompareError, match="found none"):
        checked(fingerprint, gates, tmp_path)


def test_227_one_value_that_is_far_off_is_found(small, right, tmp_path):
    """A single element off by ten in a thousand is found by its size, not lost in a mean."""
    array = right["five/L01.gate"]
    off = with_value(array.reshape(-1)[100] + 1e-3, 100)
    report = checked(small, spoilt(right, "five/L01.gate", off), tmp_path)
    assert report.first == ("five", "L01.gate")
    row = row_of(report, "five", "L01.gate")
    assert row.worst_index == np.unravel_index(100, array.shape)
    assert row.local.largest > row.local.token > row.local.whole


COARSE = {
    "a constant shift": lambda a: a + np.float32(0.5),
    "a scale": lambda a: a * np.float32(1.05),
    "two rows swapped": lambda a: a[[0, 2, 1, 3, 4]],
    "all signs flipped": lambda a: -a,
    "two columns swapped": lambda a: np.concatenate([a[:, 1:2], a[:, :1], a[:, 2:]], axis=1),
}


@pytest.mark.parametrize("name", COARSE)
def test_228_what_a_cosine_or_a_softmax_forgives_is_found(small, right, tmp_path, name):
    """Shifted, scaled, reordered or negated logits fail, whatever stays alike about them."""
    report = checked(small, spoilt(right, "five/logits", COARSE[name]), tmp_path)
    assert report.first == ("five", "logits") and report.verdict == "fail"


def test_229_zeros_of_either_sign_are_equal(small, right, tmp_path):
    """A probability of -0 is a probability of 0."""
    found = {
        name: np.where(array == 0, np.float32(-0.0), array) if name.endswith("probs") else array
        for name, array in right.items()
    }
    assert np.signbit(found["five/L00.probs"]).any()
    assert checked(small, found, tmp_path).verdict == "pass"


@pytest.mark.parametrize("dtype", ["fp8", "-1", "nan", "float64", ""])
def test_230_a_tolerance_cannot_be_invented(small, right, tmp_path, dtype):
    """There is no tolerance to pass: a class is one of five, and each has its envelope."""
    with pytest.raises(BadRequest, match="dtype"):
        checked(small, right, tmp_path, dtype=dtype)


def test_231_a_candidate_of_another_model_fails(small, tmp_path, right):
    """The taps of other weights are wrong from the first one on."""
    other = {name: np.roll(array, 1, axis=-1) for name, array in right.items()}
    report = checked(small, other, tmp_path)
    assert report.first[1] == "embed"
    assert "dumper" in report.explanation


def test_float64_is_judged_as_float32(small, right, tmp_path):
    """A dump that is wider than it need be passes: nothing is finer than the strictest class."""
    wide = {name: array.astype(np.float64) for name, array in right.items()}
    report = checked(small, wide, tmp_path)
    assert (report.verdict, report.precision) == ("pass", "float32")


def test_a_coarser_port_fails_as_a_finer_one(small, tmp_path):
    """A bfloat16 port passes as what it is; as float32 it fails, since nobody said so."""
    tensors = ported(small, dtype="bfloat16")
    assert checked(small, tensors, tmp_path).precision == "bfloat16"
    assert checked(small, tensors, tmp_path).verdict == "pass"
    assert checked(small, tensors, tmp_path, dtype="float32").verdict == "fail"
