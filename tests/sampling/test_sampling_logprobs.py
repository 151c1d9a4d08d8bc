"""Logprobs: of the logits as they came, strictly the top, with ranks."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_ref.errors import BadRequest, NonFiniteError
from llama_ref.ops.softmax import softmax
from llama_ref.sampling import token_logprobs

logits = st.lists(st.floats(-20, 20) | st.integers(-2, 2).map(float), min_size=1, max_size=20)


@settings(max_examples=100, deadline=None)
@given(logits.map(np.array), st.data())
def test_logprobs_are_log_softmax(logits_V, data):
    """exp(logprob) is softmax; the list falls, ties by id; the rank counts what is higher."""
    token_id = data.draw(st.integers(0, len(logits_V) - 1))
    found = token_logprobs(logits_V, token_id, n_top=5)
    probs_V = softmax(logits_V)
    assert math.exp(found.logprob) == pytest.approx(probs_V[token_id], rel=1e-12)
    assert found.rank == 1 + (logits_V > logits_V[token_id]).sum()
    order = sorted(range(len(logits_V)), key=lambda i: (-logits_V[i], i))[:5]
    assert [i for i, _ in found.top] == order
    for i, logprob in found.top:
        assert math.exp(logprob) == pytest.approx(probs_V[i], rel=1e-12)


def test_the_drawn_token_is_not_put_first():
    """The list is strictly the top: a token outside it is not in it, and pushes nothing out."""
    found = token_logprobs(np.array([0.0, 3.0, 2.0, 1.0]), 0, n_top=2)
    assert [i for i, _ in found.top] == [1, 2]
    assert (found.token_id, found.rank) == (0, 4)


def test_no_list_and_the_whole_list():
    """0 gives no list, -1 and more than V all that is possible."""
    logits_V = np.array([0.0, -np.inf, 2.0])
    assert token_logprobs(logits_V, 2).top == ()
    for n_top in (-1, 3, 100):
        assert [i for i, _ in token_logprobs(logits_V, 2, n_top).top] == [2, 0]


def test_what_the_model_rules_out():
    """A token of logit -inf has logprob -inf and the last rank, and the rest is finite."""
    found = token_logprobs(np.array([0.0, -np.inf]), 1, n_top=2)
    assert (found.logprob, found.rank, found.top) == (-math.inf, 2, ((0, 0.0),))


def test_numbers_are_pythons_own():
    """All of it is JSON as it stands, whatever the dtype of the logits."""
    found = token_logprobs(np.float32([1, 2, 3]), np.int64(1), n_top=2)
    assert json.loads(json.dumps(found))[0] == 1


@pytest.mark.parametrize(("token_id", "n_top"), [(3, 0), (-1, 0), (True, 0), (0, -2), (0, 1.5)])
def test_wrong_ids_and_counts_are_refused(token_id, n_top):
    """An id outside the vocabulary or a list of -2 is refused."""
    with pytest.raises(BadRequest, match=r"token_id|n_top"):
        token_logprobs(np.zeros(3), token_id, n_top)


@pytest.mark.parametrize("bad", [[np.nan, 0.0], [np.inf, 0.0], [-np.inf, -np.inf]], ids=str)
def test_no_distribution_has_no_logprobs(bad):
    """Logits that are NaN, infinite or all impossible are an error."""
    with pytest.raises(NonFiniteError, match="logits"):
        token_logprobs(np.array(bad), 0)
