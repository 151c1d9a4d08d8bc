"""What a backend is asked to run: each case a few tokens, chosen so that some mistake shows.

Short prompts hide most bugs of RoPE, a single pass hides those of the cache, and one shape hides
those of every other. A case says which tokens stand at which positions and in which calls they are
to be fed; how a backend feeds them must not change a number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from llama_ref.checkpoint.synthetic import token_ids
from llama_ref.config import Config, preset
from llama_ref.config.presets import FACTOR_32
from llama_ref.errors import BadRequest, shown

MAIN = "main"
"""The model of a bundle that was asked for; cases of other shapes bring their own."""


@dataclass(frozen=True)
class Case:
    """Tokens to run, and how.

    Attributes
    ----------
    name : str
        In front of every tap of the case: `far/L00.q_rope`.
    why : str
        What it is for.
    ids, positions : tuple of int
        T token ids, and their RoPE positions, strictly increasing. Who sees whom follows the order
        of the tokens.
    chunks : tuple of int
        How many tokens are fed in each call, the earlier ones being in the cache; they sum to T.
    model : str
        Which model of the bundle runs it.
    batch : str or None
        Cases of one name are to be run together, as one batch.
    padding : int
        How many tokens shorter it is than the longest of its batch.
    catches : tuple of str
        The classic mistakes that it is there to catch, by id.
    n_ranks : int
        Over how many ranks every layer is cut; of more than one, the parts of their sums are taps.
    """

    name: str
    why: str
    ids: tuple[int, ...]
    positions: tuple[int, ...]
    chunks: tuple[int, ...]
    model: str = MAIN
    batch: str | None = None
    padding: int = 0
    catches: tuple[str, ...] = ()
    n_ranks: int = 1

    @property
    def chunk_start_T(self) -> np.ndarray:
        """For each token, the index of the first one fed in the same call."""
        starts = np.cumsum([0, *self.chunks[:-1]])
        return np.repeat(starts, self.chunks)


FAR = (
    *range(24),
    *(2**k + i for k in range(5, 17) for i in (0, 1)),
    *(8191, *range(60_000, 60_013), 100_000, 131_071),
)
"""Positions up to the last: 64 tokens that reach as far as 131,072."""

SPREAD = (*range(6), 100, 8191, 8192, 60_000, 100_000, 131_071)
"""A few positions from the first to the last."""

ROPE_FAR = (
    *("rope-scaling-missing", "rope-factor-32", "rope-factor-8", "rope-smooth-inverted"),
    *("rope-smooth-missing", "rope-positions-in-bfloat16", "rope-frequencies-in-bfloat16"),
    *("rope-angles-in-float16", "rope-scaling-only-far", "rope-positions-consecutive"),
)
MASKS = ("mask-missing", "mask-sees-next", "mask-hides-self", "softmax-over-queries")
CACHE = (
    *("mask-not-offset-by-cache", "mask-forgets-cache", "cache-last-entry-overwritten"),
    *("rope-restarts-in-each-chunk", "rope-position-plus-one-behind-cache"),
)


def cases_for(config: Config, seed: int = 0) -> list[Case]:
    """Return the cases that any model can run, for one of this vocabulary and context.

    Parameters
    ----------
    config : Config
    seed : int
        Of the token ids.
    """
    far = sorted(position for position in FAR if position < config.context_length)
    made = [
        _plain("one", "a single token: no sum over positions, probabilities of exactly 1", 1),
        _plain("two", "the shortest prompt in which a token can look back", 2, MASKS),
        _plain("five", "short enough to look at by hand", 5, MASKS),
        _plain("prefill", "a prompt in one call", 64, (*MASKS, "key-value-heads-tiled")),
        replace(
            _plain("far", "sparse positions: mistakes of RoPE hide among the first", len(far)),
            positions=tuple(far),
            catches=ROPE_FAR,
        ),
        replace(
            _plain("decode", "a prompt of eight, then token by token through the cache", 16, CACHE),
            chunks=(8, *[1] * 8),
        ),
        replace(
            _plain("chunks", "three calls of several tokens, the later behind a cache", 17, CACHE),
            chunks=(6, 7, 4),
        ),
        *_ragged(),
        replace(
            _plain("spread", "twelve tokens, near and far: for models too large for more", 12),
            positions=SPREAD,
            catches=ROPE_FAR,
        ),
    ]
    fitting = [case for case in made if case.positions[-1] < config.context_length]
    return [_with_ids(case, config, seed + i) for i, case in enumerate(fitting)]


def _plain(name: str, why: str, n_tokens: int, catches: Sequence[str] = ()) -> Case:
    """Return a case of one call at positions 0, 1, ...; its ids come later."""
    places = tuple(range(n_tokens))
    return Case(name, why, places, places, (n_tokens,), catches=tuple(catches))


def _ragged() -> list[Case]:
    """Return three prompts of unlike length that are to be run as one batch."""
    lengths = {"ragged-a": 9, "ragged-b": 3, "ragged-c": 6}
    why = "one batch with prompts of other lengths: each comes out as if it were alone"
    catches = ("rope-positions-count-padding", "padding-attended")
    return [
        replace(_plain(name, why, n, catches), batch="ragged", padding=max(lengths.values()) - n)
        for name, n in lengths.items()
    ]


def _with_ids(case: Case, config: Config, seed: int) -> Case:
    ids = token_ids(len(case.positions), config.vocab_size, seed)
    return replace(case, ids=tuple(ids.tolist()))


@dataclass(frozen=True)
class Shape:
    """A small model whose shape is the point.

    Attributes
    ----------
    why : str
    config : Config
    variant : str
        Of the synthetic weights.
    catches : tuple of str
    """

    why: str
    config: Config
    variant: str = "plain"
    catches: tuple[str, ...] = ()


def shapes() -> Mapping[str, Shape]:
    """Return the shapes that the main model has not got, by the name of their case."""
    tiny = replace(preset("golden-tiny"), n_layers=2, d_model=128, d_ff=352, vocab_size=500)
    return {
        "gqa-1": Shape(
            "each query head has a key head of its own", replace(tiny, n_heads=4, n_kv_heads=4)
        ),
        "gqa-8": Shape(
            "eight query heads share a key head",
            replace(tiny, n_heads=16, n_kv_heads=2, head_dim=8),
            catches=("key-value-heads-tiled", "scale-of-model-width"),
        ),
        "wide-heads": Shape(
            "heads together are wider than the model",
            replace(tiny, n_heads=4, n_kv_heads=2, head_dim=64),
            catches=("rope-exponent-of-model-width", "scale-of-model-width"),
        ),
        "tied": Shape(
            "the output matrix is the embedding, and RoPE's factor is 32, as in Llama 3.2",
            replace(tiny, n_heads=4, n_kv_heads=2, tied_embeddings=True, rope_scaling=FACTOR_32),
            catches=("rope-factor-8",),
        ),
        "unscaled": Shape(
            "RoPE without stretching, theta 10,000, eps 1e-6, as before Llama 3.1",
            replace(
                tiny, n_heads=4, n_kv_heads=2, rope_scaling=None, rope_theta=1e4, norm_eps=1e-6
            ),
        ),
        "outliers": Shape(
            "a few channels of sixteen times the gain: the range of 16 bits under stress",
            replace(tiny, n_heads=4, n_kv_heads=2),
            "outliers",
            ("accumulated-in-float16",),
        ),
    }


def shape_case(name: str, shape: Shape, seed: int = 0) -> Case:
    """Return the one case of a shape: some tokens in a row, some far out, in two calls."""
    places = (*range(12), 1000, 8191, 8192, 60_000, 60_001, 100_000, 131_071)
    case = replace(
        _plain(name, shape.why, len(places), shape.catches),
        positions=places,
        chunks=(15, 4),
        model=name,
    )
    return _with_ids(case, shape.config, seed)


MOST_RANKS = 64
"""Each has two taps in every layer; nobody cuts a layer finer."""


def can_be_cut(config: Config, n_ranks: int) -> bool:
    """Tell whether what enters the two sums of a layer can be cut into so many parts.

    Key/value heads need not: backends give one to several ranks.
    """
    return 0 < n_ranks <= MOST_RANKS and config.n_heads % n_ranks == 0 == config.d_ff % n_ranks


def chosen(names: Sequence[str] | None, available: Sequence[Case]) -> list[Case]:
    """Return the cases of these names, or all.

    Raises
    ------
    BadRequest
        If there is no such case; the message lists those there are.
    """
    if names is None:
        return list(available)
    known = {case.name: case for case in available}
    for name in names:
        if name not in known:
            raise BadRequest("case", expected=f"one of {', '.join(known)}", found=shown(name))
    wanted = set(names)
    batches = {known[name].batch for name in names} - {None}
    return [case for case in available if case.name in wanted or case.batch in batches]
