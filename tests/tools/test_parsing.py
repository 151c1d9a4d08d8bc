"""Calls out of text: every recorded output as decided, and no text that breaks anything."""

import json
import random
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_ref.tools import CallDelta, ContentDelta, ToolCallStream, parse_tool_calls
from llama_ref.tools.literals import NotALiteral, read_calls

DATA = Path(__file__).parents[1] / "data" / "tools" / "tool_calls.jsonl"
ROWS = {row["id"]: row for row in map(json.loads, DATA.read_text("utf-8").splitlines())}
BUILTIN = ("brave_search", "wolfram_alpha", "code_interpreter")

CONTENT = """000 002 012 013 014 025 033 034 049 050 051 053 055 056 061 071 073 075 077 080 085 089
104 108 111 119 123 124 126 127 129"""
BOILING = ("get_boiling_point", {"liquid_name": "water", "celcius": True})
CODE = "def is_prime(n):\n    return n > 1\n\nprint(is_prime(7))"
DEEP = {"level1": {"level2": {"level3": {"level4": {"value": "deep"}}}}}
POOL = {"config": {"database": {"connection": {"pool": {"size": 10}}}}}
NESTED = {"a": [1, [2, [3]]], "b": {"k": {"z": [True, None]}}}
USER = {"name": "John Doe", "age": 37, "address": {"city": "San Francisco", "state": "CA"}} | {
    "role": None, "passed_test": True, "aliases": ["John", "Johnny"],
}  # fmt: skip
SF, SEATTLE = ({"city": city, "metric": "celsius"} for city in ("San Francisco", "Seattle"))
SEARCH = [{"query": "test1"}, {"query": "test2"}]
CALLS = {
    "001": [("searchTool", {"query": "test query", "limit": 10})],
    "006": [("searchTool", SEARCH[0]), ("getOpenIncidentsTool", {}), ("searchTool", SEARCH[1])],
    "008": [("complexTool", DEEP)],
    "009": [("simpleTool", {"value": "test"}), ("complexTool", POOL)],
    "015": [("get_weather", SF)],
    "016": [("register_user", USER)],
    "017": [("get_weather", {})],
    "018": [("do_something_cool", {"additional_data": {}})],
    "020": [("get_weather", {"city": "Martha's Vineyard", "metric": '"cool units"'})],
    "023": [BOILING],
    "024": [BOILING, ("get_melting_point", {"substance": "ice", "kelvin": False})],
    "031": [(BOILING[0], BOILING[1] | {"precise": False})],
    "032": [("calculate_volume", {"radius": 5.2, "height": 10})],
    "043": [("get_weather", SF), ("get_weather", SEATTLE)],
    "044": [("get_weather", SF)],
    "045": [("code_interpreter", {"code": CODE})],
    "046": [("get_user_info", {"user_id": 7890, "special": "black"})],
    "058": [("f", {"a": 1}), ("g", {"b": 2})],
    "059": [("f", {"a": 1}), ("g", {"b": 2})],
    "063": [("f", {"a": 1}), ("g", {})],
    "065": [("f", {})],
    "081": [("f", {"dup": 2})],
    "087": [("f", {"a": "its"})],
    "093": [("f", {"a": 1})],
    "096": [("f", {"a": 1}), ("g", {"b": 2})],
    "097": [("f", {"a": 1})],
    "099": [("f1_x", {"a_b": 1})],
    "100": [("f", NESTED)],
    "101": [("f", {"a": "日本語 é \n"})],
    "106": [("f", {"x": 2})],
    "112": [("f", {"a": 1})],
    "128": [("code_interpreter", {"code": 'foo.call(query="x", n=2)'})],
    "130": [("code_interpreter", {"code": 'print("hi")'})],
}
EXPECTED = CALLS | {number: [] for number in CONTENT.split()}


def pairs(parsed):
    return [(call.name, call.arguments) for call in parsed.calls]


def streamed(pieces, tools=None, builtin_tools=BUILTIN):
    """What a stream makes of pieces: its calls, its content, and whether it kept its promises."""
    stream = ToolCallStream(tools, builtin_tools=builtin_tools)
    events = [event for piece in pieces for event in stream.push(piece)] + stream.finish()
    calls, content = {}, ""
    for event in events:
        if isinstance(event, ContentDelta):
            assert event.text
            content += event.text
        else:
            assert isinstance(event, CallDelta)
            assert (event.name is not None) == (event.index not in calls)
            name, written = calls.get(event.index, (event.name, ""))
            calls[event.index] = (name, written + event.arguments)
    assert list(calls) == list(range(len(calls)))
    return [(name, json.loads(written)) for name, written in calls.values()], content or None


def test_every_recorded_output_has_a_decision():
    """No row of the recorded outputs is left out."""
    assert {f"tool-{number}" for number in EXPECTED} == set(ROWS)


@pytest.mark.parametrize("number", sorted(EXPECTED))
def test_recorded_outputs(number):
    """Each recorded output is the calls that were decided, or content to the letter."""
    text = ROWS[f"tool-{number}"]["output"]
    parsed = parse_tool_calls(text, builtin_tools=BUILTIN)
    assert pairs(parsed) == EXPECTED[number]
    assert parsed.content == (None if EXPECTED[number] else text)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 10_000])
@pytest.mark.parametrize("number", sorted(EXPECTED))
def test_recorded_outputs_in_pieces(number, size):
    """Cut into pieces of any size, a text is what it is as a whole."""
    text = ROWS[f"tool-{number}"]["output"]
    whole = parse_tool_calls(text, builtin_tools=BUILTIN)
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    assert streamed(pieces) == (pairs(whole), whole.content)


@pytest.mark.parametrize(
    ("text", "calls", "content"),
    [
        ('Sure. <function=f>{"a": "it\'s"}</function> Done.', [{"a": "it's"}], "Sure.  Done."),
        ('<function=f>{}</function>\n<function=f>{"b": []}</function>', [{}, {"b": []}], None),
        ("<function=g>{}</function>", [], "<function=g>{}</function>"),
        ('<function=f>{"a": 1', [], '<function=f>{"a": 1'),
        ('{"type": "function", "name": "f", "parameters": {"a": 1}}', [{"a": 1}], None),
        ('{"name": "f", "arguments": {"a": 1}, "parameters": {"a": 2}}', [{"a": 1}], None),
        ('{"name": "f", "parameters": {}} {"name": "g", "parameters": {}}', [], ...),
        ('{"name": "f", "parameters": {}} and more', [], ...),
        (
            '[{"name": "f", "parameters": {}}, {"name": "f", "parameters": {"c": 3}}]',
            [{}, {"c": 3}],
            None,
        ),
        (
            '[f(a="x"), f(b=(1, 2), c=(3), d=-1.5e3)]',
            [{"a": "x"}, {"b": [1, 2], "c": 3, "d": -1500.0}],
            None,
        ),
        ("[f('positional')]", [], ...),
        ("[f(a=1)] ok", [], ...),
        ("[f(a=open('x'))]", [], ...),
        ("[f(a=1+1)]", [], ...),
        ('{"name": "f", "parameters": {"a": NaN}}', [], ...),
        ('{"name": "f", "parameters": {"a": 1e999}}', [], ...),
        ('{"name": "f", "parameters": {"a": %s}}' % ("9" * 5000), [], ...),
        ('{"name": "f", "parameters": {"a": "\\ud800"}}', [], ...),
        ('{"name": "f", "parameters": %s}' % ('{"a": ' * 5000 + "1" + "}" * 5000), [], ...),
        ("[f(a=%s)]" % ("[" * 100_000), [], ...),
        ('<|python_tag|>brave_search.call(query="who said "hi"?")<|eom_id|>', [], ...),
        ("<|eot_id|>", [], None),
        ("  \n", [], "  \n"),
        ("", [], None),
    ],
)
def test_forms_and_what_is_none(text, calls, content):
    """Each form with what stands around it; what is half a form is content, whole."""
    tools = [{"type": "function", "function": {"name": "f"}}]
    parsed = parse_tool_calls(text, tools)
    assert pairs(parsed) == [("f", arguments) for arguments in calls]
    expected = text.removesuffix("<|eom_id|>") if content is ... else content
    assert parsed.content == expected
    for size in (1, 5):
        pieces = [text[at : at + size] for at in range(0, len(text), size)][:3000]
        if "".join(pieces) == text:
            assert streamed(pieces, tools, ()) == (pairs(parsed), parsed.content)


def test_builtin_calls_need_their_tag_and_their_tool():
    """A built-in tool is called behind <|python_tag|>, where enabled; quotes may stand inside."""
    text = '<|python_tag|>brave_search.call(query="who said "hi"?")<|eom_id|>'
    assert pairs(parse_tool_calls(text)) == [("brave_search", {"query": 'who said "hi"?'})]
    assert parse_tool_calls(text, builtin_tools=["wolfram_alpha"]).calls == ()
    assert parse_tool_calls(text.removeprefix("<|python_tag|>")).calls == ()
    assert parse_tool_calls("<|python_tag|>print(1)").calls == ()


PIECES = st.sampled_from(
    [
        '{"name": "f", "parameters": {"a": 1}}',
        "[f(a='x')]",
        "<function=f>",
        '{"a": [1]}',
        "</function>",
        "<|python_tag|>",
        "<|eot_id|>",
        "<|eom_id|>",
        "[",
        "{",
        '"',
        "'",
        "\\",
        ", ",
        " ",
        "\n",
        "; ",
        "f(",
        ")",
        "]",
        "}",
        "text",
        "é",
        "=",
        "<",
        "<|",
        "name",
        "\ud800",
    ]
)


@settings(max_examples=600, deadline=None)
@given(st.lists(PIECES, max_size=12), st.data())
def test_any_text_in_any_pieces_is_what_it_is_as_a_whole(parts, data):
    """A stream's events, joined, are the calls and the content of the whole text."""
    text = "".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    whole = parse_tool_calls(text, builtin_tools=BUILTIN)
    assert streamed(pieces) == (pairs(whole), whole.content)
    assert whole.calls or whole.content == (without_one_end(text) or None)


def without_one_end(text):
    return text[:-10] if text.endswith(("<|eom_id|>", "<|eot_id|>")) else text


def test_ten_thousand_damaged_outputs_raise_nothing():
    """Letters removed, doubled, replaced, swapped and joined: always calls or content."""
    rng = random.Random(1)
    texts = [row["output"] for row in ROWS.values()]
    signs = "{}[]()\"'\\,:;=<>| \n\t0-9.eE+truefalsn\u00e9\u2028\ud800\x00"
    for number in range(10_000):
        letters = list(texts[number % len(texts)])
        if rng.random() < 0.3:
            letters += rng.choice(texts)
        for _ in range(rng.randint(1, 6)):
            at = rng.randrange(len(letters) + 1)
            letters[at : at + rng.randint(0, 2)] = rng.choices(signs, k=rng.randint(0, 2))
        text = "".join(letters)
        parsed = parse_tool_calls(text, builtin_tools=BUILTIN)
        assert all(json.loads(json.dumps(c.arguments)) == c.arguments for c in parsed.calls)
        assert parsed.calls or parsed.content == (without_one_end(text) or None)


@pytest.mark.parametrize(
    "unit",
    [
        "{",
        "[",
        "(",
        '{"a":',
        "[f(a=",
        "'",
        '"',
        "\\",
        "<function=f>",
        "<function=f>{}",
        " ",
        "<|eot_id|>",
        '{"name": "f", "parameters": {}}',
        "{}",
        "[[1,",
        "1",
        "[f(a='x'),",
        "<",
        '\\"',
        "x.call(",
        'k="v",',
        "(1),",
        "(' ' ,),",
    ],
)
@pytest.mark.parametrize(
    "head", ["", "<|python_tag|>", "[f(a='", "[f(a=[", "[", '<|python_tag|>f.call(a="']
)
def test_half_a_megabyte_of_anything_is_read_once(unit, head):
    """No text makes the reader go over it again and again, whole or in pieces."""
    text = (head + unit * (500_000 // len(unit)))[:500_000]
    began = time.process_time()
    parsed = parse_tool_calls(text, builtin_tools=BUILTIN)
    calls, content = streamed([text[at : at + 100] for at in range(0, len(text), 100)])
    assert (calls, content) == (pairs(parsed), parsed.content)
    assert time.process_time() - began < 10  # quadratic: hours


@pytest.mark.parametrize(
    "value",
    [
        0,
        7,
        -3,
        1.5,
        -1e-3,
        2e10,
        True,
        False,
        None,
        "",
        "it's",
        'say "x"',
        "a\\b\n\t",
        "日本",
        [],
        [1, [2]],
        {},
        {"k": {"z": [True, None, "x"]}},
    ],
)
def test_what_python_writes_is_read_back(value):
    """A value's own notation in Python is read as that value."""
    assert read_calls(f"[f(a={value!r})]") == [("f", {"a": value})]


@pytest.mark.parametrize(
    "text",
    [
        "[f(a=007)]",
        "[f(a=b'x')]",
        "[f(a=f'x')]",
        "[f(a={1, 2})]",
        "[f(a={1: 2})]",
        "[f(a=x)]",
        "[f(a='x)]",
        "[f(*a)]",
        "[f(a=1 if 1 else 2)]",
        "[f(a='\n')]",
        "f(a=1)",
        "[f(a='\\x1')]",
        "[f(a='\\N{DASH}')]",
        "[f(a=1)",
        "[f(a==1)]",
        "[(f(a=1))]",
        "[f(a=1_000)]",
        "[f(a=0x1)]",
        "[f(a=\u0663)]",  # a digit, but not one of Python's
    ],
)
def test_what_is_no_literal_is_refused(text):
    """Expressions, other kinds of literals and broken ones are not values."""
    with pytest.raises(NotALiteral):
        read_calls(text)
