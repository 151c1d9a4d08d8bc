"""The dialect "hf" against what the published templates gave: text, ids, errors."""

import pytest

from llama_ref import chat
from llama_ref.errors import BadRequest
from llama_ref.tokenizer import load_tokenizer
from tests.chat.rows import hf_arguments, renamed, rows

ROWS = rows("hf")

OTHER_ROLE = "a role is written into a header, so it is one of a fixed set"
FOREIGN_NAME = "names of tools are those that the OpenAI API allows"
NOT_A_TOOL = "a tool without the wrapper {type, function} is none"
REFUSED = {
    **dict.fromkeys(["chat-0051", "chat-0052", "chat-0053"], OTHER_ROLE),
    **dict.fromkeys(["chat-0054", "chat-0055", "chat-0056"], OTHER_ROLE),
    **dict.fromkeys(["chat-0138", "chat-0208", "chat-0209"], FOREIGN_NAME),
    **dict.fromkeys(["chat-0151", "chat-0152"], NOT_A_TOOL),
}
"""Conversations that transformers renders and we refuse."""

ARGUMENTS_AS_TEXT = ('"{\\"city\\": \\"Paris\\"}"', '{"city": "Paris"}')  # as vLLM reads them
PARTS = ("[{'type': 'text', 'text': 'part one'}, {'type': 'text', 'text': ' part two '}]",)
NO_BUILTIN_TOOLS = ("Environment: ipython\nTools: \n\n", "")  # an empty list is none
CHANGED = {
    **dict.fromkeys(["chat-0192", "chat-0193", "chat-0194", "chat-0195"], ARGUMENTS_AS_TEXT),
    **dict.fromkeys(["chat-0350", "chat-0353"], NO_BUILTIN_TOOLS),
    "chat-0374": (*PARTS, "part one\n part two"),  # Python's repr of a list is nobody's message
    "chat-0384": ("[]", ""),
    "chat-0385": ("[]", ""),
}
"""Conversations that we render with other words in one place: theirs and ours."""

ACCEPTED = ("chat-0290", "chat-0291", "chat-0292", "chat-0293")
"""Conversations with an empty list of calls, which clients send back; the templates raise."""

UNRECORDED = ("chat-0328",)
"""Names of special tokens in a content, but not recorded with them sanitized."""

SAME = [id_ for id_, row in ROWS.items() if "text" in row and id_ not in {**REFUSED, **CHANGED}]
FAILING = [id_ for id_, row in ROWS.items() if "error" in row and id_ not in ACCEPTED]


@pytest.fixture(scope="module")
def tokenizer(llama3_ranks_file):
    return load_tokenizer(llama3_ranks_file, naming="hf")


def test_every_row_has_its_place():
    """Each of the 153 rows is in one of the lists, and 123 are equal without any excuse."""
    assert len(ROWS) == len(SAME) + len(FAILING) + len(REFUSED) + len(CHANGED) + len(ACCEPTED)
    assert (len(ROWS), len(SAME)) == (153, 123)


@pytest.mark.parametrize("row_id", SAME)
def test_texts_are_those_of_the_templates(row_id):
    """The text of the prompt is that of the template, character by character."""
    messages, tools, options = hf_arguments(ROWS[row_id])
    assert chat.render(messages, tools, **options) == ROWS[row_id]["text"]


@pytest.mark.parametrize("row_id", CHANGED)
def test_texts_that_differ_differ_in_one_place(row_id):
    """Where the templates print what nobody meant, the rest of the text is the same."""
    messages, tools, options = hf_arguments(ROWS[row_id])
    theirs, ours = CHANGED[row_id]
    assert theirs in ROWS[row_id]["text"]
    assert chat.render(messages, tools, **options) == ROWS[row_id]["text"].replace(theirs, ours)


@pytest.mark.parametrize("row_id", ["chat-0350", "chat-0353"])
def test_the_code_interpreter_alone_writes_an_empty_list(row_id):
    """What the templates write for no built-in tools at all, they write for that one as well."""
    messages, tools, options = hf_arguments(ROWS[row_id])
    options["builtin_tools"] = ["code_interpreter"]
    assert chat.render(messages, tools, **options) == ROWS[row_id]["text"]


@pytest.mark.parametrize("row_id", ACCEPTED)
def test_an_empty_list_of_calls_is_no_call(row_id):
    """A message with `tool_calls: []` is its text."""
    messages, tools, options = hf_arguments(ROWS[row_id])
    without = [{k: v for k, v in message.items() if k != "tool_calls"} for message in messages]
    assert chat.render(messages, tools, **options) == chat.render(without, tools, **options)


@pytest.mark.parametrize("row_id", FAILING)
def test_errors_are_those_of_the_templates(row_id):
    """Where a template raises, so do we, and say what was expected."""
    messages, tools, options = hf_arguments(ROWS[row_id])
    with pytest.raises(BadRequest, match=": expected "):
        chat.render(messages, tools, **options)


@pytest.mark.parametrize("row_id", REFUSED)
def test_what_we_refuse(row_id):
    """Foreign roles, and tools that are none to the OpenAI API, are refused by name."""
    messages, tools, options = hf_arguments(ROWS[row_id])
    with pytest.raises(BadRequest, match=r"messages\[\d\]\.|tools\[0\]"):
        chat.render(messages, tools, **options)


@pytest.mark.parametrize("row_id", [id_ for id_ in REFUSED if REFUSED[id_] is FOREIGN_NAME])
def test_what_we_refuse_for_its_name_is_equal_under_another(row_id):
    """With a name that is allowed, the text is that of the template."""
    row = renamed(ROWS[row_id], "übersetzen", "uebersetzen")
    messages, tools, options = hf_arguments(row)
    assert chat.render(messages, tools, **options) == row["text"]


@pytest.mark.real
@pytest.mark.parametrize("row_id", SAME)
def test_ids_are_those_of_transformers(row_id, tokenizer):
    """With special tokens allowed in contents, ids equal the naive ones; else, the sanitized."""
    row = ROWS[row_id]
    messages, tools, options = hf_arguments(row)
    naive = chat.encode(tokenizer, messages, tools, allow_special_in_content=True, **options)
    assert naive == row["ids"]
    if row_id not in UNRECORDED:
        expected = row.get("ids_sanitize_control_tokens", row["ids"])
        assert chat.encode(tokenizer, messages, tools, **options) == expected


@pytest.mark.real
@pytest.mark.parametrize("row_id", UNRECORDED)
def test_ids_that_were_not_recorded(row_id, tokenizer):
    """They say the text of the template, and none beyond the skeleton is special."""
    messages, tools, options = hf_arguments(ROWS[row_id])
    ids = chat.encode(tokenizer, messages, tools, **options)
    skeleton = [p.text for p in chat.pieces(messages, tools, **options) if p.kind == "special"]
    assert tokenizer.decode(ids) == ROWS[row_id]["text"]
    assert [tokenizer.decode([i]) for i in ids if i >= 128_000] == skeleton
