"""A text on its way through a grammar: which ids may come next, and whether it may end here.

    grammar.matcher()      at the beginning
    .allowed_V()           True for each id whose bytes can go on, and where the text is complete
                           for the ids that end it
    .advance(id)           one token further

A place where no id may come next is an error, of the grammar or of the vocabulary: the sampler
never sees a mask with nothing in it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from llama_ref.constrain.bounds import Bounds
from llama_ref.constrain.sources import Source
from llama_ref.constrain.vocabulary import Vocabulary, engine
from llama_ref.errors import BadRequest, LimitExceeded, NonFiniteError, shown


class Grammar:
    """A compiled source; serves any number of texts.

    Parameters
    ----------
    start : llguidance.LLMatcher
        At the beginning of a text.
    vocabulary : Vocabulary
    """

    def __init__(self, start: Any, vocabulary: Vocabulary):
        self._start, self.vocabulary = start, vocabulary

    def matcher(self) -> Matcher:
        """Return a matcher at the beginning of a text."""
        return Matcher(self._start.deep_copy(), self.vocabulary)


def compile_grammar(source: Source, vocabulary: Vocabulary) -> Grammar:
    """Compile what a text must be, for the tokens of a vocabulary.

    Raises
    ------
    Unsupported
        If llguidance is not installed.
    BadRequest
        If it asks for what no grammar can keep to, or no text fits.
    """
    llguidance = engine()
    # Lark of this dialect is what `sources` writes; the schemas in it are checked already.
    grammar = llguidance.LLMatcher.grammar_from_lark(source.lark)
    start = llguidance.LLMatcher(vocabulary._engine, grammar, log_level=0)
    if start.is_error():
        raise BadRequest(
            source.thing,
            expected="a schema that a grammar can keep to",
            found=shown(_reason(start.get_error())),
            next_step="simplify it, and check the answer for the rest",
        )
    made = Grammar(start, vocabulary)
    if not made.matcher().allowed_V().any():
        raise BadRequest(source.thing, expected="a schema that some text fits", found="none")
    return made


class Matcher:
    """A place in a grammar; from `Grammar.matcher`."""

    def __init__(self, place: Any, vocabulary: Vocabulary):
        self._place, self._vocabulary, self._bounds = place, vocabulary, Bounds()

    @property
    def is_complete(self) -> bool:
        """Whether the text may end here."""
        return bool(self._place.is_accepting())

    def allowed_V(self) -> np.ndarray:
        """Return which ids may come next.

        Returns
        -------
        ndarray of shape (V,), bool

        Raises
        ------
        LimitExceeded
            If the text has become too involved for the engine.
        NonFiniteError
            If no id may come next and the text may not end either.
        """
        bits = np.frombuffer(self._place.compute_bitmask(), np.uint8)
        known = np.unpackbits(bits, bitorder="little")[: self._vocabulary.n_tokens]
        allowed_V = np.zeros(self._vocabulary.vocab_size, bool)
        allowed_V[: len(known)] = known
        if self._place.is_error():
            found = shown(_reason(self._place.get_error()))
            raise LimitExceeded("grammar", expected="a text that it can follow", found=found)
        if not allowed_V.any():
            raise NonFiniteError(
                "grammar", expected="a token that may come next", found="none in this vocabulary"
            )
        return self._bounds.keep_V(allowed_V, self._vocabulary.marks)

    def advance(self, token_id: int) -> None:
        """Go one token further.

        Raises
        ------
        BadRequest
            If that token may not come here.
        """
        if not self._place.consume_token(token_id):
            expected = "a token that may come next"
            raise BadRequest("grammar", expected=expected, found=f"id {token_id}")
        if token_id not in self._vocabulary.stop_ids:
            self._bounds.push(self._vocabulary.marks.tokens[token_id])


def _reason(message: str) -> str:
    """Return what the engine says, without the listing of the grammar that it shows it in."""
    said = message.partition("failed to compile JSON schema: ")[2] or message
    return said.partition("\n   1 | ")[0].partition("\n<state>")[0].strip()
