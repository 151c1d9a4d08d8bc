"""Text that must have a form, JSON, JSON of a schema, calls of tools: which ids may come next.

    sources.py        a request -> what the text must be: `Source`
    schemas.py        a JSON schema -> one that a grammar can keep to, or an error that says why
    patterns.py, ranges.py    its regular expressions and its numbers, as the engine needs them
    vocabulary.py     the bytes of every token, as the grammar engine needs them
    bounds.py         what a reader of JSON needs besides: depth, digits, escapes
    matching.py       source and vocabulary -> `Grammar`; a text on its way through it -> `Matcher`

The grammar itself, from bytes to sets of tokens, is llguidance: the extra `json`. At each token the
sampler is told which ids may be chosen, before any parameter looks at the logits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_ref.lazy import names_of

_HOMES = {
    "Grammar": "llama_ref.constrain.matching",
    "Matcher": "llama_ref.constrain.matching",
    "Source": "llama_ref.constrain.sources",
    "Vocabulary": "llama_ref.constrain.vocabulary",
    "compile_grammar": "llama_ref.constrain.matching",
    "json_object": "llama_ref.constrain.sources",
    "json_schema": "llama_ref.constrain.sources",
    "response_format": "llama_ref.constrain.sources",
    "tool_calls": "llama_ref.constrain.sources",
}
__getattr__ = names_of(__name__, _HOMES)
__all__ = sorted(_HOMES)  # noqa: PLE0605


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


if TYPE_CHECKING:
    from llama_ref.constrain.matching import Grammar as Grammar
    from llama_ref.constrain.matching import Matcher as Matcher
    from llama_ref.constrain.matching import compile_grammar as compile_grammar
    from llama_ref.constrain.sources import Source as Source
    from llama_ref.constrain.sources import json_object as json_object
    from llama_ref.constrain.sources import json_schema as json_schema
    from llama_ref.constrain.sources import response_format as response_format
    from llama_ref.constrain.sources import tool_calls as tool_calls
    from llama_ref.constrain.vocabulary import Vocabulary as Vocabulary
