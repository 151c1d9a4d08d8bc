"""Text to ids, as every tokenizer does it, whatever engine finds the ids of ordinary text.

    text -> cut where Meta cuts -> split at the special tokens that are allowed -> ids

Text is data: a special token's name inside it stays ordinary text unless the caller allows that
very name. (A user who writes `<|eot_id|>` ends nothing.)
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Literal, NamedTuple

from llama_ref.errors import BadRequest, shown
from llama_ref.text import utf8
from llama_ref.tokenizer.decoding import Decoder
from llama_ref.tokenizer.requests import any_of, check_text


class Span(NamedTuple):
    """A token and the bytes [start, end) of the text's UTF-8 that it stands for."""

    id: int
    start: int
    end: int


class Part(NamedTuple):
    """A stretch of a text that is one special token, or in which nothing is special."""

    text: str
    ids: list[int]
    is_special: bool


class Tokenizer(Decoder, ABC):
    """Text to ids and back; the base of both engines.

    Attributes
    ----------
    vocab_size : int
        Ids run from 0 to one less.
    special_tokens : dict of str to int
        Each special token's name, in one naming, and its id.
    bos_id, eos_id : int
        The ids that `encode` adds in front and at the end when asked to.
    stop_ids : tuple of int
        Where generation ends.
    file : path-like or None
        Where the vocabulary was read.
    """

    bos_id: int | None
    eos_id: int | None
    stop_ids: tuple[int, ...]
    file: str | os.PathLike[str] | None

    _other_names: Mapping[str, int] = {}  # understood, though not shown

    def __repr__(self) -> str:
        special = f"{len(self.special_tokens)} of them special"
        return f"<{type(self).__name__}: {self.vocab_size:,} tokens, {special}>"

    @abstractmethod
    def _encode_ordinary(self, text: str) -> list[int]:
        """Return the ids of a text in which nothing is special."""

    def _cut(self, text: str, exact: bool) -> Iterable[str]:
        """Return the slices that are encoded one by one."""
        return [text]

    def _widths(self, text: str, ids: list[int]) -> Iterable[int]:
        """Return how many bytes of an ordinary text each of its ids stands for."""
        return (len(self._pieces[token_id]) for token_id in ids)

    def encode(
        self,
        text: str,
        *,
        bos: bool = False,
        eos: bool = False,
        allowed_special: Collection[str] | Literal["all"] = frozenset(),
        exact: bool = False,
    ) -> list[int]:
        """Return the ids of a text.

        Parameters
        ----------
        text : str
            At most 8 MiB in UTF-8. An empty text has no ids (but for those asked for).
        bos, eos : bool
            Whether to put the begin-of-text token in front, the end-of-text token at the end.
        allowed_special : collection of str, or "all"
            Names of special tokens that become their id where the text holds them. "all" stands
            for every name in `special_tokens`. Any other name stays text.
        exact : bool
            Encode the text in one, in place of Meta's cutting at 400,000 characters and at runs
            of 25,000. Ids differ for such texts alone; sentencepiece never cuts.

        Returns
        -------
        list of int

        Raises
        ------
        BadRequest
            If `text` is no `str` or holds half a surrogate pair, or a name is unknown.
        LimitExceeded
            If the text is longer than 8 MiB, or holds 900,000 blanks in a row under `exact`.
        """
        parts = self._encoded_parts(text, allowed_special, exact)
        ids = [self._required("bos", self.bos_id)] if bos else []
        for part in parts:
            ids += part.ids
        return [*ids, self._required("eos", self.eos_id)] if eos else ids

    def spans(
        self,
        text: str,
        *,
        bos: bool = False,
        eos: bool = False,
        allowed_special: Collection[str] | Literal["all"] = frozenset(),
        exact: bool = False,
    ) -> list[Span]:
        """Return the ids of a text, each with the bytes of the text that it stands for.

        Parameters and errors are those of `encode`. The spans follow each other without a gap
        from 0 to the length of the text's UTF-8; what has no text, such as `bos`, is empty.

        Returns
        -------
        list of Span
        """
        parts = self._encoded_parts(text, allowed_special, exact)
        spans = [Span(self._required("bos", self.bos_id), 0, 0)] if bos else []
        start = 0
        for part, ids, is_special in parts:
            widths = [len(utf8(part))] if is_special else self._widths(part, ids)
            for token_id, width in zip(ids, widths, strict=True):
                spans.append(Span(token_id, start, start + width))
                start += width
        if eos:
            spans.append(Span(self._required("eos", self.eos_id), start, start))
        return spans

    def special_id(self, name: str) -> int:
        """Return the id of a special token by its name, Meta's or Hugging Face's.

        Raises
        ------
        BadRequest
            If there is no such special token.
        """
        if not isinstance(name, str) or name not in self._names:
            raise BadRequest(
                "special token",
                expected=f"a name such as {shown(next(iter(self.special_tokens), None))}",
                found=shown(name),
                next_step="reserved names depend on the naming: see load_tokenizer",
            )
        return self._names[name]

    @property
    def _names(self) -> Mapping[str, int]:
        return {**self._other_names, **self.special_tokens}

    def _required(self, argument: str, token_id: int | None) -> int:
        if token_id is None:
            raise BadRequest(argument, expected="False", found="True, but there is no such token")
        return token_id

    def _encoded_parts(
        self, text: str, allowed_special: Collection[str] | Literal["all"], exact: bool
    ) -> Iterator[Part]:
        """Yield each ordinary or special stretch of a text with its ids."""
        check_text(text)
        allowed = self._allowed(allowed_special)
        for stretch in self._cut(text, exact):
            if not allowed:
                yield Part(stretch, self._encode_ordinary(stretch), False)
                continue
            for part in any_of(frozenset(allowed)).split(stretch):
                if part in allowed:
                    yield Part(part, [allowed[part]], True)
                elif part:
                    yield Part(part, self._encode_ordinary(part), False)

    def _allowed(self, names: Collection[str] | Literal["all"]) -> dict[str, int]:
        if isinstance(names, str):
            if names == "all":
                return self.special_tokens
        elif isinstance(names, Collection):
            return {name: self.special_id(name) for name in names}
        raise BadRequest(
            "allowed_special", expected='a collection of names or "all"', found=shown(names)
        )
