"""Reading what a backend dumped: files of tensors under foreign names, matched to our taps.

    match.py       the whole: a dump becomes a `Candidate`
    files.py       a path -> its tensors, unread: stored.py    npz.py  raw.py  two of the formats
    names.py       a name -> case, call, and the rest          schemes.py  ggml.py  user_map.py
    layouts.py     a shape -> how its axes are ours
    places.py      name and shape together: which taps a tensor is
    pieces.py  assembling.py                                   and several tensors one tap

Nothing is guessed. A tensor that fits in exactly one way is read that way, and what was done to it
is noted; any other is listed as unmatched, with its shape and a reason in a sentence.
"""

from typing import TYPE_CHECKING

from llama_ref.lazy import names_of

_HOMES = {
    "open_candidate": "llama_ref.golden.candidate.match",
    "Candidate": "llama_ref.golden.candidate.match",
}
__getattr__ = names_of(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


if TYPE_CHECKING:
    from llama_ref.golden.candidate.match import Candidate as Candidate
    from llama_ref.golden.candidate.match import open_candidate as open_candidate
