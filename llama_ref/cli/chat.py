"""`llama-ref chat`: a conversation on the terminal.

Each line is a message; the answer appears as it is written. Ctrl-C stops an answer, and what was
said stays said; at the prompt it leaves, as does the end of the input. Lines from a pipe are
messages too, so that a file of questions is a conversation.

With `--show-prompt` every token of the prompt is listed before the answer: its id, its text,
whether it is a control token, part of the format or somebody's words, and in whose message.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from llama_ref import chat
from llama_ref.cli.model_options import add_model_arguments, load_model
from llama_ref.cli.terminal import Paint, print_lines, table, visible
from llama_ref.errors import BadFile, BadRequest, LlamaRefError, printable
from llama_ref.llm import LLM
from llama_ref.sampling import SamplingParams
from llama_ref.tools import ContentDelta
from llama_ref.turn import prepare_turn

DESCRIPTION = (
    "Talk to the model of a checkpoint folder. Ctrl-C stops an answer, Ctrl-D ends the talk."
)
EXAMPLE = """\
  llama-ref chat path/to/checkpoint --system "Answer in one sentence."
  echo "What is 2+2?" | llama-ref chat path/to/checkpoint --show-prompt"""

LONGEST_LINE = 2**20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("path", help="checkpoint folder, in the HF or the Meta layout")
    add = parser.add_argument
    add("--system", metavar="TEXT", help="a system message to begin with")
    add("--show-prompt", action="store_true", help="list every token of each prompt")
    add("--dialect", choices=("hf", "meta"), default="hf", help="how it is written (hf)")
    add("--llama", choices=("3.1", "3.2", "3.3"), default="3.1", help="whose template (3.1)")
    add("--date", help="the day to write into the prompt, such as '26 Jul 2024'")
    add("--max-tokens", type=int, metavar="N", help="of each answer; by default all the room")
    add("--temperature", type=float, default=0.6, metavar="X", help="0 is greedy (%(default)s)")
    add("--top-p", type=float, default=0.9, metavar="P", help="a nucleus of mass P (%(default)s)")
    add("--top-k", type=int, default=0, metavar="K", help="the K most likely tokens")
    add("--min-p", type=float, default=0.0, metavar="P", help="at least P times the likeliest")
    add(
        "--repetition-penalty", type=float, default=1.0, metavar="X", help="1, the default, is none"
    )
    add("--seed", type=int, metavar="N", help="which draw; by default another each time")
    add_model_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Talk until the input ends."""
    params = SamplingParams(
        max_tokens=options.max_tokens,
        temperature=options.temperature,
        top_p=options.top_p,
        top_k=options.top_k,
        min_p=options.min_p,
        repetition_penalty=options.repetition_penalty,
        seed=options.seed,
    )
    model = load_model(options)
    llm, how = LLM(model), {"dialect": options.dialect, "version": options.llama}
    if options.date is not None:
        how["date"] = options.date
    conversation: list[dict[str, Any]] = []
    if options.system is not None:
        conversation.append({"role": "system", "content": options.system})
    for line in _lines():
        conversation.append({"role": "user", "content": line})
        try:
            if options.show_prompt:
                _show(llm, conversation, how)
            text = _answer(llm, conversation, params, how)
        except LlamaRefError as error:  # of this message; a person can go on without it
            if not sys.stdin.isatty():
                raise
            conversation.pop()
            print(f"llama-ref: {printable(str(error))}", file=sys.stderr)
            continue
        conversation.append({"role": "assistant", "content": text})
    return 0


def _lines() -> Iterator[str]:
    """Yield the user's messages; empty lines are none."""
    if sys.stdin is None:  # closed by the shell: <&-
        raise BadFile("standard input", expected="a text", found="nothing: it is closed")
    if not sys.stdin.isatty() and hasattr(sys.stdin, "reconfigure"):  # whatever the locale
        sys.stdin.reconfigure(encoding="utf-8", errors="strict")
    is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    paint = Paint(sys.stdout)
    while True:
        try:
            if is_terminal:
                print(paint("bold", "you: "), end="", flush=True)
            line = sys.stdin.readline(LONGEST_LINE + 1)
        except KeyboardInterrupt:
            line = ""
        except UnicodeDecodeError as error:
            raise BadRequest("input", expected="UTF-8", found=f"byte {error.start}") from None
        if not line:
            if is_terminal:
                print()
            return
        if len(line) > LONGEST_LINE:
            raise BadRequest("input", expected=f"lines of at most {LONGEST_LINE:,} characters")
        if line.strip():
            yield line.rstrip("\r\n")


def _answer(
    llm: LLM, conversation: list[dict[str, Any]], params: SamplingParams, how: dict[str, Any]
) -> str:
    """Print the answer as it comes; return it, whole or as far as it got."""
    turn = prepare_turn(llm, conversation, params, **how)
    reader, said = turn.reader(), list[str]()
    if sys.stdout.isatty():
        print(Paint(sys.stdout)("bold", "llama: "), end="", flush=True)
    try:
        with closing(llm.stream(turn.request)) as deltas:
            for delta in deltas:
                if delta.error:
                    raise delta.error
                for event in reader.push(delta.text):
                    if isinstance(event, ContentDelta):
                        said.append(event.text)
                        shown = visible(event.text) if sys.stdout.isatty() else event.text
                        print(shown, end="", flush=True)
    except KeyboardInterrupt:
        if not sys.stdin.isatty():
            raise
    finally:  # what is said next, an error perhaps, stands on a line of its own
        print(flush=True)
    return "".join(said)


def _show(llm: LLM, conversation: list[dict[str, Any]], how: dict[str, Any]) -> None:
    """List the tokens of a prompt."""
    if llm.tokenizer is None:
        return
    rows = [("id", "token", "kind", "message of")]
    for token in chat.prompt_tokens(llm.tokenizer, conversation, **how):
        text = visible(repr(llm.tokenizer.decode([token.id])))
        rows.append((str(token.id), text, token.kind, token.role or ""))
    print_lines(table(rows, "><<<"))
    print()
