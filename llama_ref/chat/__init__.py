"""A conversation as one text and as ids, in the two published dialects; and ids as a message.

    piece.py          the prompt as pieces: control tokens, fixed words, words of others
    conversation.py   messages checked: roles, keys and limits; with content.py and tool_call.py
    hf.py             the dialect of the published templates, with its system block and its trimming
    meta.py           the dialect of Meta's `ChatFormat`; calls.py writes its tool calls
    dates.py          "Today Date", from whoever keeps the clock
    prompt.py         the prompt as pieces and as text
    encoding.py       the prompt as ids
    reading.py        ids to a message; meta_reading.py has the rules of Meta's code

No template is run and none is read from a file: the two dialects are Python, piece by piece. Only
the pieces of the skeleton become control tokens. What users, tools and models wrote is encoded as
ordinary text, so `<|eot_id|>` inside it ends nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_ref.lazy import names_of

_HOMES = {
    "Message": "llama_ref.chat.conversation",
    "Piece": "llama_ref.chat.piece",
    "ToolCall": "llama_ref.chat.tool_call",
    "check_messages": "llama_ref.chat.conversation",
    "decode": "llama_ref.chat.reading",
    "encode": "llama_ref.chat.encoding",
    "PromptToken": "llama_ref.chat.encoding",
    "prompt_tokens": "llama_ref.chat.encoding",
    "pieces": "llama_ref.chat.prompt",
    "render": "llama_ref.chat.prompt",
}
__getattr__ = names_of(__name__, _HOMES)
__all__ = sorted(_HOMES)  # noqa: PLE0605


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


if TYPE_CHECKING:
    from llama_ref.chat.conversation import Message as Message
    from llama_ref.chat.conversation import check_messages as check_messages
    from llama_ref.chat.encoding import PromptToken as PromptToken
    from llama_ref.chat.encoding import encode as encode
    from llama_ref.chat.encoding import prompt_tokens as prompt_tokens
    from llama_ref.chat.piece import Piece as Piece
    from llama_ref.chat.prompt import pieces as pieces
    from llama_ref.chat.prompt import render as render
    from llama_ref.chat.reading import decode as decode
    from llama_ref.chat.tool_call import ToolCall as ToolCall
