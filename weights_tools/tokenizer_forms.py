"""One tokenizer in the forms that programs read: entries of a GGUF file, or files of a folder.

    GGUF                     llama.cpp's, with every piece or every merge
    tokenizer.model          Meta's ranks, or a sentencepiece model
    tokenizer.json           Llama 3's for Hugging Face, with a tokenizer_config.json

Source: conversion/base.py in ggml-org/llama.cpp; the tokenizer.json of Llama 3.1.
"""

from __future__ import annotations

import json
from binascii import b2a_base64
from typing import Any

from llama_ref.bpe import SPLIT_PATTERN
from llama_ref.config import Config
from llama_ref.errors import Unsupported, shown
from llama_ref.tokenizer import Llama3Tokenizer, SentencePieceTokenizer, Tokenizer
from llama_ref.tokenizer.byte_alphabet import to_text
from llama_ref.tokenizer.gguf_vocabulary import CONTROL, NONE, NORMAL, PREFIX, SPLIT_RULES
from llama_ref.tokenizer.merge_list import every_merge
from llama_ref.tokenizer.special_tokens import BEGIN_OF_TEXT, NAMINGS

NO_VOCABULARY: dict[str, Any] = {f"{PREFIX}model": NONE}
CHAT_TEMPLATE = "tokenizer.chat_template"
BYTE_LEVEL = {
    "type": "ByteLevel",
    "add_prefix_space": False,
    "trim_offsets": True,
    "use_regex": False,
}


def gguf_entries(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the vocabulary as entries of a GGUF file.

    Raises
    ------
    Unsupported
        If llama.cpp would give other ids.
    """
    if isinstance(tokenizer, SentencePieceTokenizer):
        texts, scores, kinds = map(list, zip(*tokenizer.pieces(), strict=True))
        entries = {
            "model": "llama",
            "pre": "default",
            "tokens": texts,
            "scores": scores,
            "token_type": kinds,
            "unknown_token_id": tokenizer.unknown_id,
            "add_space_prefix": tokenizer.adds_blank,
        }
    else:
        llama3 = _looked_up_whole(tokenizer)
        ranks, names = map(to_text, llama3.ranks), llama3.special_tokens
        entries = {
            "model": "gpt2",
            "pre": SPLIT_RULES[0],
            "tokens": [*ranks, *names],
            "token_type": [NORMAL] * len(llama3.ranks) + [CONTROL] * len(names),
            "merges": _merges(llama3),
        }
    entries |= {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id}
    entries |= {"add_bos_token": tokenizer.bos_id is not None, "add_eos_token": False}
    return {PREFIX + key: value for key, value in entries.items() if value is not None}


def tokenizer_model(tokenizer: Tokenizer) -> bytes:
    """Return a tokenizer.model: a sentencepiece model, or ranks, which name no special token.

    Raises
    ------
    Unsupported
        If ranks do not say it all: special tokens that are not Llama 3's, or pieces that are merged
        and never looked up whole.
    """
    if isinstance(tokenizer, SentencePieceTokenizer):
        return tokenizer.model()
    llama3 = _looked_up_whole(tokenizer)
    names = tuple(llama3.special_tokens)
    if names not in NAMINGS.values():
        expected = f"the {len(NAMINGS['meta'])} special tokens of Llama 3"
        raise Unsupported("tokenizer.model", expected=expected, found=f"{len(names)} of its own")
    lines = (b"%b %d\n" % (b2a_base64(t, newline=False), rank) for t, rank in llama3.ranks.items())
    return b"".join(lines)


def tokenizer_json(tokenizer: Llama3Tokenizer) -> bytes:
    """Return a tokenizer.json that cuts, merges and begins a text as Llama 3.1's does."""
    plain = dict.fromkeys(["single_word", "lstrip", "rstrip", "normalized"], False)
    split: dict[str, Any] = {"type": "Split", "pattern": {"Regex": SPLIT_PATTERN}}
    split |= {"behavior": "Isolated", "invert": False}
    ids = tokenizer.special_tokens
    bos = {"id": BEGIN_OF_TEXT, "ids": [ids[BEGIN_OF_TEXT]], "tokens": [BEGIN_OF_TEXT]}
    parts = [
        [
            {"SpecialToken": {"id": BEGIN_OF_TEXT, "type_id": type_id}},
            {"Sequence": {"id": name, "type_id": type_id}},
        ]
        for type_id, name in enumerate("AB")
    ]
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": token_id, "content": name, **plain, "special": True}
            for name, token_id in ids.items()
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, BYTE_LEVEL]},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": parts[0],
            "pair": [*parts[0], *parts[1]],
            "special_tokens": {BEGIN_OF_TEXT: bos},
        },
        "decoder": BYTE_LEVEL,
        "model": {
            "type": "BPE",
            "ignore_merges": True,
            "vocab": {to_text(token): rank for token, rank in tokenizer.ranks.items()},
            "merges": _merges(tokenizer),
        },
    }
    return _json(content)


def tokenizer_config(tokenizer: Llama3Tokenizer, config: Config) -> bytes:
    """Return the tokenizer_config.json by which transformers loads a tokenizer.json."""
    names = {token_id: name for name, token_id in tokenizer.special_tokens.items()}
    ends = [token_id for token_id in config.eos_ids if token_id in names]
    return _json(
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": BEGIN_OF_TEXT,
            "eos_token": names[ends[0] if ends else tokenizer.special_tokens["<|end_of_text|>"]],
            "clean_up_tokenization_spaces": False,
            "model_max_length": config.context_length,
        }
    )


def _looked_up_whole(tokenizer: Tokenizer) -> Llama3Tokenizer:
    """Return the tokenizer, if every token that is a piece of a text is the id of that piece."""
    if not isinstance(tokenizer, Llama3Tokenizer):
        raise Unsupported(
            "tokenizer", expected="Llama 3's or sentencepiece", found=shown(tokenizer)
        )
    lost = tokenizer.vocab_size - len(tokenizer.ranks) - len(tokenizer.special_tokens)
    if lost:
        raise Unsupported(
            "tokenizer",
            expected="one that looks pieces up whole (ignore_merges)",
            found=f"{lost} tokens that no text gives",
        )
    return tokenizer


def _merges(tokenizer: Llama3Tokenizer) -> list[str]:
    return [f"{to_text(left)} {to_text(right)}" for left, right in every_merge(tokenizer.ranks)]


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()
