"""`llama-ref generate`: continue a text, and show each piece as soon as it is certain.

In a file or a pipe the output is the text itself and nothing else, not even a last line feed. On a
terminal the prompt stands before it, control characters are escaped, and a line on standard error
tells the speed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from llama_ref import mpi
from llama_ref.cli.model_options import PassProgress, add_model_arguments, load_model
from llama_ref.cli.terminal import Paint, Progress, print_json, read_text, seconds, visible
from llama_ref.continuation import Token
from llama_ref.errors import BadRequest
from llama_ref.generation import generate
from llama_ref.model import Model
from llama_ref.trace import no_watch

DESCRIPTION = "Continue a text with the model of a checkpoint folder. Greedy unless told otherwise."
EXAMPLE = """\
  llama-ref generate path/to/checkpoint "Once upon a time" --max-tokens 50
  llama-ref generate path/to/checkpoint --temperature 0.8 --top-p 0.95 --seed 7
  printf 'A list:\\n1.' | llama-ref generate path/to/checkpoint -"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "path", help="checkpoint folder, in the HF or the Meta layout, or synthetic:PRESET"
    )
    parser.add_argument(
        "prompt",
        nargs="?",
        default="",
        help="text to continue; '-' reads standard input, every byte of it; without one the text "
        "starts from the begin-of-text token alone",
    )
    add = parser.add_argument
    add("--max-tokens", type=int, default=128, metavar="N", help="stop after N tokens (128)")
    add("--temperature", type=float, default=0.0, metavar="X", help="0, the default, is greedy")
    add("--top-k", type=int, default=0, metavar="K", help="draw from the K most likely tokens")
    add("--top-p", type=float, default=1.0, metavar="P", help="draw from a nucleus of mass P")
    add("--min-p", type=float, default=0.0, metavar="P", help="at least P times the likeliest")
    add("--repetition-penalty", type=float, default=1.0, metavar="X", help="1 is none (1)")
    add("--stop", action="append", metavar="TEXT", help="end before this text; may be given again")
    add("--seed", type=int, default=0, metavar="N", help="which draw; one seed, one text (0)")
    add(
        "--stop-id",
        type=int,
        action="append",
        metavar="ID",
        help="end at this id in place of the checkpoint's own; may be given again",
    )
    add_model_arguments(parser)
    add("--ids", action="store_true", help="print the ids of the new tokens in place of text")
    add("--json", action="store_true", help="print one JSON object at the end")


@dataclass
class Outcome:
    """What was generated, and how long it took."""

    prompt_ids: Sequence[int]
    tokens: list[Token] = field(default_factory=list)
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0

    @property
    def decode_speed(self) -> float | None:
        """Tokens per second after the first, which the prompt's own pass gives."""
        steps = len(self.tokens) - 1
        return steps / self.decode_seconds if steps else None


def run(options: argparse.Namespace) -> int:
    """Generate, and print as asked."""
    start = time.perf_counter()
    model = load_model(options)
    options.seed = mpi.agreed_seed(options.seed)
    load_seconds = time.perf_counter() - start
    prompt = mpi.agreed_text(lambda: read_text(options.prompt))
    outcome = Outcome(_prompt_ids(model, prompt))
    tokens = _tokens(model, outcome, options)
    if options.json:
        _print_report(tokens, outcome, load_seconds, options.max_tokens)
        return 0
    if options.ids:
        _print_ids(tokens)
    elif model.tokenizer is None:
        raise BadRequest("--ids", expected="--ids or --json, as the checkpoint has no tokenizer")
    else:
        _print_text(tokens, prompt)
    if sys.stderr.isatty():
        print(Paint(sys.stderr)("dim", _speed_line(outcome)), file=sys.stderr)
    return 0


def _prompt_ids(model: Model, prompt: str) -> list[int]:
    """Return the begin-of-text token and the ids of the prompt."""
    if model.tokenizer:
        return model.tokenizer.encode(prompt, bos=True)
    if prompt:
        raise BadRequest("PROMPT", expected="none, as the checkpoint has no tokenizer")
    if model.config.bos_id is None:
        raise BadRequest("PROMPT", expected="a text", found="none, and no begin-of-text token")
    return [model.config.bos_id]


def _tokens(model: Model, outcome: Outcome, options: argparse.Namespace) -> Iterator[Token]:
    """Yield each token as it comes, and note it and the time in the outcome."""
    start = time.perf_counter()
    tokens = generate(
        model,
        outcome.prompt_ids,
        max_tokens=options.max_tokens,
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        min_p=options.min_p,
        repetition_penalty=options.repetition_penalty,
        stop=options.stop,
        seed=options.seed,
        **_stops(options.stop_id, model.config.vocab_size),
    )
    model.watch = PassProgress.of(model)  # of the prompt; later a bar would write over the text
    first = next(tokens)
    model.watch = no_watch
    outcome.prefill_seconds = time.perf_counter() - start
    for token in chain([first], tokens):
        outcome.tokens.append(token)
        outcome.decode_seconds = time.perf_counter() - start - outcome.prefill_seconds
        yield token


def _stops(ids: list[int] | None, vocab_size: int) -> dict[str, Any]:
    """Return the parameters that end a text at these ids alone, each known to be a token."""
    for token_id in ids or ():
        if not 0 <= token_id < vocab_size:
            raise BadRequest("--stop-id", expected=f"0 to {vocab_size - 1}", found=token_id)
    return {"stop_token_ids": ids, "ignore_eos": True} if ids else {}


def _print_ids(tokens: Iterator[Token]) -> None:
    """Print the ids on one line."""
    for token in tokens:
        print(token.id, end="\n" if token.finish_reason else " ", flush=True)


def _print_text(tokens: Iterator[Token], prompt: str) -> None:
    """Print the text, on a terminal made harmless and behind its prompt."""
    if not sys.stdout.isatty():
        for token in tokens:
            print(token.text, end="", flush=True)
        return
    first = next(tokens)  # first, since the prompt's progress is drawn on the line
    print(Paint(sys.stdout)("bold", visible(prompt)), end="")
    for token in chain([first], tokens):
        print(visible(token.text), end="", flush=True)
    print()


def _print_report(
    tokens: Iterator[Token], outcome: Outcome, load_seconds: float, max_tokens: int
) -> None:
    """Generate to the end, then print everything as one JSON object."""
    next(tokens)
    with Progress("generating", max_tokens) as progress:
        for _ in tokens:
            progress.advance()
    print_json(
        {
            "prompt_ids": list(outcome.prompt_ids),
            "ids": [token.id for token in outcome.tokens],
            "text": "".join(token.text for token in outcome.tokens),
            "finish_reason": outcome.tokens[-1].finish_reason,
            "load_seconds": load_seconds,
            "seconds": outcome.prefill_seconds + outcome.decode_seconds,
            "prefill_tokens_per_second": len(outcome.prompt_ids) / outcome.prefill_seconds,
            "decode_tokens_per_second": outcome.decode_speed,
        }
    )


def _speed_line(outcome: Outcome) -> str:
    n, reason = len(outcome.tokens), outcome.tokens[-1].finish_reason
    ended = "at a stop token" if reason == "stop" else "by its length"
    line = (
        f"{n:,} tokens, ended {ended} · prompt {len(outcome.prompt_ids):,} tokens "
        f"in {seconds(outcome.prefill_seconds)}"
    )
    speed = outcome.decode_speed
    return line if speed is None else f"{line} · then {speed:,.1f} tokens/s"
