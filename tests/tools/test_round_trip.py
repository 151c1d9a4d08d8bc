"""The weather example of the model card: from function to schema, call, result and final prompt."""

import json

import pytest

import llama_ref as lr
from llama_ref import chat, tools


def get_current_temperature(location: str) -> float:
    """
    Get the current temperature at a location.

    Args:
        location: The location to get the temperature for, in the format "City, Country"
    Returns:
        The current temperature at the specified location in the specified units, as a float.
    """
    return 22.0


MESSAGES = [
    {"role": "system", "content": "You are a bot that responds to weather queries."},
    {"role": "user", "content": "Hey, what's the temperature in Paris right now?"},
]
ANSWER = '{"name": "get_current_temperature", "parameters": {"location": "Paris, France"}}'
PROMPT = """\
<|begin_of_text|><|start_header_id|>system<|end_header_id|>

Environment: ipython
Cutting Knowledge Date: December 2023
Today Date: 26 Jul 2024

You are a bot that responds to weather queries.<|eot_id|><|start_header_id|>user<|end_header_id|>

Given the following functions, please respond with a JSON for a function call with its proper \
arguments that best answers the given prompt.

Respond in the format {"name": function name, "parameters": dictionary of argument name and its \
value}.Do not use variables.

{
    "type": "function",
    "function": {
        "name": "get_current_temperature",
        "description": "Get the current temperature at a location.",
        "parameters": {
            "type": "object",
            "properties": {
                "location": {
                    "type": "string",
                    "description": "The location to get the temperature for, in the format \
\\"City, Country\\""
                }
            },
            "required": [
                "location"
            ]
        },
        "return": {
            "type": "number",
            "description": "The current temperature at the specified location in the specified \
units, as a float."
        }
    }
}

Hey, what's the temperature in Paris right now?<|eot_id|><|start_header_id|>assistant\
<|end_header_id|>

"""
AFTER = """\
{"name": "get_current_temperature", "parameters": {"location": "Paris, France"}}<|eot_id|>\
<|start_header_id|>ipython<|end_header_id|>

"22.0"<|eot_id|><|start_header_id|>assistant<|end_header_id|>

"""


def test_the_weather_example_from_end_to_end():
    """Each step gives the text of the published template, and the next step takes what it gave."""
    prompt = chat.render(MESSAGES, [get_current_temperature])
    assert prompt == PROMPT
    parsed = tools.parse_tool_calls(ANSWER, [get_current_temperature])
    (call,) = parsed.calls
    result = {"get_current_temperature": get_current_temperature}[call.name](**call.arguments)
    function = {"name": call.name, "arguments": json.dumps(call.arguments)}
    messages = [
        *MESSAGES,
        {"role": "assistant", "tool_calls": [{"type": "function", "function": function}]},
        {"role": "tool", "name": call.name, "content": str(result)},
    ]
    assert chat.render(messages, [get_current_temperature]) == PROMPT + AFTER


@pytest.mark.real
def test_its_ids_are_those_of_its_text(llama3_ranks_file):
    """With Llama 3's tokenizer the prompt decodes to its text, and control tokens are one id."""
    tokenizer = lr.load_tokenizer(llama3_ranks_file)
    ids = chat.encode(tokenizer, MESSAGES, [get_current_temperature])
    assert tokenizer.decode(ids) == PROMPT
    assert [i for i in ids if i >= 128_000] == [
        128000,  # <|begin_of_text|>
        128006, 128007, 128009,  # <|start_header_id|> system <|end_header_id|> … <|eot_id|>
        128006, 128007, 128009,  # the user's message
        128006, 128007,  # the head of the assistant's
    ]  # fmt: skip
