"""The 256 special tokens of Llama 3: one set of ids, two published sets of names.

Special ids follow the ranks: id = number of ranks + offset, 128,000 + offset in the real file.
A name is for people; the id is what a model was trained on. The offsets that have a meaning:

    offset   0  begin_of_text            6  start_header_id     9  eot_id      (end of turn)
             1  end_of_text              7  end_header_id      10  python_tag
             4  finetune_right_pad_id    8  eom_id             11  image       (Meta's name only)
             5  step_id  (Meta's name only)

All other offsets are reserved and numbered from 0 in order, so that the two names which only
Meta gives shift the numbers of all reserved tokens after them: `<|reserved_special_token_2|>` is
128012 for Meta and 128005 for Hugging Face. A reserved name is therefore never looked up in the
other naming, a meaningful one is.

Source: meta-llama/llama-models, models/llama3/tokenizer.py; the tokenizer.json of Llama 3.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count

N_SPECIAL = 256

BEGIN_OF_TEXT, END_OF_TEXT = "<|begin_of_text|>", "<|end_of_text|>"
STOP_NAMES = (END_OF_TEXT, "<|eom_id|>", "<|eot_id|>")
"""Where generation ends: the end of the document, of a message, of a turn."""

META_ONLY = {5: "step_id", 11: "image"}
MEANINGS = {
    0: "begin_of_text",
    1: "end_of_text",
    4: "finetune_right_pad_id",
    6: "start_header_id",
    7: "end_header_id",
    8: "eom_id",
    9: "eot_id",
    10: "python_tag",
}


def _naming(meanings: Mapping[int, str]) -> tuple[str, ...]:
    """Name all 256 offsets: by meaning, or as the next reserved token.

    Examples
    --------
    >>> [NAMINGS["meta"][offset] for offset in (5, 11, 12)]
    ['<|step_id|>', '<|image|>', '<|reserved_special_token_2|>']
    >>> [NAMINGS["hf"][offset] for offset in (5, 12)]
    ['<|reserved_special_token_2|>', '<|reserved_special_token_4|>']
    """
    number = count()
    return tuple(
        f"<|{meanings[offset]}|>"
        if offset in meanings
        else f"<|reserved_special_token_{next(number)}|>"
        for offset in range(N_SPECIAL)
    )


NAMINGS = {"meta": _naming(MEANINGS | META_ONLY), "hf": _naming(MEANINGS)}
"""The names by offset, as Meta's code and as Hugging Face's tokenizer.json give them."""


def is_reserved(name: str) -> bool:
    """Return whether a name says only that its token is reserved."""
    return name.startswith("<|reserved_special_token_")


def borrowed_names(special_tokens: Mapping[str, int], n_ranks: int) -> dict[str, int]:
    """Return the names of Meta's that fit a vocabulary which calls those tokens reserved.

    Examples
    --------
    >>> hf = {name: 128000 + offset for offset, name in enumerate(NAMINGS["hf"])}
    >>> borrowed_names(hf, 128000)
    {'<|step_id|>': 128005, '<|image|>': 128011}
    """
    reserved_ids = {id_ for name, id_ in special_tokens.items() if is_reserved(name)}
    names = {f"<|{meaning}|>": n_ranks + offset for offset, meaning in META_ONLY.items()}
    return {name: id_ for name, id_ in names.items() if id_ in reserved_ids}
