"""The table of porting mistakes: each shows exactly where it says it can, and is like no other."""

import re
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from llama_ref.golden.mistakes import MISTAKES
from llama_ref.golden.taps import INPUTS, visible_parts
from tests.golden.moments import CASES, CONFIGS, MAIN, change_of, moments, session_of

CHANGE = 1e-9
"""A relative change that float64 noise, 1e-15, never makes."""


def test_every_entry_is_well_formed():
    """Ids are kebab-case, sentences are one each, and the taps distorted exist; it is read-only."""
    for id_, mistake in MISTAKES.items():
        assert mistake.id == id_
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", id_)
        assert mistake.title and not mistake.title.endswith(".")
        for sentence in (mistake.what, mistake.where):
            assert re.fullmatch(r"[A-Z0-9`].*[^.]\.", sentence), (id_, sentence)
            assert not re.search(r"[.!?] [A-Z]", sentence), (id_, sentence)
        assert mistake.changes and set(mistake.changes) <= set(INPUTS)
    with pytest.raises(TypeError):
        MISTAKES["new-one"] = mistake


def test_the_order_is_that_of_the_data():
    """Mistakes come in the order of the first tap that each distorts."""
    order = list(INPUTS)
    firsts = [min(order.index(kind) for kind in one.changes) for one in MISTAKES.values()]
    assert firsts == sorted(firsts)


# `applies` says no, and yet something is computed that differs: these have a reason of their own.
SPARED = {
    "rope-halves-written-interleaved": "it names what is wrong in one of the two layouts",
    "query-weight-transposed": "a matrix that is not square cannot be transposed unnoticed",
    "output-weight-transposed": "a matrix that is not square cannot be transposed unnoticed",
    "weights-in-q8-0": "ggml refuses rows that are not whole blocks",
    "weights-in-q4-0": "ggml refuses rows that are not whole blocks",
    "key-rows-permuted-by-query-heads": "heads of an odd width have no halves",
}


@pytest.mark.parametrize("layout", ["hf", "meta"])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_mistake_shows_exactly_where_it_applies(config, layout):
    """Where `applies` says yes a tap changes by more than noise; where it says no, none does."""
    for name in CASES if layout == "hf" else ("near", "chunks"):
        session, largest = session_of(config, name, layout), dict.fromkeys(MISTAKES, 0.0)
        for moment in moments(session):
            for id_, mistake in MISTAKES.items():
                if moment.kind not in mistake.changes:
                    continue
                if id_ in SPARED and not mistake.applies(session):
                    continue
                wrong = mistake.changes[moment.kind](moment)
                assert wrong.dtype == np.float64, (id_, moment.name)
                assert wrong.shape == moment.computed.shape, (id_, moment.name)
                largest[id_] = max(largest[id_], change_of(moment, wrong))
        for id_, mistake in MISTAKES.items():
            assert mistake.applies(session) == (largest[id_] > CHANGE), (id_, name, largest[id_])


def test_every_mistake_applies_somewhere():
    """For each mistake one of these models and cases shows it."""
    for id_, mistake in MISTAKES.items():
        sessions = (session_of(config, case) for config in CONFIGS.values() for case in CASES)
        assert any(mistake.applies(session) for session in sessions), id_


def test_a_mistake_leaves_what_it_reads():
    """No mutant writes into the arrays it is given."""
    for moment in moments(session_of(MAIN, "chunks"))[:20]:
        before = {kind: array.copy() for kind, array in moment.taps.items()}
        right = moment.computed.copy()
        for mistake in MISTAKES.values():
            if moment.kind in mistake.changes:
                mistake.changes[moment.kind](moment)
        assert np.array_equal(moment.computed, right)
        assert all(np.array_equal(moment.taps[kind], before[kind]) for kind in before)


def test_a_mistake_survives_infinities():
    """A mutant of numbers that are none raises nothing and warns of nothing."""
    for moment in moments(session_of(MAIN, "chunks"))[:20]:
        ruined = {kind: np.full_like(array, -np.inf) for kind, array in moment.taps.items()}
        ruined = replace(moment, taps=ruined, computed=np.full_like(moment.computed, np.nan))
        for mistake in MISTAKES.values():
            if moment.kind in mistake.changes:
                mistake.changes[moment.kind](ruined)


def sketches(case_name):
    """Return for each mistake that applies a few random sums over each tap of a pass."""
    session, rng = session_of(MAIN, case_name), np.random.default_rng(0)
    applying = {id_: m for id_, m in MISTAKES.items() if m.applies(session)}
    table = {id_: [] for id_ in applying}
    for moment in moments(session):
        weights = rng.normal(size=(moment.computed.size, 3))
        weights /= np.linalg.norm(moment.computed)
        right = visible_parts(moment.kind, moment.computed)
        for id_, mistake in applying.items():
            wrong = right
            if moment.kind in mistake.changes:
                wrong = visible_parts(moment.kind, mistake.changes[moment.kind](moment))
            table[id_].append(wrong.ravel() @ weights)
    return {id_: np.concatenate(rows) for id_, rows in table.items()}


def ties(case_name):
    found = sketches(case_name)
    return {(a, b) for a, b in combinations(found, 2) if np.allclose(found[a], found[b], atol=1e-9)}


# Nothing here stands beyond the 8,192 positions up to which one of them does not scale either.
UNSCALED = ("rope-scaling-missing", "rope-scaling-only-far")
# One call: to count from 0 in each call is to count from 0.
COUNTED = ("rope-restarts-in-each-chunk", "rope-positions-consecutive")
# Both keep 11 bits. They differ where a number lies half way, and below 2^-14.
ROUNDED = ("operands-in-float16", "operands-in-tf32")
TIES = {
    "near": {UNSCALED},
    "far": {COUNTED, ROUNDED},
    "chunks": {UNSCALED},
    "ragged": {UNSCALED, ROUNDED},
}


@pytest.mark.parametrize("case_name", TIES)
def test_mistakes_are_told_apart(case_name):
    """In each case no two mistakes compute the same at all taps, but for those listed with why."""
    assert ties(case_name) == TIES[case_name]


def test_every_two_mistakes_are_told_apart_somewhere():
    """No pair is tied in all cases."""
    assert set.intersection(*TIES.values()) == set()
