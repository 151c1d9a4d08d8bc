"""Schemas of functions against live transformers: the same object, or an error on both sides."""

# ruff: noqa: D101, UP007, UP045 - spellings of annotations are what is tested

import enum
import json
import typing
from typing import Any, Literal, Optional, Union

import pytest
from transformers.utils import chat_template_utils as peer

from llama_ref.errors import BadRequest
from llama_ref.tools import function_schema


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Mixed(enum.Enum):
    ONE = 1
    TWO = "two"


class Empty(enum.Enum):
    pass


class Odd(enum.Enum):
    PAIR = (1, 2)


class Custom:
    pass


HINTS = [
    int, float, str, bool, None, Any, list, dict, tuple, type(None),
    list[int], list[list[str]], list[dict[str, float]], list[Any],
    dict[str, int], dict[int, bool], dict[str, list[int]], dict[str, Any],
    tuple[int, str], tuple[int, int, float], tuple[list[int], str],
    tuple[int], tuple[int, ...],
    Optional[int], Optional[list[str]], Optional[dict[str, int]], int | None, list[int | None],
    Union[int, str], int | float, int | str | None, Union[str, list], list | tuple,
    Union[list[int], str], Union[dict[str, int], None, str], list[int] | dict,
    Literal["a", "b"], Literal[1, 2], Literal["a", 1, None], Literal[True],
    Union[Literal["a"], int], list[Literal["x", "y"]], Optional[Literal["a"]],
    Colour, Mixed, Optional[Colour], list[Colour], Empty, Odd,
    bytes, set[int], Custom, list[Custom], complex, frozenset, typing.Callable,
    list[int | None], Optional[list[str | None]], dict,
]  # fmt: skip


def with_hint(hint):
    def f(a, b=1):
        """Does it.

        Args:
            a: An argument.
            b: Another.
        """

    f.__annotations__ = {"a": hint, "b": int}
    import inspect

    parameters = list(inspect.signature(f).parameters.values())
    annotated = [p.replace(annotation=f.__annotations__[p.name]) for p in parameters]
    f.__signature__ = inspect.Signature(annotated)
    return f


DOCSTRINGS = [
    "Does it.\n\nArgs:\n    a: One\n    b: Two",
    "Does it.\nArgs:\n    a: One\n    b: Two\nReturns:\n    Something\n    long.",
    "Does it.\n\n\nArgs:\n\n    a: One\n\n    b: Two\n\n\nRaises:\n    ValueError: never",
    "Args:\n    a: One\n    b: Two",
    "Does it.\n\nArgs:\n    a (int): One\n    b (int, optional): Two, or\n        three: four.",
    "Does it.\n\nArgs:\n    a: One\n      more: of it\n    b: Two\n  c: three",
    "Does it.\n\nArgs:\n    a: One Returns: x\n    b: Two",
    "Does it: Args: inline.\n\nArgs:\n    a: One\n    b: Two",
    "Does it.\n\nReturns:\n    First\n\nArgs:\n    a: One\n    b: Two",
    "Does it.\n\nArguments:\n    a: One\n    b: Two",
    "Does it.\n\nArgs:\n    a: One",
    "Does it.\n\nArgs:\n    b: Two\n    a: One\n    z: Unknown",
    "Does it.\n\nArgs:\n\ta: One\n\tb: Two\n\t\tand more",
    "Does it.\n\nArgs:\n    a:\n        Below.\n    b: Two",
    'Does it.\n\nArgs:\n    a: Kind (choices: [1, 2])\n    b: Two (CHOICES: ["x "])',
    "Does it.\n\nArgs:\n    a: Kind (choices: [1, 2]) more\n    b: é 日本",
    "Does it.\n\nArgs: \n    a: One\n    b: Two",
    "",
    "   ",
    "Only a description.",
    "Does it.\n\nArgs:\n    *args: x\n    a: One\n    b: Two",
    "Does it.\n\nReturns: inline\n\nArgs:\n    a: One\n    b: Two",
    "Does it.\n\nArgs:\n    a: One: two: three\n    b: http://x.y",
    "Does it.\n\nRaises:\n    E: x\n\nArgs:\n    a: One\n    b: Two",
]


def with_docstring(docstring):
    def f(a: int, b: int = 2) -> dict[str, int]: ...

    f.__doc__ = docstring
    return f


class Methods:
    def method(self, x: int):
        """A method.

        Args:
            x: It.
        """

    @classmethod
    def of_class(cls, x: int):
        """A class method.

        Args:
            x: It.
        """

    @staticmethod
    def static(x: int, *args: str, y: "float" = 1.0, **kwargs: Any) -> None:
        """A static method.

        Args:
            x: It.
            args: They.
            y: Text as annotation.
            kwargs: The others.
        """


def missing_hint(a):
    """Does it.

    Args:
        a: One
    """


def unknown_hint(a: "NoSuchThing"):  # noqa: F821
    """Does it.

    Args:
        a: One
    """


FUNCTIONS = [
    *map(with_hint, HINTS),
    *map(with_docstring, DOCSTRINGS),
    *(Methods().method, Methods.method, Methods.of_class, Methods.static),
    *(missing_hint, unknown_hint),
]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_schema_is_that_of_transformers(function):
    """The JSON is the same to the letter; where transformers raises, so do we."""
    assert len(FUNCTIONS) >= 40
    try:
        expected = peer.get_json_schema(function)
    except Exception:
        with pytest.raises(BadRequest):
            function_schema(function)
        return
    assert json.dumps(function_schema(function)) == json.dumps(expected)
