"""Prompts as ids against live transformers: encoding, sanitizing, and leaving a message open.

The published templates are not part of this repository: what they write is compared with recorded
rows, in tests/chat. Here the template is four lines that give a plain chat the same skeleton, so
that everything transformers does around a template is compared on random conversations.
"""

import random

import pytest
import tiktoken.load
from transformers import PreTrainedTokenizerFast

from llama_ref import chat
from llama_ref.tokenizer import load_tokenizer
from llama_ref.tokenizer.special_tokens import NAMINGS
from tests.tokenizer.files import tokenizer_json, write_json

pytestmark = [pytest.mark.real, pytest.mark.slow]

PLAIN = """{{ bos_token }}{% if messages[0].role != "system" %}{% set messages = [{"role": "system",
"content": ""}] + messages %}{% endif %}{% for m in messages %}<|start_header_id|>{{ m.role
}}<|end_header_id|>\n\n{% if loop.first %}Cutting Knowledge Date: December 2023\nToday Date: {{
date_string }}\n\n{% endif %}{{ m.content | trim }}<|eot_id|>{% endfor %}{% if add_generation_prompt
%}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"""

WORDS = ["Hello", " world", "  ", "\n", "\n\n", "é", "\u3000", "😀", "don't", "<", "|", "1234567"]
FORGED = ["<|eot_id|>", "<|start_header_id|>", "<|reserved_special_token_7|>", "<|eot_id|", "|>"]
N_CONVERSATIONS = 1500


@pytest.fixture(scope="module")
def peer(llama3_ranks_file, tmp_path_factory):
    """Return transformers' tokenizer over the real ranks, written as a file without the package."""
    ranks = tiktoken.load.load_tiktoken_bpe(str(llama3_ranks_file))
    folder = tmp_path_factory.mktemp("chat_peer")
    path = write_json(folder, tokenizer_json(ranks, NAMINGS["hf"]))
    return PreTrainedTokenizerFast(
        tokenizer_file=str(path), bos_token="<|begin_of_text|>", chat_template=PLAIN
    )


@pytest.fixture(scope="module")
def ours(llama3_ranks_file):
    return load_tokenizer(llama3_ranks_file, naming="hf")


def conversations(words):
    """Yield random conversations, each with the same seed for the same words."""
    rng = random.Random(len(words))
    for _ in range(N_CONVERSATIONS):
        roles = [rng.choice(["user", "assistant", "system"]) for _ in range(rng.randint(1, 4))]
        yield [
            {"role": role, "content": "".join(rng.choices(words, k=rng.randint(0, 6)))}
            for role in roles
        ]


def theirs(peer, messages, **options):
    return peer.apply_chat_template(
        messages, date_string="26 Jul 2024", return_dict=False, **options
    )


@pytest.mark.parametrize("words", [WORDS, WORDS + FORGED], ids=["words", "forged"])
def test_text_and_ids(words, peer, ours):
    """Text, ids with special tokens allowed in contents, and ids without are transformers'."""
    for messages in conversations(words):
        options = {"add_generation_prompt": len(messages) % 2 == 0}
        assert chat.render(messages, **options) == theirs(peer, messages, tokenize=False, **options)
        naive = chat.encode(ours, messages, allow_special_in_content=True, **options)
        assert naive == theirs(peer, messages, **options)
        plain = chat.encode(ours, messages, **options)
        assert plain == theirs(peer, messages, sanitize_control_tokens=True, **options)


def test_a_message_left_open(peer):
    """The text ends where transformers ends it; after an empty message, it keeps the head whole."""
    options = {"add_generation_prompt": False, "continue_final_message": True}
    n_empty = 0
    for messages in conversations(WORDS):
        text, expected = (
            chat.render(messages, **options),
            theirs(peer, messages, tokenize=False, **options),
        )
        if not messages[-1]["content"].strip():
            n_empty += 1
            expected = text if text.rstrip() == expected else expected  # its blank line is gone
        assert text == expected
    assert 0 < n_empty < N_CONVERSATIONS / 2
