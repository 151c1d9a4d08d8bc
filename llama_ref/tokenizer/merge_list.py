"""The merges of a tokenizer.json, shown to mean no more and no less than its ids.

The file states merges twice: as a list of pairs, best first, and by the order of the ids. Our
engine goes by the ids: any two neighbours whose union is a token may merge, the lowest id first.
That is the same as going by the list if

1. the list is in the order of the ids of what the pairs make, and
2. for every token, the pair that the ids would join last to make it is in the list.

(What happens inside a token's bytes before it is whole does not depend on what is around them, so
that last pair is the only one that ever makes the token.) Llama 3's list holds every way to cut
every token in two, which is more than needed and quick to see; for a list that holds one pair per
token the merges are run.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from llama_ref.bpe import merged, merges
from llama_ref.errors import BadFile, Unsupported, shown

Pair = tuple[bytes, bytes]


def check_merges(
    written: object,
    tokens: Mapping[str, bytes],
    ranks: Mapping[bytes, int],
    *,
    file: str | os.PathLike[str],
) -> None:
    """Check that a list of merges is what the ranks already say.

    Parameters
    ----------
    written : object
        The value of ``model.merges``: pairs, or strings of two parts with a blank between.
    tokens : mapping of str to bytes
        Every token as the file writes it, and its bytes.
    ranks : mapping of bytes to int
        The bytes of every token, and its id.

    Raises
    ------
    BadFile
        If an entry is no pair of tokens that make a token, or is there twice.
    Unsupported
        If the list and the ids would not merge alike.
    """
    if not isinstance(written, list) or not written:
        found = "an empty list" if written == [] else type(written).__name__
        raise BadFile("model.merges", expected="a list of pairs", found=found, file=file)
    pairs = _read_pairs(written, tokens, ranks, file)
    if len(set(pairs)) != len(pairs):
        twice = next(pair for pair, times in Counter(pairs).items() if times > 1)
        raise BadFile("model.merges", found=f"{shown(twice)} twice", file=file)
    _check_order([ranks[left + right] for left, right in pairs], file)
    for left, right in _unlisted(set(pairs), ranks):
        raise Unsupported(
            "model.merges",
            expected=f"{shown(left)} + {shown(right)}, by which the ids make {shown(left + right)}",
            found="no such pair",
            file=file,
        )


def _read_pairs(
    written: list[object],
    tokens: Mapping[str, bytes],
    ranks: Mapping[bytes, int],
    file: str | os.PathLike[str],
) -> list[Pair]:
    """Read all merges, both parts of each and their union being tokens."""
    pairs = []
    for place, entry in enumerate(written):
        parts: Any = entry.split(" ") if isinstance(entry, str) else entry
        try:
            first, second = parts
            left, right = tokens[first], tokens[second]
            is_good = left + right in ranks and not isinstance(parts, dict)
        except (KeyError, TypeError, ValueError):
            is_good = False
        if not is_good:
            raise BadFile(
                f"model.merges[{place}]",
                expected="two tokens whose union is a token",
                found=shown(entry),
                file=file,
            )
        pairs.append((left, right))
    return pairs


def _check_order(made: list[int], file: str | os.PathLike[str]) -> None:
    """Refuse merges that do not make their tokens in the order of the tokens' ids."""
    for place, (before, after) in enumerate(pairwise(made), start=1):
        if after < before:
            raise Unsupported(
                f"model.merges[{place}]",
                expected="merges in the order of the ids that they make",
                found=f"id {after} after id {before}",
                file=file,
            )


def _unlisted(listed: set[Pair], ranks: Mapping[bytes, int]) -> Iterator[Pair]:
    """Yield the pairs by which the ids make a token, and which the list does not hold."""
    for token in ranks:
        if _is_every_cut_listed(token, listed, ranks):
            continue
        steps = list(merges(token, ranks))
        if steps and steps[-1].end - steps[-1].start == len(token):
            last = token[: steps[-1].middle], token[steps[-1].middle :]
            if last not in listed:
                yield last


def _is_every_cut_listed(token: bytes, listed: set[Pair], ranks: Mapping[bytes, int]) -> bool:
    for place in range(1, len(token)):
        left, right = token[:place], token[place:]
        if left in ranks and right in ranks and (left, right) not in listed:
            return False
    return True


def every_merge(ranks: Mapping[bytes, int]) -> list[Pair]:
    """Return every way to cut a token into two tokens, as Llama 3's list has them: by ids.

    Examples
    --------
    >>> every_merge({b"a": 0, b"b": 1, b"ab": 2, b"bab": 3})
    [(b'a', b'b'), (b'b', b'ab')]
    """
    cuts = ((token[:place], token[place:]) for token in ranks for place in range(1, len(token)))
    pairs = [(left, right) for left, right in cuts if left in ranks and right in ranks]
    return sorted(pairs, key=lambda pair: [ranks[part] for part in (b"".join(pair), *pair)])


def unreachable(ranks: Mapping[bytes, int]) -> frozenset[bytes]:
    """Return the tokens that merges cannot build from their bytes; 588 in Llama 3.

    A token that is not built on its own is not built among other bytes either, so without them
    the ranks give what merging alone gives.
    """
    return frozenset(token for token in ranks if len(merged(token, ranks)) > 1)
