r"""The dialect of Meta's own code: messages as they are, and nothing else.

    <|begin_of_text|>
    each message:  <|start_header_id|> role <|end_header_id|> \n\n content [calls] <|eot_id|>
    assistant      (the head alone, for the model to go on)

No system block, no date, no declaration of tools, no trimming: what the model should be told, the
caller writes into a message. Text beside calls is kept, and a message may hold several calls. It
ends with `<|eom_id|>` if its `stop_reason` is "end_of_message". `<|python_tag|>` stands before
code alone, though the models write it before any call of a built-in tool.

Each piece is encoded on its own, so that "\n\n" after a head and "\n" that begins a content stay
two tokens.

Source: ChatFormat in meta-llama/llama-models, models/llama3/chat_format.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llama_ref.chat.calls import call_text
from llama_ref.chat.conversation import Message
from llama_ref.chat.piece import (
    BEGIN_OF_TEXT,
    END_OF_MESSAGE,
    END_OF_TURN,
    PYTHON_TAG,
    Piece,
    header,
)
from llama_ref.errors import BadRequest, shown


def meta_pieces(messages: Sequence[Message], tool_prompt_format: str) -> Iterator[Piece]:
    """Yield the pieces of a conversation, each message complete; no head of an answer.

    Parameters
    ----------
    messages : sequence of Message
    tool_prompt_format : {"json", "function_tag", "python_list"}
        How calls of tools that are not built in are written.

    Raises
    ------
    BadRequest
        If the result of a tool is no text, or a call of a built-in tool has no text to be called
        with.
    """
    yield Piece(BEGIN_OF_TEXT, "special")
    for index, message in enumerate(messages):
        role = "ipython" if message.role == "tool" else message.role
        yield from header(role, index)
        yield from _body(index, message, role, tool_prompt_format)
        ends_message = message.stop_reason == "end_of_message"
        yield Piece(END_OF_MESSAGE if ends_message else END_OF_TURN, "special", role, index)


def _body(index: int, message: Message, role: str, tool_prompt_format: str) -> Iterator[Piece]:
    """Yield what stands between the head of a message and its end."""
    if not isinstance(message.content, str):
        raise BadRequest(
            f"messages[{index}].content",
            expected="text: this dialect writes the results of tools as they are",
            found=shown(message.content),
            next_step="write it as JSON text first",
        )
    calls = message.tool_calls
    if calls and calls[0].name == "code_interpreter":
        yield Piece(PYTHON_TAG, "special", role, index)
    texts = [message.content]
    texts += [
        call_text(call, tool_prompt_format, f"messages[{index}].tool_calls[{n}]")
        for n, call in enumerate(calls)
    ]
    if message.context is not None:
        texts += ["\n\n", message.context]
    for text in texts:
        if text:
            yield Piece(text, "content", role, index)
