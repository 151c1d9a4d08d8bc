"""Our reading of the recorded outputs against what the peers made of them."""

import json
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from llama_ref.errors import BadRequest
from llama_ref.tools import ContentDelta, ToolCallStream, parse_tool_calls

DATA = Path(__file__).parents[1] / "data" / "tools" / "tool_calls.jsonl"
ROWS = {row["id"]: row for row in map(json.loads, DATA.read_text("utf-8").splitlines())}
BUILTIN = ("brave_search", "wolfram_alpha", "code_interpreter")
PEERS = ("vllm_llama3_json", "vllm_pythonic", "llama_cpp", "meta")

CONTENT_HERE = {
    "tool-000": "text stands around the object; vLLM drops that text",
    "tool-051": "parameters are null; vLLM passes that on, llama.cpp makes it {}",
    "tool-053": "parameters are a list; vLLM passes that on, llama.cpp makes it {}",
    "tool-061": "a fence of Markdown stands around the object; vLLM drops it",
    "tool-073": "the object has no end; llama.cpp gives the half",
    "tool-104": "the argument is an f-string; vLLM takes it for text",
    "tool-123": "no <|python_tag|> in front; Meta's code needs none",
    "tool-124": "no <|python_tag|> in front",
    "tool-127": "no <|python_tag|> in front, and no tool of that name",
    "tool-129": "prose that names two tools; Meta's code calls the first",
}
CALLS_ONLY_HERE = {"tool-059": "two objects side by side; vLLM loses both, llama.cpp fails"}


def written(calls):
    """Calls of one peer, or ours, in one notation."""
    pairs = []
    for call in calls:
        arguments = call["arguments"]
        if isinstance(arguments, str):
            with suppress(ValueError):  # llama.cpp gives half an object for half an object
                arguments = json.loads(arguments)
        name = call.get("name", call.get("tool_name"))
        pairs.append((name, json.dumps(arguments, sort_keys=True)))
    return pairs


def answers(row):
    """What each peer that did not fail made of an output."""
    found = {peer: row[peer] if peer != "meta" else row[peer].get("decoded") for peer in PEERS}
    return {
        peer: written(answer["tool_calls"])
        for peer, answer in found.items()
        if answer is not None and "error" not in answer
    }


def ours(row):
    calls = parse_tool_calls(row["output"], builtin_tools=BUILTIN).calls
    return written({"name": call.name, "arguments": call.arguments} for call in calls)


def test_where_all_peers_agree_so_do_we():
    """What every peer that answers makes of an output, we make of it, but for one defect."""
    agreed = {
        key: a for key, row in ROWS.items() if len({*map(str, (a := answers(row)).values())}) == 1
    }
    different = {key for key, found in agreed.items() if ours(ROWS[key]) not in found.values()}
    assert len(agreed) == 22
    assert different == set(CALLS_ONLY_HERE)


def test_where_we_find_no_call_and_a_peer_does():
    """The outputs that are content here and a call for some peer are those listed with a reason."""
    found = {key for key, row in ROWS.items() if not ours(row) and any(answers(row).values())}
    assert found == set(CONTENT_HERE)


def test_every_other_reading_is_that_of_a_peer():
    """But for the one defect, some peer reads each output as we do."""
    alone = {key for key, row in ROWS.items() if ours(row) not in answers(row).values()}
    assert alone == set(CALLS_ONLY_HERE)


@pytest.mark.parametrize("tools", ["f", 3, {"f": 1}, [None], [{"name": "f"}], [{"function": {}}]])
def test_what_is_no_list_of_tools_is_refused(tools):
    """Tools come from the program, not from the model: a wrong list is an error."""
    with pytest.raises(BadRequest, match="tool"):
        parse_tool_calls("x", tools)
    with pytest.raises(BadRequest, match="tool"):
        ToolCallStream(tools)


def test_a_function_without_a_name_is_called_as_its_schema_says():
    """An object that can be called has the name "operation" in its schema, and for the parser."""

    class Doubling:
        def __call__(self, x: int) -> int:
            return 2 * x

    parsed = parse_tool_calls('{"name": "operation", "parameters": {"x": 1}}', [Doubling()])
    assert [call.name for call in parsed.calls] == ["operation"]


def test_a_caller_deep_in_its_stack_gets_an_answer():
    """With little of Python's stack left, a nested text is calls or content, not an error."""
    text = f"[f(a={'[' * 60}{']' * 60})]"

    def deeper(levels):
        return deeper(levels - 1) if levels else parse_tool_calls(text)

    def in_use():
        frame, n_frames = sys._getframe(), 1
        while frame := frame.f_back:
            n_frames += 1
        return n_frames

    free = sys.getrecursionlimit() - in_use()
    assert deeper(free - 400).calls
    for left in (40, 60, 80, 100):
        assert deeper(free - left).content == text


def test_blank_lines_in_front_hold_nothing_back():
    """After any number of blank lines, words go out as they come."""
    stream = ToolCallStream(None)
    assert not any(stream.push("\n") for _ in range(1000))
    assert stream.push("Hello") == [ContentDelta("\n" * 1000 + "Hello")]
    assert stream.push(" there") == [ContentDelta(" there")]
    assert stream.finish() == []
