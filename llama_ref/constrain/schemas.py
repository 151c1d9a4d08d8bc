"""A JSON schema made ready for a grammar: checked, and closed.

Checked: a keyword that the grammar cannot keep to is an error with its place, never passed over. A
schema that asks for `uniqueItems` and gets duplicates would be worse than none.

Closed: where `properties` are listed and nothing is said of others, others are not written. JSON
Schema would allow them, and a model would go on inventing keys; xgrammar, llama.cpp and OpenAI's
strict mode read it as here. `{"type": "object"}` alone stays free. Under `allOf` and `anyOf` every
branch may have the properties of all, so that closing one does not forbid what another lists.

`nullable: true`, which OpenAPI and `tools.function_schema` write, is no JSON Schema. Parameters of
tools may have it, and it becomes a choice with null; elsewhere it is an unknown keyword.

Source: JSON Schema, draft 2020-12; what llguidance can keep to, from its documentation of JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llama_ref.constrain.patterns import for_engine
from llama_ref.constrain.ranges import moved
from llama_ref.errors import BadRequest, LimitExceeded, Unsupported, shown
from llama_ref.json_values import checked_value, dumps

MAX_CHARACTERS = 2**16
MAX_PATTERN = 512
MAX_REPEAT = 100_000
"""The largest minItems, maxLength and the like."""
FINEST_STEP = 1024

NOTES = frozenset(
    (
        *("$schema", "$id", "id", "$anchor", "$comment", "title", "description", "default"),
        *("examples", "readOnly", "writeOnly", "deprecated", "contentMediaType", "contentEncoding"),
    )
)
"""Keywords that constrain nothing."""

BRANCHES = ("allOf", "anyOf", "oneOf")
MAPS = ("properties", "patternProperties", "$defs", "definitions")
SINGLE = ("items", "additionalProperties", "additionalItems")
COUNTS = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")
NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
PLAIN = ("type", "enum", "const", "required", "pattern", "format", "$ref", "nullable")
KNOWN = NOTES.union(BRANCHES, MAPS, SINGLE, COUNTS, NUMBERS, PLAIN, ("prefixItems",))

Schema = dict[str, Any]


def closed(schema: Any, place: str, *, has_nullable: bool = False) -> Schema:
    """Return the schema that a grammar is made from.

    Parameters
    ----------
    schema : dict or bool
    place : str
        Where it stands in the request, for messages.
    has_nullable : bool
        Whether the keyword `nullable` is known.

    Raises
    ------
    BadRequest
        If it is no schema, refers to another document or to nothing, or no finite text fits it.
    Unsupported
        If it uses a keyword that the grammar cannot keep to.
    LimitExceeded
        Beyond 65,536 characters, 64 levels, a pattern of 512, or a count of 100,000.

    Examples
    --------
    >>> closed({"type": "object", "properties": {"a": {"type": "integer"}}}, "schema")
    {'type': 'object', 'properties': {'a': {'type': 'integer'}}, 'additionalProperties': False}
    """
    if schema is True:
        schema = {}
    if not isinstance(schema, Mapping):
        raise BadRequest(place, expected="a JSON schema that something fits", found=shown(schema))
    root = checked_value(schema, place)
    n_characters = len(dumps(root))
    if n_characters > MAX_CHARACTERS:
        expected = f"at most {MAX_CHARACTERS:,} characters"
        raise LimitExceeded(place, expected=expected, found=f"{n_characters:,}")
    walk = _Walk(root, place, has_nullable)
    result = walk.closed(root, place)
    walk.check_ends()
    return result


class _Walk:
    """The walk over one document; `root` is what references point into."""

    def __init__(self, root: Schema, place: str, has_nullable: bool):
        self.root, self.place = root, place
        self.references: set[str] = set()
        self.seen: set[int] = set()  # which parts of the document are schemas, by identity
        self.known = KNOWN if has_nullable else KNOWN - {"nullable"}

    def closed(self, schema: Any, place: str, inherited: frozenset[str] | None = None) -> Any:
        """Return a schema closed. `inherited`: the properties of what it is a branch of."""
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, dict):
            raise BadRequest(place, expected="a schema", found=shown(schema))
        self._check(schema, place)
        self.seen.add(id(schema))
        names = self._names(schema) | (inherited or frozenset())
        result: Schema = {}
        for key, value in schema.items():
            within = f"{place}.{key}"
            if key in BRANCHES:
                branches = enumerate(_list(value, within))
                result[key] = [self.closed(b, f"{within}[{i}]", names) for i, b in branches]
            elif key == "prefixItems":
                items = enumerate(_list(value, within))
                result[key] = [self.closed(item, f"{within}[{i}]") for i, item in items]
            elif key in MAPS:
                result[key] = self._map(_object(value, within), within, key == "patternProperties")
            elif key == "pattern":
                result[key] = for_engine(value)
            elif key in SINGLE:
                result[key] = self.closed(value, within)
            elif key not in NOTES and key != "nullable":
                result[key] = value
        self._close(result, names, is_branch=inherited is not None)
        is_part = inherited is not None or any(key in schema for key in (*BRANCHES, "$ref"))
        result = moved(result, is_part=is_part)
        if schema.get("nullable") is True and "enum" not in schema and "const" not in schema:
            return {"anyOf": [result, {"type": "null"}]}
        return result

    def _map(self, parts: Schema, place: str, is_patterns: bool) -> Schema:
        """Return a map from names, or from patterns, to schemas."""
        names = {name: for_engine(name, is_key=True) if is_patterns else name for name in parts}
        if len(set(names.values())) < len(parts):
            expected = "patterns that differ in meaning"
            raise BadRequest(place, expected=expected, found=shown(list(parts)))
        return {
            names[name]: self.closed(part, f"{place}.{shown(name)}") for name, part in parts.items()
        }

    def _close(self, schema: Schema, names: frozenset[str], is_branch: bool) -> None:
        """Forbid other properties than the listed ones, unless the schema says otherwise."""
        lists = "properties" in schema or (is_branch and names and schema.get("type") == "object")
        refers = "$ref" in schema or any(
            "$ref" in branch
            for key in BRANCHES
            for branch in schema.get(key, ())
            if branch is not True
        )
        if not lists or refers or "additionalProperties" in schema:
            return
        others = dict.fromkeys(sorted(names - set(schema.get("properties", ()))), True)
        schema["properties"] = schema.get("properties", {}) | others
        schema["additionalProperties"] = False

    def _names(self, schema: Any) -> frozenset[str]:
        """Return the properties that a schema and its branches list."""
        if not isinstance(schema, dict):
            return frozenset()
        properties = schema.get("properties")
        names = frozenset(properties) if isinstance(properties, dict) else frozenset()
        for key in BRANCHES:
            branches = schema.get(key)
            for branch in branches if isinstance(branches, list) else ():
                names |= self._names(branch)
        return names

    def _check(self, schema: Schema, place: str) -> None:
        for key in schema:
            if key not in self.known:
                raise Unsupported(
                    f"{place}, keyword {shown(key)}",
                    expected="keywords that a grammar can keep to",
                    next_step="leave it out, and check the answer for it",
                )
        for key in COUNTS:
            if key in schema and not (type(schema[key]) is int and 0 <= schema[key] <= MAX_REPEAT):
                expected = f"an integer from 0 to {MAX_REPEAT:,}"
                raise LimitExceeded(f"{place}.{key}", expected=expected, found=shown(schema[key]))
        for key in NUMBERS:
            if key in schema and type(schema[key]) not in (int, float):
                raise BadRequest(f"{place}.{key}", expected="a number", found=shown(schema[key]))
        required = schema.get("required", [])
        if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
            raise BadRequest(f"{place}.required", expected="names", found=shown(required))
        pattern = schema.get("pattern", "")
        if not isinstance(pattern, str) or len(pattern) > MAX_PATTERN:
            expected = f"a regular expression of at most {MAX_PATTERN} characters"
            raise LimitExceeded(f"{place}.pattern", expected=expected, found=shown(pattern))
        for pattern in _object(schema.get("patternProperties", {}), place):
            if len(pattern) > MAX_PATTERN:
                expected = f"at most {MAX_PATTERN} characters"
                raise LimitExceeded(f"{place}.patternProperties", expected=expected)
        if "$ref" in schema:
            self.target(schema["$ref"], place)
            self.references.add(schema["$ref"])
        _check_multiple(schema, place)
        _check_distinct(schema, place)

    def target(self, reference: Any, place: str) -> Any:
        """Return what a reference points to."""
        if not isinstance(reference, str) or (reference != "#" and reference[:2] != "#/"):
            expected = "a place in the same schema, as in #/$defs/name"
            raise BadRequest(f"{place}.$ref", expected=expected, found=shown(reference))
        found: Any = self.root
        for step in reference[1:].split("/")[1:]:
            key = step.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, dict) or key not in found:
                expected = "a place in the schema"
                raise BadRequest(f"{place}.$ref", expected=expected, found=shown(reference))
            found = found[key]
        return found

    def check_ends(self) -> None:
        """Refuse a schema that only an endless text would fit, such as a node that needs a node."""
        for reference in sorted(self.references):
            target = self.target(reference, self.place)
            if not isinstance(target, bool) and id(target) not in self.seen:
                expected = "references to schemas"
                raise BadRequest(self.place, expected=expected, found=shown(reference))
        ending: set[str] = set()
        while True:
            waiting = sorted(self.references - ending)
            more = {r for r in waiting if self._ends(self.target(r, self.place), ending)}
            if not more:
                break
            ending |= more
        if not self._ends(self.root, ending):
            expected = "a schema that some text of finite length fits"
            raise BadRequest(self.place, expected=expected, found="one that needs itself")

    def _ends(self, schema: Any, ending: set[str]) -> bool:
        """Whether a finite text may fit, given the references that are known to end."""
        if not isinstance(schema, dict):
            return schema is not False
        if isinstance(schema.get("$ref"), str) and schema["$ref"] not in ending:
            return False
        if "enum" in schema or "const" in schema or schema.get("nullable") is True:
            return True
        properties, items = schema.get("properties", {}), schema.get("items", True)
        needed = [properties[name] for name in schema.get("required", ()) if name in properties]
        needed += [items] * (schema.get("minItems", 0) > len(schema.get("prefixItems", ())))
        needed += schema.get("allOf", [])
        choices = [schema[key] for key in ("anyOf", "oneOf") if key in schema]
        return all(self._ends(part, ending) for part in needed) and all(
            any(self._ends(part, ending) for part in choice) for choice in choices
        )


def _check_multiple(schema: Schema, place: str) -> None:
    """Refuse steps such as 0.1: whether 0.3 is three of them depends on who divides."""
    step = schema.get("multipleOf", 1)
    if step <= 0 or step * FINEST_STEP % 1:
        expected = f"a positive multiple of 1/{FINEST_STEP}, which no rounding touches"
        raise Unsupported(f"{place}.multipleOf", expected=expected, found=shown(step))


def _check_distinct(schema: Schema, place: str) -> None:
    """Refuse a count of properties that only different keys can reach: free keys may repeat."""
    others = schema.get("additionalProperties", "properties" not in schema)
    required = schema.get("required", ())
    free = others is not False or "patternProperties" in schema
    least = schema.get("minProperties", 0)
    if free and least > 1 + len(set(required)):
        expected = "at most one more than the required ones, since other keys may be written twice"
        raise Unsupported(f"{place}.minProperties", expected=expected, found=least)


def _list(value: Any, place: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise BadRequest(place, expected="a list of schemas", found=shown(value))
    return value


def _object(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadRequest(place, expected="an object of schemas", found=shown(value))
    return value
