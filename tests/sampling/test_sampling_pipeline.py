"""The steps together: order, greedy, histories, what may not be left, and draws by choice."""

import ml_dtypes
import numpy as np
import pytest

from llama_ref.errors import BadRequest, NonFiniteError
from llama_ref.sampling import PROFILES, SamplingParams, processed_logits, sample

GREEDY = SamplingParams(temperature=0)
EVERY_PROFILE = pytest.mark.parametrize("profile", PROFILES)


def kept(logits_V):
    return np.flatnonzero(np.isfinite(logits_V)).tolist()


@EVERY_PROFILE
def test_greedy_ties_go_to_the_lowest_id(profile):
    """Of equal logits the first is chosen: bfloat16 logits near 20 have steps of 0.125."""
    params = SamplingParams(temperature=0, profile=profile)
    for dtype in (np.float32, np.float64, ml_dtypes.bfloat16):
        logits_V = np.array([1, 20.05, 20.05, 2]).astype(dtype)
        assert sample(logits_V, params, step=0, seed=0) == 1


def test_greedy_uses_no_random_number():
    """At temperature 0 no seed and no step moves the choice."""
    logits_V = np.sin(np.arange(50.0))
    chosen = {sample(logits_V, GREEDY, step=t, seed=s) for t in range(5) for s in range(5)}
    assert chosen == {int(logits_V.argmax())}


def test_filters_do_not_move_greedy_and_penalties_do():
    """top_k, top_p and min_p never move a greedy choice; a bias and penalties do."""
    logits_V = np.array([2.0, 1.9, 0.0])
    params = SamplingParams(temperature=0, top_k=1, top_p=0.1, min_p=0.9)
    assert sample(logits_V, params, step=0, seed=0) == 0
    for field in ({"repetition_penalty": 1.2}, {"presence_penalty": 0.2}, {"logit_bias": {1: 1}}):
        params = SamplingParams(temperature=0, **field)
        assert sample(logits_V, params, step=0, seed=0, output_ids=[0]) == 1


@pytest.mark.parametrize("top_k", [0, -1, 4, 100, 10**300])
def test_top_k_off(top_k):
    """0, -1, V and more switch it off."""
    assert kept(processed_logits(np.arange(4.0), SamplingParams(top_k=top_k))) == [0, 1, 2, 3]


def test_top_p_one_is_off_exactly():
    """top_p = 1 keeps a token whose probability is lost in the sum."""
    logits_V = np.array([0.0, -700.0])
    assert kept(processed_logits(logits_V, SamplingParams(top_p=1.0))) == [0, 1]
    assert kept(processed_logits(logits_V, SamplingParams(top_p=1 - 1e-16))) == [0]


def test_min_p_comes_before_top_p_in_vllm_and_after_it_in_transformers():
    """What min_p removes is missing from the mass that top_p sees, or is not."""
    logits_V = np.log([0.4, 0.3, 0.1, 0.1, 0.1])
    fields = {"min_p": 0.5, "top_p": 0.55}
    assert kept(processed_logits(logits_V, SamplingParams(**fields))) == [0]  # 4/7 reaches 0.55
    assert kept(processed_logits(logits_V, SamplingParams(**fields, profile="hf"))) == [0, 1]


def test_temperature_comes_last_in_llama_cpp():
    """Its top_p cuts the distribution of temperature 1."""
    logits_V = np.log([0.4, 0.3, 0.2, 0.1])
    fields = {"temperature": 2.0, "top_p": 0.65}
    assert kept(processed_logits(logits_V, SamplingParams(**fields, profile="llama.cpp"))) == [0, 1]
    assert kept(processed_logits(logits_V, SamplingParams(**fields))) == [0, 1, 2]


def test_a_bias_decides_the_direction_of_the_repetition_penalty():
    """The bias comes first: a logit that it lifts above 0 is divided."""
    params = SamplingParams(logit_bias={0: 3.0}, repetition_penalty=2.0)
    assert processed_logits(np.array([-1.0, 0.0]), params, [0])[0] == 1.0


def test_what_penalties_look_at():
    """Repetition looks at prompt and output, counts at the output; llama.cpp at 64 tokens."""
    logits_V, prompt, output = np.full(100, 10.0), [1, 2], [2, 3, 3]
    params = SamplingParams(repetition_penalty=2.0)
    found = processed_logits(logits_V, params, prompt, output)
    assert np.flatnonzero(found != 10).tolist() == [1, 2, 3]
    params = SamplingParams(frequency_penalty=1.0, presence_penalty=0.5)
    found = processed_logits(logits_V, params, prompt, output)
    assert found[:4].tolist() == [10.0, 10.0, 8.5, 7.5]
    params = SamplingParams(frequency_penalty=1.0, profile="llama.cpp")
    found = processed_logits(logits_V, params, range(90), [95])
    assert np.flatnonzero(found != 10).tolist() == [*range(27, 90), 95]


def test_masks_come_before_the_bias():
    """No bias brings back what a grammar, a list of allowed ids or min_tokens removes."""
    bias = {"logit_bias": dict.fromkeys(range(3), 100)}
    logits_V = np.zeros(4)
    params = SamplingParams(allowed_token_ids=[2, 3], **bias)
    assert kept(processed_logits(logits_V, params)) == [2, 3]
    found = processed_logits(logits_V, SamplingParams(**bias), allowed_V=np.arange(4) == 1)
    assert kept(found) == [1]
    params = SamplingParams(min_tokens=2, stop_token_ids=[0], **bias)
    assert kept(processed_logits(logits_V, params, (), [3], stop_ids=[1])) == [2, 3]
    assert kept(processed_logits(logits_V, params, (), [3, 3], stop_ids=[1])) == [0, 1, 2, 3]


def test_minus_one_hundred_bans_among_others_but_is_no_mask():
    """At -100 a token is never drawn beside others, and is drawn where it is alone."""
    params = SamplingParams(logit_bias={0: -100})
    assert {sample(np.zeros(2), params, step=t, seed=0) for t in range(200)} == {1}
    alone = SamplingParams(logit_bias={0: -100}, allowed_token_ids=[0])
    assert sample(np.zeros(2), alone, step=0, seed=0) == 0


@EVERY_PROFILE
def test_masks_are_in_every_profile(profile):
    """A grammar, allowed ids, bad words and min_tokens work whatever the profile."""
    params = SamplingParams(
        allowed_token_ids=[0, 1, 2, 3], bad_words=[[1, 2]], min_tokens=3, profile=profile
    )
    allowed_V = np.arange(6) < 5
    found = processed_logits(np.zeros(6), params, (), [0, 1], stop_ids=[3], allowed_V=allowed_V)
    assert kept(found) == [0, 1]


def test_bad_words_that_begin_in_the_prompt():
    """A bad word across prompt and output counts in transformers, in vLLM only in the output."""
    fields = {"bad_words": [[1, 2]]}
    for profile, left in (("vllm", [0, 1, 2]), ("hf", [0, 1])):
        params = SamplingParams(**fields, profile=profile)
        assert kept(processed_logits(np.zeros(3), params, [1])) == left


@pytest.mark.parametrize("params", [GREEDY, SamplingParams()], ids=["greedy", "drawn"])
@pytest.mark.parametrize("bad", [[np.nan, 1.0], [-np.inf, -np.inf], [np.inf, 1.0]], ids=str)
def test_logits_that_are_no_distribution_are_an_error(bad, params):
    """NaN, infinity, or nothing finite to choose, never becomes token 0."""
    with pytest.raises(NonFiniteError, match=r"^logits: "):
        sample(np.array(bad), params, step=0, seed=0)


@pytest.mark.parametrize("params", [GREEDY, SamplingParams(top_p=0.5)], ids=["greedy", "drawn"])
def test_one_finite_logit_is_that_token(params):
    """With one possible token it is chosen, whatever its logit."""
    for value in (-1e300, 0.0, 1e300):
        logits_V = np.array([-np.inf, value, -np.inf])
        assert sample(logits_V, params, step=0, seed=0) == 1


@pytest.mark.parametrize(
    ("fields", "step"),
    [
        ({"bad_words": [[0], [1]]}, "bad_words"),
        ({"min_tokens": 1, "stop_token_ids": [0, 1]}, "min_tokens"),
        ({"repetition_penalty": 1e-308}, "repetition_penalty"),
    ],
)
@pytest.mark.parametrize("temperature", [0, 1])
def test_the_step_that_leaves_nothing_is_named(fields, step, temperature):
    """Where a step leaves nothing, or infinity, the error names it."""
    params = SamplingParams(temperature=temperature, **fields)
    with pytest.raises(NonFiniteError, match=f"^logits after {step}: "):
        sample(np.array([20.0, 1.0]), params, step=0, seed=0, prompt_ids=[0])


def test_a_grammar_that_allows_nothing_possible():
    """A mask that leaves nothing is an error that names it, not a hang."""
    with pytest.raises(NonFiniteError, match=r"^logits after allowed_V: "):
        sample(np.zeros(3), SamplingParams(), step=0, seed=0, allowed_V=np.zeros(3, bool))


@pytest.mark.parametrize(
    "allowed_V", [np.ones(3, bool), np.ones(4, int), np.ones((4, 1), bool)], ids=str
)
def test_a_mask_fits_the_vocabulary(allowed_V):
    """A mask of another shape or kind is refused."""
    with pytest.raises(BadRequest, match="allowed_V"):
        processed_logits(np.zeros(4), SamplingParams(), allowed_V=allowed_V)


@pytest.mark.parametrize("shape", [(), (0,), (1, 4)])
def test_logits_are_one_row(shape):
    """Logits of several rows, or of none, are refused."""
    with pytest.raises(BadRequest, match="logits"):
        processed_logits(np.zeros(shape), SamplingParams())


@EVERY_PROFILE
def test_arguments_are_left_alone(profile):
    """No step writes into the logits that came in, even if they are float64."""
    logits_V = np.array([3.0, 2.0, 1.0, -1.0])
    before = logits_V.copy()
    params = SamplingParams(temperature=0.5, top_p=0.5, allowed_token_ids=[0, 1], profile=profile)
    sample(logits_V, params, step=0, seed=0, output_ids=[1])
    np.testing.assert_array_equal(logits_V, before)


def test_history_as_a_list_or_an_array():
    """Lists, tuples, ranges and arrays of ids give the same logits."""
    params = SamplingParams(frequency_penalty=0.5, bad_words=[[1, 2]])
    logits_V = np.arange(4.0)
    each = [
        processed_logits(logits_V, params, (), ids)
        for ids in ([0, 1], (0, 1), range(2), np.array([0, 1], np.int32))
    ]
    for found in each[1:]:
        np.testing.assert_array_equal(found, each[0])


def test_choices_of_one_seed_differ_and_can_be_repeated():
    """Choice i draws with seed + i: n streams that differ, and each comes again."""
    logits_V, params = np.zeros(1000), SamplingParams()

    def text(seed):
        return tuple(sample(logits_V, params, step=step, seed=seed) for step in range(8))

    texts = [text(7 + choice) for choice in range(16)]
    assert len(set(texts)) == 16
    assert texts == [text(7 + choice) for choice in range(16)]


def test_a_draw_is_that_of_the_whole_distribution():
    """Leaving out what is removed changes no token: it has no weight."""
    from llama_ref.sampling import draw, uniform

    logits_V = np.sin(np.arange(2000.0)) * 5
    params = SamplingParams(top_k=100)
    weights_V = np.exp(processed_logits(logits_V, params) - logits_V.max())
    for step in range(100):
        assert sample(logits_V, params, step=step, seed=3) == draw(weights_V, uniform(3, step))


def test_order_of_each_profile():
    """The table names the steps in the peers' own order."""
    order = {name: [s.name for s in profile.choosing] for name, profile in PROFILES.items()}
    assert order == {
        "vllm": ["temperature", "min_p", "top_k", "top_p", "typical_p"],
        "hf": ["temperature", "top_k", "top_p", "min_p", "typical_p"],
        "llama.cpp": ["top_k", "typical_p", "top_p", "min_p", "temperature"],
        "meta": ["temperature", "top_p"],
    }


@pytest.mark.parametrize("history", [[1.5], [True], ["1"], [[1]], [None]], ids=str)
def test_a_history_is_a_list_of_ids(history):
    """Fractions, booleans and strings in a history that a step looks at are refused."""
    params = SamplingParams(frequency_penalty=0.5)
    with pytest.raises(BadRequest, match="token ids"):
        processed_logits(np.zeros(4), params, (), history)
