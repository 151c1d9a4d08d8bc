"""Write golden_ids.py: the ids that tiktoken, with Meta's rule, gives for the texts below.

    python -m tests.tokenizer.make_golden_ids path/to/tokenizer.model

Nothing of the package is used. The ids of Meta's own tests and of public bug reports among them
(see model-facts in the issue that asked for this) are checked against what tiktoken says.
"""

import sys
from pathlib import Path

import tiktoken
import tiktoken.load

from tests.tokenizer.files import META_PATTERN

CASES = [
    ("hello world!", "the blank belongs to the word after it"),
    ("This is a test sentence.", "from the tests of Meta's code"),
    (
        "don't DON'T we'LL it'ſ",
        "contractions in either case; ſ is an s to a rule that ignores case",
    ),
    ("1234567 ٣٤٥٦ ½Ⅷ²", "up to three digits from the left, whatever the script"),
    ("  \n\n  x", "blanks up to the last line end, then all blanks but one"),
    ("if x:\r\n\treturn 1\r\n", "line ends of Windows, and a tab"),
    ("a\u00a0b\u2003c\x1cd\u2028e", "blanks beyond ASCII; U+001C is none to the rule"),
    ("!!!\n\n...", "signs take the line ends after them along"),
    (" Việt", "one token, found only by looking the piece up whole"),
    ("🦙", "one character, three tokens, none of them text"),
    ("👩‍👩‍👧‍👦👍🏽", "a family held together by joiners, and a modifier"),
    ("请你基于以下「评估标准」", "no blanks; cl100k_base gives other ids here"),
    ("é e\u0301", "composed and decomposed are different texts"),
    ("नमस्ते दुनिया", "vowel signs are no letters to the rule"),
    ("<|eot_id|><|begin_of_text|>", "names of special tokens are text"),
    ("\0\x1b[31m\u202e\ufeff", "control characters, a direction override, a byte-order mark"),
    ("user assistant system ipython", "roles of the chat format"),
]


def main(path: str) -> None:
    """Encode every text and write the file beside this one."""
    engine = tiktoken.Encoding(
        "llama3",
        pat_str=META_PATTERN,
        mergeable_ranks=tiktoken.load.load_tiktoken_bpe(path),
        special_tokens={},
    )
    lines = [
        f'"""Ids of Llama 3 by tiktoken {tiktoken.__version__}; written by make_golden_ids.py."""',
        "",
        "GOLDEN_IDS = [",
    ]
    for text, reason in CASES:
        lines += [f"    # {reason}", "    (", f"        {text!a},", "        ["]
        for token_id in engine.encode_ordinary(text):
            piece = engine.decode_single_token_bytes(token_id)
            lines.append(f"            {token_id},  # {shown(piece)}")
        lines += ["        ],", "    ),"]
    target = Path(__file__).with_name("golden_ids.py")
    target.write_text("\n".join([*lines, "]", ""]), encoding="utf-8")


def shown(piece: bytes) -> str:
    """Return a piece as text where it is text that prints, else as bytes."""
    text = piece.decode("utf-8", "replace")
    return f'"{text}"' if text.isprintable() and "\ufffd" not in text else repr(piece)


if __name__ == "__main__":
    main(sys.argv[1])
