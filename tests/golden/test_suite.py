"""The suite of golden op cases: good backends pass it, and what is wrong with others is said."""

import json
import sys

import numpy as np
import pytest

from llama_ref.errors import BadRequest, CompareError
from llama_ref.golden import suite
from llama_ref.golden.suite.compare import TOLERANCES
from llama_ref.numerics import BFLOAT16
from tests.golden import numpy_backend

EVERY_CASE = suite.cases()
FUSED = ("rounding-points", "float64")
NAMES = [name for names in suite.FUNCTIONS.values() for name in names]


def backend(**functions):
    """Return our own ops with other functions in some places."""
    return {**vars(suite.own), **functions}


def failures(implementation, ops):
    return [r for r in suite.check_ops(implementation, ops) if r.status == "fail"]


@pytest.mark.parametrize("case", EVERY_CASE, ids=str)
def test_our_own_ops_meet_every_case(case):
    """The reference passes its own suite, called as any backend is."""
    case.check(suite.own)


def test_a_fused_backend_passes_but_for_rounding_points():
    """A NumPy backend that rounds once fails nothing but the cases flagged for that."""
    results = suite.check_ops(numpy_backend, flags_off=FUSED)
    assert [r.case for r in results if r.status == "fail"] == []
    assert {r.status for r in results} == {"pass", "off"}
    assert all((r.status == "off") == bool({*FUSED} & {*r.flags}) for r in results)
    assert {r.function for r in results if r.status == "pass"} == set(NAMES)


def test_every_case_says_what_it_is_for():
    """Each case has a reason, flags that are explained, finite results and a name of its own."""
    assert len({str(case) for case in EVERY_CASE}) == len(EVERY_CASE)
    assert {flag for case in EVERY_CASE for flag in case.flags} == set(suite.FLAGS)
    assert {case.function for case in EVERY_CASE} == set(NAMES)
    assert {case.tolerance for case in EVERY_CASE} == set(TOLERANCES)
    for case in EVERY_CASE:
        assert case.why
        assert case.function in suite.FUNCTIONS[case.op]
        assert all(np.isfinite(array).all() for array in case.results.values())


def test_every_function_has_far_and_small_cases():
    """Positions from 8,192 on, single tokens, empty calls, caches and odd sizes all occur."""
    by_flag = {flag: {c.function for c in EVERY_CASE if flag in c.flags} for flag in suite.FLAGS}
    assert by_flag["long-position"] == {"rope_table"}
    assert by_flag["one-token"] >= {"linear", "rms_norm", "rope_table", "attention"}
    assert by_flag["no-token"] == {"embed", "linear"}
    assert by_flag["cache"] == {"attention"}
    assert by_flag["odd-sizes"] >= {"linear", "rms_norm", "softmax", "attention"}
    every_dtype = set(NAMES) - {"rope_frequencies", "stretched_frequencies"}
    assert by_flag["float32"] == set(NAMES)
    assert by_flag["bfloat16"] == every_dtype


def test_a_failure_says_why_the_case_exists():
    """The message has the case, the result, where it is off, the reason and what it catches."""
    wrong = backend(rope_half_split=suite.own.rope_interleaved)
    case = next(c for c in EVERY_CASE if str(c) == "rope/half-split, transformers, float32")
    with pytest.raises(CompareError) as caught:
        case.check(wrong)
    message = str(caught.value)
    assert message.startswith(f"{case}: y_TNH is wrong: off by ")
    assert "this case exists because: channel p turns with channel p + H/2" in message
    assert "classic mistakes that it catches: the other pairing" in message


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda x: x.astype(np.float64), "y is wrong: float64 where float32 is right"),
        (lambda x: suite.own.softmax(x)[None], r"y is wrong: of shape \(1, 4, 4\) where \(4, 4\)"),
        (lambda x: x * np.float32(np.nan), "y is wrong: 16 of 16 are not finite"),
        (lambda x: suite.own.softmax(x) + np.float32(1e-3), "y is wrong: off by 0.001 at"),
        (lambda x: 1 / 0, "softmax raised ZeroDivisionError: 'division by zero'"),
        (lambda x: sys.exit(0), "softmax raised SystemExit: '0'"),
        (lambda: 1, "softmax raised TypeError"),
        (lambda x: None, "y is wrong: object where float32 is right"),
        (lambda x: [[1, 2], [3]], "y does not become an array: ValueError.*to_numpy"),
    ],
    ids=["dtype", "shape", "nan", "values", "raises", "exits", "signature", "nothing", "ragged"],
)
def test_what_is_wrong_is_said(function, said):
    """Dtype, shape, values, exceptions and what is no array are told apart; none ends the run."""
    case = next(case for case in EVERY_CASE if str(case) == "softmax/float32, square")
    with pytest.raises(CompareError, match=said):
        case.check(backend(softmax=function))


def test_dtype_is_named_before_shape_and_values():
    """A result that is wrong in every respect is said to be of the wrong dtype."""
    assert suite.disagreement(np.ones(3), np.zeros(4, np.float32)).startswith("float64 where")
    assert suite.disagreement(np.ones(3), np.zeros(4)).startswith("of shape (3,) where")


def test_an_argument_changed_in_place_is_noticed():
    """An op that adds to its argument fails, though what it returns is right."""

    def swiglu(gate_TF, up_TF):
        y_TF = suite.own.swiglu(gate_TF, up_TF)
        up_TF += 1
        return y_TF

    found = failures(backend(swiglu=swiglu), ["swiglu"])
    assert {r.problem for r in found} == {"swiglu changes its argument up_TF"}
    assert len(found) == len(suite.cases(["swiglu"]))


def test_a_table_is_a_pair():
    """A rope_table that returns something other than cosine and sine is told so."""
    found = failures(backend(rope_table=lambda *args, dtype: np.ones(4)), ["rope_table"])
    assert {r.problem for r in found} == {"rope_table does not return a tuple (cos_TP, sin_TP)"}


def test_what_the_functions_are_called_with():
    """Arrays and head_dim come by position, everything else by name; dtypes are NumPy's."""
    seen = {}

    def note(name):
        def function(*args, **stated):
            seen[name] = [type(arg).__name__ for arg in args], stated
            return getattr(suite.own, name)(*args, **stated)

        return function

    suite.check_ops({name: note(name) for name in NAMES})
    arrays = {name: count for name, (count, _) in seen.items()}
    assert arrays == {
        **{name: ["ndarray"] * 2 for name in ("embed", "linear", "rms_norm", "rope_table")},
        **{name: ["ndarray"] * 3 for name in ("rope_interleaved", "rope_half_split", "attention")},
        **{name: ["ndarray"] for name in ("stretched_frequencies", "softmax")},
        "rope_frequencies": ["int"],
        "swiglu": ["ndarray"] * 2,
    }
    assert seen["attention"][1] in ({"scaling": "hf"}, {"scaling": "meta"})
    assert isinstance(seen["embed"][1]["dtype"], np.dtype)
    assert [*seen["stretched_frequencies"][1]] == [
        "factor",
        "low_freq_factor",
        "high_freq_factor",
        "original_context",
    ]


def test_missing_functions_are_counted_and_shown():
    """A backend of two functions passes with them; the other nine are named, not forgotten."""
    results = suite.check_ops({"softmax": suite.own.softmax, "swiglu": suite.own.swiglu})
    report = suite.ops_report(results)
    n_ran = len(suite.cases(["softmax", "swiglu"]))
    assert report["counts"] == {
        "pass": n_ran,
        "fail": 0,
        "missing": len(EVERY_CASE) - n_ran,
        "off": 0,
    }
    assert sorted(report["missing"]) == sorted({*NAMES} - {"softmax", "swiglu"})
    assert suite.exit_code(results) == 0
    lines = suite.ops_report_lines(results)
    assert sum("missing: no function of this name" in line for line in lines) == 9
    assert lines[-1].endswith(f"{len(EVERY_CASE) - n_ran} not run for want of 9 functions.")


@pytest.mark.parametrize(
    ("holder", "flags_off"),
    [({}, ()), (suite.own, list(suite.FLAGS)), ({"softmax": "no function"}, ())],
    ids=["no functions", "all left out", "nothing to call"],
)
def test_a_run_that_compares_nothing_is_no_pass(holder, flags_off):
    """Where no case ran the exit code is 2, and both reports say so."""
    results = suite.check_ops(holder, flags_off=flags_off)
    assert suite.exit_code(results) == 2
    assert suite.ops_report(results)["verdict"] == "nothing ran"
    assert suite.ops_report_lines(results)[-1].endswith("Nothing was compared.")


def test_one_failure_makes_the_exit_code_one():
    """A failure is 1 whatever else passes; its lines say what the case is for and what is legal."""
    results = suite.check_ops(numpy_backend, ["swiglu"])
    assert suite.exit_code(results) == 1
    assert suite.ops_report(results)["verdict"] == "fail"
    text = "\n".join(suite.ops_report_lines(results))
    assert "FAIL  swiglu                 2 of 5 passed" in text
    assert "FAIL  swiglu/bfloat16\n      y_TF is wrong: " in text
    assert "\n      this case exists because: silu is rounded, then the product is\n" in text
    assert "\n      classic mistakes that it catches: rounded once, computed in 16 bits" in text
    assert "\n      it has the flag rounding-points: " in text


def test_the_report_is_json():
    """The report holds one entry per case, in plain values."""
    report = json.loads(json.dumps(suite.ops_report(suite.check_ops(numpy_backend))))
    assert [entry["case"] for entry in report["cases"]] == [case.name for case in EVERY_CASE]
    assert set(report["cases"][0]) == {
        *("op", "function", "case", "status", "problem", "why", "catches", "flags")
    }


def test_ops_and_functions_can_be_chosen():
    """An op stands for all of its functions; a function for itself."""
    assert {c.function for c in suite.cases(["rope"])} == set(suite.FUNCTIONS["rope"])
    assert {c.function for c in suite.cases(["rope_table", "swiglu"])} == {"rope_table", "swiglu"}
    assert suite.cases([]) == []


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"ops": ["rotate"]}, "op of the suite.*found 'rotate'"),
        ({"flags_off": ["fp64"]}, "flag of the suite.*float64.*found 'fp64'"),
        ({"flags_off": "float64"}, "expected a list of names, found 'float64'"),
    ],
    ids=["op", "flag", "text"],
)
def test_unknown_names_are_refused(asked, said):
    """A misspelt op or flag is an error that lists the right ones, not a run without it."""
    with pytest.raises(BadRequest, match=said):
        suite.check_ops(suite.own, **asked)


class Boxed:
    """An array of a device that NumPy cannot look into."""

    def __init__(self, array):
        self.array = array


class BoxedBackend:
    """Functions on boxes, held by an object, with the two hooks."""

    asarray = staticmethod(Boxed)

    @staticmethod
    def to_numpy(box):
        return box.array

    @staticmethod
    def swiglu(gate, up):
        return Boxed(suite.own.swiglu(gate.array, up.array))


def test_a_backend_with_arrays_of_its_own_has_two_hooks():
    """Arrays go in by asarray and come out by to_numpy; in-place changes are seen through both."""
    assert failures(BoxedBackend(), ["swiglu"]) == []

    class Careless(BoxedBackend):
        @staticmethod
        def swiglu(gate, up):
            gate.array = suite.own.swiglu(gate.array, up.array)
            return gate

    found = failures(Careless, ["swiglu"])
    assert {r.problem for r in found} == {"swiglu changes its argument gate_TF"}


def test_hooks_that_lose_something_are_found_out():
    """Where asarray narrows float64 to float32, it is said, and the function is not blamed."""

    class Narrow(BoxedBackend):
        @staticmethod
        def asarray(array):
            return Boxed(array.astype(np.float32) if array.dtype == np.float64 else array)

    (found,) = failures(Narrow, ["swiglu"])
    assert found.flags == ["float64"]
    assert found.problem.startswith("gate_TF does not survive asarray and to_numpy: float64")
    assert {r.status for r in suite.check_ops(Narrow, ["swiglu"], ["float64"])} == {"pass", "off"}


def test_exact_means_every_bit():
    """A look-up may not be off by a step of one element, in no dtype."""
    for dtype, step in ((np.dtype(np.float32), 2.0**-23), (BFLOAT16, 2.0**-7)):
        one = np.ones(200, dtype)
        other = one.copy()
        other[7] += dtype.type(step)
        assert suite.disagreement(other, one) == ""
        assert suite.disagreement(other, one, "exact").startswith("off by ")
        assert suite.disagreement(one, one, "exact") == ""


def test_each_element_counts_where_sizes_differ():
    """A slow RoPE frequency that is a third too small would hide behind the largest one."""
    case = next(c for c in EVERY_CASE if str(c) == "rope_frequencies/H 128, float32")
    expected_P = case.results["frequency_P"]
    found_P = expected_P.copy()
    found_P[-1] *= np.float32(2 / 3)
    assert case.tolerance == "each"
    assert suite.disagreement(found_P, expected_P, "largest") == ""
    assert suite.disagreement(found_P, expected_P, "each").startswith("off by 8.18e-07 at (63,)")


def test_sixteen_bits_may_fall_on_the_other_side_now_and_then():
    """One element in a hundred may differ, by two steps: not two, and not by three."""
    expected = np.ones(150, BFLOAT16)
    step = BFLOAT16.type(2**-7)
    for index, n_steps, good in (([3], 2, True), ([3, 4], 1, False), ([3], 3, False)):
        found = expected.copy()
        found[index] += n_steps * step
        assert (suite.disagreement(found, expected) == "") == good
