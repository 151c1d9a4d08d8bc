"""Regular expressions of a schema: what the engine lets through fits in Python's `re` as well."""

import json

import jsonschema
import pytest

import llama_ref as lr
from llama_ref import constrain
from llama_ref.cli.demo_checkpoint import write_demo
from llama_ref.constrain.patterns import for_engine
from llama_ref.errors import BadRequest

LETTERS = (
    "a9_ -&[~\n\t\u0663\u00e9\u00a0\x1c\u2028\ufeff\u00b2\u2167\u4e2d\U0001f600\x85\u0301\u203f"
)
"""ASCII, and what one side or another takes for a digit, a letter or white space."""
PATTERNS = [
    r"^\D$",
    r"^\W$",
    r"^\S$",
    r"^[^\d]$",
    r"^[^\w]$",
    r"^[^\s]$",
    r"^[\D]$",
    r"^[\W9]$",
    r"^[\Sx]$",
    r"^[^\D]$",
    r"^[^\W]$",
    r"^[^\S]$",
    r"^\d$",
    r"^\w$",
    r"^\s$",
    r"^[\w]$",
    r"^[^a&&b]$",
    r"^[a&&9]$",
    r"^[[]$",
    r"^[^[]$",
    r"^[a~~]$",
    r"^[\s\S]$",
    r"^.$",
    r"^[^a]$",
    r"^[a\-]$",
    r"^\[$",
    r"^(?:\D|\d)$",
    r"^\S+$",
]


@pytest.fixture(scope="module")
def llm(tmp_path_factory):
    """The demonstration model, whose tokens are bytes."""
    folder = tmp_path_factory.mktemp("patterns") / "demo"
    write_demo(folder)
    return lr.LLM(folder)


def taken(llm, schema, texts):
    """Return those of the texts that may be written."""
    grammar = constrain.compile_grammar(constrain.json_schema(schema), llm.vocabulary())
    return [text for text in texts if fits(grammar.matcher(), text)]


def fits(matcher, text):
    for byte in text.encode():
        if not matcher.allowed_V()[byte]:
            return False
        matcher.advance(byte)
    return matcher.is_complete


def spellings(letter):
    return sorted({json.dumps(letter), json.dumps(letter, ensure_ascii=False)})


@pytest.mark.filterwarnings("ignore:Possible:FutureWarning")
@pytest.mark.parametrize("pattern", PATTERNS)
def test_what_fits_fits_in_python_too(llm, pattern):
    """Of ten ASCII signs and thirteen others, none passes that a validator in Python refuses."""
    schema = {"type": "string", "pattern": pattern}
    texts = [text for letter in LETTERS for text in spellings(letter)]
    passed = taken(llm, schema, texts)
    assert passed
    assert all(jsonschema.Draft202012Validator(schema).is_valid(json.loads(t)) for t in passed)


@pytest.mark.filterwarnings("ignore:Possible:FutureWarning")
@pytest.mark.parametrize("pattern", PATTERNS)
def test_keys_that_fit_a_pattern_have_its_schema(llm, pattern):
    """A key that Python's `re` finds in a pattern never has the schema of the other keys."""
    schema = {"type": "object", "patternProperties": {pattern: {"type": "integer"}}}
    keys = [text for letter in LETTERS for text in spellings(letter)]
    texts = ["{" + f"{key}: {value}" + "}" for key in keys for value in ("1", '"x"')]
    passed = taken(llm, schema, texts)
    assert passed
    assert all(jsonschema.Draft202012Validator(schema).is_valid(json.loads(t)) for t in passed)


@pytest.mark.parametrize(
    ("pattern", "engine"),
    [
        (r"^[a-z]{2}\.\[$", r"^[a-z]{2}\.\[$"),
        (r"\D[\d-]", r"[^\p{Nd}][\d-]"),
        (r"[^\d\D]", r"[^\p{Nd}\D]"),
        ("[a&&b]", r"[a&\&b]"),
        ("&&[[]", r"&&[\[]"),
        ("a\\", "a\\"),
    ],
)
def test_what_is_rewritten(pattern, engine):
    """Classes beyond ASCII and signs inside brackets change; everything else stays."""
    assert for_engine(pattern) == engine


def test_two_patterns_of_one_meaning_are_refused():
    """Neither of two schemas is passed over where their patterns come out the same."""
    schema = {"patternProperties": {"[[]": {"type": "integer"}, r"[\[]": {"type": "string"}}}
    with pytest.raises(BadRequest, match="differ in meaning"):
        constrain.json_schema(schema)
