"""`LLM`: the shapes that vLLM's users know, the numbers behind them, and nothing left behind."""

import gc
import signal

import numpy as np
import pytest

import llama_ref as lr
from llama_ref.cli.demo_checkpoint import write_demo
from llama_ref.engine import Request
from llama_ref.errors import BadRequest, NonFiniteError
from llama_ref.ops.softmax import softmax
from llama_ref.sampling import SamplingParams

GREEDY = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The demonstration model: random weights, bytes for tokens, all special tokens."""
    folder = tmp_path_factory.mktemp("llm") / "demo"
    write_demo(folder)
    return lr.load(folder)


@pytest.fixture
def llm(model):
    return lr.LLM(model)


def test_generate_gives_vllm_shapes_in_the_order_of_the_prompts(llm):
    """Text and id prompts, each with its own ids, text and reason, whichever ended first."""
    long = SamplingParams(temperature=0, max_tokens=9, ignore_eos=True)
    prompts = ["Once upon", {"prompt_token_ids": [256, 72, 105]}, {"prompt": "The end"}]
    outputs = llm.generate(prompts, [long, GREEDY, GREEDY])
    assert [output.prompt for output in outputs] == ["Once upon", None, "The end"]
    assert outputs[0].prompt_token_ids == llm.tokenizer.encode("Once upon", bos=True)
    assert outputs[1].prompt_token_ids == [256, 72, 105]
    for output, n in zip(outputs, (9, 6, 6), strict=True):
        (completion,) = output.outputs
        assert len(completion.token_ids) == n
        assert (completion.index, completion.finish_reason) == (0, "length")
        alone = lr.generate(
            llm.model, output.prompt_token_ids, temperature=0, max_tokens=n, ignore_eos=True
        )
        assert [token.id for token in alone] == list(completion.token_ids)
    assert not llm.engine.has_work


@pytest.mark.parametrize("prompt", ["Hi", [256, 72], np.array([256, 72]), {"prompt": "Hi"}])
def test_a_single_prompt_needs_no_list(llm, prompt):
    """Any form of one prompt gives a list of one output."""
    assert len(llm.generate(prompt, GREEDY)) == 1


@pytest.mark.parametrize(
    "prompts", [[], "", [""], None, [[]], {"text": "Hi"}, {"prompt": "a", "x": 1}, [1.5], ["a", []]]
)
def test_what_is_no_prompt_is_refused(llm, prompts):
    """Nothing runs unless every prompt is text or ids. Empty text is the begin-of-text token."""
    if prompts in ("", [""]):
        assert llm.generate(prompts, GREEDY)[0].prompt_token_ids == [256]
        return
    with pytest.raises(BadRequest):
        llm.generate(prompts, GREEDY)
    assert not llm.engine.has_work


def test_logprobs_are_those_of_the_model_alone(llm):
    """Of every token and of the prompt: log-softmax of the logits before any parameter."""
    params = SamplingParams(
        temperature=0.5,
        seed=1,
        max_tokens=5,
        logprobs=3,
        prompt_logprobs=2,
        top_k=5,
        ignore_eos=True,
    )
    (output,) = llm.generate("Hello", params)
    ids = [*output.prompt_token_ids, *output.outputs[0].token_ids]
    expected_TV = np.log(softmax(llm.model.logits(ids).astype(np.float64)))
    n_prompt, completion = len(output.prompt_token_ids), output.outputs[0]
    assert output.prompt_logprobs[0] is None
    given = [*output.prompt_logprobs[1:], *completion.logprobs]
    assert len(given) == len(ids) - 1
    for t, (listed, chosen) in enumerate(zip(given, ids[1:], strict=True)):
        order_V = np.argsort(-expected_TV[t], kind="stable")
        n_top = 2 if t < n_prompt - 1 else 3
        assert list(listed)[:n_top] == order_V[:n_top].tolist()
        assert len(listed) == n_top + (chosen not in order_V[:n_top])
        for token_id, entry in listed.items():
            assert entry.logprob == pytest.approx(expected_TV[t, token_id], abs=1e-4)
            assert order_V[entry.rank - 1] == token_id
            assert entry.decoded_token == llm.tokenizer.decode([token_id])
    total = sum(
        entry[i].logprob for entry, i in zip(completion.logprobs, completion.token_ids, strict=True)
    )
    assert completion.cumulative_logprob == pytest.approx(total)


def test_prompt_logprobs_in_chunks_are_the_same(model):
    """A prompt read in several passes gives the same log-probabilities."""
    params = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=0)
    prompt = "A prompt of more than sixteen tokens, and then some more."
    whole = lr.LLM(model).generate(prompt, params)[0].prompt_logprobs
    cut = (
        lr.LLM(model, max_running=4, tokens_per_pass=7).generate(prompt, params)[0].prompt_logprobs
    )
    for a, b in zip(whole[1:], cut[1:], strict=True):
        assert list(a) == list(b)
        assert next(iter(a.values())).logprob == pytest.approx(
            next(iter(b.values())).logprob, abs=1e-4
        )


def test_a_stop_string_ends_and_cuts_the_text(llm):
    """The text ends before the stop string, the ids with it, and stop_reason names it."""
    params = {"temperature": 0, "max_tokens": 40, "ignore_eos": True}
    free = llm.generate("Hello", SamplingParams(**params))[0].outputs[0]
    stop = free.text[5:8]
    (output,) = llm.generate("Hello", SamplingParams(stop=["no such text", stop], **params))
    completion = output.outputs[0]
    assert completion.text == free.text[: free.text.index(stop)]
    assert (completion.finish_reason, completion.stop_reason) == ("stop", stop)
    assert completion.token_ids == free.token_ids[: len(completion.token_ids)]


def test_stream_is_generate_in_pieces(llm):
    """The deltas join to the text and ids of the whole."""
    params = SamplingParams(temperature=1.2, seed=5, n=2, max_tokens=12, stop=["e"], logprobs=1)
    deltas = list(llm.stream("Hello", params))
    for completion in llm.generate("Hello", params)[0].outputs:
        own = [delta for delta in deltas if delta.index == completion.index]
        assert "".join(delta.text for delta in own) == completion.text
        assert sum((delta.token_ids for delta in own), ()) == completion.token_ids
        assert own[-1].finish_reason == completion.finish_reason
        assert all(delta.finish_reason is None for delta in own[:-1])


def test_streams_side_by_side_lose_nothing(llm):
    """Several open streams share the passes, and each gets all that is its own."""
    params = [SamplingParams(temperature=0, max_tokens=4 + k, ignore_eos=True) for k in range(3)]
    streams = [llm.stream(f"Prompt {k}", p) for k, p in enumerate(params)]
    got = [[], [], []]
    for turn in range(30):
        for delta in [next(streams[turn % 3], None)]:
            got[turn % 3] += delta.token_ids if delta else ()
    for k in range(3):
        assert tuple(got[k]) == llm.generate(f"Prompt {k}", params[k])[0].outputs[0].token_ids


def test_an_id_in_use_is_refused_and_its_owner_goes_on(llm):
    """A second stream under the id of an open one is an error, and the first loses nothing."""
    params = SamplingParams(temperature=0, max_tokens=9, ignore_eos=True)
    first = llm.stream(Request([256, 65], params, request_id="a"))
    next(first)
    with pytest.raises(BadRequest, match="request_id"):
        list(llm.stream(Request([256, 66], params, request_id="a")))
    assert len(list(first)) == 8


@pytest.mark.parametrize("n_read", [1, 2, 5])
def test_closing_a_stream_aborts_it(llm, n_read):
    """Whoever leaves a stream leaves no request and no cache behind."""
    stream = llm.stream("Hello", SamplingParams(max_tokens=1000, temperature=0, ignore_eos=True))
    for _ in range(n_read):
        next(stream)
    assert llm.engine.has_work
    stream.close()
    assert not llm.engine.has_work
    assert llm.engine.cache_bytes == 0


def test_a_stream_that_is_forgotten_is_aborted(llm):
    """A stream nobody holds any more is as good as closed."""
    next(llm.stream("Hello", SamplingParams(max_tokens=1000, ignore_eos=True)))
    gc.collect()
    assert not llm.engine.has_work


def test_ctrl_c_leaves_an_engine_that_works(llm):
    """An interrupt in the middle of a call ends its requests; the next call is as ever."""
    expected = llm.generate("Hello", GREEDY)[0].outputs[0].token_ids
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        for delay in (0.02, 0.05, 0.11):
            signal.setitimer(signal.ITIMER_REAL, delay)
            with pytest.raises(KeyboardInterrupt):
                llm.generate(["Hello"] * 8, SamplingParams(max_tokens=20_000, ignore_eos=True))
            assert not llm.engine.has_work
            assert llm.engine.cache_bytes == 0
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert llm.generate("Hello", GREEDY)[0].outputs[0].token_ids == expected


def test_an_error_inside_is_raised_and_ends_the_call(llm):
    """A request that leaves no token to choose is an exception, and no result is made up."""
    impossible = SamplingParams(allowed_token_ids=[3], stop_token_ids=[3], min_tokens=2)
    with pytest.raises(NonFiniteError):
        llm.generate(["a", "b"], [GREEDY, impossible])
    assert not llm.engine.has_work


def test_parameters_must_be_one_for_each_prompt(llm):
    """A list of another length is refused."""
    with pytest.raises(BadRequest, match="sampling_params"):
        llm.generate(["a", "b"], [GREEDY])
