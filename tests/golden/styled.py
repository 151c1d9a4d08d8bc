"""One pass of a style, as a backend of that style would dump it."""

from functools import cache

import numpy as np

from llama_ref.golden.cases import cases_for
from llama_ref.golden.models import held, model_of, spec_of, weights_of
from llama_ref.golden.passes import Session
from llama_ref.golden.taps import kind_of, visible_parts

SPEC = spec_of("synthetic:golden-tiny?n_layers=1")
CASES = {case.name: case for case in cases_for(SPEC.config)}


@cache
def weights():
    """Return the weights of the one layer, computed once."""
    return held(weights_of(SPEC), SPEC.config)


def model(dtype="float64", lineage="hf"):
    """Return the model of one layer."""
    return model_of(SPEC, weights(), dtype, lineage)


@cache
def truth(case_name):
    """Return every tap in float64."""
    case = CASES[case_name]
    return dict(model().trace(case.ids, case.positions))


def styled(style, case_name):
    """Return every tap of a style, by name."""
    taps = {}

    def keep(moment):
        taps[moment.name] = moment.computed.copy()

    session = Session(model(style.dtype, style.lineage), CASES[case_name])
    session.run(style.watching(keep))
    return taps


def relative_error(tap, found, expected):
    """Return the root mean square error in units of the tap."""
    found, expected = (visible_parts(kind_of(tap), x) for x in (found, expected))
    return float(np.linalg.norm(found.astype(np.float64) - expected) / np.linalg.norm(expected))
