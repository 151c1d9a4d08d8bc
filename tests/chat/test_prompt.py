"""Options of a prompt, its pieces, and the date."""

import datetime
import json

import pytest

from llama_ref import chat
from llama_ref.chat.dates import today_date
from llama_ref.cli.demo_checkpoint import write_demo
from llama_ref.errors import BadRequest, LlamaRefError, Unsupported
from llama_ref.tokenizer import Llama3Tokenizer, load_tokenizer
from llama_ref.tokenizer.special_tokens import NAMINGS

USER = {"role": "user", "content": "hi"}
DATED = {"date": "1 Jan 2020"}
ROUND_TRIP = [
    {"role": "user", "content": "Weather in Paris?"},
    {
        "role": "assistant",
        "tool_calls": [{"function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}],
    },
    {"role": "tool", "content": "25 C"},
]


@pytest.mark.parametrize("dialect", ["hf", "meta"])
def test_text_and_ids_are_the_pieces(dialect, demo_tokenizer):
    """Pieces joined are the text; ids decode to it; no piece is empty."""
    pieces = chat.pieces(ROUND_TRIP, dialect=dialect)
    text = chat.render(ROUND_TRIP, dialect=dialect)
    assert "".join(piece.text for piece in pieces) == text
    assert all(piece.text for piece in pieces)
    ids = chat.encode(demo_tokenizer, ROUND_TRIP, dialect=dialect)
    assert demo_tokenizer.decode(ids) == text


def test_pieces_say_whose_they_are():
    """Kind, role and message of each piece: content is what the caller wrote, and nothing else."""
    pieces = chat.pieces(ROUND_TRIP, **DATED)
    assert [(p.text, p.role, p.message) for p in pieces if p.kind == "content"] == [
        ("Weather in Paris?", "user", 0),
        ("get_weather", "assistant", 1),
        ('{"city": "Paris"}', "assistant", 1),
        ('"25 C"', "ipython", 2),
    ]
    assert {p.text for p in pieces if p.kind == "special"} == {
        *("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
    }
    assert [p.message for p in pieces if p.role == "system"] == [None] * 6
    assert [(p.role, p.message) for p in pieces[-4:]] == [("assistant", None)] * 4


@pytest.mark.parametrize(
    ("options", "thing"),
    [
        ({"dialect": "vllm"}, "dialect"),
        ({"dialect": None}, "dialect"),
        ({"version": "3"}, "version"),
        ({"version": 3.1}, "version"),
        ({"date": 20240726}, "date"),
        ({"date": "1 Jan\n2020"}, "date"),
        ({"date": "x" * 65}, "date"),
        ({"date": "\ud800"}, "date"),
        ({"builtin_tools": "brave_search"}, "builtin_tools"),
        ({"builtin_tools": ["google"]}, "builtin_tools[0]"),
        ({"builtin_tools": ["brave_search", "<|eot_id|>"]}, "builtin_tools[1]"),
        ({"builtin_tools": ["brave_search"] * 2}, "builtin_tools"),
        ({"tool_prompt_format": "xml"}, "tool_prompt_format"),
        ({"continue_final_message": True}, "continue_final_message"),
        ({"dialect": "meta", "date": "1 Jan 2020"}, "date"),
        ({"dialect": "meta", "builtin_tools": ["brave_search"]}, "builtin_tools"),
        ({"dialect": "meta", "tools": [{"type": "function"}]}, "tools"),
    ],
)
def test_options_out_of_range(options, thing):
    """An option that is not possible is refused by its name."""
    with pytest.raises(BadRequest) as caught:
        chat.render([USER], **options)
    assert caught.value.thing == thing


def test_a_template_is_no_option():
    """A template handed in with a request is not even a parameter."""
    with pytest.raises(TypeError, match="chat_template"):
        chat.render([USER], chat_template="{{ messages }}")


def test_a_template_in_a_file_is_ignored(tmp_path, demo_tokenizer):
    """A checkpoint's own template is never read: the prompt is the one without it."""
    write_demo(folder := tmp_path / "demo")
    template = "{{ raise_exception('read') }}<|eot_id|>"
    config = json.dumps({"chat_template": template})
    (folder / "tokenizer_config.json").write_text(config, encoding="utf-8")
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    ids = chat.encode(load_tokenizer(folder), [USER])
    assert ids == chat.encode(demo_tokenizer, [USER])


def test_context_is_written_by_meta_alone():
    """Retrieved text stands behind the message in one dialect, and is refused in the other."""
    messages = [{**USER, "context": "a fact"}]
    assert "hi\n\na fact<|eot_id|>" in chat.render(messages, dialect="meta")
    with pytest.raises(BadRequest, match=r"messages\[0\]\.context: expected none"):
        chat.render(messages)


def test_the_date():
    """It is the caller's; by default a fixed day, and in version 3.2 the day it is."""
    before = datetime.date.today()
    found = today_date(None, "3.2")
    assert found in {today_date(day, "3.1") for day in (before, datetime.date.today())}
    assert today_date(None, "3.1") == today_date(None, "3.3") == "26 Jul 2024"
    assert today_date(datetime.datetime(2024, 12, 1, 8), "3.2") == "01 Dec 2024"
    for version in ("3.1", "3.2", "3.3"):
        assert "\nToday Date: soon\n\n" in chat.render([USER], date="soon", version=version)


@pytest.mark.parametrize("dialect", ["hf", "meta"])
def test_a_message_left_open(dialect):
    """The last message ends with its text, and nothing follows."""
    messages = [USER, {"role": "assistant", "content": "Good day"}]
    options = {"dialect": dialect, "add_generation_prompt": False}
    closed = chat.render(messages, **options)
    assert chat.render(messages, continue_final_message=True, **options) + "<|eot_id|>" == closed


def test_an_empty_message_left_open_keeps_its_blank_line():
    """An answer without a beginning begins where any answer does."""
    empty = [USER, {"role": "assistant", "content": ""}]
    options = {"add_generation_prompt": False, "continue_final_message": True}
    assert chat.render(empty, **options) == chat.render([USER])


@pytest.mark.parametrize("messages", [ROUND_TRIP, ROUND_TRIP[:2]])
def test_only_text_can_be_left_open(messages):
    """A call and the result of a tool have no end that a model could write on."""
    with pytest.raises(BadRequest, match=r"continue_final_message: expected text in messages\["):
        chat.render(messages, add_generation_prompt=False, continue_final_message=True)


def test_builtin_calls_end_the_message_and_not_the_turn():
    """With built-in tools a call is written behind the python tag and ends with eom."""
    call = {"function": {"name": "brave_search", "arguments": {"query": "gold"}}}
    messages = [USER, {"role": "assistant", "tool_calls": [call]}]
    text = chat.render(messages, builtin_tools=["brave_search"], add_generation_prompt=False)
    assert text.endswith('<|python_tag|>brave_search.call(query="gold")<|eom_id|>')
    assert "Environment: ipython\nTools: brave_search\n\n" in text
    call["function"]["arguments"] = {"query": 5}
    with pytest.raises(BadRequest, match="expected text in 'query'"):
        chat.render(messages, builtin_tools=["brave_search"])
    assert '"parameters": {"query": 5}}<|eot_id|>' in chat.render(messages)
    with pytest.raises(BadRequest, match=r"tool_calls\[0\]\.function\.arguments"):
        chat.render(messages, dialect="meta")


@pytest.mark.real
def test_a_tokenizer_without_the_tokens_of_a_chat(stories_folder):
    """The tokenizer of another model is refused, and the error says which token it lacks."""
    tokenizer = load_tokenizer(stories_folder)
    with pytest.raises(Unsupported, match="special tokens of Llama 3, found one without "):
        chat.encode(tokenizer, [USER])
    with pytest.raises(LlamaRefError, match="Llama 3"):
        chat.decode(tokenizer, [1])


def test_a_tokenizer_without_the_tokens_of_tools():
    """That of Llama 3.0 is enough for a plain chat, and refused where a token of tools is due."""
    ranks = {bytes([byte]): byte for byte in range(256)}
    names = [name for name in NAMINGS["hf"] if name not in ("<|eom_id|>", "<|python_tag|>")]
    tokenizer = Llama3Tokenizer(ranks, names)
    answer = {"role": "assistant", "content": "yes"}
    ids = chat.encode(tokenizer, [USER, answer], dialect="meta")
    assert tokenizer.decode(ids) == chat.render([USER, answer], dialect="meta")
    assert chat.decode(
        tokenizer, [*b"yes", tokenizer.special_id("<|eot_id|>")], dialect="meta"
    ) == {
        **answer,
        "stop_reason": "end_of_turn",
    }
    with pytest.raises(Unsupported, match=r"found one without '<.eom_id"):
        chat.encode(tokenizer, [USER, answer | {"stop_reason": "end_of_message"}], dialect="meta")


@pytest.mark.real
def test_line_ends_at_the_start_of_a_content(llama3_ranks_file):
    """Meta's code encodes head and content apart; the templates strip, and encode them in one."""
    tokenizer = load_tokenizer(llama3_ranks_file)
    messages = [{"role": "user", "content": "\nhi"}]
    options = {"add_generation_prompt": False}
    meta = chat.encode(tokenizer, messages, dialect="meta", **options)
    assert meta[4:] == [
        271,  # \n\n
        198,  # \n
        6151,  # hi
        128009,  # <|eot_id|>
    ]
    assert tokenizer.encode("\n\n\nhi") == [1432, 6151]  # \n\n\n is one token
    assert chat.encode(tokenizer, messages, **options)[-3:] == [271, 6151, 128009]


@pytest.mark.real
@pytest.mark.parametrize("dialect", ["hf", "meta"])
def test_a_message_token_by_token(dialect, llama3_ranks_file):
    """A message has the same ids in both dialects, and docs/chat.md shows them."""
    tokenizer = load_tokenizer(llama3_ranks_file)
    messages = [USER, {"role": "user", "content": "What is 2+2?"}]
    ids = chat.encode(tokenizer, messages, dialect=dialect)
    assert ids[-16:] == [
        128006,  # <|start_header_id|>
        882,  # user
        128007,  # <|end_header_id|>
        271,  # \n\n
        3923,  # What
        374,  # (blank)is
        220,  # (blank)
        17,  # 2
        10,  # +
        17,  # 2
        30,  # ?
        128009,  # <|eot_id|>
        128006,  # <|start_header_id|>
        78191,  # assistant
        128007,  # <|end_header_id|>
        271,  # \n\n
    ]


@pytest.mark.real
def test_tokens_of_a_prompt_say_where_they_come_from(llama3_ranks_file):
    """Ids are those of `encode`; each token has the kind and role of the piece it begins in."""
    tokenizer = load_tokenizer(llama3_ranks_file)
    messages = [
        {"role": "system", "content": "Be brief. 日本"},
        {"role": "user", "content": "<|eot_id|> What is 2+2?"},
    ]
    for dialect in ("hf", "meta"):
        listed = chat.prompt_tokens(tokenizer, messages, dialect=dialect)
        assert [t.id for t in listed] == chat.encode(tokenizer, messages, dialect=dialect)
        for kind in ("special", "content"):
            text = tokenizer.decode([t.id for t in listed if t.kind == kind and t.role == "user"])
            assert ("What is 2+2?" in text) == (kind == "content")
        special = [t for t in listed if t.kind == "special"]
        assert [t.id for t in special] == [t.id for t in listed if t.id >= 128_000]
