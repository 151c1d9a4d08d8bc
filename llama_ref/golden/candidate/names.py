"""A tensor's name says which case it is of, which call, and what it is.

    far/L00.q                       case far, our L00.q
    decode/3/model.layers.0.mlp     case decode, its fourth call, Hugging Face's name of L00.ffn_out

The case may be left out where only one is meant, and the call where a case was dumped as a whole.
The rest belongs to a naming scheme. Which one is not asked: the schemes that know every name that
any of them knows are believed; if there is none, each name must mean the same in all that know it.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

from llama_ref.errors import BadRequest, printable, shown
from llama_ref.golden.candidate.ggml import Ggml, counted_from_zero
from llama_ref.golden.candidate.schemes import META, HuggingFace, Meaning, Ours, Scheme
from llama_ref.golden.candidate.user_map import (
    NAME_LIMIT,
    SECONDS_LIMIT,
    Translated,
    UserMap,
    read_user_map,
)
from llama_ref.golden.taps import OUTSIDE
from llama_ref.trace import LAYER_TAPS

CALL = re.compile(r"([0-9]{1,5})/(.*)", re.DOTALL)
NEAR, LONGEST = 0.75, 16
"""How like a tap's name another has to be for it to be a slip, and how long it may be."""
SCHEMES = ("llama_ref", "hf", "meta", "ggml")


@dataclass(frozen=True)
class Address:
    """A name taken apart.

    Attributes
    ----------
    case, call : str or None, int or None
        None where the name does not say.
    rest : str
        What is left for a naming scheme.
    """

    case: str | None
    call: int | None
    rest: str


def split_name(name: str, cases: Collection[str]) -> Address:
    """Take case and call off the front of a name.

    Examples
    --------
    >>> split_name("far/3/L00.q", {"far"})
    Address(case='far', call=3, rest='L00.q')
    >>> split_name("L00.q", {"far"})
    Address(case=None, call=None, rest='L00.q')
    """
    first, slash, rest = name.partition("/")
    case, name = (first, rest) if slash and first in cases else (None, name)
    match = CALL.fullmatch(name)
    return Address(case, int(match[1]), match[2]) if match else Address(case, None, name)


class Names:
    """The reader of all names of one dump.

    Parameters
    ----------
    names : sequence of str
        All of them.
    n_layers : mapping of str to int
        For each case, by name, how many layers its model has.
    asked : str or path-like or None
        `llama_ref`, `hf`, `meta`, `ggml`, or a map of the user's; None to find out.

    Attributes
    ----------
    scheme : str
        What was found, for the report.
    user_map : UserMap or None
    """

    def __init__(
        self,
        names: Sequence[str],
        n_layers: Mapping[str, int],
        asked: str | os.PathLike[str] | None,
    ):
        self.n_layers, self.cases = n_layers, n_layers.keys()
        self.user_map = _asked_map(asked)
        self._until = time.monotonic() + SECONDS_LIMIT
        ggml = Ggml(from_zero=counted_from_zero(names))
        schemes: list[Scheme] = [Ours(), HuggingFace(), META, ggml]
        if self.user_map:
            self.schemes, self.scheme = [schemes[0]], printable(os.fspath(self.user_map.path))
        elif asked is not None:
            self.schemes = [schemes[SCHEMES.index(os.fspath(asked))]]
            self.scheme = self.schemes[0].name
        else:
            rests = [split_name(name, self.cases).rest for name in names if len(name) <= NAME_LIMIT]
            self.schemes, self.scheme = _believed(schemes, rests, max(n_layers.values()))

    def read(self, name: str, case: str | None) -> tuple[Address, Meaning]:
        """Return whose a name is, and what it stands for; a refusal if that is not certain.

        `case` is the one that a name without a case is of, if that is known.
        """
        if len(name) > NAME_LIMIT:
            refused = f"its name has {len(name):,} characters, more than {NAME_LIMIT}"
            return Address(None, None, name), Meaning(refused=refused)
        if self.user_map:
            return self._read_mapped(name, case, self.user_map)
        address = split_name(name, self.cases)
        return address, self._meaning(address, case)

    def _read_mapped(self, name: str, case: str | None, own: UserMap) -> tuple[Address, Meaning]:
        """Translate a name, or what is left of it behind case and call, and read the result."""
        address = split_name(name, self.cases)
        translated = own.translate(name, self._until)
        if not translated:
            prefix = name[: len(name) - len(address.rest)]
            behind = own.translate(address.rest, self._until)
            translated = {Translated(prefix + one.name, one.pairing) for one in behind}
        if not translated:
            return address, Meaning(refused=f"no expression of {own.path.name} matches its name")
        if len(translated) > 1:
            found = " and ".join(sorted(one.name for one in translated))
            return address, Meaning(refused=f"expressions disagree about its name: {shown(found)}")
        one = translated.pop()
        address = split_name(one.name, self.cases)
        meaning = self._meaning(address, case)
        return address, replace(meaning, pairing=one.pairing or meaning.pairing)

    def _meaning(self, address: Address, case: str | None) -> Meaning:
        rest, most = address.rest, max(self.n_layers.values())
        n_layers = self.n_layers.get(address.case or case or "", most)
        found = [scheme.parse(rest, n_layers) for scheme in self.schemes]
        meanings = {meaning for meaning in found if meaning is not None}
        if len(meanings) == 1:
            return meanings.pop()
        if meanings:
            return Meaning(refused="naming schemes disagree about its name: say which with --names")
        refused = "no naming scheme knows its name"
        if near := _near(rest):
            refused += f" (is it {near}?)"
        if "/" in rest:
            refused += f", and no case is called {shown(rest.partition('/')[0])}"
        return Meaning(refused=refused)


def _near(rest: str) -> str:
    """Return one of our taps whose name is nearly this one; nothing if there is none.

    Examples
    --------
    >>> _near("L00.k_ropes"), _near("logit"), _near("blk.0.query")
    ('L00.k_rope', 'logits', '')
    """
    before, dot, last = rest.rpartition(".")
    kinds = LAYER_TAPS if re.fullmatch(r"L\d{1,4}", before) else () if dot else OUTSIDE
    near = get_close_matches(last, kinds, n=1, cutoff=NEAR) if len(last) <= LONGEST else []
    return f"{before}{dot}{near[0]}" if near else ""


def _asked_map(asked: str | os.PathLike[str] | None) -> UserMap | None:
    """Return the user's own map, if that was asked for."""
    if asked is None or asked in SCHEMES:
        return None
    if not Path(asked).suffix and not os.path.lexists(asked):
        expected = f"{', '.join(SCHEMES)} or a JSON file"
        raise BadRequest("naming scheme", expected=expected, found=shown(os.fspath(asked)))
    return read_user_map(asked)


def _believed(
    schemes: list[Scheme], rests: Sequence[str], n_layers: int
) -> tuple[list[Scheme], str]:
    """Return the schemes that know every name that any of them knows, or all; and what to say."""
    known = [{rest for rest in rests if scheme.parse(rest, n_layers)} for scheme in schemes]
    every = set().union(*known)
    pairs = list(zip(schemes, known, strict=True))
    whole = [scheme for scheme, own in pairs if own == every]
    if every and whole:
        return whole, " or ".join(scheme.name for scheme in whole)
    return schemes, " and ".join(scheme.name for scheme, own in pairs if own)
