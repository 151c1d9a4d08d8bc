"""Stop strings: which ends the text, where it is cut, and what is held back meanwhile."""

import json
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import llama_ref as lr
from llama_ref.continuation import Continuation
from llama_ref.sampling import SamplingParams
from llama_ref.stopping import StopStrings

RECORDED = Path(__file__).parent / "data" / "stopping" / "stop_strings.jsonl"
ROWS = [json.loads(line) for line in RECORDED.read_text("utf-8").splitlines()]
letters = st.text("abé🙂", max_size=12)
stops = st.lists(st.text("abé🙂", min_size=1, max_size=4), min_size=1, max_size=4)


def by_search(text, stops, first=0):
    """Where the text ends, found the slow way: (start, end, stop) of the match that ends first."""
    for end in range(first + 1, len(text) + 1):
        for stop in stops:
            if text[:end].endswith(stop):
                return end - len(stop), end, stop
    return None


@given(st.lists(letters, max_size=8), stops, st.booleans())
def test_any_chunking_gives_the_match_that_ends_first(pieces, stops, include):
    """However the text is cut into pieces, the same stop string ends it at the same place."""
    watch, got, stop = StopStrings(stops, include=include), "", None
    for piece in pieces:
        certain, stop = watch.push(piece)
        got += certain
        if stop is not None:
            break
    got += watch.finish()
    text = "".join(pieces)
    start, end, expected = by_search(text, stops) or (len(text), len(text), None)
    assert (got, stop) == (text[: end if include else start], expected)


@given(st.lists(letters, max_size=8), stops)
def test_what_is_held_back_is_what_could_still_be_a_stop(pieces, stops):
    """The text that is held is the longest end of it that some stop string begins with."""
    watch, text, shown = StopStrings(stops), "", ""
    for piece in pieces:
        certain, stop = watch.push(piece)
        if stop is not None:
            return
        text, shown = text + piece, shown + certain
        held = text[len(shown) :]
        ends = [text[len(text) - n :] for n in range(len(text), -1, -1)]
        assert held == next(e for e in ends if any(s.startswith(e) and s != e for s in stops))


@given(letters, letters, stops)
def test_unarmed_text_is_read_but_ends_nothing(before, after, stops):
    """A stop string that is complete before the text is armed is text like any other."""
    watch = StopStrings(stops)
    first, none = watch.push(before, armed=False)
    second, stop = watch.push(after)
    text = before + after
    start, _, expected = by_search(text, stops, len(before)) or (len(text), len(text), None)
    assert none is None
    assert (first + second + watch.finish(), stop) == (text[:start], expected)


def test_a_long_stop_string_costs_no_more_than_its_text():
    """Each character costs the same, also where a stop string of 10,000 nearly fits each time."""
    n, began = 10_000, time.process_time()
    watch = StopStrings(["a" * n + "b"])
    shown = "".join(watch.push("a")[0] for _ in range(3 * n))
    assert len(shown) == 2 * n
    assert watch.push("b") == ("", "a" * n + "b")
    assert time.process_time() - began < 30  # quadratic: many minutes


@pytest.mark.real
@pytest.mark.parametrize("row", ROWS, ids=[f"{row['id']}-{row['name']}" for row in ROWS])
def test_recorded_texts_and_reasons(row, llama3_ranks_file):
    """Ids one by one give the text, the stop string and the number of tokens that vLLM gives."""
    tokenizer = _tokenizer(llama3_ranks_file)
    config = SimpleNamespace(vocab_size=128_256, context_length=4096, eos_ids=[])
    if row["last_is_stop_token"]:
        config.eos_ids = [row["ids"][-1]]
    continuation = Continuation(
        SimpleNamespace(config=config, tokenizer=tokenizer),  # all that a continuation asks for
        row["prompt_ids"],
        SamplingParams(
            temperature=0,
            max_tokens=len(row["ids"]),
            stop=row["stop"],
            stop_token_ids=[],
            ignore_eos=not row["last_is_stop_token"],
            include_stop_str_in_output=row["include_stop_str_in_output"],
            min_tokens=row["min_tokens"],
            skip_special_tokens=row["skip_special_tokens"],
        ),
    )
    logits_V, tokens = np.zeros(config.vocab_size, np.float32), []
    for token_id in row["ids"]:
        logits_V[token_id] = 9
        tokens.append(continuation.take(logits_V))
        logits_V[token_id] = 0
        if tokens[-1].finish_reason:
            break
    assert [token.id for token in tokens] == row["output_token_ids"]
    assert len(tokens) == row["tokens_consumed"]
    assert "".join(token.text for token in tokens) == row["text"]
    stop = tokens[-1].stop_reason
    assert stop == row["stop_string"]


_LOADED = {}


def _tokenizer(file):
    return _LOADED.setdefault(file, lr.load_tokenizer(file))
