"""Small tokenizer files for the tests: a vocabulary of 270 ranks, written in both formats.

Nothing here uses the package, so that a mistake in it cannot hide in the files it is tested on.
"""

import base64
import json

META_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
BYTES_IN_ORDER = [*PRINTABLE, *(byte for byte in range(256) if byte not in PRINTABLE)]
CHARACTERS = {byte: chr(byte) for byte in PRINTABLE} | {
    byte: chr(256 + place) for place, byte in enumerate(BYTES_IN_ORDER[len(PRINTABLE) :])
}

MERGED = [b" t", b"he", b" the", b"in", b"er", b" a", b"re", b"on", b"ing", b"  ", b"\xc3\xa9"]
MERGED += [b"\xf0\x9f", b"\xf0\x9f\xa6"]
UNREACHABLE = "Việt".encode()
"""No two of its parts are a token, so merges cannot build it: it is found only when looked up."""

RANKS = {token: rank for rank, token in enumerate([bytes([b]) for b in BYTES_IN_ORDER] + MERGED)}
RANKS[UNREACHABLE] = len(RANKS)

SPECIAL_NAMES = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|tool|>"]


def rank_lines(ranks=RANKS):
    """Return the lines of Meta's tokenizer.model for a vocabulary."""
    return [b"%b %d" % (base64.b64encode(token), rank) for token, rank in ranks.items()]


def write_rank_file(folder, lines=None, name="tokenizer.model"):
    """Write a rank file of these lines and return its path."""
    path = folder / name
    path.write_bytes(b"\n".join(rank_lines() if lines is None else lines) + b"\n")
    return path


def spelled(token):
    """Return how a tokenizer.json writes a token."""
    return "".join(CHARACTERS[byte] for byte in token)


def every_merge(ranks=RANKS):
    """Return all ways to cut all tokens in two, as Hugging Face's converter lists them."""
    merges = []
    for token, rank in ranks.items():
        cuts = [(token[:i], token[i:]) for i in range(1, len(token))]
        known = [(a, b) for a, b in cuts if a in ranks and b in ranks]
        merges += [(rank, ranks[a], ranks[b], a, b) for a, b in known]
    return [f"{spelled(a)} {spelled(b)}" for *_, a, b in sorted(merges)]


def added_token(token_id, content):
    """Return one special token as a tokenizer.json states it."""
    flags = dict.fromkeys(["single_word", "lstrip", "rstrip", "normalized"], False)
    return {"id": token_id, "content": content, **flags, "special": True}


def tokenizer_json(ranks=RANKS, special_names=tuple(SPECIAL_NAMES)):
    """Return the content of a tokenizer.json, field by field as Llama 3.1's is."""
    bos = {"SpecialToken": {"id": special_names[0], "type_id": 0}}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            added_token(len(ranks) + place, name) for place, name in enumerate(special_names)
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {
                    "type": "Split",
                    "pattern": {"Regex": META_PATTERN},
                    "behavior": "Isolated",
                    "invert": False,
                },
                {
                    "type": "ByteLevel",
                    "add_prefix_space": False,
                    "trim_offsets": True,
                    "use_regex": False,
                },
            ],
        },
        "post_processor": {
            "type": "Sequence",
            "processors": [
                {
                    "type": "ByteLevel",
                    "add_prefix_space": True,
                    "trim_offsets": False,
                    "use_regex": True,
                },
                {
                    "type": "TemplateProcessing",
                    "single": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
                    "pair": [
                        bos,
                        {"Sequence": {"id": "A", "type_id": 0}},
                        {"SpecialToken": {"id": special_names[0], "type_id": 1}},
                        {"Sequence": {"id": "B", "type_id": 1}},
                    ],
                    "special_tokens": {
                        special_names[0]: {
                            "id": special_names[0],
                            "ids": [len(ranks)],
                            "tokens": [special_names[0]],
                        }
                    },
                },
            ],
        },
        "decoder": {
            "type": "ByteLevel",
            "add_prefix_space": True,
            "trim_offsets": True,
            "use_regex": True,
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": True,
            "vocab": {spelled(token): rank for token, rank in ranks.items()},
            "merges": every_merge(ranks),
        },
    }


def write_json(folder, content, name="tokenizer.json"):
    """Write content, or text as it is, and return the path."""
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


ADD, REMOVE = object(), object()
"""As the last key of a path: append the value. As the value: remove what is there."""


def edited(*path, value):
    """Return the good content with the value at a path of keys replaced, appended or removed."""
    content = tokenizer_json()
    *parents, last = path
    place = content
    for key in parents:
        place = place[key]
    if last is ADD:
        place.append(value)
    elif value is REMOVE:
        del place[last]
    else:
        place[last] = value
    return content


def vocab(**changes):
    """Return a vocabulary with entries changed."""
    return edited("model", "vocab", value=tokenizer_json()["model"]["vocab"] | changes)


def model(**changes):
    """Return content whose model has fields changed."""
    return edited("model", value=tokenizer_json()["model"] | changes)


def added(**changes):
    """Return content whose last special token has fields changed."""
    return edited("added_tokens", -1, value=added_token(len(RANKS) + 3, "<|tool|>") | changes)
