"""Tools as a request declares them: functions, or schemas in the form of the OpenAI API, checked.

A schema goes into the prompt as it is, so that a model sees what it was trained on. What is checked
is what would do harm: names that are no names, the same name twice, sizes, references to elsewhere.

Source: the tool object of the OpenAI API reference, chat completions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llama_ref.errors import BadRequest, LimitExceeded, shown
from llama_ref.json_values import checked_value, dumps
from llama_ref.tools.signature import function_schema

TOOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
MAX_TOOLS = 128
MAX_CHARACTERS = 2**18
"""Of all tools of a request, written as JSON."""


def check_tools(tools: Sequence[Any]) -> list[dict[str, Any]]:
    """Return the schemas of tools.

    Parameters
    ----------
    tools : sequence of dict or function
        Schemas, `{"type": "function", "function": {"name": …, "parameters": …}}`, or functions with
        annotations and docstrings; see `function_schema`.

    Raises
    ------
    BadRequest
        If one is neither, a name is not 1 to 64 of the characters A-Z a-z 0-9 _ -, or appears
        twice, or a schema refers to another document.
    LimitExceeded
        Beyond 128 tools, 64 levels, or 262,144 characters in all.
    """
    if not isinstance(tools, list | tuple):
        raise BadRequest("tools", expected="a list of functions or schemas", found=shown(tools))
    if len(tools) > MAX_TOOLS:
        expected = f"at most {MAX_TOOLS}"
        raise LimitExceeded("tools", expected=expected, found=f"{len(tools):,}")
    schemas = [_checked(tool, f"tools[{index}]") for index, tool in enumerate(tools)]
    names = [schema["function"]["name"] for schema in schemas]
    for index, name in enumerate(names):
        if name in names[:index]:
            place = f"tools[{index}].function.name"
            raise BadRequest(place, expected="each name once", found=shown(name))
    n_characters = sum(len(dumps(schema)) for schema in schemas)
    if n_characters > MAX_CHARACTERS:
        expected = f"at most {MAX_CHARACTERS:,} characters"
        raise LimitExceeded("tools", expected=expected, found=f"{n_characters:,}")
    return schemas


def _checked(tool: Any, place: str) -> dict[str, Any]:
    if callable(tool):
        tool = function_schema(tool)
    if not isinstance(tool, Mapping) or not isinstance(tool.get("function"), Mapping):
        expected = '{"type": "function", "function": {"name": …, "parameters": …}}, or a function'
        raise BadRequest(place, expected=expected, found=shown(tool))
    schema = checked_value(tool, place)
    if schema.get("type", "function") != "function":
        raise BadRequest(f"{place}.type", expected="'function'", found=shown(schema["type"]))
    function, within = schema["function"], f"{place}.function"
    name = function.get("name")
    if not isinstance(name, str) or not TOOL_NAME.fullmatch(name):
        expected = "1 to 64 of the characters A-Z a-z 0-9 _ -"
        raise BadRequest(f"{within}.name", expected=expected, found=shown(name))
    if not isinstance(function.get("description", ""), str):
        found = shown(function["description"])
        raise BadRequest(f"{within}.description", expected="text", found=found)
    _check_parameters(function.get("parameters"), f"{within}.parameters")
    return schema


def _check_parameters(parameters: Any, place: str) -> None:
    """Refuse what is no schema of an object, or needs another document to be one."""
    if parameters is None:
        return
    if not isinstance(parameters, dict):
        raise BadRequest(place, expected="a JSON schema", found=shown(parameters))
    if parameters.get("type", "object") != "object":
        raise BadRequest(f"{place}.type", expected="'object'", found=shown(parameters["type"]))
    properties = parameters.get("properties", {})
    if not isinstance(properties, dict):
        raise BadRequest(f"{place}.properties", expected="an object", found=shown(properties))
    for reference in _references(parameters):
        if not isinstance(reference, str) or not reference.startswith("#"):
            expected = "a place in the same schema, as in #/$defs/name"
            raise BadRequest(f"{place}, $ref", expected=expected, found=shown(reference))


def _references(value: Any) -> Iterator[Any]:
    """Yield what a schema refers to."""
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for part in value.values():
            yield from _references(part)
    elif isinstance(value, list):
        for part in value:
            yield from _references(part)
