"""The diagnosis of a port that makes known mistakes, unknown ones, and none: a quick dozen.

All of them, on the cases that a bundle has by default, are in test_every_mistake.py.
"""

import numpy as np
import pytest

from llama_ref.golden.mistakes import MISTAKES
from llama_ref.golden.taps import kind_of
from tests.golden.port_mistakes import SHOWS_FIRST_AT, UNKNOWN_SHOWS_FIRST_AT
from tests.golden.ported import checked, ported, row_of

FIRST_KIND = {
    id_: kind
    for table in (SHOWS_FIRST_AT, UNKNOWN_SHOWS_FIRST_AT)
    for kind, ids in table.items()
    for id_ in ids
}
DOZEN = (
    "embedding-of-previous-token",
    "norm-gain-plus-one",
    "weights-of-first-layer",
    "key-value-swapped",
    "rope-pairing-swapped",
    "rope-scaling-only-far",
    "rope-position-plus-one-on-keys",
    "key-heads-tiled",
    "mask-not-offset-by-cache",
    "softmax-base-2",
    "context-heads-transposed",
    "residual-from-norm",
    "act-quick-gelu",
    "logits-of-previous-token",
)
UNKNOWN = (
    "unknown-keys-scaled",
    "unknown-head-zeroed",
    "unknown-last-context-rows-garbage",
    "unknown-dropout",
    "unknown-vocabulary-half-rolled",
)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("mistake", DOZEN)
def test_a_known_mistake_is_named(shaped, tmp_path, mistake, dtype):
    """The first wrong tap is where it is made, and the cause is its name, alone and for certain."""
    report = checked(shaped, ported(shaped, mistake, dtype), tmp_path)
    assert report.verdict == "fail" and report.exit_code == 1
    assert kind_of(report.first[1]) == FIRST_KIND[mistake]
    assert (report.cause.id, report.confidence, report.also) == (mistake, "certain", [])
    assert report.runner_up is None or report.runner_up.id != mistake
    assert report.cause.explanation == MISTAKES[mistake].explanation


def test_a_mistake_may_round_where_the_right_step_is_exact(shaped, tmp_path):
    """A look-up is exact; scaled by sqrt(128), no power of two, it is rounded, and is named."""
    report = checked(shaped, ported(shaped, "embedding-scaled", "bfloat16"), tmp_path)
    assert report.first[1] == "embed"
    assert (report.cause.id, report.confidence) == ("embedding-scaled", "certain")


@pytest.fixture(scope="module")
def report(shaped, tmp_path_factory):
    """One report of a mistake, to look at."""
    folder = tmp_path_factory.mktemp("report")
    return checked(shaped, ported(shaped, "rope-scaling-missing"), folder)


def test_the_headline_says_where_and_what(report):
    """The step, the case, and the mistake in a few words."""
    case, tap = report.first
    assert tap in report.headline and case in report.headline
    assert report.cause.title in report.headline and "probably" not in report.headline


def test_the_explanation_says_how_much_and_where_to_look(report):
    """The size of the error, the places, and the two sentences of the mistake."""
    rho = row_of(report, *report.first).local.rho
    assert f"{rho:,.0f} times" in report.explanation
    assert "of 19 tokens are wrong" in report.explanation
    assert report.cause.explanation in report.explanation
    assert report.runner_up.id in report.explanation


def test_the_worst_number_stands_beside_the_right_one(report):
    """The report has both, and says both in the explanation."""
    found, right = report.worst
    assert abs(found - right) > 1e-3
    assert f"it is {found:.6g}, and {right:.6g} is right" in report.explanation


def test_a_factor_that_no_mistake_has_is_said(shaped, tmp_path):
    """Scores that are all 0.7 of what they should be have no known cause, and that one number."""
    tensors = ported(shaped)
    for case in shaped.cases:
        tensors[f"{case.name}/L00.scores"] = tensors[f"{case.name}/L00.scores"] * 0.7
    report = checked(shaped, tensors, tmp_path)
    assert (report.first[1], report.cause, report.runner_up) == ("L00.scores", None, None)
    assert "Every number is 0.7 times what it should be" in report.explanation


def test_a_mistake_behind_the_cache_is_said(shaped, tmp_path):
    """What goes wrong in the second call alone is no rounding, and the words send to the cache."""
    tensors = ported(shaped)
    for case in shaped.cases:
        name, n_first = f"{case.name}/L00.q_rope", case.chunks[0]
        tensors[name] = tensors[name].copy()
        tensors[name][n_first:, :, ::3] *= -1
    report = checked(shaped, tensors, tmp_path)
    assert (report.first[1], report.cause, report.is_noise) == ("L00.q_rope", None, False)
    assert "first call are right and all of the later calls are wrong" in report.explanation


def test_over_many_operations_no_shape_is_no_proof_of_rounding(shaped, tmp_path):
    """What looks like noise at the end of a layer may be a mistake that a matrix has blurred."""
    tensors = ported(shaped, keep=lambda case, tap: kind_of(tap) in ("out", "logits"))
    rng = np.random.default_rng(0)
    for case in shaped.cases:
        out = tensors[f"{case.name}/L00.out"]
        noise = rng.standard_normal(out.shape) * np.sqrt(np.mean(out**2, axis=0))
        tensors[f"{case.name}/L00.out"] = (out + 1e-2 * noise).astype(out.dtype)
    report = checked(shaped, tensors, tmp_path)
    assert (report.first[1], report.cause, report.is_noise) == ("L00.out", None, True)
    assert "or a mistake that is not known" in report.headline
    assert "a wrong formula may look the same" in report.explanation


def test_steps_that_are_right_inherit(report):
    """Behind the mistake every other step is right by itself and off as a whole: it inherits."""
    statuses = {kind: {r.status for r in report.rows if kind_of(r.tap) == kind}
                for kind in ("attn_norm", "q", "q_rope", "ctx", "out")}  # fmt: skip
    assert statuses["q_rope"] == {"fail"}
    assert statuses["ctx"] == statuses["out"] == {"inherits"}
    assert statuses["q"] == {"pass", "inherits"}  # that of the first layer is right
    n_inherit = sum(row.status == "inherits" for row in report.rows)
    assert f"{n_inherit:,}" in report.explanation


def test_the_profile_shows_where_the_error_sits(report):
    """By token, head and channel: position 0 is right, and so are channels of unscaled pairs."""
    profile = report.profile
    assert (profile.case, profile.tap) == report.first
    assert profile.positions[0] == 0 and len(profile.by_token) == len(profile.positions) == 19
    assert profile.by_token[0] < 3 < min(profile.by_token[1:])
    n_channels = len(profile.by_channel)
    right = [c for c, size in enumerate(profile.by_channel) if size < 3]
    assert right and all((c + n_channels // 2) % n_channels in right for c in right)
    assert len(profile.token_by_head) == 19
    assert {len(row) for row in profile.token_by_head} == {len(profile.by_head)}


def test_logits_are_summed_up(report):
    """Of each case it says how far its distributions are, and how many choices are others."""
    assert [one.case for one in report.logits] == ["gqa-8", "outliers"]
    for one in report.logits:
        assert one.kl_max > 100 * one.kl_legal
        assert 0 < one.n_decided <= one.n_tokens == 19
        assert one.n_decided_same <= one.n_same_choice < 19


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("mistake", UNKNOWN)
def test_an_unknown_mistake_is_found_and_not_named(shaped, tmp_path, mistake, dtype):
    """What the table has not got fails where it is made, and nothing is blamed for certain."""
    report = checked(shaped, ported(shaped, mistake, dtype), tmp_path)
    assert report.verdict == "fail"
    assert kind_of(report.first[1]) == FIRST_KIND[mistake]
    assert report.confidence != "certain"
    if report.cause is None:
        assert "no known mistake explains it" in report.headline


def test_mistakes_that_look_alike_are_named_together(shaped, tmp_path):
    """With two layers the next one is the previous one: both are named, and neither for sure."""
    report = checked(shaped, ported(shaped, "weights-of-previous-layer"), tmp_path)
    assert report.confidence == "likely"
    named = {report.cause.id, *(one.id for one in report.also)}
    assert named == {"weights-of-next-layer", "weights-of-previous-layer"}
    assert report.also[0].id in report.explanation


def test_coarse_sums_are_recognised_by_their_size(shaped, tmp_path):
    """Sums in bfloat16 leave noise, which depends on their order: named, and not for certain."""
    report = checked(shaped, ported(shaped, "accumulated-in-bfloat16"), tmp_path, dtype="float32")
    assert kind_of(report.first[1]) in ("q", "k", "v")
    assert (report.cause.id, report.confidence) == ("accumulated-in-bfloat16", "likely")


def test_a_coarser_dtype_than_was_said_is_named(shaped, tmp_path):
    """A bfloat16 port that is judged as float32 is told so, not sent after a formula."""
    report = checked(shaped, ported(shaped, None, "bfloat16"), tmp_path, dtype="float32")
    assert report.verdict == "fail"
    assert report.confidence != "certain"


def test_two_mistakes_are_found_one_after_the_other(shaped, tmp_path):
    """Of two mistakes the first in dataflow order is the cause; the other one's step fails, too."""
    tensors, other = ported(shaped, "rope-scaling-missing"), ported(shaped, "logits-softcapped")
    for case in shaped.cases:
        cap = other[f"{case.name}/logits"]
        assert cap.shape == tensors[f"{case.name}/logits"].shape
        logits = tensors[f"{case.name}/logits"]
        tensors[f"{case.name}/logits"] = 3 * (logits / 3).clip(-1, 1)
    report = checked(shaped, tensors, tmp_path)
    assert report.cause.id == "rope-scaling-missing"
    assert row_of(report, "gqa-8", "logits").status == "fail"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_right_port_is_not_accused(shaped, tmp_path, dtype):
    """Without a mistake nothing fails, nothing is warned about, and nothing is named."""
    report = checked(shaped, ported(shaped, None, dtype), tmp_path)
    assert report.verdict == "pass" and report.precision == dtype
    assert report.first is None and report.cause is None and report.runner_up is None
    assert {row.status for row in report.rows} == {"pass"}
