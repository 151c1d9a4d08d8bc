"""Each step on its own, at its edges: what it removes, what it leaves alone, what ties do."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_ref.errors import BadRequest
from llama_ref.ops.softmax import softmax
from llama_ref.sampling import steps

FILTERS = {
    "min_p": (steps.keep_min_p, st.floats(0, 1)),
    "top_k": (steps.keep_top_k, st.integers(1, 12)),
    "top_k_exactly": (steps.keep_top_k_exactly, st.integers(1, 12)),
    "top_p": (steps.keep_top_p, st.floats(0, 1)),
    "top_p_and_next": (steps.keep_top_p_and_next, st.floats(0, 1)),
    "typical": (steps.keep_typical, st.floats(0.001, 1)),
    "typical_exactly": (steps.keep_typical_exactly, st.floats(0, 1)),
}
some = st.floats(-20, 20) | st.integers(-3, 3).map(float) | st.just(-np.inf)
logits = (
    st.lists(some, min_size=1, max_size=30)
    .map(np.array)
    .filter(lambda logits_V: np.isfinite(logits_V).any())
)
DYADIC = np.log([0.5, 0.25, 0.125, 0.125])
quick = settings(max_examples=60, deadline=None)


def kept(logits_V):
    return np.flatnonzero(np.isfinite(logits_V)).tolist()


@pytest.mark.parametrize("name", FILTERS)
@quick
@given(logits_V=logits, data=st.data())
def test_filters_remove_and_never_change(name, logits_V, data):
    """A filter leaves at least one token, and what it leaves is what it was, bit for bit."""
    keep, values = FILTERS[name]
    before = logits_V.copy()
    after_V = keep(logits_V, data.draw(values))
    np.testing.assert_array_equal(logits_V, before)
    left = kept(after_V)
    assert left
    np.testing.assert_array_equal(after_V[left], logits_V[left])
    if "typical" not in name:
        assert softmax(logits_V)[left].max() == softmax(logits_V).max()


@pytest.mark.parametrize("name", FILTERS)
@quick
@given(logits_V=logits, data=st.data())
def test_filters_keep_more_for_more(name, logits_V, data):
    """A higher k or p never removes more, and a higher min_p never less."""
    keep, values = FILTERS[name]
    low, high = sorted((data.draw(values), data.draw(values)))
    if name == "min_p":
        low, high = high, low
    assert set(kept(keep(logits_V, low))) <= set(kept(keep(logits_V, high)))


@quick
@given(logits, st.floats(0.001, 1))
def test_top_p_is_the_definition(logits_V, top_p):
    """Sorting ids by falling logit and rising id, and adding up, gives the same set."""
    probs_V = softmax(np.sort(logits_V)[::-1])
    order = sorted(range(len(logits_V)), key=lambda i: (-logits_V[i], i))
    before, wanted = 0.0, set()
    for i, prob in zip(order, probs_V, strict=True):
        if before < top_p or not wanted:
            wanted.add(i)
        before += prob
    found = set(kept(steps.keep_top_p(logits_V, top_p)))
    assert found == {i for i in wanted if np.isfinite(logits_V[i])}


@quick
@given(logits, st.integers(1, 35))
def test_top_ids_are_a_sort(logits_V, n):
    """The n highest come in the order of a stable sort, and the impossible are left out."""
    order = sorted(kept(logits_V), key=lambda i: (-logits_V[i], i))
    assert steps.top_ids(logits_V, n).tolist() == order[:n]


def test_top_k_keeps_ties():
    """All tokens that equal the k-th stay, as in vLLM and transformers; llama.cpp keeps k."""
    tied = np.array([5.0, 1.0, 3.0, 3.0, 3.0])
    assert kept(steps.keep_top_k(tied, 2)) == [0, 2, 3, 4]
    assert kept(steps.keep_top_k_exactly(tied, 2)) == [0, 2]


def test_top_k_counts_the_possible_alone():
    """With fewer possible tokens than k all of them stay, and nothing comes back."""
    few = np.array([-np.inf, 1.0, -np.inf, 2.0])
    assert kept(steps.keep_top_k(few, 3)) == kept(steps.keep_top_k_exactly(few, 3)) == [1, 3]


def test_top_p_boundary():
    """A token stays if those before it sum to less than p; in Meta's rule also at equality."""
    assert kept(steps.keep_top_p(DYADIC, 0.5)) == [0]
    assert kept(steps.keep_top_p(DYADIC, 0.5 + 1e-9)) == [0, 1]
    assert kept(steps.keep_top_p(DYADIC, 1e-9)) == [0]
    assert kept(steps.keep_top_p_and_next(DYADIC, 0.5)) == [0, 1]
    assert kept(steps.keep_top_p_and_next(DYADIC, 0.5 - 1e-9)) == [0]


def test_top_p_smaller_than_the_largest_probability():
    """Exactly one token stays, also of equal ones."""
    assert kept(steps.keep_top_p(np.log([0.2, 0.5, 0.3]), 0.1)) == [1]
    assert kept(steps.keep_top_p(np.zeros(8), 0.1)) == [0]


def test_top_p_cuts_ties_by_id():
    """Of equally probable tokens the lowest ids stay, at any place in the order."""
    assert kept(steps.keep_top_p(np.zeros(8), 0.375)) == [0, 1, 2]
    assert kept(steps.keep_top_p(np.array([1.0, 3.0, 3.0, 2.0, 2.0, 2.0, 0.0]), 0.7)) == [1, 2, 3]


def test_top_p_is_taken_of_what_top_k_left():
    """Top-p sees the probabilities renormalised over the survivors of top-k."""
    quarters = np.log([0.4, 0.3, 0.2, 0.1])
    assert kept(steps.keep_top_p(steps.keep_top_k(quarters, 2), 0.5)) == [0]  # 4/7 reaches it
    assert kept(steps.keep_top_p(quarters, 0.5)) == [0, 1]  # 0.4 does not


def test_a_sum_that_never_reaches_p_keeps_all():
    """Where rounding leaves the sum of all below p, the last token stays and no index overflows."""
    many = np.log(np.full(1000, 0.001)) + 1e-13 * np.arange(1000)
    assert len(kept(steps.keep_top_p(many, np.nextafter(1, 0)))) == 1000


def test_min_p_keeps_exact_fractions():
    """A token of exactly half the highest probability stays at 0.5, though ln was rounded."""
    for dtype in (np.float32, np.float64):
        logits_V = np.log([0.5, 0.25, 0.125, 0.125]).astype(dtype).astype(np.float64)
        assert kept(steps.keep_min_p(logits_V, 0.5)) == [0, 1]
        assert kept(steps.keep_min_p(logits_V, 0.25)) == [0, 1, 2, 3]
    assert kept(steps.keep_min_p(np.array([2.0, 2.0, 1.9]), 1.0)) == [0, 1]


def test_typical_can_remove_the_most_probable():
    """The most probable token goes if its information is far from the entropy."""
    peaked = np.log([0.5, 0.2, 0.2, 0.1])
    assert kept(steps.keep_typical(peaked, 0.35)) == [1, 2]
    assert kept(steps.keep_typical(peaked, 0.1)) == [1, 2]  # ties stay
    assert kept(steps.keep_typical_exactly(peaked, 0.1)) == [1]  # llama.cpp: the lowest id


def test_repetition_penalty_once_for_each_id():
    """An id seen three times is divided once; 0 stays 0 and what is removed stays removed."""
    logits_V = np.array([3.0, -3.0, 0.0, -np.inf, 3.0])
    found = steps.with_repetition_penalty(logits_V, [0, 0, 0, 1, 2, 3], 1.5)
    np.testing.assert_array_equal(found, [2.0, -4.5, 0.0, -np.inf, 3.0])


def test_a_bias_does_not_bring_back():
    """What is removed stays removed under +100."""
    found = steps.with_logit_bias(np.array([-np.inf, 1.0]), {0: 100.0})
    assert kept(found) == [1]


def test_tiny_temperatures_do_not_overflow():
    """Where z / T would overflow, the highest becomes 0 and the rest lies below it."""
    for temperature in (1e-300, 5e-324):
        found = steps.with_temperature(np.array([1e10, 2e10, 2e10]), temperature)
        np.testing.assert_array_equal(softmax(found), [0, 0.5, 0.5])


@pytest.mark.parametrize(
    ("output_ids", "ends"),
    [([], [5]), ([1], [5, 4]), ([1, 2], [5, 3]), ([2, 1], [5, 4]), ([1, 2, 3], [5])],
)
def test_bad_words_end_where_they_would_be_complete(output_ids, ends):
    """Only the id that would complete a bad word is removed, and only then."""
    bad_words = [(5,), (1, 2, 3), (1, 4)]
    assert steps.ends_of_bad_words(bad_words, output_ids) == ends


@pytest.mark.parametrize("ids", [[4], [-1], np.array([0, 4])], ids=str)
@pytest.mark.parametrize("step", ["keep_only", "without", "with_presence_penalty"])
def test_ids_outside_the_vocabulary(step, ids):
    """An id that the logits have not is an error, never the last token."""
    more = (1.0,) if "penalty" in step else ()
    with pytest.raises(BadRequest, match="token ids"):
        getattr(steps, step)(np.zeros(4), ids, *more)
