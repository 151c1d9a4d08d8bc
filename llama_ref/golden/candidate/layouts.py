"""How the axes of a stored array are those of a tap, if there is exactly one way.

Backends keep heads side by side or apart, first or second, with a batch axis or without, with
scores padded to a round number of columns, or only the last rows of it all. Tried in this order,
the first that fits is taken:

    1  the order that the source is known to have, or ours; heads side by side; scores in groups
    2  any other order of the axes, if all that fit come to the same arrangement
    3  as 1, with fewer rows than there are tokens: the last ones
    4  keys and values with every head repeated for its group of queries

Nothing is ever broadcast. Axes of size 1 in front are a batch axis, and are dropped.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from llama_ref.golden.taps import axes_of

Form = tuple[str, ...]
"""The letters of each axis of an array: ("T", "NH") has heads side by side."""


@dataclass(frozen=True)
class Fit:
    """How to bring a stored array into our axes.

    Attributes
    ----------
    shape : tuple of int
        One size for each of our axes, in the array's order.
    order : tuple of int
        Which axis of that shape each of ours is.
    n_rows, n_columns : int
        Tokens it covers; entries of the last axis that are kept.
    copies : int
        How often each key/value head is stored.
    transposed, padded, last_rows : bool
        What will be done, to be noted.
    """

    shape: tuple[int, ...]
    order: tuple[int, ...]
    n_rows: int
    n_columns: int
    copies: int = 1
    transposed: bool = False
    padded: bool = False
    last_rows: bool = False

    def apply(self, array: np.ndarray) -> np.ndarray:
        """Return the array in our axes: a view where that is possible."""
        ours = array.reshape(self.shape).transpose(self.order)[..., : self.n_columns]
        return ours[:, :: self.copies] if self.copies > 1 else ours

    def copies_agree(self, array: np.ndarray) -> bool:
        """Tell whether the repeated heads are the same to the bit."""
        repeated = array.reshape(self.shape).transpose(self.order)
        kept = np.repeat(self.apply(array), self.copies, axis=1)
        return same_bits(repeated, kept)


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Tell whether two arrays have one dtype, one shape and the same bits (NaN is like NaN)."""
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return False
    bits = np.dtype(f"u{a.dtype.itemsize}")
    return np.array_equal(np.ascontiguousarray(a).view(bits), np.ascontiguousarray(b).view(bits))


def fit(
    shape: tuple[int, ...],
    kind: str,
    sizes: Mapping[str, int],
    *,
    order: str = "",
    widest: int,
) -> Fit | str:
    """Find the one way in which an array of this shape is a tap.

    Parameters
    ----------
    shape : tuple of int
    kind : str
        The tap without its layer.
    sizes : mapping of str to int
        From `taps.sizes_of`.
    order : str
        The axes as the source is known to have them, where not in our order.
    widest : int
        Columns that scores may be padded to.

    Returns
    -------
    Fit or str
        A sentence saying what was expected, if there is no way or more than one.
    """
    axes = tuple(axes_of(kind).split())
    known = list(_known_forms(axes, tuple(order.split()) or axes))
    found = _first(shape, axes, known, sizes, widest=widest)
    if found:
        return found
    others = [form for form in _all_forms(axes) if _matches(form, shape, sizes)]
    if len({_arrangement(form, sizes) for form in others}) > 1:
        ways = " or ".join(" ".join(form) for form in others)
        return f"ambiguous: its axes may be {ways}; transpose it to {' '.join(axes)}"
    if others:
        return _fitted(others[0], shape, axes, sizes, transposed=True)
    return (
        _first(shape, axes, known, sizes, fewer_rows=True, widest=widest)
        or _repeated(shape, axes, known, sizes)
        or _expected(axes, sizes)
    )


def _known_forms(axes: Form, order: Form) -> Iterator[Form]:
    """Yield the arrangements that need no proof: the source's own and the flattened ones."""
    yield order
    if axes[-1] == "H":
        yield ("T", axes[1] + "H")
    if axes == ("N", "T", "S"):
        yield ("K", "G", "T", "S")


def _all_forms(axes: Form) -> Iterator[Form]:
    """Yield every order of the axes, and of the axes with heads side by side."""
    yield from permutations(axes)
    if axes[-1] == "H":
        yield (axes[1] + "H", "T")


def _first(
    shape: tuple[int, ...],
    axes: Form,
    forms: list[Form],
    sizes: Mapping[str, int],
    *,
    widest: int,
    fewer_rows: bool = False,
) -> Fit | None:
    """Return the first of these arrangements that the shape has."""
    for form in forms:
        if _matches(form, shape, sizes, widest=widest, fewer_rows=fewer_rows):
            return _fitted(form, shape, axes, sizes)
    return None


def _repeated(
    shape: tuple[int, ...], axes: Form, forms: list[Form], sizes: Mapping[str, int]
) -> Fit | None:
    """Return the fit of keys or values with a head for each query head."""
    if axes != ("T", "K", "H"):
        return None
    as_queries = {**sizes, "K": sizes["N"]}
    for form in [*forms, ("K", "T", "H")]:
        if _matches(form, shape, as_queries):
            return _fitted(form, shape, axes, as_queries, copies=sizes["G"])
    return None


def _matches(
    form: Form,
    shape: tuple[int, ...],
    sizes: Mapping[str, int],
    *,
    widest: int = 0,
    fewer_rows: bool = False,
) -> bool:
    """Tell whether a shape, without its batch axes of 1, is this arrangement."""
    own = _without_batch(shape, len(form))
    if own is None:
        return False
    for letters, found in zip(form, own, strict=True):
        expected = math.prod(sizes[letter] for letter in letters)
        is_right = found == expected
        if letters == "T" and fewer_rows:
            is_right = 1 <= found < expected
        if letters == "S" and letters == form[-1]:
            is_right = found == expected or expected < found <= widest
        if not is_right:
            return False
    return True


def _without_batch(shape: tuple[int, ...], n_axes: int) -> tuple[int, ...] | None:
    """Return the last axes of a shape, if those before are 1; a vector is one row."""
    if len(shape) == 1 and n_axes == 2:
        return (1, *shape)
    n_batch = len(shape) - n_axes
    return shape[n_batch:] if n_batch >= 0 and set(shape[:n_batch]) <= {1} else None


def _arrangement(form: Form, sizes: Mapping[str, int]) -> str:
    """Return the order of the axes that matter: those of size 1 may stand anywhere."""
    return "".join(letter for letter in "".join(form) if sizes[letter] != 1)


def _fitted(
    form: Form,
    shape: tuple[int, ...],
    axes: Form,
    sizes: Mapping[str, int],
    *,
    copies: int = 1,
    transposed: bool = False,
) -> Fit:
    """Return how a shape that has this arrangement is brought into our axes."""
    own = _without_batch(shape, len(form))
    assert own is not None
    found = dict(zip(form, own, strict=True))
    full = {letter: found.get(letter, sizes[letter]) for letter in axes}
    letters = [letter for letter in "".join(form).replace("KG", "N") if letter in axes]
    last = axes[-1]
    return Fit(
        shape=tuple(full[letter] for letter in letters),
        order=tuple(letters.index(letter) for letter in axes),
        n_rows=full["T"],
        n_columns=sizes[last],
        copies=copies,
        transposed=transposed,
        padded=full[last] > sizes[last],
        last_rows=full["T"] < sizes["T"],
    )


def _expected(axes: Form, sizes: Mapping[str, int]) -> str:
    """Say what shape the tap has."""
    shape = " × ".join(str(sizes[letter]) for letter in axes)
    said = f"expected {' '.join(axes)} = {shape}"
    if axes[-1] == "H":
        said += f", or heads side by side, {sizes['T']} × {sizes[axes[1]] * sizes['H']}"
    return said
