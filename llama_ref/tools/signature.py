"""A Python function as a tool: its JSON schema, from its annotations and its docstring.

    int float str bool None Any     integer number string boolean null, and {} for anything
    list[X], dict[str, X]           array of items, object of values
    tuple[X, Y]                     array of prefixItems
    X | None                        that of X, and nullable
    int | str                       a list of types; with anything richer among them, anyOf
    Literal["a", "b"], Enum         enum
    (choices: ["a", "b"])           at the end of an argument's text: enum

Every argument needs an annotation and an entry in the docstring. The function is not called.

Source: get_json_schema of utils/chat_template_utils.py in huggingface/transformers; equal to it.
"""

from __future__ import annotations

import inspect
import json
import re
import types
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from llama_ref.errors import BadRequest, shown
from llama_ref.tools.docstrings import sections

Schema = dict[str, Any]
BASIC: dict[Any, Schema] = {
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
    list: {"type": "array"},
    tuple: {"type": "array"},
    dict: {"type": "object"},
    Any: {},
}
SCALARS = (int, float, str, bool, type(None))
SUPPORTED = "int, float, str, bool, None, Any, Literal, Enum; list, dict, tuple or union of those"
CHOICES = re.compile(r"\(choices:\s*(.*?)\)\s*$", re.IGNORECASE)


def function_schema(fn: Callable[..., Any]) -> Schema:
    """Return the schema of a function as a tool.

    Parameters
    ----------
    fn : function or method
        With annotations, and a Google-style docstring that describes every argument.

    Returns
    -------
    dict
        `{"type": "function", "function": {"name", "description", "parameters"}}`, with "return"
        where the function has such an annotation.

    Raises
    ------
    BadRequest
        If an annotation or a description is missing, or an annotation has no JSON schema.

    Examples
    --------
    >>> def wait(seconds: float = 1.0):
    ...     '''Do nothing for a while.
    ...
    ...     Args:
    ...         seconds: For how long.
    ...     '''
    >>> function_schema(wait)["function"]["parameters"]["properties"]
    {'seconds': {'type': 'number', 'description': 'For how long.'}}
    """
    if not callable(fn):
        raise BadRequest("tool", expected="a function", found=shown(fn))
    name = name_of_function(fn)
    doc = inspect.getdoc(fn)
    if not doc or not doc.strip():
        raise BadRequest(f"tool {shown(name)}", expected="a docstring", found="none")
    described = sections(doc.strip())
    hints, required = _annotations(fn, name)
    returned = hints.pop("return", None)
    properties = {}
    for argument, hint in hints.items():
        if argument not in described.arguments:
            expected = f"{shown(argument)} under Args: in its docstring"
            raise BadRequest(f"tool {shown(name)}", expected=expected, found="no such entry")
        schema = _schema_of(hint, f"tool {shown(name)}, argument {shown(argument)}")
        properties[argument] = _with_description(schema, described.arguments[argument], argument)
    parameters: Schema = {"type": "object", "properties": properties}
    if required:
        parameters["required"] = required
    function = {"name": name, "description": described.description, "parameters": parameters}
    result = _schema_of_result(returned, described.returns) if returned is not None else None
    if result is not None:
        function["return"] = result
    return {"type": "function", "function": function}


def name_of_function(fn: Callable[..., Any]) -> str:
    """Return the name under which a model sees a function; an object that has none gets one."""
    return getattr(fn, "__name__", "operation")


def _annotations(fn: Callable[..., Any], name: str) -> tuple[dict[str, Any], list[str]]:
    """Return the annotation of each argument, and which have no default."""
    parameters = dict(inspect.signature(fn).parameters)
    first = next(iter(parameters), None)
    if first in ("self", "cls") and parameters[first].annotation is inspect.Parameter.empty:
        del parameters[first]
    for argument in parameters.values():
        if argument.annotation is inspect.Parameter.empty:
            expected = f"an annotation of {shown(argument.name)}"
            raise BadRequest(f"tool {shown(name)}", expected=expected, found="none")
    try:
        hints = get_type_hints(fn)
    except Exception as error:  # annotations are code of the caller's, with errors of any kind
        raise BadRequest(
            f"tool {shown(name)}", expected="annotations that exist", found=shown(str(error))
        ) from error
    hints.pop("self", None)
    required = [a.name for a in parameters.values() if a.default is inspect.Parameter.empty]
    return hints, required


def _schema_of_result(hint: Any, description: str | None) -> Schema | None:
    """Return the schema of what a function returns, or None if it has none: no model writes it."""
    try:
        schema = _schema_of(hint, "return")
    except BadRequest:
        return None
    return schema if description is None else schema | {"description": description}


def _with_description(schema: Schema, text: str, argument: str) -> Schema:
    choices = CHOICES.search(text)
    if choices:
        try:
            values = json.loads(choices.group(1))
        except ValueError:
            values = None
        if not isinstance(values, list):
            expected = 'a JSON list of choices, as in (choices: ["a", "b"])'
            raise BadRequest(shown(argument), expected=expected, found=shown(choices.group()))
        schema = schema | {"enum": [v.strip() if isinstance(v, str) else v for v in values]}
        text = text[: choices.start()].strip()
    return schema | {"description": text}


def _schema_of(hint: Any, place: str) -> Schema:  # noqa: PLR0911 - a row of the table each
    """Return the schema of an annotation."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Union or origin is types.UnionType:
        return _union([part for part in parts if part is not type(None)], parts, place)
    if origin is Literal:
        return _enum(parts, place)
    if origin is list:
        return {"type": "array", "items": _schema_of(parts[0], place)}
    if origin is dict:
        values = {"additionalProperties": _schema_of(parts[1], place)} if len(parts) == 2 else {}
        return {"type": "object"} | values
    if origin is tuple and len(parts) > 1 and ... not in parts:
        return {"type": "array", "prefixItems": [_schema_of(part, place) for part in parts]}
    if origin is None and isinstance(hint, type) and issubclass(hint, Enum):
        return _enum([member.value for member in hint], place)
    if origin is None and _is_basic(hint):
        return dict(BASIC[hint])
    raise BadRequest(
        place,
        expected=SUPPORTED,
        found=shown(str(hint)),
        next_step="or pass the tool as a JSON schema of your own",
    )


def _is_basic(hint: Any) -> bool:
    try:
        return hint in BASIC
    except TypeError:  # not hashable
        return False


def _union(subtypes: Sequence[Any], parts: Sequence[Any], place: str) -> Schema:
    schemas = [_schema_of(part, place) for part in subtypes]
    if len(schemas) == 1:
        schema = schemas[0]
    elif all(set(s) == {"type"} and isinstance(s["type"], str) for s in schemas):
        names = sorted({s["type"] for s in schemas})
        schema = {"type": names[0] if len(names) == 1 else names}
    else:
        schema = {"anyOf": schemas}
    return schema | ({"nullable": True} if type(None) in parts else {})


def _enum(values: Sequence[Any], place: str) -> Schema:
    if not values or any(type(value) not in SCALARS for value in values):
        expected = "values that JSON can write: int, float, str, bool or None"
        raise BadRequest(place, expected=expected, found=shown(str(list(values))))
    names = list(dict.fromkeys(BASIC[type(value)]["type"] for value in values))
    return {"type": names[0] if len(names) == 1 else names, "enum": list(values)}
