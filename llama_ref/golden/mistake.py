"""What a known porting mistake is: a name, two sentences, and the tap it distorts, written out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from llama_ref.golden.passes import Change, Session


def everywhere(session: Session) -> bool:
    """Say that a mistake can be made in any model and case."""
    return True


@dataclass(frozen=True)
class Mistake:
    """One way in which ports go wrong.

    Attributes
    ----------
    id : str
        Kebab-case, the name of its section in the documentation.
    title : str
        In a few words, for a table.
    what : str
        One sentence: what is computed in place of the right thing.
    where : str
        One sentence: where such code usually has it, and what to look at.
    changes : mapping of str to Change
        For each kind of tap that it distorts, the distorted computation, from right inputs.
    applies : function of Session to bool
        Whether it can be told from the right thing in this model and case at all.
    is_noise : bool
        It rounds more coarsely: which numbers come out depends on the order of sums, so that its
        size can be recognised and not its values.
    """

    id: str
    title: str
    what: str
    where: str
    changes: Mapping[str, Change]
    applies: Callable[[Session], bool] = everywhere
    is_noise: bool = False

    @property
    def explanation(self) -> str:
        """The two sentences."""
        return f"{self.what} {self.where}"
