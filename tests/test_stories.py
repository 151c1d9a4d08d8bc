"""The main job on real input: a trained model tells the story an independent C engine recorded."""

import json

import numpy as np
import pytest

import llama_ref as lr

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def expected(stories_folder):
    return json.loads((stories_folder / "expected.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def model(stories_folder):
    return lr.load(stories_folder)


def test_greedy_ids_and_text_are_those_of_the_c_engine(model, expected):
    """220 greedy tokens from the begin-of-text token agree, id for id and letter for letter."""
    tokens = list(lr.generate(model, expected["prompt_ids"], max_tokens=220))
    assert [token.id for token in tokens] == expected["greedy_ids"]
    assert "".join(token.text for token in tokens) == expected["text"]
    assert [token.finish_reason for token in tokens] == [None] * 219 + ["length"]


def test_an_empty_text_prompt_is_the_begin_of_text_token(model, expected):
    """The prompt "" generates what the prompt [1] does."""
    tokens = list(lr.generate(model, "", max_tokens=20))
    assert [token.id for token in tokens] == expected["greedy_ids"][:20]


def test_text_continues_where_a_text_prompt_ends(model):
    """Prompt and continuation join to the text of all their ids: no blank is lost between them."""
    prompt = "Once upon a time, there was a"
    tokens = list(lr.generate(model, prompt, max_tokens=12))
    text = prompt + "".join(token.text for token in tokens)
    ids = model.tokenizer.encode(prompt, bos=True) + [token.id for token in tokens]
    assert text == model.tokenizer.decode(ids, skip_special=True)
    assert text.startswith("Once upon a time, there was a little girl")


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16"])
def test_story_begins_alike_in_every_precision(stories_folder, expected, dtype):
    """The first 24 tokens do not depend on the precision."""
    model = lr.load(stories_folder, dtype=dtype)
    tokens = list(lr.generate(model, [1], max_tokens=24))
    assert [token.id for token in tokens] == expected["greedy_ids"][:24]


def test_widened_and_mapped_weights_tell_one_story(stories_folder, model):
    """Weights held in memory give bit for bit the logits of weights on disk."""
    ids = list(range(3, 40))
    widened = lr.load(stories_folder, widen=True)
    np.testing.assert_array_equal(widened.logits(ids), model.logits(ids))


def test_generation_can_be_left_at_any_token(model):
    """Closing the iterator ends the generation; a new one starts from the beginning."""
    tokens = lr.generate(model, "", max_tokens=100)
    first = [next(tokens).id for _ in range(3)]
    tokens.close()
    assert list(tokens) == []
    assert [token.id for token in lr.generate(model, "", max_tokens=3)] == first
