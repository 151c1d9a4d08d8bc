r"""Stop strings: where a text ends because of what it says.

    text in pieces ──► certain text, and the stop string that ended it

Tokens do not respect stop strings: one may begin in the middle of a token and end three tokens
later, or two may end within the same one. So the text is read a character at a time, and for each
stop string there is one number: how many of its first characters the text so far ends with.

    stop "ABAC"     text  x A B A B A C
                    count 0 1 2 3 2 3 4  <- complete

When a character does not continue a stop string, a shorter beginning of it may still be there: the
`B` after `ABA` leaves `AB`. Where to fall back depends on the stop string alone and is tabled once,
so that every character costs the same (Knuth, Morris and Pratt).

The largest of these numbers is how much text has to be held back, and no character more. The stop
string that is complete first wins; of two that are complete with the same character, the first in
the list.

Source: check_stop_strings of v1/engine/detokenizer.py in vllm-project/vllm, for what wins. Text is
held there by the length of the longest stop string, here only while it could still become one.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    r"""Watches one text for stop strings.

    Parameters
    ----------
    stops : sequence of str
        None of them empty.
    include : bool
        Whether the text ends behind the stop string, not before it; then nothing is held back.

    Examples
    --------
    >>> stops = StopStrings(["\n\n"])
    >>> stops.push("One.\n"), stops.push("Two.\n"), stops.push("\nThree.")
    (('One.', None), ('\nTwo.', None), ('', '\n\n'))
    """

    def __init__(self, stops: Sequence[str], *, include: bool = False):
        self._stops, self._include = tuple(stops), include
        self._fallbacks = [fallbacks(stop) for stop in self._stops]
        self._counts = [0] * len(self._stops)
        self._held = ""

    def push(self, text: str, *, armed: bool = True) -> tuple[str, str | None]:
        """Read the next piece of the text.

        Parameters
        ----------
        text : str
        armed : bool
            Whether a stop string that ends in this piece ends the text. One that begins in a piece
            that was not armed and ends in one that is, does.

        Returns
        -------
        certain : str
            Text that nothing can take back any more, and was not returned before.
        stop : str or None
            The stop string that ended the text. What follows it is dropped.
        """
        if not self._stops:
            return text, None
        whole, n_held = self._held + text, len(self._held)
        for at, character in enumerate(text, start=n_held + 1):
            stop = self._advance(character)
            if stop is not None and armed:
                self._held = ""
                return whole[: at if self._include else at - len(stop)], stop
        n_certain = len(whole) - (0 if self._include else max(self._counts))
        self._held = whole[n_certain:]
        return whole[:n_certain], None

    def finish(self) -> str:
        """Return what was held back, as no more text comes."""
        held, self._held = self._held, ""
        return held

    def _advance(self, character: str) -> str | None:
        """Read one character; return the first of the stop strings that are complete with it."""
        complete = None
        for i, (stop, shorter) in enumerate(zip(self._stops, self._fallbacks, strict=True)):
            count = self._counts[i]
            while count and stop[count] != character:
                count = shorter[count]
            count += stop[count] == character
            if count == len(stop):
                complete = stop if complete is None else complete
                count = shorter[count]
            self._counts[i] = count
        return complete


def fallbacks(stop: str) -> list[int]:
    """Return, for each count of characters that fit, the next smaller count that also fits.

    Examples
    --------
    >>> fallbacks("ABAC")
    [0, 0, 0, 1, 0]
    """
    shorter = [0, 0]
    for n in range(1, len(stop)):
        count = shorter[n]
        while count and stop[count] != stop[n]:
            count = shorter[count]
        shorter.append(count + (stop[count] == stop[n]))
    return shorter
