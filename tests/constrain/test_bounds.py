"""What a reader of JSON needs and a grammar does not say: depth, digits, escapes."""

import json

import numpy as np
import pytest

import llama_ref as lr
from llama_ref import constrain
from llama_ref.cli.demo_checkpoint import write_demo
from llama_ref.constrain.bounds import MAX_DEPTH, MAX_DIGITS, Bounds, Marks
from llama_ref.json_values import MAX_DEPTH as MESSAGE_DEPTH
from llama_ref.json_values import MAX_DIGITS as MESSAGE_DIGITS

NUMBER, ANY = {"type": "number"}, {"type": "object"}
BELOW_ONE = {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}
OPEN = {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": True}
BY_NAME = {
    "type": "object",
    "patternProperties": {"^a": {"type": "integer"}},
    "additionalProperties": {"type": "string"},
}


@pytest.fixture(scope="module")
def llm(tmp_path_factory):
    """The demonstration model, whose tokens are bytes."""
    folder = tmp_path_factory.mktemp("bounds") / "demo"
    write_demo(folder)
    return lr.LLM(folder)


def takes(llm, schema, text):
    """Whether a text may be written, byte for byte, and may end there."""
    matcher = constrain.compile_grammar(constrain.json_schema(schema), llm.vocabulary()).matcher()
    for byte in text.encode():
        if not matcher.allowed_V()[byte]:
            return False
        matcher.advance(byte)
    return matcher.is_complete


@pytest.mark.parametrize(
    ("schema", "text", "fits"),
    [
        (NUMBER, "1" * MAX_DIGITS, True),
        (NUMBER, "1" * (MAX_DIGITS + 1), False),
        (NUMBER, "-1e99", True),
        (NUMBER, "1e-99", True),
        (NUMBER, "1E+999", False),
        (NUMBER, "0." + "0" * 40 + "1", True),
        (NUMBER, "0." + "0" * 300 + "1", False),
        (NUMBER, "1" * 30 + ".5", True),
        (NUMBER, "1" * 30 + ".55", False),
        (BELOW_ONE, "0." + "9" * 15, True),
        (BELOW_ONE, "0." + "9" * 16, False),
        (ANY, '{"a": [1.5, 123456789012345678]}', True),
        (ANY, '{"a": "%s"}' % ("1" * 99), True),
        (OPEN, '{"a": 1, "b": "x"}', True),
        (OPEN, '{"a": 1, "\\u0061": "x"}', False),
        (OPEN, '{"a": 1, "\\\\u0061": "x"}', True),
        (OPEN, '{"a": 1, "\\u001f": "x"}', True),
        (OPEN, '{"a": 1, "\\u001F": "x"}', False),
        (OPEN, '{"a": 1, "\\n": "x"}', True),
        (OPEN, '{"a": 1, "\\u000a": "x"}', False),
        (BY_NAME, '{"ab": 1, "b": "x"}', True),
        (BY_NAME, '{"\\u0061b": "x"}', False),
        ({"enum": ["\\u0061"]}, '"\\\\u0061"', True),
        ({"enum": ["\x01"]}, '"\\u0001"', True),
    ],
)
def test_what_a_reader_would_not_take_is_not_written(llm, schema, text, fits):
    """Numbers stay on their side of a bound when read, and a key has one way to be written."""
    assert takes(llm, schema, text) == fits


def test_nesting_has_a_limit_below_that_of_messages(llm):
    """What a model wrote as arguments can be sent back: depth and digits are within a message's."""
    assert MAX_DEPTH < MESSAGE_DEPTH
    assert MAX_DIGITS <= MESSAGE_DIGITS
    deepest = '{"a":' * (MAX_DEPTH - 1) + "[]" + "}" * (MAX_DEPTH - 1)
    assert takes(llm, ANY, deepest)
    assert json.loads(deepest)
    assert not takes(llm, ANY, '{"a":' + deepest + "}")
    brackets = '{"[{[": "%s"}' % ("[{" * 99)
    assert takes(llm, ANY, brackets)


def test_what_a_schema_demands_beyond_the_limit_is_written(llm):
    """A schema that needs sixty levels gets them: a bound never takes the last id away."""
    schema = {"const": 1}
    definitions = {}
    for level in range(60):
        definitions[f"d{level}"] = {"type": "array", "items": schema, "minItems": 1, "maxItems": 1}
        schema = {"$ref": f"#/$defs/d{level}"}
    assert takes(llm, {"$defs": definitions} | schema, "[ " * 60 + "1" + "]" * 60)


TOKENS = [b'"', b"[", b"[[", b'":[', b"\\", b"\\n", b"u00", b"61", b"1f", b"123", b"1.5"]
TOKENS.append(b"\\u0061")


@pytest.mark.parametrize(
    ("written", "gone"),
    [
        (b"", {b"\\u0061"}),
        (b"[" * (MAX_DEPTH - 1), {b"[[", b"\\u0061"}),
        (b"[" * MAX_DEPTH, {b"[", b"[[", b'":[', b"\\u0061"}),
        (b"[" * MAX_DEPTH + b'"', {b'":[', b"\\u0061"}),
        (b'"\\', set()),
        (b'"\\u00', {b"61", b"1.5", b"\\u0061"}),
        (b'"\\u001', {b"\\u0061"}),
        (b"1" * (MAX_DIGITS - 2), {b"123", b"\\u0061"}),
        (b"1" * MAX_DIGITS, {b"61", b"1f", b"123", b"1.5", b"\\u0061"}),
        (b"0." + b"1" * 14, {b"61", b"123", b"1.5", b"\\u0061"}),
    ],
)
def test_tokens_of_several_signs(written, gone):
    """A token counts with all its signs: two brackets are two levels, and 123 is three digits."""
    marks, bounds = Marks(TOKENS, len(TOKENS) + 2), Bounds()
    bounds.push(written)
    allowed_V = np.ones(len(TOKENS) + 2, bool)
    kept_V = bounds.keep_V(allowed_V, marks)
    assert {TOKENS[i] for i in np.flatnonzero(~kept_V)} == gone
    assert allowed_V.all()
