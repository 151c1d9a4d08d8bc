r"""What a text must be, as a grammar: JSON of any kind, of a schema, or calls of tools.

    json_object        an object, with anything in it
    json_schema        a value of a schema
    tool_calls         {"name": "f", "parameters": …}; {"name": "g", "parameters": …}

Between the signs of JSON may stand nothing, one blank, or one or two line ends with up to twenty
blanks or tabs behind them: room for any usual way to write, and none to go on with blanks forever.
Around the whole value nothing may stand. Calls are separated as `tools.parse_tool_calls` reads them
and as the templates write one.

Source: the field `response_format` of the OpenAI API; the whitespace rule of
common/json-schema-to-grammar.cpp in ggml-org/llama.cpp.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llama_ref.constrain.schemas import closed
from llama_ref.errors import BadRequest, shown
from llama_ref.json_values import dumps

SPACE = r"( |\n{1,2}[ \t]{0,20})?"
FORMATS = ("text", "json_object", "json_schema")


@dataclass(frozen=True, slots=True)
class Source:
    """What a text must be.

    Attributes
    ----------
    lark : str
        The grammar, in llguidance's dialect of Lark.
    thing : str
        Where it comes from, for messages.
    """

    lark: str
    thing: str


def json_object() -> Source:
    """Return the source of any JSON object."""
    return json_schema({"type": "object"}, thing="response_format")


def json_schema(schema: Mapping[str, Any] | bool, *, thing: str = "schema") -> Source:
    """Return the source of JSON that fits a schema.

    Raises
    ------
    BadRequest, Unsupported, LimitExceeded
        See `schemas.closed`.
    """
    return Source(f"start: value\n{_rule('value', closed(schema, thing))}", thing)


def tool_calls(
    tools: Sequence[Mapping[str, Any]], choice: str | Mapping[str, Any], *, parallel: bool = True
) -> Source:
    """Return the source of calls.

    Parameters
    ----------
    tools : sequence of dict
        As `tools.check_tools` returns them.
    choice : {"required"} or dict
        One or more calls of any tool, or `{"type": "function", "function": {"name": …}}`: one call
        of that one.
    parallel : bool
        Whether there may be more than one.
    """
    name = None if isinstance(choice, str) else choice["function"]["name"]
    chosen = [t["function"] for t in tools if name in (None, t["function"]["name"])]
    rules, calls = [], []
    for index, function in enumerate(chosen):
        place = f"tools, {shown(function['name'])}, parameters"
        schema = {"type": "object", **(function.get("parameters") or {"properties": {}})}
        head = dumps(f'{{"name": {dumps(function["name"])}, "parameters": ')
        rules.append(f'call_{index}: {head} value_{index} "}}"')
        arguments = closed(schema, place, has_nullable=True)
        rules.append(_rule(f"value_{index}", arguments))
        calls.append(f"call_{index}")
    several = ' ("; " call)*' if parallel and name is None else ""
    return Source(
        "\n".join([f"start: call{several}", f"call: {' | '.join(calls)}", *rules]), "tools"
    )


def response_format(form: Mapping[str, Any]) -> Source | None:
    """Return the source that a request's `response_format` asks for; None for plain text.

    Raises
    ------
    BadRequest, Unsupported, LimitExceeded
        If it is none of the three forms, or its schema cannot be kept to.

    Examples
    --------
    >>> response_format({"type": "text"}) is None
    True
    """
    kind = form.get("type") if isinstance(form, Mapping) else None
    if kind not in FORMATS:
        expected = f'{{"type": …}}, one of {", ".join(FORMATS)}'
        raise BadRequest("response_format", expected=expected, found=shown(form))
    surplus = set(form) - ({"type", "json_schema"} if kind == "json_schema" else {"type"})
    if surplus:
        found = shown(sorted(map(str, surplus)))
        raise BadRequest("response_format", expected=f"nothing beside type {kind!r}", found=found)
    if kind == "text":
        return None
    if kind == "json_object":
        return json_object()
    described = form.get("json_schema")
    place = "response_format.json_schema"
    if not isinstance(described, Mapping):
        expected = "name and schema; the 'json_schema' field must be provided"
        raise BadRequest(place, expected=expected, found=shown(described))
    if not isinstance(described.get("name"), str) or not described["name"]:
        raise BadRequest(f"{place}.name", expected="a name", found=shown(described.get("name")))
    if "schema" not in described:
        raise BadRequest(f"{place}.schema", expected="a JSON schema", found="none")
    unknown = set(described) - {"name", "description", "schema", "strict"}
    if unknown:
        expected = "name, description, schema and strict"
        raise BadRequest(place, expected=expected, found=shown(sorted(map(str, unknown))))
    return json_schema(described["schema"], thing=f"{place}.schema")


def _rule(name: str, schema: Mapping[str, Any]) -> str:
    """Return a rule of the grammar for a value of a schema."""
    options = {"whitespace_flexible": True, "whitespace_pattern": SPACE}
    return f"{name}: %json {dumps({**schema, 'x-guidance': options})}"
