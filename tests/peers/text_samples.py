"""Texts on which tokenizers are compared: generated strings of every kind, prose and code."""

import random
import sys
import sysconfig
import unicodedata
from pathlib import Path

ASSIGNED = [
    point
    for point in range(sys.maxunicode + 1)
    if unicodedata.category(chr(point)) not in ("Cs", "Co")
    and (unicodedata.category(chr(point)) != "Cn" or point % 97 == 0)
]
"""All characters there are, and some that may come to be."""

BLOCKS = [ASSIGNED[start : start + 64] for start in range(0, len(ASSIGNED), 64)]
SPECIAL = ["<|begin_of_text|>", "<|eot_id|>", "<|end_of_text|>", "<|reserved_special_token_5|>"]
SPECIAL += ["<|eot_id|", "<|", "|>", "<|eot_id |>", "<｜eot_id｜>", "<|<|eot_id|>|>"]
BLANKS = " \t\n\r\u00a0\u2003\u2028\u3000\x1c\x85\u200b"
EMOJI = ["👩", "🏽", "\u200d", "👨", "🇩🇪", "🇫", "❤\ufe0f", "#\ufe0f\u20e3", "🦙", "🏴\U000e0067"]
WORDS = [
    "the",
    "THE",
    "don't",
    "I'LL",
    "we've",
    "'tis",
    "naïve",
    "Việt",
    "Straße",
    "你好",
    "привет",
]
WORDS += ["مرحبا", "नमस्ते", "ქართული", "한국어", "def f(x):", "return", "==", "0x1F"]
WORDS += ["https://a.b/c?d=e&f", "3.14e-5", "$1,234.56", "…", "—"]


def characters_of_one_block(rng: random.Random) -> str:
    """Characters of one stretch of Unicode, blanks between them."""
    return "".join(chr(point) for point in rng.choices([*rng.choice(BLOCKS), 32], k=12))


def characters_of_anywhere(rng: random.Random) -> str:
    """Characters of all of Unicode."""
    return "".join(map(chr, rng.choices(ASSIGNED, k=8)))


def digits(rng: random.Random) -> str:
    """Digits of several scripts among other things."""
    return "".join(rng.choices("0123456789٠١२३½Ⅷ²,. a", k=rng.randrange(1, 20)))


def blanks(rng: random.Random) -> str:
    """Blanks of all kinds, line ends among them, between letters."""
    return "".join(rng.choices(BLANKS + "\r\n  ab!", k=rng.randrange(1, 20)))


def line_ends(rng: random.Random) -> str:
    """Lines that end in each of the known ways."""
    return "".join(rng.choice(["a", "b;", "  ", "\t"]) + rng.choice(["\r\n", "\n", "\r", "\n\n"])
                   for _ in range(5))  # fmt: skip


def emoji(rng: random.Random) -> str:
    """Emoji with modifiers and joiners, whole and broken."""
    return "".join(rng.choices([*EMOJI, " ", "a"], k=8))


def controls(rng: random.Random) -> str:
    """Control characters between letters."""
    return "".join(map(chr, rng.choices([*range(33), *range(127, 161), 97, 0x202E, 0xFEFF], k=10)))


def special(rng: random.Random) -> str:
    """Names of special tokens, their look-alikes and words."""
    return "".join(rng.choices([*SPECIAL, *WORDS, " "], k=6))


def words(rng: random.Random) -> str:
    """Words, numbers, code and addresses."""
    return rng.choice([" ", "", "  ", "\n"]).join(rng.choices(WORDS, k=6))


def contractions(rng: random.Random) -> str:
    """Apostrophes and the letters that may follow them."""
    return "".join(rng.choices("''sStTreREvVeEmMlLldDſ aé", k=12))


KINDS = [characters_of_one_block, characters_of_anywhere, digits, blanks, line_ends, emoji]
KINDS += [controls, special, words, contractions]


def generated(n: int, *, seed: int = 0) -> list[str]:
    """Return `n` strings, each of one kind or of two kinds joined."""
    rng = random.Random(seed)
    return [
        "".join(kind(rng) for kind in rng.choices(KINDS, k=rng.randrange(1, 3))) for _ in range(n)
    ]


def prose_and_code(n_bytes: int) -> str:
    """Return text of Python's standard library: its manual pages, then its sources."""
    library = Path(sysconfig.get_paths()["stdlib"])
    files = [library / "pydoc_data" / "topics.py", *sorted(library.glob("*.py"))]
    text = ""
    for file in files:
        text += file.read_text(encoding="utf-8").replace("\\n", "\n")
        if len(text) > n_bytes:
            return text
    raise AssertionError(f"the standard library has only {len(text)} characters")
