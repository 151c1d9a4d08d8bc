"""The loop: when it stops, what it refuses, and that chunks, seeds and caches leave no trace."""

import codecs

import numpy as np
import pytest

import llama_ref as lr
from llama_ref.cli.demo_checkpoint import write_demo
from llama_ref.errors import BadRequest, LimitExceeded
from llama_ref.generation import prefill
from llama_ref.sampling import SamplingParams, sample
from tests.models import TINY, largest_difference, tiny_ids, tiny_model

MODEL = tiny_model()
PROMPT = tiny_ids(5).tolist()


def ids_of(tokens):
    return [token.id for token in tokens]


def test_greedy_equals_recomputing_everything():
    """Each token is the argmax of a full pass over all before it, without any cache."""
    ids = list(PROMPT)
    for token in lr.generate(MODEL, PROMPT, max_tokens=12):
        assert token.id == int(MODEL.logits(ids)[-1].argmax())
        ids.append(token.id)


def test_stops_at_a_stop_token():
    """The first stop token ends the generation, with reason "stop" and without text."""
    free = ids_of(lr.generate(MODEL, PROMPT, max_tokens=12))
    stop = free[4]
    tokens = list(lr.generate(MODEL, PROMPT, max_tokens=12, stop_token_ids=[stop]))
    assert ids_of(tokens) == free[: free.index(stop) + 1]
    assert tokens[-1].finish_reason == "stop"
    assert tokens[-1].text == ""


def test_blueprint_says_where_to_stop():
    """The end-of-text ids of the checkpoint end a text, unless they are to be ignored."""
    free = ids_of(lr.generate(MODEL, PROMPT, max_tokens=12))
    model = tiny_model(eos_ids=(free[2], 96))
    assert ids_of(lr.generate(model, PROMPT, max_tokens=12)) == free[: free.index(free[2]) + 1]
    assert ids_of(lr.generate(model, PROMPT, max_tokens=12, ignore_eos=True)) == free


def test_full_context_ends_with_reason_length():
    """A prompt as long as the context still gives one token; a longer one is refused."""
    model = tiny_model(context_length=8)
    tokens = list(lr.generate(model, tiny_ids(6), max_tokens=100))
    assert len(tokens) == 3
    assert tokens[-1].finish_reason == "length"
    assert len(list(lr.generate(model, tiny_ids(8), max_tokens=100))) == 1
    with pytest.raises(LimitExceeded, match="8, found 9 tokens"):
        lr.generate(model, tiny_ids(9), max_tokens=1)


def test_a_seed_gives_one_text():
    """Equal seeds repeat a sampled text, other seeds change it."""

    def text(seed):
        return ids_of(lr.generate(MODEL, PROMPT, max_tokens=16, temperature=1.5, seed=seed))

    assert text(7) == text(7)
    assert len({tuple(text(seed)) for seed in range(8)}) == 8


def test_every_token_is_drawn_with_its_own_step():
    """Token number i is the draw of step i from the logits after the tokens before it."""
    ids, drawn = list(PROMPT), []
    params = SamplingParams(temperature=1.5)
    for step in range(12):
        drawn.append(sample(MODEL.logits(ids)[-1], params, step=step, seed=7))
        ids.append(drawn[-1])
    generated = lr.generate(MODEL, PROMPT, max_tokens=12, temperature=1.5, seed=7)
    assert ids_of(generated) == drawn


def test_half_a_character_at_the_end_is_dropped(tmp_path):
    """However early a generation ends, its texts join to the whole characters of all its ids."""
    write_demo(tmp_path / "demo")
    model = lr.load(tmp_path / "demo")
    prompt = model.tokenizer.encode("a", bos=True)
    before = model.tokenizer.decode(prompt, skip_special=True)
    cut = 0
    for n in range(1, 25):
        tokens = list(
            lr.generate(model, prompt, max_tokens=n, temperature=2.0, seed=0, ignore_eos=True)
        )
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        whole = decoder.decode(
            model.tokenizer.decode_bytes(prompt + ids_of(tokens), skip_special=True)
        )
        assert before + "".join(token.text for token in tokens) == whole
        cut += 0xC2 <= tokens[-1].id <= 0xF4  # ends with the first byte of a longer character
    assert cut > 0


def test_top_k_1_is_greedy():
    """One candidate leaves nothing to chance."""
    sampled = lr.generate(MODEL, PROMPT, max_tokens=16, temperature=2.0, top_k=1, seed=3)
    assert ids_of(sampled) == ids_of(lr.generate(MODEL, PROMPT, max_tokens=16))


def test_long_prompts_run_in_chunks(monkeypatch):
    """The logits after a prompt do not depend on the size of the chunks it is run in."""
    model, ids = tiny_model("float64"), tiny_ids(40)
    whole = prefill(model, ids, model.new_cache())
    monkeypatch.setattr("llama_ref.generation.PREFILL_CHUNK", 7)
    cache = model.new_cache()
    chunked = prefill(model, ids, cache)
    assert whole.shape == chunked.shape == (TINY.vocab_size,)
    assert largest_difference(chunked, whole) < 1e-11
    assert cache.length == 40


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": 1, "temperature": -1.0}, "temperature"),
        ({"max_tokens": 1, "temperature": float("nan")}, "temperature"),
        ({"max_tokens": 1, "top_p": 0.0}, "top_p"),
        ({"max_tokens": 1, "top_p": 1.5}, "top_p"),
        ({"max_tokens": 1, "top_k": -2}, "top_k"),
        ({"max_tokens": 1, "top_k": 1.5}, "top_k"),
        ({"max_tokens": 1, "seed": -(2**63) - 1}, "seed"),
        ({"max_tokens": 1, "seed": 2**64}, "seed"),
        ({"max_tokens": 1, "seed": np.nan}, "seed"),
        ({"max_tokens": 1, "stop_token_ids": [97]}, "stop_token_ids"),
        ({"max_tokens": 1, "stop_token_ids": ["<|eot_id|>"]}, "stop_token_ids"),
        ({"max_tokens": 1, "stop": "a"}, "stop"),
        ({"max_tokens": 1, "n": 2, "temperature": 1.0}, "LLM.generate"),
        ({"max_tokens": 1, "prompt_logprobs": 1}, "LLM.generate"),
        ({"temperature": 1.0}, "max_tokens"),
    ],
)
def test_bad_arguments_are_refused_before_anything_runs(arguments, says):
    """Calling, not iterating, raises: the name, what is allowed and what was given."""
    with pytest.raises(BadRequest, match=says):
        lr.generate(MODEL, PROMPT, **arguments)


def test_text_without_a_tokenizer_is_refused():
    """A model loaded without a tokenizer takes ids only, and says so."""
    with pytest.raises(BadRequest, match="without a tokenizer"):
        lr.generate(MODEL, "Hello", max_tokens=1)
