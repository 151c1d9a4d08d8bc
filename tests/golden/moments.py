"""Small models and cases that between them show every mistake, and the moments of a right pass."""

from dataclasses import fields, replace
from functools import cache

import numpy as np

from llama_ref.config.presets import FACTOR_32
from llama_ref.golden.cases import Case
from llama_ref.golden.passes import Session
from llama_ref.golden.taps import visible_parts
from tests.models import TINY, tiny_ids, tiny_model

# All that golden-tiny has at half its width: square projections, whole blocks of 32, a pair of
# channels in every band of the scaling.
MAIN = replace(
    TINY, d_model=128, n_layers=3, n_heads=8, n_kv_heads=2, head_dim=16, d_ff=160, vocab_size=97
)
# Each lacks something that a mistake needs.
CONFIGS = {
    "main": MAIN,
    "factor 32, tied, two layers, H = 10, no whole blocks": replace(
        TINY, rope_scaling=FACTOR_32, tied_embeddings=True
    ),
    "no scaling, no groups, eps 1e-6, one layer": replace(
        TINY, rope_scaling=None, rope_theta=10_000.0, n_kv_heads=6, norm_eps=1e-6, n_layers=1
    ),
    "one key head as wide as the model, a single pair of channels": replace(
        TINY, d_model=8, n_heads=4, n_kv_heads=1, head_dim=2, d_ff=20
    ),
}


def a_case(name, positions, chunks=None, **more):
    n = len(positions)
    ids = tuple(tiny_ids(n, seed=n).tolist())
    return Case(name, "", ids, tuple(positions), chunks or (n,), **more)


NEAR = a_case("near", range(7))
FAR = a_case("far", (0, 1, 2, 64, 300, 999, 4097, 8191, 60_001))
CHUNKS = a_case("chunks", (0, 1, 2, 3, 4, 5, 6, 900, 901), (4, 1, 1, 3))
RAGGED = a_case("ragged", range(4), padding=3)
ALONE = Case("alone", "", (0,), (0,), (1,))
SINGLES = a_case("singles", range(3), (1, 1, 1))
CASES = {case.name: case for case in (NEAR, FAR, CHUNKS, RAGGED, ALONE, SINGLES)}


@cache
def session_of(config, case_name, layout="hf"):
    shape = {one.name: getattr(config, one.name) for one in fields(config)}
    return Session(tiny_model("float64", layout=layout, **shape), CASES[case_name])


def moments(session):
    """Yield every moment of a right pass, with all taps of its layer so far."""
    found = []

    def keep(moment):
        taps = {kind: array.copy() for kind, array in moment.taps.items()}
        found.append(replace(moment, computed=moment.computed.copy(), taps=taps))

    session.run(keep)
    return found


def change_of(moment, wrong):
    """Return the relative change of a tap, or 1 where it is no number any more."""
    right, wrong = (visible_parts(moment.kind, x) for x in (moment.computed, wrong))
    if not np.isfinite(wrong).all():
        return 1.0
    return np.linalg.norm(wrong - right) / np.linalg.norm(right)
