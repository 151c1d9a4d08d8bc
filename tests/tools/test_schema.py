"""Functions as schemas, and declared tools: what is accepted, and every recorded schema."""

import json
from pathlib import Path

import pytest

from llama_ref.errors import BadRequest, LimitExceeded
from llama_ref.tools import check_tools, function_schema

DATA = Path(__file__).parents[1] / "data" / "tools" / "function_schema.jsonl"
ROWS = [json.loads(line) for line in DATA.read_text("utf-8").splitlines()]


def tool(name="f", **function):
    return {"type": "function", "function": {"name": name, **function}}


@pytest.mark.parametrize("row", ROWS, ids=[row["name"] for row in ROWS])
def test_recorded_schemas(row):
    """A function's schema is that of transformers, keys in order; where it raises, so do we."""
    namespace = {}
    exec(row["source"], namespace)
    function = namespace[row["function"]]
    if "error" in row:
        with pytest.raises(BadRequest):
            function_schema(function)
    else:
        assert json.dumps(function_schema(function)) == json.dumps(row["schema"])


def test_functions_and_schemas_may_stand_side_by_side():
    """A list of tools may hold both; what comes back is schemas, and the caller's are untouched."""

    def wait(seconds: float = 1.0) -> None:
        """Do nothing.

        Args:
            seconds: For how long.
        """

    own = tool("own", parameters={"type": "object", "properties": {}})
    schemas = check_tools([wait, own])
    assert [schema["function"]["name"] for schema in schemas] == ["wait", "own"]
    schemas[1]["function"]["name"] = "changed"
    assert own["function"]["name"] == "own"


def deep(n):
    value = {}
    for _ in range(n):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("tools", "error", "says"),
    [
        ("f", BadRequest, "tools"),
        ({"f": 1}, BadRequest, "tools"),
        ([None], BadRequest, "tools\\[0\\]"),
        ([{"name": "f"}], BadRequest, "tools\\[0\\]"),
        ([tool() | {"type": "retrieval"}], BadRequest, "tools\\[0\\].type"),
        ([tool('a"b')], BadRequest, "function.name"),
        ([tool("a\nb")], BadRequest, "function.name"),
        ([tool("f<|eom_id|>")], BadRequest, "function.name"),
        ([tool("f" * 10_000)], BadRequest, "function.name"),
        ([tool("")], BadRequest, "function.name"),
        ([tool(None)], BadRequest, "function.name"),
        ([tool(), tool()], BadRequest, "tools\\[1\\].function.name.*once"),
        ([tool(description=3)], BadRequest, "description"),
        ([tool(parameters=[])], BadRequest, "parameters"),
        ([tool(parameters="object")], BadRequest, "parameters"),
        ([tool(parameters={"type": "string"})], BadRequest, "parameters.type"),
        ([tool(parameters={"properties": []})], BadRequest, "properties"),
        ([tool(parameters={"$ref": "https://example.org/x"})], BadRequest, "\\$ref"),
        ([tool(parameters={"properties": {"a": {"$ref": "file:///x"}}})], BadRequest, "\\$ref"),
        ([tool(parameters={"a": float("nan")})], BadRequest, "tools\\[0\\]"),
        ([tool(parameters={"a": "\ud800"})], BadRequest, "tools\\[0\\]"),
        ([tool(parameters={1: 2})], BadRequest, "keys"),
        ([tool(parameters=deep(10_000))], LimitExceeded, "levels"),
        ([tool(description="x" * 2**18)], LimitExceeded, "characters"),
        ([tool(f"f{k}") for k in range(129)], LimitExceeded, "128"),
    ],
)
def test_what_is_no_tool_is_refused_by_its_place(tools, error, says):
    """Each fault is named by where it stands, and nothing is fetched or followed."""
    with pytest.raises(error, match=says):
        check_tools(tools)


def test_a_reference_that_goes_round_is_only_a_reference():
    """A schema may refer to itself: nothing here follows it."""
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}
    (checked,) = check_tools([tool(parameters=node | {"$defs": {"node": node}})])
    assert checked["function"]["parameters"]["$defs"]["node"] == node


def test_a_parameter_may_be_named_like_a_keyword():
    """A property called $ref is a property."""
    check_tools([tool(parameters={"properties": {"$ref": {"type": "string"}}})])


def test_a_missing_annotation_or_docstring_is_named():
    """The function, and what it lacks."""

    def bare(a):
        """Bare.

        Args:
            a: It.
        """

    def silent(a: int):
        pass

    with pytest.raises(BadRequest, match=r"'bare'.*annotation of 'a'"):
        function_schema(bare)
    with pytest.raises(BadRequest, match=r"'silent'.*docstring"):
        function_schema(silent)
