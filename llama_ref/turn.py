"""One turn of a conversation: what goes in as ids, and what comes out as a message.

    messages, tools ──chat──► prompt ids ──engine──► text ──tools──► content, tool calls
    tool_choice, response_format ──constrain──► which ids may come next

`tool_choice` and what it does:

    none        the tools are in the prompt; what the model writes is content
    auto        the model may call tools; what is a call and what is content, `tools` decides
    required    a grammar lets the model write nothing but calls
    a function  a grammar lets the model write nothing but one call of it; its text is complete, so
                the turn ends with "stop" and not with "tool_calls", as in vLLM and the OpenAI API

Source: entrypoints/openai/chat_completion in vllm-project/vllm.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from llama_ref import chat, constrain
from llama_ref.continuation import ends
from llama_ref.engine import Request
from llama_ref.errors import BadRequest, shown
from llama_ref.sampling import SamplingParams
from llama_ref.tools import CallDelta, ContentDelta, ToolCallStream, check_tools

if TYPE_CHECKING:
    from llama_ref.constrain import Grammar
    from llama_ref.llm import LLM

Event = ContentDelta | CallDelta
CHOICES = ("none", "auto", "required")
ENDS_OF_TURN = ("<|eot_id|>", "<|eom_id|>")


@dataclass(frozen=True, slots=True)
class Turn:
    """A prepared turn.

    Attributes
    ----------
    request : Request
        For the engine.
    tools : list of dict
        Those that may be called; none if calls are not looked for.
    builtin_tools : tuple of str
    keeps_stop : bool
        Whether the turn ends with "stop" even though a tool is called.
    one_call : bool
        Whether only the first call is of interest.
    """

    request: Request
    tools: list[dict[str, Any]] | None
    builtin_tools: tuple[str, ...] = ()
    keeps_stop: bool = False
    one_call: bool = False

    def reader(self) -> TurnReader:
        """Return a reader of the text of one choice."""
        return TurnReader(self)

    def message(self, text: str, finish_reason: str | None) -> tuple[dict[str, Any], str | None]:
        """Return the assistant's message of a whole text, and the reason it ends with."""
        reader = self.reader()
        events = reader.push(text)
        rest, reason = reader.finish(finish_reason)
        return message_of([*events, *rest]), reason


class TurnReader:
    """Reads the text of one choice as it comes, and tells content from tool calls.

    Parameters
    ----------
    turn : Turn
    """

    def __init__(self, turn: Turn):
        self._turn, self._has_called, self._stream = turn, False, None
        if turn.tools is not None:
            self._stream = ToolCallStream(turn.tools, builtin_tools=turn.builtin_tools)

    def push(self, text: str) -> list[Event]:
        """Return what this piece of text makes certain."""
        if self._stream:
            return self._wanted(self._stream.push(text))
        return [ContentDelta(text)] if text else []

    def finish(self, finish_reason: str | None) -> tuple[list[Event], str | None]:
        """Return what was held back, and the reason the turn ends with."""
        events = self._wanted(self._stream.finish()) if self._stream else []
        if finish_reason == "stop" and self._has_called and not self._turn.keeps_stop:
            finish_reason = "tool_calls"
        return events, finish_reason

    def _wanted(self, events: Sequence[Event]) -> list[Event]:
        calls = [event for event in events if isinstance(event, CallDelta)]
        self._has_called |= bool(calls)
        surplus = [call for call in calls if self._turn.one_call and call.index > 0]
        return [event for event in events if event not in surplus]


def prepare_turn(
    llm: LLM,
    messages: Sequence[Mapping[str, Any]],
    params: SamplingParams | None = None,
    *,
    tools: Sequence[Any] | None = None,
    tool_choice: str | Mapping[str, Any] | None = None,
    parallel_tool_calls: bool = True,
    response_format: Mapping[str, Any] | None = None,
    builtin_tools: Sequence[str] = (),
    **options: Any,
) -> Turn:
    """Prepare the answer to a conversation.

    Parameters
    ----------
    llm : LLM
    messages : sequence of dict
        See `chat`.
    params : SamplingParams, optional
    tools : sequence of dict or function, optional
        What the model may call, at least one; see `tools.check_tools`.
    tool_choice : {"none", "auto", "required"} or dict, optional
        By default "auto" with tools, "none" without.
    parallel_tool_calls : bool
        Whether more than one call is of interest.
    response_format : dict, optional
        `{"type": "text" | "json_object"}`, or `{"type": "json_schema", "json_schema": …}`.
    builtin_tools : sequence of str
        Of those that the model was trained with: "brave_search", "wolfram_alpha",
        "code_interpreter".
    options
        How the prompt is written; see `chat.encode`.

    Raises
    ------
    BadRequest, Unsupported, LimitExceeded
        If anything in it is not possible.
    """
    params = params or SamplingParams()
    if llm.tokenizer is None:
        raise BadRequest("messages", expected="a model with a tokenizer", found="none")
    schemas = None if tools is None else check_tools(tools)
    if schemas == []:
        raise BadRequest("tools", expected="at least one, or None", found="an empty list")
    choice = _checked_choice(tool_choice, schemas)
    source = _source(schemas, choice, parallel_tool_calls, response_format)
    reads_calls = choice != "none" or (bool(builtin_tools) and tool_choice != "none")
    options |= {"builtin_tools": builtin_tools}
    ids = chat.encode(llm.tokenizer, messages, schemas, **options)
    if reads_calls:  # <|python_tag|> is part of how a call is written
        params = replace(params, skip_special_tokens=False)
    return Turn(
        Request(ids, _ended_by_turn(llm, params), _grammar(llm, source)),
        (schemas or []) if reads_calls else None,
        tuple(builtin_tools),
        keeps_stop=isinstance(choice, Mapping),
        one_call=not parallel_tool_calls,
    )


def message_of(events: Sequence[Event]) -> dict[str, Any]:
    """Return the assistant's message that a reader's events add up to.

    Examples
    --------
    >>> message_of([ContentDelta("Good "), ContentDelta("day.")])
    {'role': 'assistant', 'content': 'Good day.'}
    """
    calls: dict[int, dict[str, Any]] = {}
    for event in events:
        if isinstance(event, CallDelta):
            if event.name is not None:
                function = {"name": event.name, "arguments": ""}
                calls[event.index] = {"id": call_id(), "type": "function", "function": function}
            calls[event.index]["function"]["arguments"] += event.arguments
    content = "".join(event.text for event in events if isinstance(event, ContentDelta))
    if not calls:
        return {"role": "assistant", "content": content}
    return {"role": "assistant", "content": content or None, "tool_calls": list(calls.values())}


def call_id() -> str:
    """Return an id for a tool call that no other has."""
    return f"call_{uuid.uuid4().hex[:24]}"


def _checked_choice(
    choice: str | Mapping[str, Any] | None, tools: list[dict[str, Any]] | None
) -> str | Mapping[str, Any]:
    """Return the tool choice in force."""
    if choice is None:
        return "auto" if tools else "none"
    if choice == "none":
        return "none"
    if isinstance(choice, str) and choice not in CHOICES:
        expected = " or ".join(map(repr, CHOICES)) + ", or a function by name"
        raise BadRequest("tool_choice", expected=expected, found=shown(choice))
    if not tools:
        raise BadRequest("tool_choice", expected="tools beside it", found="no tools")
    if isinstance(choice, str):
        return choice
    function = choice.get("function") if isinstance(choice, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(choice, Mapping) or choice.get("type") != "function" or name is None:
        expected = '{"type": "function", "function": {"name": …}}'
        raise BadRequest("tool_choice", expected=expected, found=shown(choice))
    if name not in [tool["function"]["name"] for tool in tools]:
        raise BadRequest("tool_choice", expected="the name of one of the tools", found=shown(name))
    return choice


def _source(
    tools: list[dict[str, Any]] | None,
    choice: str | Mapping[str, Any],
    parallel: bool,
    response_format: Mapping[str, Any] | None,
) -> constrain.Source | None:
    """Return the grammar that the request asks for, if it asks for one."""
    if response_format is None and choice in ("none", "auto"):
        return None
    form = None if response_format is None else constrain.response_format(response_format)
    if form is not None and choice != "none":
        raise BadRequest(
            "response_format",
            expected='no tools beside it, or tool_choice "none"',
            found=f"tool_choice {shown(choice)}",
            next_step="a text is either a call or an answer in that form; ask for one of the two",
        )
    if choice in ("none", "auto"):
        return form
    return constrain.tool_calls(tools or [], choice, parallel=parallel)


def grammar_of(llm: LLM, response_format: Mapping[str, Any] | None) -> Grammar | None:
    """Return the grammar of a form of response, for text that is no conversation.

    Raises
    ------
    BadRequest, Unsupported, LimitExceeded
        See `constrain.response_format`.
    """
    form = None if response_format is None else constrain.response_format(response_format)
    return _grammar(llm, form)


def _grammar(llm: LLM, source: constrain.Source | None) -> constrain.Grammar | None:
    return None if source is None else constrain.compile_grammar(source, llm.vocabulary())


def _ended_by_turn(llm: LLM, params: SamplingParams) -> SamplingParams:
    """Add the ends of a turn to the stop tokens, for a checkpoint that does not name them."""
    if params.ignore_eos or llm.tokenizer is None:
        return params
    primary, others = ends(llm.model, params)
    special = llm.tokenizer.special_tokens
    unnamed = {special[name] for name in ENDS_OF_TURN if name in special} - others - {primary}
    if not unnamed:
        return params
    return replace(params, stop_token_ids=[*(params.stop_token_ids or ()), *sorted(unnamed)])
