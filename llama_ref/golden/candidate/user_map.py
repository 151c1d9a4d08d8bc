r"""Names of your own: a JSON file of regular expressions, and what they stand for in our names.

    {"blk_(\\d+)_query":          "L{0}.q",
     "run=(?P<run>\\w+)/head":    "{run}/logits",
     "blk_(\\d+)_query_rotated":  {"tap": "L{0}.q_rope", "pairing": "interleaved"}}

An expression must match a whole name, with or without the case in front of it. `{0}` is its first
group, `{run}` the group of that name; `{0:02d}` is accepted for `{0}`. An object in place of the
text says which channels RoPE pairs, where not those of the bundle.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_ref.errors import BadFile, LimitExceeded, printable, shown
from llama_ref.strict_json import read_json

MAP_LIMIT = 2**20
RULES_LIMIT = 1000
PATTERN_LIMIT = 500
PAIRINGS = ("half_split", "interleaved")
FIELD = re.compile(r"\{([0-9A-Za-z_]+)(?::[0-9]{0,2}d)?\}")
# "(a+)+" takes time exponential in the length of a name that nearly matches.
REPEATED_REPEAT = re.compile(r"[*+}]\)+[*+{]")


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

    def translate(self, name: str) -> set[Translated]:
        """Return what the rules make of a name: nothing, one, or several if they disagree."""
        found = (rule.translate(name) for rule in self.rules)
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
    if REPEATED_REPEAT.search(text):
        raise BadFile(thing, found="a repeated group that ends in a repetition", file=path)
    try:
        return re.compile(text)
    except (re.error, OverflowError, RecursionError, Warning) as error:
        raise BadFile(
            f"{thing}: not a regular expression", found=printable(str(error)), file=path
        ) from None
