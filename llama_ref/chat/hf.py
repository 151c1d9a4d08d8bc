r"""The dialect of the published chat templates: Hugging Face's, and with it vLLM's for plain chats.

    <|begin_of_text|>
    system     [Environment: ipython\n] [Tools: …\n\n] Cutting Knowledge Date: …\nToday Date: …\n\n
               [declarations of tools, if not in the user's message] the system message
    user       [instructions and declarations of tools] the first message
    …          each other message
    assistant  (the head alone, for the model to go on)

A system block stands in front always. Contents are stripped of white space at both ends. An
assistant's message is its text or one call; beside a call the text is dropped. The result of a tool
is written as JSON, so text gets quotation marks; a number is written as it is.

Version 3.2 differs in two things: its default date is today's, and it knows no built-in tools.

What looks like a mistake and is kept, since models were trained or are used with it: no blank in
"value}.Do not use variables."; `"Tools: "` with nothing behind it; with tools, whatever message
comes first is written as the user's.

Source: the chat_template of meta-llama/Llama-3.1-8B-Instruct, Llama-3.2-3B-Instruct and
Llama-3.3-70B-Instruct.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llama_ref.chat.conversation import Message
from llama_ref.chat.piece import (
    BEGIN_OF_TEXT,
    BUILTIN_TOOLS,
    END_OF_MESSAGE,
    END_OF_TURN,
    PYTHON_TAG,
    Piece,
    header,
)
from llama_ref.errors import BadRequest, shown
from llama_ref.json_values import dumps

FORMAT = (
    'Respond in the format {"name": function name, "parameters": dictionary of argument name and '
    "its value}.Do not use variables.\n\n"
)
BEFORE_SYSTEM = (
    "You have access to the following functions. To call a function, please respond with JSON for "
    "a function call." + FORMAT
)
BEFORE_USER = (
    "Given the following functions, please respond with a JSON for a function call with its proper "
    "arguments that best answers the given prompt.\n\n" + FORMAT
)
UNLISTED = "code_interpreter"
"""The built-in tool that `Environment: ipython` alone switches on."""


def hf_pieces(
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]] | None,
    *,
    today: str,
    builtin_tools: Sequence[str],
    tools_in_user_message: bool,
) -> Iterator[Piece]:
    """Yield the pieces of a conversation, each message complete; no head of an answer.

    Parameters
    ----------
    messages : sequence of Message
    tools : sequence of dict or None
        Checked schemas. None and an empty list are different prompts.
    today : str
    builtin_tools : sequence of str
        Empty for version 3.2.
    tools_in_user_message : bool
        Where `tools` are declared: in the first message, or in the system block.

    Raises
    ------
    BadRequest
        Where the templates raise: two calls in one message, a built-in tool's argument that is no
        text, tools without a message to put them into.
    """
    yield Piece(BEGIN_OF_TEXT, "special")
    numbered = list(enumerate(messages))
    system = numbered.pop(0) if messages[0].role == "system" else None
    in_system = None if tools_in_user_message else tools
    yield from _system_block(system, in_system, tools is not None, today, builtin_tools)
    if tools is not None and tools_in_user_message:
        yield from _first_message(numbered, tools)
        del numbered[0]
    for index, message in numbered:
        if message.role == "tool":
            yield from _result(index, message)
        elif message.tool_calls:
            yield from _call(index, message, builtin_tools)
        else:
            yield from header(message.role, index)
            yield from _content(message.content.strip(), message.role, index)
            yield Piece(END_OF_TURN, "special", message.role, index)


def _system_block(
    system: tuple[int, Message] | None,
    tools: Sequence[Mapping[str, Any]] | None,
    has_tools: bool,
    today: str,
    builtin_tools: Sequence[str],
) -> Iterator[Piece]:
    """Yield the block in front: environment, dates, declarations, the system message."""
    index, message = system or (None, Message("system"))
    yield from header("system", index)
    facts = "Environment: ipython\n" if has_tools or builtin_tools else ""
    if builtin_tools:
        listed = [name for name in builtin_tools if name != UNLISTED]
        facts += f"Tools: {', '.join(listed)}\n\n"
    facts += f"Cutting Knowledge Date: December 2023\nToday Date: {today}\n\n"
    yield Piece(facts, "template", "system")
    if tools is not None:
        yield from _declarations(BEFORE_SYSTEM, tools, "system")
    yield from _content(message.content.strip(), "system", index)
    yield Piece(END_OF_TURN, "special", "system", index)


def _first_message(
    numbered: Sequence[tuple[int, Message]], tools: Sequence[Mapping[str, Any]]
) -> Iterator[Piece]:
    """Yield the first message after the system's, with the declarations of the tools before it."""
    if not numbered:
        raise BadRequest(
            "tools",
            expected="a user message, which they are declared in",
            found="no message but the system's",
            next_step="or pass tools_in_user_message=False",
        )
    index, message = numbered[0]
    if message.role == "tool" or message.tool_calls:
        raise BadRequest(
            "tools",
            expected=f"text in messages[{index}], where they are declared",
            found="the result of a tool" if message.role == "tool" else "a call of a tool",
            next_step="begin with the user's message, or pass tools_in_user_message=False",
        )
    yield from header("user", index)
    yield from _declarations(BEFORE_USER, tools, "user")
    yield from _content(message.content.strip(), "user", index)
    yield Piece(END_OF_TURN, "special", "user", index)


def _declarations(
    instructions: str, tools: Sequence[Mapping[str, Any]], role: str
) -> Iterator[Piece]:
    """Yield what the model is told about tools, and their schemas."""
    yield Piece(instructions, "template", role)
    for tool in tools:
        yield Piece(dumps(tool, indent=4), "content", role)
        yield Piece("\n\n", "template", role)


def _call(index: int, message: Message, builtin_tools: Sequence[str]) -> Iterator[Piece]:
    """Yield an assistant's message that is one call."""
    if len(message.tool_calls) != 1:
        raise BadRequest(
            f"messages[{index}].tool_calls",
            expected="a single call: these models make one at a time",
            found=f"{len(message.tool_calls)}",
            next_step="write them one after the other, each with its result",
        )
    call = message.tool_calls[0]
    yield from header("assistant", index)
    if call.name in builtin_tools:
        yield Piece(PYTHON_TAG, "special", "assistant", index)
        texts = [f'{key}="{_text(index, key, value)}"' for key, value in call.arguments.items()]
        yield Piece(f"{call.name}.call(", "template", "assistant", index)
        yield from _content(", ".join(texts), "assistant", index)
        yield Piece(")", "template", "assistant", index)
    else:
        yield Piece('{"name": "', "template", "assistant", index)
        yield Piece(call.name, "content", "assistant", index)
        yield Piece('", "parameters": ', "template", "assistant", index)
        yield Piece(dumps(call.arguments), "content", "assistant", index)
        yield Piece("}", "template", "assistant", index)
    end = END_OF_MESSAGE if builtin_tools else END_OF_TURN
    yield Piece(end, "special", "assistant", index)


def _text(index: int, key: str, value: object) -> str:
    """Return the argument of a built-in tool, between its quotation marks as it is."""
    if not isinstance(value, str):
        raise BadRequest(
            f"messages[{index}].tool_calls[0].function.arguments",
            expected=f"text in {shown(key)}, as in any call of {', '.join(BUILTIN_TOOLS)}",
            found=shown(value),
        )
    return value


def _result(index: int, message: Message) -> Iterator[Piece]:
    """Yield the result of a tool, as JSON."""
    yield from header("ipython", index)
    yield Piece(dumps(message.content), "content", "ipython", index)
    yield Piece(END_OF_TURN, "special", "ipython", index)


def _content(text: str, role: str, index: int | None) -> Iterator[Piece]:
    """Yield a piece, unless there is nothing in it."""
    if text:
        yield Piece(text, "content", role, index)
