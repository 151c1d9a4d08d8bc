"""The dialect "meta" against what Meta's code gave: text, ids, errors, and what it read."""

import json

import pytest

from llama_ref import chat
from llama_ref.errors import BadRequest
from llama_ref.tokenizer import load_tokenizer
from tests.chat.rows import hf_arguments, meta_arguments, renamed, rows

ROWS = rows("meta")
READ = rows("meta_decode")

FOREIGN_NAME = "names of tools are those that the OpenAI API allows"
NOT_WRITTEN = "a context that would not be written is refused, not dropped"
REFUSED = {
    "meta-0042": FOREIGN_NAME,
    "meta-0044": FOREIGN_NAME,
    "meta-0112": NOT_WRITTEN,
}
"""Conversations that Meta's code encodes and we refuse."""

ARGUMENTS_AS_TEXT = ('"{\\"city\\": \\"Paris\\"}"', '{"city": "Paris"}')
CHANGED = {"meta-0036": ARGUMENTS_AS_TEXT, "meta-0037": ARGUMENTS_AS_TEXT}
"""Arguments that come as JSON text are decoded, as in the other dialect."""

ACCEPTED = {
    "meta-0046": '<function=nested>{"items": [{"id": 1, "tags": ["a", "b"], "ratio": 0.25, '
    '"on": true, "nil": null}, {"id": 2}]}</function>',
    "meta-0047": '[nested(items=[{id=1, tags=["a", "b"], ratio=0.25, on=True, nil=None}, {id=2}])]',
}
"""Arguments that are nested deeper than Meta's validation lets through, and what we write."""

SAME = [id_ for id_, row in ROWS.items() if "text" in row and id_ not in {**REFUSED, **CHANGED}]
FAILING = [id_ for id_, row in ROWS.items() if "error" in row and id_ not in ACCEPTED]


@pytest.fixture(scope="module")
def tokenizer(llama3_ranks_file):
    return load_tokenizer(llama3_ranks_file)


def test_every_row_has_its_place():
    """Each of the 63 rows is in one of the lists, and 47 are equal without any excuse."""
    assert len(ROWS) == len(SAME) + len(FAILING) + len(REFUSED) + len(CHANGED) + len(ACCEPTED)
    assert (len(ROWS), len(SAME)) == (63, 47)


@pytest.mark.parametrize("row_id", SAME)
def test_texts_are_those_of_metas_code(row_id):
    """The text of the prompt is what Meta's ids decode to."""
    messages, options = meta_arguments(ROWS[row_id])
    assert chat.render(messages, **options) == ROWS[row_id]["text"]


@pytest.mark.parametrize("row_id", CHANGED)
def test_texts_that_differ_differ_in_one_place(row_id):
    """Arguments that came as text are written as the object they say."""
    messages, options = meta_arguments(ROWS[row_id])
    theirs, ours = CHANGED[row_id]
    assert theirs in ROWS[row_id]["text"]
    assert chat.render(messages, **options) == ROWS[row_id]["text"].replace(theirs, ours)


@pytest.mark.parametrize("row_id", ACCEPTED)
def test_arguments_may_be_nested(row_id):
    """Nested arguments are written by the rule for flat ones."""
    messages, options = meta_arguments(ROWS[row_id])
    assert f"\n\n{ACCEPTED[row_id]}<|eot_id|>" in chat.render(messages, **options)


@pytest.mark.parametrize("row_id", FAILING)
def test_errors_are_those_of_metas_code(row_id):
    """Where Meta's validation raises, so do we, naming the place."""
    messages, options = meta_arguments(ROWS[row_id])
    with pytest.raises(BadRequest, match=r"messages\[\d\]\.(role|content): expected "):
        chat.render(messages, **options)


@pytest.mark.parametrize("row_id", REFUSED)
def test_what_we_refuse(row_id):
    """Foreign names of tools and a context nobody reads are refused by name."""
    messages, options = meta_arguments(ROWS[row_id])
    with pytest.raises(BadRequest, match=r"messages\[1\]\.(tool_calls|context)"):
        chat.render(messages, **options)


@pytest.mark.parametrize(
    ("row_id", "old", "new"),
    [
        ("meta-0042", "\\\\u00fcbersetzen", "uebersetzen"),
        ("meta-0044", "übersetzen", "uebersetzen"),
        ("meta-0112", '"context": "ignored"', '"context": null'),
    ],
)
def test_what_we_refuse_is_equal_without_the_reason(row_id, old, new):
    """With a name that is allowed, or without the context, the text is that of Meta's code."""
    row = renamed(renamed(ROWS[row_id], old, new), "übersetzen", "uebersetzen")
    messages, options = meta_arguments(row)
    assert chat.render(messages, **options) == row["text"]


@pytest.mark.real
@pytest.mark.parametrize("row_id", SAME)
def test_ids_are_those_of_metas_code(row_id, tokenizer):
    """Ids are equal, names of special tokens in contents among them."""
    messages, options = meta_arguments(ROWS[row_id])
    assert chat.encode(tokenizer, messages, **options) == ROWS[row_id]["ids"]


@pytest.mark.parametrize("row_id", [id_ for id_ in ROWS if "equals_hf_llama3.1" in ROWS[id_]])
def test_the_dialects_agree_where_the_system_block_is_written_out(row_id):
    """A plain chat in the dialect "hf" is one in "meta" whose system message has the dates."""
    messages, options = meta_arguments(ROWS[row_id])
    dates, _, system = messages[0]["content"].partition("\n\n")
    plain = [{"role": "system", "content": system}, *messages[1:]]
    date = dates.rpartition("Today Date: ")[2]
    assert chat.render(plain, date=date) == chat.render(messages, **options)


@pytest.mark.real
@pytest.mark.parametrize("row_id", READ)
def test_answers_are_read_as_metas_code_reads_them(row_id, tokenizer):
    """Content, stop reason and the call are those of Meta's code."""
    row = READ[row_id]
    message = chat.decode(tokenizer, row["ids"], dialect="meta", stop_reason=row["stop_reason"])
    assert (message["content"], message["stop_reason"]) == (row["content"], row["out_stop_reason"])
    calls = [
        {"tool_name": f["name"], "arguments": json.loads(f["arguments"])}
        for f in (call["function"] for call in message.get("tool_calls", []))
    ]
    assert calls == row["tool_calls"]


@pytest.mark.real
def test_the_tokenizers_of_both_dialects_are_one(tokenizer):
    """A plain chat of the templates has the same ids under Meta's naming of special tokens."""
    row = rows("hf")["chat-0003"]
    messages, tools, options = hf_arguments(row)
    assert chat.encode(tokenizer, messages, tools, **options) == row["ids"]
