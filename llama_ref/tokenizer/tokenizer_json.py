"""Hugging Face's tokenizer.json: the vocabulary and special tokens of Llama 3 in another dress.

The format can state a great many tokenizers. This reader takes those that cut, merge and decode
as Llama 3 does, with any ranks and any names of special tokens, and refuses every other by the
field that differs. Patterns are compared with Llama 3's, never compiled.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from llama_ref.bpe import SPLIT_PATTERN
from llama_ref.errors import BadFile, LimitExceeded, Unsupported, shown
from llama_ref.strict_json import parse_json
from llama_ref.tokenizer.byte_alphabet import CHARACTER_OF_BYTE, to_bytes
from llama_ref.tokenizer.merge_list import check_merges, unreachable
from llama_ref.tokenizer.post_processor import check_post_processor
from llama_ref.tokenizer.rank_file import MAX_RANKS, MAX_TOKEN_BYTES
from llama_ref.tokenizer.special_tokens import BEGIN_OF_TEXT

MAX_FILE_BYTES = 24 * 2**20
"""Llama 3's has 9 MB, or 17 MB where merges are pairs, one part a line."""

MAX_VOCABULARY_BYTES = 2**21
"""The tokens of Llama 3 have 0.8 MB; showing what the merges mean takes seconds for each MB."""

MAX_ADDED_TOKENS, MAX_ADDED_TOKEN = 1024, 256
"""Llama 3 adds 256. In a text that may hold them, each is looked for at every character."""

Path = str | os.PathLike[str]

OTHERS = ["added_tokens", "pre_tokenizer", "post_processor", "decoder", "model"]

# What a field must hold; every value there is allowed. A missing field counts as None.
PLAIN: dict[str, tuple[object, ...]] = {
    "version": ("1.0",),
    "truncation": (None,),
    "padding": (None,),
    "normalizer": (None,),
}
PLAIN_MODEL: dict[str, tuple[object, ...]] = {
    "type": ("BPE",),
    "dropout": (None,),
    "unk_token": (None,),
    "continuing_subword_prefix": (None, ""),
    "end_of_word_suffix": (None, ""),
    "fuse_unk": (None, False),
    "byte_fallback": (None, False),
    "ignore_merges": (None, False, True),
}
PLAIN_ADDED_TOKEN: dict[str, tuple[object, ...]] = {
    "single_word": (None, False),
    "lstrip": (None, False),
    "rstrip": (None, False),
    "normalized": (None, False),
    "special": (True,),
}
PRE_TOKENIZER = {
    "type": "Sequence",
    "pretokenizers": [
        {
            "type": "Split",
            "pattern": {"Regex": SPLIT_PATTERN},
            "behavior": "Isolated",
            "invert": False,
        },
        {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
    ],
}
NOT_LLAMA_3 = "this is not Llama 3's tokenizer"


class Vocabulary(NamedTuple):
    """What a tokenizer.json states: the arguments of `Llama3Tokenizer`."""

    ranks: dict[bytes, int]
    special_names: list[str]
    unreachable: frozenset[bytes]


def parse_tokenizer_json(data: bytes, *, file: Path) -> Vocabulary:
    """Read a tokenizer.json.

    Parameters
    ----------
    data : bytes
        The whole file.
    file : path-like
        Its name, for messages.

    Returns
    -------
    Vocabulary
        `unreachable` is empty if pieces are looked up whole (``ignore_merges``), as Llama 3's are.

    Raises
    ------
    BadFile
        If the file is damaged or contradicts itself.
    Unsupported
        If it states another kind of tokenizer.
    LimitExceeded
        If its JSON is nested too deep, or holds a number too long or too many values; or it has
        more than 262,144 tokens, 2 MiB of them, or 1,024 added ones.
    """
    tokenizer = _object(parse_json(data, file=file), "tokenizer.json", file)
    model = _object(tokenizer.get("model"), "model", file)
    _check_plain(tokenizer, PLAIN, "", file, others=OTHERS)
    _check_plain(model, PLAIN_MODEL, "model.", file, others=["vocab", "merges"])
    _check_pre_tokenizer(tokenizer.get("pre_tokenizer"), file)
    if _object(tokenizer.get("decoder"), "decoder", file).get("type") != "ByteLevel":
        raise _unsupported("decoder", "ByteLevel", tokenizer["decoder"], file)
    tokens = read_vocab(model.get("vocab"), file)
    ranks = {token: token_id for token_id, token in enumerate(tokens.values())}
    check_merges(model.get("merges"), tokens, ranks, file=file)
    names = _read_added_tokens(tokenizer.get("added_tokens"), model["vocab"], file)
    ids = {name: len(ranks) + place for place, name in enumerate(names)}
    check_post_processor(tokenizer.get("post_processor"), ids, file)
    return Vocabulary(
        ranks, names, frozenset() if model.get("ignore_merges") else unreachable(ranks)
    )


def _object(value: Any, name: str, file: Path) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadFile(name, expected="an object", found=shown(value), file=file)
    return value


def _check_limit(thing: str, n: int, limit: int, file: Path) -> None:
    if n > limit:
        raise LimitExceeded(thing, expected=f"at most {limit:,}", found=f"{n:,}", file=file)


def _unsupported(name: str, expected: object, found: object, file: Path) -> Unsupported:
    return Unsupported(
        name, expected=expected, found=shown(found), next_step=NOT_LLAMA_3, file=file
    )


def _check_plain(
    value: dict[str, Any],
    plain: dict[str, tuple[object, ...]],
    prefix: str,
    file: Path,
    *,
    others: list[str],
) -> None:
    """Refuse a field that is unknown, or that holds what would change the ids."""
    for name, found in value.items():
        if name not in plain and name not in others:
            raise _unsupported(f"{prefix}{shown(name)}", "no such field", found, file)
    for name, allowed in plain.items():
        found = value.get(name)
        # 0 == False and 1 == True in Python, but not in JSON.
        if not any(found == good and type(found) is type(good) for good in allowed):
            expected = " or ".join(repr(good) for good in allowed)
            raise _unsupported(f"{prefix}{name}", expected, found, file)


def _check_pre_tokenizer(found: Any, file: Path) -> None:
    """Refuse any way of cutting a text into pieces but Llama 3's."""
    pre_tokenizer = _object(found, "pre_tokenizer", file)
    steps = pre_tokenizer.get("pretokenizers")
    if isinstance(steps, list):  # whether offsets leave out a blank changes no id
        steps = [
            {name: value for name, value in step.items() if name != "trim_offsets"}
            if isinstance(step, dict)
            else step
            for step in steps
        ]
    if {**pre_tokenizer, "pretokenizers": steps} != PRE_TOKENIZER:
        raise _unsupported("pre_tokenizer", "Llama 3's split rule, then ByteLevel", found, file)


def read_vocab(vocab: Any, file: Path) -> dict[str, bytes]:
    """Return every token as written and its bytes, in the order of ids, which are 0 to n - 1."""
    tokens: dict[int, str] = {}
    stated = _object(vocab, "model.vocab", file)
    _check_limit("model.vocab: tokens", len(stated), MAX_RANKS, file)
    _check_limit("model.vocab: characters", sum(map(len, stated)), MAX_VOCABULARY_BYTES, file)
    for token, token_id in stated.items():
        if type(token_id) is not int or not 0 <= token_id < len(vocab) or token_id in tokens:
            raise BadFile(
                f"model.vocab[{shown(token)}]",
                expected=f"an id from 0 to {len(vocab) - 1} of its own",
                found=shown(token_id),
                file=file,
            )
        tokens[token_id] = token
    in_order = {token: to_bytes(token) for _, token in sorted(tokens.items())}
    for token, token_bytes in in_order.items():
        if not token_bytes or len(token_bytes) > MAX_TOKEN_BYTES:
            raise BadFile(
                f"model.vocab[{shown(token)}]",
                expected=f"1 to {MAX_TOKEN_BYTES} characters of the byte alphabet",
                found=f"{len(token)} characters",
                file=file,
            )
    for byte, character in CHARACTER_OF_BYTE.items():
        if character not in in_order:
            raise BadFile(f"model.vocab: byte 0x{byte:02x}", found="no token", file=file)
    return {token: token_bytes for token, token_bytes in in_order.items() if token_bytes}


def _read_added_tokens(added: Any, vocab: dict[str, int], file: Path) -> list[str]:
    """Return the names of the special tokens in the order of their ids, which follow the ranks."""
    if not isinstance(added, list):
        raise BadFile("added_tokens", expected="a list", found=type(added).__name__, file=file)
    _check_limit("added_tokens", len(added), MAX_ADDED_TOKENS, file)
    names: dict[int, str] = {}
    taken = set(vocab)
    for place, token in enumerate(added):
        where = f"added_tokens[{place}]"
        token_id, name = _object(token, where, file).get("id"), token.get("content")
        _check_plain(token, PLAIN_ADDED_TOKEN, f"{where}.", file, others=["id", "content"])
        if type(token_id) is not int or not 0 <= token_id - len(vocab) < len(added):
            ids = f"an id from {len(vocab)} to {len(vocab) + len(added) - 1}"
            raise BadFile(f"{where}.id", expected=ids, found=shown(token_id), file=file)
        if not isinstance(name, str) or not name or name in taken:
            new = "a text that no other token has"
            raise BadFile(f"{where}.content", expected=new, found=shown(name), file=file)
        _check_limit(f"{where}.content: characters", len(name), MAX_ADDED_TOKEN, file)
        if token_id in names:
            raise BadFile(f"{where}.id", found=f"{token_id} twice", file=file)
        names[token_id] = name
        taken.add(name)
    if BEGIN_OF_TEXT not in names.values():
        raise BadFile("added_tokens", expected=BEGIN_OF_TEXT, found="no such token", file=file)
    return [names[token_id] for token_id in sorted(names)]
