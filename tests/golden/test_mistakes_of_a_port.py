"""The table of mistakes against a port that makes them: what it computes is what the table says."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest

from llama_ref.checkpoint import synthetic
from llama_ref.config.presets import FACTOR_32
from llama_ref.golden.mistakes import MISTAKES
from tests.golden import port
from tests.golden.moments import MAIN, change_of, session_of

# It rounds its sums after 16 products and the table after 32: as coarse, but not equal.
COARSE = ("accumulated-in-bfloat16", "accumulated-in-float16")
# Mistakes that do not apply to the main model.
NEEDED = {
    "rope-factor-8": replace(MAIN, rope_scaling=FACTOR_32),
    "rope-scaling-uncalled-for": replace(MAIN, rope_scaling=None),
}


def test_the_port_makes_every_mistake_there_is():
    """The port and the table know the same mistakes by the same names."""
    assert len(port.MISTAKES) == len(set(port.MISTAKES))
    assert set(port.MISTAKES) == set(MISTAKES)


@pytest.mark.parametrize("id_", [id_ for id_ in port.MISTAKES if id_ not in COARSE])
def test_a_port_that_makes_the_mistake_is_explained(id_):
    """A port that makes it has at each tap what the table computes, to float32, not the truth."""
    rows = compared(MISTAKES[id_], NEEDED.get(id_, MAIN))
    left = max(one.left for one in rows)
    assert left < 5e-5  # what float32 makes of angles at position 999
    largest = max(one.error for one in rows)
    assert largest > 100 * left or id_ == "last-layer-skipped"  # has no taps where it is wrong


@pytest.mark.parametrize("id_", COARSE)
def test_a_port_that_rounds_sums_twice_as_often_errs_more_but_not_twice(id_):
    """Its errors stand at the same taps and are larger than the table's, by less than 2."""
    distorts = MISTAKES[id_].changes
    for one in compared(MISTAKES[id_], MAIN):
        if one.kind in distorts:
            assert one.mutant < one.error < 2 * one.mutant
        else:
            assert one.error < 5e-5


class Compared(NamedTuple):
    """A tap of the port and of a mutant: how far each is from the truth, and from the other."""

    kind: str
    error: float
    mutant: float
    left: float


def compared(mistake, config):
    """Replay a run of the port that makes the mistake; compare every tap with the table's."""
    tensors, rows = dict(synthetic.checkpoint(config, 0)), []
    # The port counts the padding among the queries of a call, and the table knows of none.
    cases = ("chunks",) if mistake.id == "softmax-over-queries" else ("chunks", "ragged")
    for session in (session_of(config, name) for name in cases):
        if not mistake.applies(session):
            continue
        found = port.run(config, tensors, session.case, mistake=mistake.id)
        dump = {tap: array.astype(np.float64) for tap, array in found.items()}

        def watch(moment, dump=dump):
            change = mistake.changes.get(moment.kind, lambda m: m.computed)
            own = change(moment)
            if moment.name in dump:
                error, wrong = change_of(moment, moment.dumped), change_of(moment, own)
                left = change_of(replace(moment, computed=moment.dumped), own)
                rows.append(Compared(moment.kind, error, wrong, left))
            moment.computed[...] = dump.get(moment.name, own)

        replace(session, dump_of=dump.get).run(watch)
    return rows
