"""What is not certain is listed with a reason and never guessed; what cannot be is an error."""

import json

import numpy as np
import pytest

from llama_ref.errors import (
    BadFile,
    BadRequest,
    CompareError,
    LimitExceeded,
)
from llama_ref.golden.candidate import open_candidate
from tests.golden.dumps import (
    G,
    N,
    T,
    candidate,
    case,
    opened,
    reasons,
    taps,
    written,
)
from tests.models import TINY


@pytest.fixture(scope="module")
def truth():
    return taps()


WRONG_SHAPES = {  # B14-223
    "one row too many": ("L00.q", lambda x: np.concatenate([x, x[:1]]), "expected T N H = 7 × 6"),
    "a channel short": ("L00.gate", lambda x: x[:, :-1], "expected T F = 7 × 44"),
    "would broadcast": ("L00.gate", lambda x: x[:, :1], "expected T F"),
    "scalar": ("embed", lambda x: x[0, :1].reshape(()), "expected T D"),
    "nothing in it": ("embed", lambda x: x[:0], "expected T D"),
    "a real batch": ("embed", lambda x: np.stack([x, x]), "expected T D"),
    "flattened": ("embed", lambda x: x.reshape(-1), "expected T D"),
    "padded rows": ("embed", lambda x: np.pad(x, ((0, 1), (0, 0))), "expected T D"),
    "scores as T N S": ("L00.scores", lambda x: x.transpose(1, 0, 2), "ambiguous"),
    "heads tiled": ("L00.k", lambda x: np.tile(x, (1, G, 1)), "not 3 heads, each 2 times"),
    "fused but too narrow": ("L00.qkv", lambda x: x, "T × (60 + 30 + 30 = 120)"),
}


@pytest.mark.parametrize("tap, spoil, reason", WRONG_SHAPES.values(), ids=WRONG_SHAPES)
def test_shapes_that_do_not_fit_are_listed(tap, spoil, reason, truth, tmp_path):
    """A shape that is not the tap's is never broadcast, and the reason says what was expected."""
    source = truth.get(tap, truth["L00.gate"])
    dump = {"logits": truth["logits"], tap: spoil(source)}
    found = candidate(tmp_path, dump)
    assert found.taps("far") == ["logits"]
    (unmatched,) = found.unmatched
    assert (unmatched.name, unmatched.shape) == (tap, dump[tap].shape)
    assert reason in unmatched.reason


def test_square_arrays_are_read_in_the_known_order_only(tmp_path):
    """Where sizes coincide, an order that nothing proves is ambiguous, and the known one is not."""
    square = case(chunks=(T,))
    config = {"main": TINY}
    x = np.arange(T * T * N, dtype=np.float32).reshape(N, T, T)
    path = written(tmp_path, {"L00.probs": x, "L01.probs": x.transpose(2, 1, 0).copy()})
    found = open_candidate(path, [square], config)
    assert np.array_equal(found.read("far", "L00.probs").array, x)
    assert "N T S" in reasons(found)["L01.probs"]


NAMES = {
    "unknown": ("blk.0.query", "no naming scheme knows"),
    "a weight": ("model.layers.0.self_attn.q_proj.weight", "no naming scheme knows"),
    "renamed": ("L00.qq", "no naming scheme knows"),
    "misspelled": ("L00.k_ropes", "is it L00.k_rope?"),
    "misspelled outside": ("logit", "is it logits?"),
    "another case": ("near/embed", "no case is called 'near'"),
    "layer too large": ("L02.q", "2 layers"),
    "layer too large in hf": ("model.layers.7", "2 layers"),
    "hidden state too large": ("hidden_states.4", "2 layers"),
    "call too large": ("1/L00.q", "1 calls"),
    "node thrice": ("Qcur-0", "Qcur-0 (ROPE)"),
    "node of another operation": ("ffn_out-0 (ADD)", "not from ADD"),
    "rotated values": ("Vcur-0 (ROPE)", "not from ROPE"),
    "norm of ggml": ("norm-0", "before its gain"),
    "half an activation": ("model.layers.0.mlp.act_fn", "is no tap"),
    "very long": ("L00.q" * 100, "500 characters"),
    "terminal codes": ("\x1b[31mL00.q", "no naming scheme knows"),
    "a folder": ("../../L00.q", "no naming scheme knows"),
    "empty": ("", "no naming scheme knows"),
}


@pytest.mark.parametrize("name, reason", NAMES.values(), ids=NAMES)
def test_names_that_are_not_certain_are_listed(name, reason, truth, tmp_path):
    """A name that is no tap's is unmatched, B14-222, and the reason says why."""
    found = candidate(tmp_path, {"L00.q": truth["L00.q"], name: truth["L00.q"]})
    assert found.taps("far") == ["L00.q"]
    assert reason in reasons(found)[name]


def test_occurrences_counted_from_one_are_not_believed(truth, tmp_path):
    """A third occurrence numbered 3 says that the others are numbered from 1: none is used."""
    dump = {f"Qcur-0#{i}": truth["L00.q"] for i in (1, 2, 3)}
    found = candidate(tmp_path, {**dump, "result_output": truth["logits"]})
    assert found.taps("far") == ["logits"]
    assert all("numbered from 0" in reason for reason in reasons(found).values())


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, np.bool_])
def test_integers_are_listed_and_never_cast(dtype, truth, tmp_path):
    """B14-226: an integer array under a tap's name is not compared as floats."""
    found = candidate(tmp_path, {"logits": truth["logits"], "embed": truth["embed"].astype(dtype)})
    assert found.taps("far") == ["logits"]
    assert f"its dtype is {np.dtype(dtype)}" in reasons(found)["embed"]


def test_two_tensors_of_one_tap_that_differ_are_both_listed(truth, tmp_path):
    """Nobody can tell which one is meant, so neither is used, and each names the other."""
    other = np.nextafter(truth["L00.ffn_out"], np.float32(9))
    dump = {"model.layers.0.mlp": truth["L00.ffn_out"], "model.layers.0.mlp.down_proj": other}
    found = candidate(tmp_path, {**dump, "lm_head": truth["logits"]})
    assert found.taps("far") == ["logits"]
    assert set(reasons(found)) == set(dump)
    assert all(" and " in reason and "differ" in reason for reason in reasons(found).values())


def test_a_case_with_a_call_missing_is_not_joined(truth, tmp_path):
    """Of three calls two were dumped: neither is used, and the missing one is named."""
    dump = {"0/embed": truth["embed"][:4], "2/embed": truth["embed"][5:], "logits": truth["logits"]}
    found = candidate(tmp_path, dump, case("decode", (4, 1, 2)))
    assert found.taps("decode") == ["logits"]
    assert all("call 1" in reason for reason in reasons(found).values())
    assert len(found.unmatched) == 2


def test_a_later_call_must_have_all_its_rows(truth, tmp_path):
    """Rows missing in the middle of a case are not made up."""
    dump = {"0/embed": truth["embed"][:4], "1/embed": truth["embed"][-1:]}
    dump["logits"] = truth["logits"]
    found = candidate(tmp_path, dump, case("decode", (4, 3)))
    assert found.taps("decode") == ["logits"]
    assert "only the first call" in reasons(found)["1/embed"]


def test_calls_of_two_dtypes_are_not_joined(truth, tmp_path):
    """One tap has one dtype."""
    dump = {"0/embed": truth["embed"][:4], "1/embed": truth["embed"][4:].astype(np.float16)}
    dump["logits"] = truth["logits"]
    found = candidate(tmp_path, dump, case("decode", (4, 3)))
    assert found.taps("decode") == ["logits"]
    assert "differ in dtype" in reasons(found)["0/embed"]


def test_a_call_dumped_twice_must_be_the_same(truth, tmp_path):
    """Two tensors of one call that differ leave the whole tap out."""
    dump = {"0/model.layers.0": truth["L00.out"][:4], "1/model.layers.0": truth["L00.out"][4:]}
    dump |= {"1/L00.out": truth["L00.out"][4:], "logits": truth["logits"]}
    same = candidate(tmp_path, dump, case("decode", (4, 3)))
    assert (same.taps("decode"), same.unmatched) == (["L00.out", "logits"], [])
    other = candidate(tmp_path, {**dump, "1/L00.out": truth["L00.out"][:3]}, case("decode", (4, 3)))
    assert other.taps("decode") == ["logits"]
    assert all("differ" in reason for reason in reasons(other).values())


def test_schemes_that_disagree_about_a_name_leave_it_unmatched(truth, tmp_path):
    """`norm` is Meta's final norm and llama.cpp's norm without gain: in a mixed dump, neither."""
    dump = {"norm": truth["final_norm"], "L00.out": truth["L00.out"], "kqv_out-0": truth["L00.ctx"]}
    found = candidate(tmp_path, dump)
    assert found.taps("far") == ["L00.ctx", "L00.out"]
    assert "disagree" in reasons(found)["norm"]
    assert candidate(tmp_path, {"norm": dump["norm"]}, names="meta").taps("far") == ["final_norm"]


def test_a_file_of_one_call_holds_no_other(truth, tmp_path):
    """decode/0.npz with a tensor of call 1 contradicts itself."""
    (tmp_path / "decode").mkdir()
    np.savez(
        tmp_path / "decode" / "0.npz", **{"1/embed": truth["embed"], "logits": truth["logits"]}
    )
    found = opened(tmp_path, case("decode", (T,)))
    assert found.taps("decode") == ["logits"]
    assert "different things" in reasons(found)["decode/0/1/embed"]


def test_a_file_of_one_case_holds_no_other(truth, tmp_path):
    """far.npz with a tensor of case near contradicts itself."""
    np.savez(tmp_path / "far.npz", **{"near/embed": truth["embed"], "logits": truth["logits"]})
    found = opened(tmp_path / "far.npz", case("far"), case("near"))
    assert (found.taps("far"), found.taps("near")) == (["logits"], [])
    assert "different things" in reasons(found)["far/near/embed"]


def test_nothing_to_compare_is_an_error(truth, tmp_path):
    """B14-225: no tensor, or none that is a tap, fails, and says what was found and is known."""
    with pytest.raises(CompareError, match=r"nothing to compare.*'foo'.*no naming scheme"):
        candidate(tmp_path, {"foo": truth["embed"]})
    with pytest.raises(CompareError, match=r"nothing to compare.*far/L00\.q.*no tensor"):
        candidate(tmp_path, {})
    with pytest.raises(CompareError, match="which case"):
        candidate(tmp_path, {"embed": truth["embed"]}, case("far"), case("near"))


REQUESTS = {
    "unknown case": ({"case": "nowhere"}, "'nowhere'"),
    "unknown scheme": ({"names": "vllm"}, "llama_ref, hf, meta, ggml or a JSON file"),
    "unknown pairing": ({"pairing": "both"}, "half_split or interleaved"),
}


@pytest.mark.parametrize("options, words", REQUESTS.values(), ids=REQUESTS)
def test_requests_that_cannot_be_met_are_refused(options, words, truth, tmp_path):
    """Options that name nothing that exists are errors."""
    with pytest.raises(BadRequest, match=words):
        candidate(tmp_path, truth, **options)


def test_a_tap_that_is_not_there_cannot_be_read(truth, tmp_path):
    """read() of another tap or case says so."""
    found = candidate(tmp_path, {"logits": truth["logits"]})
    assert found.taps("near") == []
    for where in (("far", "embed"), ("near", "logits")):
        with pytest.raises(BadRequest, match="/".join(where)):
            found.read(*where)


RULES = {
    "not an object": (["L00.q"], "an object like"),
    "empty": ({}, "an object like"),
    "no expression": ({"(": "L00.q"}, "not a regular expression"),
    "no such group": ({"x": "L{0}.q"}, "groups of the expression"),
    "attribute of a group": ({"(x)": "L{0.__class__}.q"}, "groups of the expression"),
    "a number for a template": ({"x": 3}, 'a text, or an object of "tap"'),
    "unknown key": ({"x": {"tap": "L00.q", "scale": 2}}, 'a text, or an object of "tap"'),
    "unknown pairing": ({"x": {"tap": "L00.q", "pairing": "yes"}}, "half_split or interleaved"),
    "nested repetition": ({"(a+)+": "L00.q"}, "repeated group"),
    "long expression": ({"x" * 501: "L00.q"}, "500 characters"),
    "many rules": ({f"x{i}": "L00.q" for i in range(1001)}, "at most 1,000"),
}


@pytest.mark.parametrize("rules, words", RULES.values(), ids=RULES)
def test_maps_of_names_are_checked(rules, words, truth, tmp_path):
    """A map that is not of the stated form is refused before any tensor is looked at."""
    (tmp_path / "map.json").write_text(json.dumps(rules))
    with pytest.raises((BadFile, LimitExceeded), match=words):
        candidate(tmp_path, truth, names=tmp_path / "map.json")


def test_rules_that_disagree_leave_a_tensor_unmatched(truth, tmp_path):
    """Two expressions that make two taps of one name are no answer."""
    rules = {"x": "L00.q", "[x]": "L01.q", "y": "logits"}
    (tmp_path / "map.json").write_text(json.dumps(rules))
    dump = {"x": truth["L00.q"], "y": truth["logits"]}
    found = candidate(tmp_path, dump, names=tmp_path / "map.json")
    assert found.taps("far") == ["logits"]
    assert "disagree" in reasons(found)["x"]
