"""What a grammar lets through: recorded schemas, gaps between signs, closed objects, refusals."""

import json
import sys
from pathlib import Path

import jsonschema
import numpy as np
import pytest

import llama_ref as lr
from llama_ref import constrain
from llama_ref.cli.demo_checkpoint import write_demo
from llama_ref.errors import BadRequest, LimitExceeded, LlamaRefError, NonFiniteError, Unsupported
from llama_ref.sampling import SamplingParams
from llama_ref.tools import parse_tool_calls

DATA = Path(__file__).parents[1] / "data" / "constrain" / "json_schema.jsonl"
ROWS = [json.loads(line) for line in DATA.read_text("utf-8").splitlines()]
END_OF_TEXT, END_OF_MESSAGE, END_OF_TURN = 257, 264, 265  # of the demonstration tokenizer
INTEGER = {"type": "integer"}


@pytest.fixture(scope="module")
def llm(tmp_path_factory):
    """The demonstration model: random weights, bytes for tokens, all special tokens."""
    folder = tmp_path_factory.mktemp("grammars") / "demo"
    write_demo(folder)
    return lr.LLM(folder)


def compiled(llm, source):
    return constrain.compile_grammar(source, llm.vocabulary())


def takes(grammar, text):
    """Whether a grammar lets a text through, byte for byte, and lets it end there."""
    matcher = grammar.matcher()
    for byte in text.encode():
        if not matcher.allowed_V()[byte]:
            return False
        matcher.advance(byte)
    return matcher.is_complete


def schema_takes(llm, schema, text):
    return takes(compiled(llm, constrain.json_schema(schema)), text)


@pytest.mark.parametrize("row", ROWS, ids=[row["name"] for row in ROWS])
def test_recorded_candidates(llm, row):
    """What all peers accept is possible, what all reject is not, and nothing invalid ever is."""
    try:
        grammar = compiled(llm, constrain.json_schema(row["schema"]))
    except LlamaRefError:
        grammar = None
    for candidate in row["candidates"]:
        taken = grammar is not None and takes(grammar, candidate["text"])
        assert taken <= bool(candidate["jsonschema"]["valid"]), candidate["text"]
        if candidate["consensus"] != "peers_differ":
            assert taken == (candidate["consensus"] == "accept"), candidate["text"]


@pytest.mark.parametrize(
    ("gap", "fits"),
    [(gap, True) for gap in ("", " ", "\n", "\n\n", "\n" + " " * 20, "\n\n\t ")]
    + [(gap, False) for gap in ("  ", "\t", "\n\n\n", "\n" + " " * 21, "\r\n")],
)
def test_gaps_between_signs(llm, gap, fits):
    """Each gap takes nothing, one blank, or up to two line ends and twenty blanks; nothing more."""
    schema = {"type": "object", "properties": {"a": {"type": "array", "items": INTEGER}}}
    for text in ('{%s"a": [1]}', '{"a"%s: [1]}', '{"a":%s[1]}', '{"a": [%s1]}', '{"a": [1]%s}'):
        assert schema_takes(llm, schema, text % gap) == fits, text
    for text in ('%s{"a": [1]}', '{"a": [1]}%s'):
        assert schema_takes(llm, schema, text % gap) == (gap == "")


AB = [{"type": "object", "properties": {key: INTEGER}, "required": [key]} for key in "ab"]


@pytest.mark.parametrize(
    ("schema", "text", "fits"),
    [
        ({"type": "object"}, '{"x": [1, {"y": null}]}', True),
        ({"type": "object", "properties": {}}, '{"x": 1}', False),
        ({"type": "object", "properties": {"a": INTEGER}}, '{"a": 1}', True),
        ({"type": "object", "properties": {"a": INTEGER}}, "{}", True),
        ({"type": "object", "properties": {"a": INTEGER}}, '{"a": 1, "x": 1}', False),
        ({"properties": {"a": INTEGER}, "additionalProperties": True}, '{"a": 1, "x": 1}', True),
        ({"allOf": AB}, '{"a": 1, "b": 2}', True),
        ({"allOf": AB}, '{"a": 1, "b": 2, "c": 3}', False),
        ({"anyOf": AB}, '{"b": 2}', True),
        ({"anyOf": AB}, '{"c": 2}', False),
        ({"type": "array", "items": AB[0]}, '[{"a": 1, "x": 1}]', False),
        ({"$defs": {"A": AB[0]}, "$ref": "#/$defs/A"}, '{"a": 1, "x": 1}', False),
        ({"enum": [{"$ref": "#/x"}]}, '{"$ref":"#/x"}', True),
        ({"type": "number", "multipleOf": 0.5}, "1.5", True),
        ({"type": "number", "multipleOf": 0.5}, "1.25", False),
        ({"type": "object", "minProperties": 1}, "{}", False),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 0.3}, "0", False),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 0.3}, "0.0", False),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 0.3}, "0.0001", True),
        ({"type": "number", "exclusiveMinimum": -10.5, "exclusiveMaximum": -10}, "-10", False),
        ({"type": "number", "allOf": [{"exclusiveMinimum": 0}, {"maximum": 0.3}]}, "0", False),
        ({"type": "integer", "exclusiveMinimum": 0, "maximum": 1}, "1", True),
        ({"type": "object", "properties": {"a": INTEGER, "b": INTEGER}}, '{"b": 1, "a": 1}', False),
        (True, "[1]", True),
    ],
)
def test_objects_are_closed_where_they_list_properties(llm, schema, text, fits):
    """Unlisted keys come only where the schema says so, or says nothing of keys at all."""
    assert schema_takes(llm, schema, text) == fits


NODE = {"type": "object", "properties": {"n": {"$ref": "#/$defs/node"}}, "required": ["n"]}
KEYWORDS = "not if then else uniqueItems contains minContains dependentRequired propertyNames"


@pytest.mark.parametrize(
    ("schema", "error", "says"),
    [({keyword: {}}, Unsupported, f"schema, keyword '{keyword}'") for keyword in KEYWORDS.split()]
    + [
        ({"properties": {"a": {"not": {}}}}, Unsupported, "properties.'a', keyword 'not'"),
        ({"typo": "object"}, Unsupported, "typo"),
        (False, BadRequest, "fits"),
        ([], BadRequest, "schema"),
        ({"type": "strnig"}, BadRequest, "strnig"),
        ({"enum": []}, BadRequest, "empty"),
        ({"type": "integer", "minimum": 5, "maximum": 3}, BadRequest, "greater than"),
        ({"$ref": "#/$defs/missing"}, BadRequest, "missing"),
        ({"$ref": "https://example.org/schema"}, BadRequest, "same schema"),
        ({"$ref": "#"}, BadRequest, "needs itself"),
        ({"$ref": "#name", "$defs": {"n": {"$anchor": "name"}}}, BadRequest, "same schema"),
        ({"$ref": "#/default", "default": {"required": 5}}, BadRequest, "to schemas"),
        ({"required": 5}, BadRequest, "required"),
        ({"required": [["a"]]}, BadRequest, "required"),
        ({"type": "string", "nullable": True}, Unsupported, "nullable"),
        ({"type": "number", "multipleOf": 0.1}, Unsupported, "multipleOf"),
        ({"type": "number", "multipleOf": 0}, Unsupported, "multipleOf"),
        ({"type": "object", "minProperties": 2}, Unsupported, "minProperties"),
        ({"$defs": {"node": NODE}, "$ref": "#/$defs/node"}, BadRequest, "needs itself"),
        ({"type": "string", "pattern": "(?=a)b"}, BadRequest, "look-ahead"),
        ({"type": "string", "pattern": "a" * 513}, LimitExceeded, "pattern"),
        ({"type": "string", "format": "postcode"}, BadRequest, "postcode"),
        ({"type": "array", "minItems": 10**9}, LimitExceeded, "minItems"),
        ({"type": "array", "maxItems": "3"}, LimitExceeded, "maxItems"),
        ({"type": "integer", "minimum": "3"}, BadRequest, "minimum"),
        ({"anyOf": []}, BadRequest, "anyOf"),
        ({"properties": []}, BadRequest, "properties"),
        ({"items": [INTEGER]}, BadRequest, "items"),
        ({"description": "x" * 2**16}, LimitExceeded, "characters"),
        ({"oneOf": [INTEGER, {"type": "number"}]}, BadRequest, "oneOf"),
    ],
)
def test_what_cannot_be_kept_to_is_refused_by_name(llm, schema, error, says):
    """A keyword that would be passed over, or a schema nothing fits, is an error with its place."""
    with pytest.raises(error, match=says.replace("$", "\\$")):
        compiled(llm, constrain.json_schema(schema))


def test_a_schema_ten_thousand_levels_deep_is_refused():
    """Depth has a limit, and no recursion of Python's is used up before it is reached."""
    schema = {}
    for _ in range(10_000):
        schema = {"items": schema}
    with pytest.raises(LimitExceeded, match="64 levels"):
        constrain.json_schema(schema)


@pytest.mark.parametrize("pattern", ["^(a+)+$", "^(a|a|aa)*$", "(a|b)*a(a|b){200}"])
def test_patterns_that_explode_elsewhere_take_linear_time(llm, pattern):
    """The engine has no backtracking; the text that keeps others busy forever is refused at "!"."""
    schema = {"type": "string", "pattern": pattern}
    assert schema_takes(llm, schema, '"' + "a" * 300 + '"')
    if pattern.endswith("$"):
        assert not schema_takes(llm, schema, '"' + "a" * 300 + '!"')


def test_a_text_that_becomes_too_involved_is_an_error(llm):
    """Repeats of repeats of repeats, counted, exceed a limit of the engine, which says so."""
    schema = {"type": "string", "pattern": "^((a{1,99}){1,99}){1,99}$"}
    with pytest.raises(LimitExceeded, match=r"too many expressions constructed'$"):
        schema_takes(llm, schema, '"' + "a" * 300 + '"')


def test_without_the_extra_an_error_says_how_to_install_it(llm, monkeypatch):
    """JSON mode without llguidance is Unsupported, with the command that adds it."""
    vocabulary = llm.vocabulary()
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(Unsupported, match=r"pip install 'llama_ref\[json\]'"):
        constrain.compile_grammar(constrain.json_object(), vocabulary)


def test_a_recursive_schema_that_can_end_is_fine(llm):
    """A tree of optional children is a schema like any other."""
    children = {"type": "array", "items": {"$ref": "#/$defs/tree"}}
    tree = {"type": "object", "properties": {"kids": children}, "required": ["kids"]}
    schema = {"$defs": {"tree": tree}, "$ref": "#/$defs/tree"}
    assert schema_takes(llm, schema, '{"kids": [{"kids": []}]}')


@pytest.mark.parametrize(
    ("form", "says"),
    [
        (None, "response_format"),
        ("json", "response_format"),
        ({"type": "yaml"}, "response_format"),
        ({"type": "json_object", "schema": {}}, "schema"),
        ({"type": "json_schema"}, "must be provided"),
        ({"type": "json_schema", "json_schema": {"schema": {}}}, "name"),
        ({"type": "json_schema", "json_schema": {"name": "x"}}, "schema"),
        ({"type": "json_schema", "json_schema": {"name": "x", "schema": {}, "y": 1}}, "'y'"),
    ],
)
def test_forms_of_response_that_do_not_exist(form, says):
    """A response_format is one of three, whole and with nothing beside it."""
    with pytest.raises(BadRequest, match=says):
        constrain.response_format(form)


def test_a_complete_text_can_only_end(llm):
    """Behind the last bracket the stop ids alone are allowed, and before it none of them."""
    matcher = compiled(llm, constrain.json_object()).matcher()
    for byte in b'{"a": 1}':
        assert not matcher.allowed_V()[[END_OF_TEXT, END_OF_MESSAGE, END_OF_TURN]].any()
        matcher.advance(byte)
    allowed = np.flatnonzero(matcher.allowed_V()).tolist()
    assert allowed == [END_OF_TEXT, END_OF_MESSAGE, END_OF_TURN]
    assert matcher.is_complete


def test_control_tokens_are_never_text(llm):
    """Inside a string, where any character may stand, no control token is allowed."""
    matcher = compiled(llm, constrain.json_object()).matcher()
    matcher.advance(ord("{"))
    matcher.advance(ord('"'))
    assert not matcher.allowed_V()[256:].any()
    with pytest.raises(BadRequest, match="256"):
        matcher.advance(256)


def test_matchers_of_one_grammar_go_their_own_ways(llm):
    """What one text does changes nothing for another."""
    grammar = compiled(llm, constrain.json_object())
    first, second = grammar.matcher(), grammar.matcher()
    first.advance(ord("{"))
    assert second.allowed_V()[ord("{")]
    assert not first.allowed_V()[ord("{")]


def test_a_dead_end_is_an_error_and_never_a_token(llm):
    """Where the parameters forbid all that the grammar allows, an exception says so."""
    grammar = compiled(llm, constrain.json_object())
    for params in ({"allowed_token_ids": [65]}, {"min_tokens": 30}):
        grammar = compiled(llm, constrain.json_schema({"const": 1}))
        with pytest.raises(NonFiniteError, match=f"{next(iter(params))}.*loosen"):
            list(lr.generate(llm.model, "x", max_tokens=30, grammar=grammar, **params))


CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [
    {"type": "function", "function": {"name": "f", "parameters": CITY}},
    {"type": "function", "function": {"name": "g-1"}},
]
F, G = '{"name": "f", "parameters": {"city": "x"}}', '{"name": "g-1", "parameters": {}}'


@pytest.mark.parametrize(
    ("choice", "parallel", "text", "fits"),
    [
        ("required", True, F, True),
        ("required", True, f"{F}; {G}; {F}", True),
        ("required", False, F, True),
        ("required", False, f"{F}; {G}", False),
        ("required", True, f"{F}{G}", False),
        ("required", True, '{"name": "h", "parameters": {}}', False),
        ("required", True, '{"name": "f", "parameters": {}}', False),
        ("required", True, "f", False),
        ({"type": "function", "function": {"name": "f"}}, True, F, True),
        ({"type": "function", "function": {"name": "f"}}, True, G, False),
        ({"type": "function", "function": {"name": "f"}}, True, f"{F}; {F}", False),
    ],
)
def test_calls(llm, choice, parallel, text, fits):
    """Calls of the tools there are, with arguments that fit; and what fits is read as calls."""
    grammar = compiled(llm, constrain.tool_calls(TOOLS, choice, parallel=parallel))
    assert takes(grammar, text) == fits
    if fits:
        assert parse_tool_calls(text, TOOLS).calls


SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 3},
        "next": {"anyOf": [{"type": "null"}, {"$ref": "#"}]},
    },
    "required": ["name", "tags"],
}


@pytest.mark.parametrize("seed", range(12))
def test_a_random_model_at_high_temperature_writes_what_fits(llm, seed):
    """Whatever is drawn, a text that was not cut parses and fits, and a cut one says "length"."""
    grammar = compiled(llm, constrain.json_schema(SCHEMA))
    params = SamplingParams(temperature=1.5, seed=seed, max_tokens=200)
    tokens = list(lr.generate(llm.model, "x", params, grammar=grammar))
    if tokens[-1].finish_reason == "stop":
        jsonschema.validate(json.loads("".join(token.text for token in tokens)), SCHEMA)
    else:
        assert (tokens[-1].finish_reason, len(tokens)) == ("length", 200)
