"""`llama-ref tokens`: how a text becomes ids, token by token and byte by byte.

A token is bytes, not letters: it may begin or end inside a character. So places are counted in
bytes of UTF-8, a piece that is no text by itself is shown as its bytes, and where the text is
coloured token by token, the tokens of one character share a colour.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence

from llama_ref.cli.terminal import (
    Paint,
    Progress,
    label,
    print_json,
    print_lines,
    read_text,
    table,
    visible,
)
from llama_ref.errors import BadRequest, printable, shown
from llama_ref.text import utf8
from llama_ref.tokenizer import Span, Tokenizer, load_tokenizer

DESCRIPTION = (
    "Show the ids of a text, the piece each stands for and the bytes it covers.\n"
    "Without a text: what the tokenizer is."
)
EXAMPLE = """\
  llama-ref tokens path/to/tokenizer.model "Hello, 世界!"
  llama-ref tokens path/to/checkpoint - --json < text
  llama-ref tokens path/to/checkpoint --decode 15339,1917"""

BACKGROUNDS = ("30;46", "30;43", "30;42", "30;45")  # black on cyan, yellow, green, magenta


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("path", help="tokenizer.model, tokenizer.json, or a checkpoint folder with one of them")
    add("text", nargs="?", help="the text; '-' reads standard input, every byte of it")
    add("--bos", action="store_true", help="put the begin-of-text token in front")
    add("--special", action="store_true", help="read names of special tokens as those tokens")
    add("--exact", action="store_true", help="encode in one, without Meta's cuts in long texts")
    add("--decode", metavar="IDS", help="the other way: ids, with commas or blanks, to text")
    add("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> int:
    """Encode or decode, and print as asked."""
    tokenizer = load_tokenizer(options.path)
    if options.decode is not None:
        _decode(tokenizer, options)
    elif options.text is None:
        _describe(tokenizer, options)
    else:
        _encode(tokenizer, options)
    return 0


def _encode(tokenizer: Tokenizer, options: argparse.Namespace) -> None:
    """Print every token of the text."""
    text = read_text(options.text)
    with Progress("finding the tokens"):
        spans = tokenizer.spans(
            text,
            bos=options.bos,
            allowed_special="all" if options.special else frozenset(),
            exact=options.exact,
        )
    if options.json:
        print_json(_report(tokenizer, spans))
        return
    paint = Paint(sys.stdout)
    if paint.on and text:
        print("".join(_coloured(utf8(text), spans, paint)) + "\n")
    if spans:
        print_lines(_table(tokenizer, spans, paint))
        print()
    print(
        f"{_count(len(spans), 'token')}, {_count(len(utf8(text)), 'byte')} of UTF-8, "
        f"{_count(len(text), 'character')}"
    )


def _table(tokenizer: Tokenizer, spans: Sequence[Span], paint: Paint) -> list[str]:
    names = _names_of(tokenizer)
    rows = [("id", "bytes", "piece")]
    for token_id, start, end in spans:
        where = f"{start}–{end}" if end > start else "—"
        piece = names.get(token_id) or _quoted(tokenizer.token_bytes(token_id))
        rows.append((str(token_id), where, piece))
    head, *lines = table(rows, ">><", paint=paint, styles=("bold", "dim", ""))
    return [paint("dim", "".join(head)) if not paint.on else head, *lines]


def _coloured(text: bytes, spans: Sequence[Span], paint: Paint) -> Iterator[str]:
    """Yield the text in stretches of changing background, never cut inside a character."""
    start, n_shown = 0, 0
    for span in spans:
        inside_character = span.end < len(text) and text[span.end] & 0xC0 == 0x80
        if span.end == start or inside_character:
            continue
        stretch, colour = visible(text[start : span.end].decode()), BACKGROUNDS[n_shown % 4]
        # A background that spans a line end would fill the rest of the line.
        yield "\n".join(paint(colour, line) if line else "" for line in stretch.split("\n"))
        start, n_shown = span.end, n_shown + 1


def _report(tokenizer: Tokenizer, spans: Sequence[Span]) -> dict[str, object]:
    names = _names_of(tokenizer)
    tokens = []
    for token_id, start, end in spans:
        piece = tokenizer.token_bytes(token_id)
        tokens.append(
            {
                "id": token_id,
                "piece": names.get(token_id) or _text_of(piece),
                "hex": piece.hex(),
                "start": start,
                "end": end,
                "special": token_id in names,
            }
        )
    return {"ids": [span.id for span in spans], "tokens": tokens}


def _names_of(tokenizer: Tokenizer) -> dict[int, str]:
    return {token_id: printable(name) for name, token_id in tokenizer.special_tokens.items()}


def _quoted(piece: bytes) -> str:
    """Return a piece between quotes, or its bytes in hexadecimal where they are no text."""
    text = _text_of(piece)
    if text is None:
        return " ".join(f"{byte:02x}" for byte in piece)
    return '"' + printable(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def _text_of(piece: bytes) -> str | None:
    try:
        return piece.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _decode(tokenizer: Tokenizer, options: argparse.Namespace) -> None:
    """Print the text of ids."""
    if options.text is not None:
        raise BadRequest("--decode", expected="ids alone", found="a text beside them")
    ids = [_id_of(word) for word in options.decode.replace(",", " ").split()]
    text = tokenizer.decode(ids)
    if options.json:
        print_json({"ids": ids, "text": text, "hex": tokenizer.decode_bytes(ids).hex()})
    elif sys.stdout.isatty():
        print(visible(text))
    else:
        print(text, end="")


def _id_of(word: str) -> int:
    if not (word.isascii() and word.isdigit() and len(word) < 20):
        raise BadRequest("--decode", expected="ids such as 15339,1917", found=shown(word))
    return int(word)


def _describe(tokenizer: Tokenizer, options: argparse.Namespace) -> None:
    """Print what the tokenizer is."""
    if options.json:
        print_json(
            {
                "kind": type(tokenizer).__name__,
                "vocab_size": tokenizer.vocab_size,
                "bos_id": tokenizer.bos_id,
                "eos_id": tokenizer.eos_id,
                "stop_ids": list(tokenizer.stop_ids),
                "special_tokens": tokenizer.special_tokens,
            }
        )
        return
    print(
        f"{type(tokenizer).__name__}: {tokenizer.vocab_size:,} tokens, "
        f"{len(tokenizer.special_tokens)} of them special\n"
    )
    roles = {tokenizer.bos_id: "begins a text", tokenizer.eos_id: "ends a text"}
    rows = [
        (str(token_id), label(name), roles.get(token_id) or _role(tokenizer, token_id))
        for name, token_id in tokenizer.special_tokens.items()
    ]
    paint = Paint(sys.stdout)
    if rows:
        print_lines(table(rows, "><<", paint=paint, styles=("bold", "", "dim")))


def _role(tokenizer: Tokenizer, token_id: int) -> str:
    return "ends generation" if token_id in tokenizer.stop_ids else ""


def _count(n: int, thing: str) -> str:
    return f"{n:,} {thing}" + ("" if n == 1 else "s")
