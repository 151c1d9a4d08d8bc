"""Requests together: each as if alone, joining and leaving at any pass, and nothing left behind."""

import numpy as np
import pytest

import llama_ref as lr
from llama_ref.engine import Engine, Request
from llama_ref.errors import BadRequest, LimitExceeded, NonFiniteError
from llama_ref.sampling import SamplingParams
from tests.models import tiny_ids, tiny_model

MODEL = tiny_model()
LENGTHS = (1, 5, 17, 30, 3)


def requests_of_all_kinds():
    """Greedy and sampled, short and long, penalised and free."""
    kinds = [
        {"temperature": 0.0},
        {"temperature": 1.5, "seed": 3},
        {"temperature": 0.7, "seed": 4, "top_p": 0.9, "repetition_penalty": 1.3},
        {"temperature": 2.0, "seed": 5, "n": 3, "top_k": 20},
        {"temperature": 1.0, "seed": 6, "frequency_penalty": 0.5, "min_p": 0.02},
    ]
    return [
        Request(
            tiny_ids(length, seed=length).tolist(),
            SamplingParams(max_tokens=4 + 5 * k, ignore_eos=True, **kind),
            request_id=str(k),
        )
        for k, (length, kind) in enumerate(zip(LENGTHS, kinds, strict=True))
    ]


def finished(engine, requests, join_every=0):
    """Run requests to the end, a new one joining every few passes; return (id, index) -> ids."""
    waiting, texts, passes = list(requests), {}, 0
    while waiting or engine.has_work:
        while waiting and (not join_every or passes % join_every == 0 or not engine.has_work):
            engine.add(waiting.pop(0))
            if join_every:
                break
        for delta in engine.step():
            texts.setdefault((delta.request_id, delta.index), []).extend(delta.token_ids)
        passes += 1
    return texts


def alone(requests):
    """Run every request in an engine of its own."""
    texts = {}
    for request in requests:
        texts |= finished(Engine(MODEL), [request])
    return texts


@pytest.mark.parametrize(
    "options",
    [
        {"max_running": 16},
        {"max_running": 2},
        {"max_running": 3, "tokens_per_pass": 4},
        {"max_running": 4, "prefix_bytes": 0},
        {"max_running": 8, "cache_bytes": 20_000},
    ],
    ids=str,
)
@pytest.mark.parametrize("join_every", [0, 3])
def test_a_text_does_not_notice_the_others(options, join_every):
    """Whatever is packed with a request, in whatever chunks, it gets the ids it gets alone."""
    requests = requests_of_all_kinds()
    assert finished(Engine(MODEL, **options), requests, join_every) == alone(requests)


def test_one_request_is_what_generate_gives():
    """The engine and the plain loop choose the same tokens, and give the same text and reason."""
    for request in requests_of_all_kinds():
        if request.params.n == 1:
            looped = [t.id for t in lr.generate(MODEL, request.prompt_ids, request.params)]
            assert finished(Engine(MODEL), [request]) == {(request.request_id, 0): looped}


def test_choice_i_is_the_request_with_seed_plus_i():
    """The n texts of a request are those of n requests with the seeds that follow."""
    prompt = tiny_ids(20).tolist()
    params = {"temperature": 1.5, "max_tokens": 8, "ignore_eos": True}
    request = Request(prompt, SamplingParams(n=3, seed=7, **params), request_id="n")
    texts = finished(Engine(MODEL), [request])
    for i in range(3):
        single = Request(prompt, SamplingParams(seed=7 + i, **params), request_id="1")
        assert texts["n", i] == finished(Engine(MODEL), [single])["1", 0]


def test_finished_texts_leave_and_waiting_ones_join():
    """With two places, the third request starts when the first ends, long before the second."""
    engine = Engine(MODEL, max_running=2)
    for n_tokens in (3, 20, 5):
        params = SamplingParams(max_tokens=n_tokens, temperature=0, ignore_eos=True)
        engine.add(Request(tiny_ids(4).tolist(), params, request_id=str(n_tokens)))
    ended = []
    while engine.has_work:
        assert engine.n_running <= 2
        ended += [delta.request_id for delta in engine.step() if delta.finish_reason]
    assert ended == ["3", "5", "20"]


def test_a_common_beginning_is_read_once():
    """Prompts that begin alike, n choices and a next turn run only what they do not share."""
    system = tiny_ids(64, seed=1).tolist()
    params = SamplingParams(max_tokens=4, temperature=1, seed=0, n=4, ignore_eos=True)
    engine = Engine(MODEL)
    finished(engine, [Request([*system, k], params, request_id=str(k)) for k in range(3)])
    # The first prompt entire, one token for each of the others, and 3 fed-back tokens for each.
    assert engine.n_run == 65 + 11 + 12 * 3
    assert engine.n_reused == 11 * 64
    fresh = Engine(MODEL, prefix_bytes=0)
    request = Request([*system, 9], params, request_id="x")
    assert finished(engine, [request]) == finished(fresh, [request])


def test_kept_prefixes_stay_within_their_bytes():
    """Caches of finished texts are thrown away, the least recently used first."""
    engine = Engine(MODEL, prefix_bytes=100_000)
    params = SamplingParams(max_tokens=2, temperature=0, ignore_eos=True)
    for k in range(12):
        finished(engine, [Request(tiny_ids(60, seed=k).tolist(), params)])
        assert engine.prefix_bytes <= 100_000
    before = engine.n_run
    finished(engine, [Request(tiny_ids(60, seed=11).tolist(), params)])
    assert engine.n_run - before == 2
    engine.forget_prefixes()
    assert engine.prefix_bytes == 0


def test_a_text_too_long_to_keep_displaces_nothing():
    """A finished text larger than all the room leaves what is kept where it is."""
    engine = Engine(MODEL, prefix_bytes=50_000)
    params = SamplingParams(max_tokens=2, temperature=0, ignore_eos=True)
    finished(engine, [Request(tiny_ids(20, seed=1).tolist(), params)])
    before = engine.prefix_bytes
    assert before > 0
    finished(engine, [Request(tiny_ids(200, seed=2).tolist(), params)])
    assert engine.prefix_bytes == before


def test_prompt_logprobs_survive_a_cache_given_up_midway():
    """A prompt that is read again from its beginning gets each log-probability once, in place."""
    prompt = tiny_ids(100, seed=3).tolist()
    asked = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=0)
    other = SamplingParams(max_tokens=100, temperature=0, ignore_eos=True)

    def logprobs_of_y(engine, *requests):
        for request in requests:
            engine.add(request)
        deltas = []
        while engine.has_work:
            deltas += engine.step()
        return next(d.prompt_logprobs for d in deltas if d.prompt_logprobs)

    y = Request(prompt, asked, request_id="y")
    whole = logprobs_of_y(Engine(MODEL), y)
    tight = Engine(MODEL, max_running=2, tokens_per_pass=8, cache_bytes=230_000, prefix_bytes=0)
    cut = logprobs_of_y(tight, Request(tiny_ids(20).tolist(), other, request_id="x"), y)
    assert tight.n_run > 20 + 99 + 100 + 8  # some of the prompt was read more than once
    assert [p.token_id for p in cut[1:]] == prompt[1:]
    expected = [p.logprob for p in whole[1:]]
    np.testing.assert_allclose([p.logprob for p in cut[1:]], expected, atol=1e-4)


@pytest.mark.parametrize("at", range(12))
def test_abort_at_any_pass_frees_the_cache_and_disturbs_nobody(at):
    """Each unfinished text of the request gets an "abort"; the others go on as if alone."""
    requests = requests_of_all_kinds()
    engine, texts = Engine(MODEL, max_running=4, tokens_per_pass=6), {}
    for request in requests:
        engine.add(request)
    for passes in range(200):
        if passes == at:
            ended = engine.abort("3")
            assert all(delta.finish_reason == "abort" for delta in ended)
            assert not engine.abort("3")
        for delta in engine.step():
            texts.setdefault((delta.request_id, delta.index), []).extend(delta.token_ids)
    assert not engine.has_work
    assert engine.cache_bytes == 0
    expected = alone(requests)
    for key, ids in texts.items():
        if key[0] != "3":
            assert ids == expected[key]


def test_only_the_request_at_fault_ends():
    """A request whose parameters leave no token ends with its error; the others finish."""
    engine = Engine(MODEL)
    impossible = SamplingParams(allowed_token_ids=[3], stop_token_ids=[3], min_tokens=2)
    engine.add(Request(tiny_ids(4).tolist(), impossible, request_id="bad"))
    good = requests_of_all_kinds()[1]
    engine.add(good)
    deltas = []
    while engine.has_work:
        deltas += engine.step()
    (bad,) = [delta for delta in deltas if delta.request_id == "bad"]
    assert bad.finish_reason == "error"
    assert isinstance(bad.error, NonFiniteError)
    ids = [token_id for delta in deltas if delta.request_id == "1" for token_id in delta.token_ids]
    assert ids == alone([good])["1", 0]


def test_weights_that_are_no_numbers_end_each_request_with_the_weight_named():
    """NaN in a weight is an error delta that names it, not a token."""
    model = tiny_model()
    model.weights.layers[1].w_gate_FD[0, 0] = np.nan
    engine = Engine(model)
    for k in range(2):
        engine.add(Request(tiny_ids(4, seed=k).tolist(), SamplingParams()))
    deltas = engine.step()
    assert [delta.finish_reason for delta in deltas] == ["error"] * 2
    assert "layers.1" in str(deltas[0].error)
    assert not engine.has_work


def test_a_long_prompt_does_not_hold_the_others_up():
    """While a prompt is read in chunks, every text being written gets a token each pass."""
    engine = Engine(MODEL, max_running=4, tokens_per_pass=8)
    params = SamplingParams(max_tokens=20, temperature=0, ignore_eos=True)
    engine.add(Request(tiny_ids(2).tolist(), params, request_id="short"))
    engine.step()
    engine.add(Request(tiny_ids(60).tolist(), params, request_id="long"))
    for _ in range(8):
        assert "short" in [delta.request_id for delta in engine.step()]


@pytest.mark.parametrize(
    ("request_", "error", "says"),
    [
        (Request([]), BadRequest, "at least one"),
        (Request([10**6]), BadRequest, "token"),
        (Request([1] * 200_000), LimitExceeded, "context"),
        (Request([1], SamplingParams(stop="x")), BadRequest, "stop"),
        (Request([1], SamplingParams(stop_token_ids=[10**6])), BadRequest, "stop_token_ids"),
        (Request([1], SamplingParams(logit_bias={10**6: 1.0})), BadRequest, "logit_bias"),
        (Request([1], SamplingParams(n=2), request_id="taken"), BadRequest, "request_id"),
    ],
)
def test_impossible_requests_are_refused_whole(request_, error, says):
    """What this model cannot do is an error when it is added, and nothing of it is taken in."""
    engine = Engine(MODEL)
    engine.add(Request([1], SamplingParams(), request_id="taken"))
    with pytest.raises(error, match=says):
        engine.add(request_)
    assert engine.n_waiting == 1


@pytest.mark.parametrize(
    "options",
    [{"max_running": 0}, {"max_running": 8, "tokens_per_pass": 8}, {"cache_bytes": 0.5}],
)
def test_bad_options_are_refused(options):
    """Numbers that cannot work are named."""
    with pytest.raises(BadRequest, match=next(reversed(options))):
        Engine(MODEL, **options)
