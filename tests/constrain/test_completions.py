"""Five hundred completions at temperature 1.5: every one that was not cut parses and fits."""

import json
from collections import Counter

import jsonschema
import pytest

import llama_ref as lr
from llama_ref import constrain
from llama_ref.continuation import ends
from llama_ref.sampling import SamplingParams
from llama_ref.tokenizer import load_tokenizer
from tests.models import tiny_model

pytestmark = [pytest.mark.real, pytest.mark.slow]
N_COMPLETIONS, N_TOKENS = 250, 120

WORD = {"type": "string", "maxLength": 6}
PERSON = {
    "type": "object",
    "properties": {
        "name": WORD,
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "kind": {"enum": ["cat", "dog", None, 3]},
        "tags": {"type": "array", "items": WORD, "maxItems": 2},
    },
    "required": ["name", "kind"],
}
SCHEMAS = [
    {"type": "object"},
    PERSON,
    {"type": "array", "items": PERSON, "minItems": 1, "maxItems": 2},
    {"anyOf": [{"type": "number", "minimum": -1, "maximum": 1}, {"type": "boolean"}, WORD]},
    {"type": "string", "pattern": "^[a-z]{2,4}-[0-9]{1,3}$"},
]


@pytest.fixture(params=["the real 128k tokenizer", "stories260k"])
def model(request, llama3_ranks_file, stories_folder):
    """A model of random weights with the tokenizer of Llama 3, and a trained one."""
    if request.param == "stories260k":
        return lr.load(stories_folder)
    model = tiny_model(vocab_size=128_256)
    model.tokenizer = load_tokenizer(llama3_ranks_file)
    return model


def test_every_completion_that_was_not_cut_fits(model):
    """Parsed by the standard library and validated by jsonschema; the cut ones say "length"."""
    primary, others = ends(model, SamplingParams())
    size = model.config.vocab_size
    stop_ids = sorted(others | {primary})
    vocabulary = constrain.Vocabulary(model.tokenizer, vocab_size=size, stop_ids=stop_ids)
    compiled = [constrain.compile_grammar(constrain.json_schema(s), vocabulary) for s in SCHEMAS]
    reasons = Counter()
    for number in range(N_COMPLETIONS):
        schema, grammar = SCHEMAS[number % len(SCHEMAS)], compiled[number % len(SCHEMAS)]
        params = SamplingParams(temperature=1.5, seed=number, max_tokens=N_TOKENS)
        tokens = list(lr.generate(model, [1, 2, 3], params, grammar=grammar))
        reasons[tokens[-1].finish_reason] += 1
        if tokens[-1].finish_reason == "stop":
            text = "".join(token.text for token in tokens)
            jsonschema.validate(json.loads(text), schema)
        else:
            assert len(tokens) == N_TOKENS
    assert set(reasons) <= {"stop", "length"}
    assert reasons["stop"] > N_COMPLETIONS / 2
