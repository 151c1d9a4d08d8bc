"""`llama-ref demo`: the whole path in six steps, each with a line of why, on real files.

    write a checkpoint -> open it -> text to ids -> ids to logits -> the cache -> generate

The last two steps are checks as well. A cache is a promise that nothing is computed differently,
only never twice; where the promise fails the demo says so and ends with exit code 1.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import llama_ref
from llama_ref.checkpoint import synthetic
from llama_ref.cli import two_ways
from llama_ref.cli.demo_checkpoint import write_demo
from llama_ref.cli.terminal import Paint, Progress, print_lines, seconds, size, table, visible
from llama_ref.config import Config
from llama_ref.errors import LimitExceeded, printable
from llama_ref.files import list_folder
from llama_ref.loading import load
from llama_ref.model import Model

DESCRIPTION = (
    "A first look. Without a path: write a small checkpoint of random weights to a temporary\n"
    "folder, open it, run it, and check that the cache changes nothing. With a path: the same\n"
    "on a checkpoint of yours. Exit code 1 if a check fails."
)
EXAMPLE = """\
  llama-ref demo
  llama-ref demo path/to/checkpoint --prompt "The llama is" """

RANDOM_PROMPT, TRAINED_PROMPT = "Once upon a time, a llama 🦙", "Once upon a time"
N_WITHOUT_TOKENIZER = 16
MAX_PROMPT = 512
CLOSE_ENOUGH = 1e-3  # of the logits' standard deviation; rounding in float32 makes about 1e-5

TAPS_SHOWN = {
    "embed": "a vector for each token",
    "L00.q": "what each token asks, in N heads",
    "L00.k": "what it offers; {G} queries share one head",
    "L00.probs": "who reads from whom; each row adds up to 1",
    "L00.act": "the gated features of feed-forward",
    "L00.out": "the vectors after layer 1 of {L}",
    "logits": "a score for every token that could come next",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("path", nargs="?", help="checkpoint folder; without one, a small one is written")
    add("--prompt", help="the text to run")
    add("--max-tokens", type=int, metavar="N", help="tokens to generate (32; with a path 12)")


def run(options: argparse.Namespace) -> int:
    """Go through the steps; return 1 if a check failed."""
    is_random = options.path is None
    show = Show()
    print(show.paint("bold", f"llama_ref {llama_ref.__version__}"), end="")
    print(": a Llama, from files on disk to text, in NumPy")

    path = _write(show) if is_random else options.path
    model = _open(show, path)
    prompt, max_tokens = options.prompt, options.max_tokens
    if prompt is None:
        prompt = RANDOM_PROMPT if is_random else TRAINED_PROMPT
    if max_tokens is None:  # without the cache a large model takes long for each
        max_tokens = 32 if is_random else 12
    ids = _tokenize(show, model, prompt)
    _look_inside(show, model, ids)
    logits_agree = _compare_logits(show, model, ids)
    ids_agree = _compare_continuations(show, model, ids, max_tokens, is_random)
    _say_what_next(show, path, is_random)
    return 0 if logits_agree and ids_agree else 1


class Show:
    """Prints numbered steps, eighty columns wide."""

    def __init__(self) -> None:
        self.paint, self.n_steps = Paint(sys.stdout), 0

    def step(self, title: str, why: str) -> None:
        """Print the heading of the next step, and why it is there."""
        self.n_steps += 1
        print("\n" + self.paint("bold", f"{self.n_steps}. {title}") + f"  {why}")

    def rows(self, rows: Sequence[Sequence[str]], align: str) -> None:
        """Print aligned lines."""
        print_lines(table(rows, align), indent="   ")

    def line(self, text: str, style: str = "") -> None:
        """Print a line, and more of them if it is long."""
        for line in textwrap.wrap(text, 77, subsequent_indent="  "):
            print("   " + self.paint(style, line))

    def verdict(self, good: bool, when_good: str, when_bad: str) -> bool:
        """Print how a check ended, loudly where it failed; return `good`."""
        if good:
            self.line(f"✓ {when_good}", "green")
        else:
            self.line(f"✗ WRONG: {when_bad}", "red")
        return good


def _write(show: Show) -> str:
    """Write the small checkpoint, and return its folder."""
    show.step("Write a checkpoint.", "Random weights; the structure is that of Llama 3.1.")
    folder = tempfile.mkdtemp(prefix="llama-ref-demo-")
    write_demo(folder)
    names = list_folder(folder)
    shards = [name for name in names if name.endswith(".safetensors")]
    n_bytes = sum((Path(folder) / name).stat().st_size for name in shards)
    print(f"   {folder}")
    show.line("  ".join(name for name in names if name not in shards))
    show.line(f"{shards[0]} … {len(shards)} shards, {size(n_bytes)} in bfloat16")
    return folder


def _open(show: Show, path: str) -> Model:
    """Map the checkpoint, and show its blueprint."""
    show.step("Open it.", "Mapped, not read: a weight stays on disk until it is used.")
    start = time.perf_counter()
    model = load(path)
    took = seconds(time.perf_counter() - start)
    config = model.config
    show.line(f"{printable(config.name)}: {config.n_params:,} parameters, open after {took}")
    show.line(config.describe().splitlines()[1].split(maxsplit=1)[1])
    show.line(_rope(config))
    return model


def _rope(config: Config) -> str:
    stretched = config.rope_scaling
    how = f"slow pairs {stretched.factor:g} times slower" if stretched else "not stretched"
    return f"RoPE theta {config.rope_theta:,.0f}, {how}"


def _tokenize(show: Show, model: Model, prompt: str) -> list[int]:
    """Turn the prompt into ids."""
    show.step("Text to ids.", "A token is a run of bytes; a model knows only its number.")
    if model.tokenizer is None:
        ids = synthetic.token_ids(N_WITHOUT_TOKENIZER, model.config.vocab_size).tolist()
        show.line("There is no tokenizer here, so some ids by a formula:")
    else:
        ids = model.tokenizer.encode(prompt, bos=True)
        if len(ids) > MAX_PROMPT:
            raise LimitExceeded(
                "--prompt",
                expected=f"at most {MAX_PROMPT} tokens, since every intermediate is kept",
                found=f"{len(ids):,}",
                next_step="`llama-ref generate` takes longer ones",
            )
        show.line(f'"{_one_line(prompt)}"')
    show.line(f"{_some(ids)}  ({len(ids)} ids)")
    return ids


def _look_inside(show: Show, model: Model, ids: Sequence[int]) -> None:
    """Show the shapes of some intermediates."""
    show.step("Ids to logits.", "Every intermediate has a name: trace = model.trace(ids)")
    with Progress("running the prompt"):
        trace = model.trace(ids)
    rows = []
    for name, meaning in TAPS_SHOWN.items():
        axes = trace.layout(name).partition(";")[0]
        shape = " × ".join(map(str, trace[name].shape))
        text = meaning.format(G=model.config.group_size, L=model.config.n_layers)
        rows.append((name, axes, shape, text))
    show.rows(rows, "<<<<")


def _compare_logits(show: Show, model: Model, ids: Sequence[int]) -> bool:
    """Run the prompt at once and token by token; return whether the logits agree."""
    show.step("The cache.", "Keys and values of the past never change, so they are kept.")
    whole = two_ways.logits_at_once(model, ids)
    steps = two_ways.logits_token_by_token(model, ids)
    show.rows(
        [
            ("the prompt at once", *_speed(len(ids), whole.seconds)),
            ("token by token, through the cache", *_speed(len(ids), steps.seconds)),
        ],
        "<>>",
    )
    n_same = two_ways.n_same_choice(whole, steps)
    difference = two_ways.largest_difference(whole, steps)
    return show.verdict(
        n_same == len(ids) and difference < CLOSE_ENOUGH,
        f"the same most likely token at all {n_same} positions; logits differ by at most "
        f"{difference:.1e} of their standard deviation: rounding",
        f"the same most likely token at only {n_same} of {len(ids)} positions; logits differ by "
        f"up to {difference:.1e} of their standard deviation",
    )


def _compare_continuations(
    show: Show, model: Model, ids: Sequence[int], max_tokens: int, is_random: bool
) -> bool:
    """Generate with the cache and without; return whether the ids agree."""
    show.step("Generate.", "Take the most likely token, append it, run again.")
    cached = two_ways.greedy_with_cache(model, ids, max_tokens)
    n = len(cached.tokens)
    afresh = two_ways.greedy_without_cache(model, ids, n)
    show.rows(
        [
            ("with the cache, one token a step", *_speed(n, cached.seconds)),
            ("without, the whole text every step", *_speed(n, afresh.seconds)),
        ],
        "<>>",
    )
    cached_ids, afresh_ids = ([t.id for t in way.tokens] for way in (cached, afresh))
    show.line(_some(cached_ids))
    agree = show.verdict(
        cached_ids == afresh_ids,
        f"the same {n} ids both ways",
        f"other ids without the cache: {_some(afresh_ids)}",
    )
    if is_random:
        show.line("Their text is noise: random weights have nothing to say.")
    elif model.tokenizer:
        show.line(f'"{_one_line("".join(token.text for token in cached.tokens))}"')
    return agree


def _say_what_next(show: Show, path: str, is_random: bool) -> None:
    """Print commands to go on with."""
    folder = printable(shlex.quote(path))
    print("\n" + show.paint("bold", "Next"))
    print(f"   llama-ref inspect {folder}")
    print(f"   llama-ref generate {folder} " + ("--ids" if is_random else '"Once upon a time"'))
    rows = [("llama-ref doctor", "is this machine as fast as it can be?")]
    if is_random:
        rows.append(("llama-ref demo PATH", "the same on a checkpoint of yours"))
    rows.append(("python -c \"help('llama_ref')\"", "in which order to read the source"))
    show.rows(rows, "<<")


def _speed(n_tokens: int, duration: float) -> tuple[str, str]:
    return seconds(duration), f"{n_tokens / duration:,.0f} tokens/s"


def _one_line(text: str) -> str:
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")


def _some(ids: Iterable[int], limit: int = 14) -> str:
    """Return the first ids of a list."""
    words = [str(token_id) for token_id in ids]
    return " ".join(words[:limit]) + (" …" if len(words) > limit else "")
