r"""Names of your own: a JSON file of regular expressions, and what they stand for in our names.

    {"blk_(\\d+)_query":          "L{0}.q",
     "run=(?P<run>\\w+)/head":    "{run}/logits",
     "blk_(\\d+)_query_rotated":  {"tap": "L{0}.q_rope", "pairing": "interleaved"}}

An expression must match a whole name, with or without the case in front of it. `{0}` is its first
group, `{run}` the group of that name; `{0:02d}` is accepted for `{0}`. An object in place of the
text says which channels RoPE pairs, where not those of the bundle.
"""

from __future__ import annotations

import math
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_ref.errors import BadFile, LimitExceeded, printable, shown
from llama_ref.golden.pairing import PAIRINGS
from llama_ref.strict_json import read_json

NAME_LIMIT = 300
"""Characters of a name that is looked at; the longest that is known has less than 100."""
MAP_LIMIT = 2**20
RULES_LIMIT = 1000
PATTERN_LIMIT = 500
FIELD = re.compile(r"\{([0-9A-Za-z_]+)(?::[0-9]{0,2}d)?\}")
ATOM = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?(?:P?[<=][^)>]*>?|[^)])", re.DOTALL)
"""An escaped character, a set of characters, the beginning of a group: one sign each."""
WAYS_LIMIT = 10**9
"""Ways in which an expression may try to match the longest name: some seconds."""
SECONDS_LIMIT = 60
"""How long names may be matched, all in all."""


@dataclass(frozen=True)
class Translated:
    """A name in our words, and the pairing that its rule states."""

    name: str
    pairing: str | None


@dataclass(frozen=True)
class Rule:
    """One expression, and what it stands for."""

    pattern: re.Pattern[str]
    template: str
    pairing: str | None

    def translate(self, name: str) -> Translated | None:
        """Return our name of a tensor, None if the expression does not match the whole of its."""
        match = self.pattern.fullmatch(name)
        if match is None:
            return None

        def group(found: re.Match[str]) -> str:
            key = found[1]
            return match[int(key) + 1 if key.isdecimal() else key] or ""

        return Translated(FIELD.sub(group, self.template), self.pairing)


@dataclass(frozen=True)
class UserMap:
    """All rules of a file."""

    path: Path
    rules: tuple[Rule, ...]

    def translate(self, name: str, until: float = math.inf) -> set[Translated]:
        """Return what the rules make of a name: nothing, one, or several if they disagree.

        Raises
        ------
        LimitExceeded
            If the monotonic clock has passed `until`.
        """
        found = set()
        for rule in self.rules:
            if time.monotonic() > until:
                raise LimitExceeded(
                    "map of names", expected=f"names matched in {SECONDS_LIMIT} s", file=self.path
                )
            found.add(rule.translate(name))
        return {translated for translated in found if translated is not None}


def read_user_map(path: str | os.PathLike[str]) -> UserMap:
    """Read the rules of a file.

    Raises
    ------
    BadFile
        If it is not an object of expressions, an expression is not valid, or a template names a
        group that its expression has not got.
    LimitExceeded
        More than 1 MiB, 1,000 rules, or 500 characters in one.
    """
    rules = read_json(path, limit=MAP_LIMIT)
    if not isinstance(rules, dict) or not rules:
        expected = r'an object like {"blk_(\\d+)_query": "L{0}.q"}'
        raise BadFile("map of names", expected=expected, found=shown(rules), file=path)
    if len(rules) > RULES_LIMIT:
        limit = f"at most {RULES_LIMIT:,}"
        raise LimitExceeded("rules", expected=limit, found=f"{len(rules):,}", file=path)
    return UserMap(Path(path), tuple(_rule(text, to, path) for text, to in rules.items()))


def _rule(text: str, to: Any, path: str | os.PathLike[str]) -> Rule:
    thing = f"rule {shown(text)}"
    fields = {"tap": to} if isinstance(to, str) else to
    if not isinstance(fields, dict) or not {"tap"} <= fields.keys() <= {"tap", "pairing"}:
        expected = 'a text, or an object of "tap" and "pairing"'
        raise BadFile(thing, expected=expected, found=shown(to), file=path)
    template, pairing = fields["tap"], fields.get("pairing")
    if not isinstance(template, str):
        raise BadFile(f"{thing}: tap", expected="a text", found=shown(template), file=path)
    if pairing is not None and pairing not in PAIRINGS:
        expected = " or ".join(PAIRINGS)
        raise BadFile(f"{thing}: pairing", expected=expected, found=shown(pairing), file=path)
    if max(len(text), len(template)) > PATTERN_LIMIT:
        raise LimitExceeded(thing, expected=f"at most {PATTERN_LIMIT} characters", file=path)
    pattern = _compiled(text, thing, path)
    groups = {str(i) for i in range(pattern.groups)} | set(pattern.groupindex)
    unknown = {key for key in FIELD.findall(template) if key not in groups}
    if unknown or "{" in FIELD.sub("", template):
        expected = "groups of the expression, counted from 0 or by name, in braces"
        raise BadFile(f"{thing}: tap", expected=expected, found=shown(template), file=path)
    return Rule(pattern, template, pairing)


def _compiled(text: str, thing: str, path: str | os.PathLike[str]) -> re.Pattern[str]:
    if _ways(text) > WAYS_LIMIT:
        raise BadFile(
            thing,
            expected="no repeated group, and at most four repetitions, fewer beside alternatives",
            found="an expression that may take hours to match",
            file=path,
        )
    try:
        return re.compile(text)
    except (re.error, OverflowError, RecursionError, Warning) as error:
        raise BadFile(
            f"{thing}: not a regular expression", found=printable(str(error)), file=path
        ) from None


def _ways(text: str) -> float:
    r"""Return in how many ways an expression may try to match a long name, at most.

    Python tries all of them on a name that nearly matches: n places for each repetition, two for
    each alternative, and no end of them for a repeated group.

    Examples
    --------
    >>> _ways(r"blk_(\d+)_(q|k|v)") <= WAYS_LIMIT, _ways("(a|a)*b") <= WAYS_LIMIT
    (True, False)
    """
    signs = ATOM.sub("x", text)
    if re.search(r"\)[*+{]", signs):
        return math.inf
    n_repeats = len(re.findall(r"[*+{]", signs))
    n_choices = len(re.findall(r"\||(?<![*+?}])\?", signs))
    return math.comb(NAME_LIMIT + n_repeats, n_repeats) * 2.0**n_choices
