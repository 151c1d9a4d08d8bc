"""What a terminal needs: colour where it is wanted, columns that line up, progress, and no tricks.

Names in a checkpoint, pieces of a vocabulary and the output of a model are foreign text. A control
character in it could move the cursor, recolour the screen or answer a prompt; none leaves this
module unescaped.
"""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

from llama_ref.errors import BadFile, LimitExceeded, printable

# Controls but for line feed and tab; line and paragraph separators; what reorders text, or hides.
UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufff9-\ufffb]"
)
STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
MAX_STDIN_BYTES = 8 * 2**20
LONGEST_NAME = 72


class Paint:
    """Styles text for one stream: on a terminal, unless NO_COLOR is set or it is a dumb one.

    Parameters
    ----------
    stream : text stream
        Where the text will be written.
    """

    def __init__(self, stream: TextIO):
        self.on = (
            stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        )

    def __call__(self, style: str, text: str) -> str:
        """Return the text in a style of `STYLES`, or in any code of SGR such as "30;46"."""
        return f"\x1b[{STYLES.get(style, style)}m{text}\x1b[0m" if self.on and style else text


def visible(text: str) -> str:
    r"""Return text of many lines with everything escaped that a terminal would act on.

    Examples
    --------
    >>> visible("a\x1b[31mred\rz\n")
    'a\\x1b[31mred\\rz\n'
    """
    return UNSAFE.sub(lambda match: ascii(match[0])[1:-1], text)


def label(name: str) -> str:
    """Return a foreign name for a cell: escaped, and its end cut if it is long."""
    text = printable(name[: LONGEST_NAME + 1])
    return text if len(text) <= LONGEST_NAME else text[: LONGEST_NAME - 1] + "…"


def width(text: str) -> int:
    """Return how many columns a text takes: two for East-Asian wide signs, none for accents.

    Examples
    --------
    >>> width("llama"), width("羊驼"), width("e" + "\u0301")
    (5, 4, 1)
    """
    if text.isascii():
        return len(text)
    return sum(
        0
        if unicodedata.category(sign) in ("Mn", "Me", "Cf")
        else 1 + (unicodedata.east_asian_width(sign) in "WF")
        for sign in text
    )


def table(
    rows: Sequence[Sequence[str]],
    align: str,
    *,
    paint: Paint | None = None,
    styles: Sequence[str] = (),
) -> list[str]:
    """Return rows as lines with aligned columns, two blanks apart.

    Parameters
    ----------
    rows : sequence of sequence of str
        Cells, already escaped.
    align : str
        "<" or ">" for each column.
    paint, styles : optional
        A style for each column, "" for none.

    Examples
    --------
    >>> table([("a", "1"), ("bcd", "20")], "<>")
    ['a     1', 'bcd  20']
    """
    widths = [max(map(width, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = []
        for i, cell in enumerate(row):
            blanks = " " * (widths[i] - width(cell))
            text = cell if paint is None or not styles else paint(styles[i], cell)
            cells.append(blanks + text if align[i] == ">" else text + blanks)
        lines.append("  ".join(cells).rstrip())
    return lines


def size(n_bytes: int) -> str:
    """Return a number of bytes with three digits, in powers of ten.

    Examples
    --------
    >>> size(640), size(131_072), size(16_060_522_496)
    ('640 B', '131 kB', '16.1 GB')
    """
    if n_bytes < 1000:
        return f"{n_bytes} B"
    power = min((len(str(n_bytes)) - 1) // 3, 4)
    number = n_bytes / 1000**power
    return f"{number:.{max(0, 2 - len(str(int(number))) + 1)}f} {'kMGT'[power - 1]}B"


def seconds(duration: float) -> str:
    """Return a duration in the unit that suits it.

    Examples
    --------
    >>> seconds(0.00123), seconds(0.5), seconds(12.34), seconds(200)
    ('1.2 ms', '500 ms', '12.3 s', '3 min 20 s')
    """
    if duration < 1:
        milliseconds = 1000 * duration
        return f"{milliseconds:.{1 if milliseconds < 10 else 0}f} ms"
    if duration < 100:
        return f"{duration:.1f} s"
    return f"{duration // 60:.0f} min {duration % 60:.0f} s"


def print_json(value: Any) -> None:
    """Print one JSON document on one line; control characters in it are escaped."""
    print(json.dumps(value, allow_nan=False))


def read_text(word: str) -> str:
    """Return a text given on the command line, or all of standard input for "-", byte for byte.

    Raises
    ------
    BadFile
        If the input is not UTF-8.
    LimitExceeded
        If it is longer than 8 MiB.
    """
    if word != "-":
        return word
    if sys.stdin is None:  # closed by the shell: <&-
        raise BadFile("standard input", expected="a text", found="nothing: it is closed")
    data = sys.stdin.buffer.read(MAX_STDIN_BYTES + 1)
    if len(data) > MAX_STDIN_BYTES:
        raise LimitExceeded("standard input", expected=f"at most {MAX_STDIN_BYTES:,} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadFile(
            f"standard input: not UTF-8 at byte {error.start}",
            found=f"byte 0x{data[error.start]:02x}",
        ) from None


class Progress:
    """A bar on standard error while something takes longer than a second; only on a terminal.

    It draws itself from a thread of its own, so that a single long step shows that time passes.

        with Progress("reading weights", total=n_bytes) as progress:
            progress.advance(1000)

    Parameters
    ----------
    what : str
        What is being done.
    total : int, optional
        How many steps there are; without it only the time is shown.
    """

    DELAY, INTERVAL, BAR = 1.0, 0.2, 24

    def __init__(self, what: str, total: int | None = None):
        self.what, self.total, self.done = what, total, 0
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def advance(self, n: int = 1) -> None:
        """Count n more steps as done."""
        self.done += n

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            self._start = time.monotonic()
            self._thread = threading.Thread(target=self._draw_until_over, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread:
            self._thread.join()

    def _draw_until_over(self) -> None:
        pause, drawn = self.DELAY, False
        while not self._over.wait(pause):
            print(f"\r\x1b[K{self._line()}", end="", file=sys.stderr, flush=True)
            pause, drawn = self.INTERVAL, True
        if drawn:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def _line(self) -> str:
        elapsed = time.monotonic() - self._start
        if not self.total:
            return f"{self.what} … {seconds(elapsed)}"
        share = min(self.done / self.total, 1.0)
        full = round(share * self.BAR)
        times = seconds(elapsed)
        if 0 < share < 1:
            times += f", {seconds(elapsed / share - elapsed)} left"
        bar = f"{self.what}  {'█' * full}{'░' * (self.BAR - full)} {share:4.0%}  {times}"
        return "  ".join(filter(None, [bar, self.note(elapsed)]))

    def note(self, elapsed: float) -> str:
        """Return what else there is to say after so many seconds."""
        return ""


def print_lines(lines: Iterable[str], indent: str = "") -> None:
    """Print lines, each behind the indent."""
    for line in lines:
        print(indent + line)
