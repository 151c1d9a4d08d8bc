"""What a mask costs beside the step of the model that it belongs to."""

import time

import numpy as np
import pytest

from llama_ref import constrain, generate
from llama_ref.constrain import Matcher
from llama_ref.sampling import SamplingParams
from llama_ref.tokenizer import load_tokenizer
from tests.constrain.test_completions import SCHEMAS
from tests.models import tiny_model

pytestmark = [pytest.mark.real, pytest.mark.slow]
BYTES_OF_1B = 1_235_814_400 * 4
BLOCK = np.ones((8192, 2048), np.float32)
END_OF_TURN = 128_009  # <|eot_id|>


def step_seconds():
    """Return at least how long a 1B-shaped step takes in float32: its matrices read once."""
    vector, times = np.ones(2048, np.float32), []
    for _ in range(30):
        start = time.perf_counter()
        BLOCK @ vector
        times.append(time.perf_counter() - start)
    return min(times) * BYTES_OF_1B / BLOCK.nbytes


def timed(method, times):
    """Return a method that also notes how long it took."""

    def call(*arguments):
        start = time.perf_counter()
        result = method(*arguments)
        times.append(time.perf_counter() - start)
        return result

    return call


def test_masks_cost_less_than_a_tenth_of_a_step(llama3_ranks_file, monkeypatch):
    """For 128,256 ids, on average over what is written for each of five schemas."""
    model = tiny_model(vocab_size=128_256)
    model.tokenizer = load_tokenizer(llama3_ranks_file)
    vocabulary = constrain.Vocabulary(model.tokenizer, vocab_size=128_256, stop_ids=[END_OF_TURN])
    compiled = [constrain.compile_grammar(constrain.json_schema(s), vocabulary) for s in SCHEMAS]
    masks, advances = [], []
    monkeypatch.setattr(Matcher, "allowed_V", timed(Matcher.allowed_V, masks))
    monkeypatch.setattr(Matcher, "advance", timed(Matcher.advance, advances))
    for grammar in compiled:
        for seed in range(8):
            params = SamplingParams(temperature=1.5, seed=seed, max_tokens=48)
            list(generate(model, [1, 2], params, grammar=grammar))
    assert len(masks) == len(advances) > 500
    assert (sum(masks) + sum(advances)) / len(masks) < step_seconds() / 10
