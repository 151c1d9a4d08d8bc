"""The stored goldens: what other implementations computed, and how closely it must be met.

`llama_ref/golden/suite/cases/<op>.json` holds the cases of one op, `forward.json` and
`forward.safetensors` beside this file whole passes. `generate.py` wrote them, from torch and
transformers. Each case says why it exists and which classic mistakes it catches, and a test of that
op commits every one of them to show that it does.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llama_ref.checkpoint.safetensors import open_safetensors
from llama_ref.config import Config, RopeScaling
from llama_ref.golden.suite import case as suite
from llama_ref.golden.suite.compare import disagreement

FOLDER = Path(__file__).parent


def op_cases(op, function=None):
    """Read the golden cases of an op, or those of one function."""
    return [case for case in suite.op_cases(op) if function in (None, case.function)]


def caught(cases):
    """Pair every case with every mistake that it catches."""
    return [(case, mistake) for case in cases for mistake in case.catches]


def assert_golden(found, expected, tolerance="largest"):
    """Fail unless `found` has the dtype, the shape and the values of a golden array."""
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    problem = disagreement(found, expected, tolerance)
    assert not problem, problem


@dataclass(frozen=True)
class ForwardCase:
    """One golden pass: how it is run, and what the peer had at its taps.

    Attributes
    ----------
    name, why : str
    config : Config
    lineage, dtype : str
    seed : int
        Of the synthetic weights, which are not stored.
    ids, positions : list of int
    rows : list of int or None
        Which of the T tokens are stored, logits apart; None: all.
    bound : float
        How far logits may be off, in standard deviations.
    taps : dict of str to ndarray
    """

    name: str
    why: str
    config: Config
    lineage: str
    dtype: str
    seed: int
    ids: list[int]
    positions: list[int] | None
    rows: list[int] | None
    bound: float
    taps: dict[str, np.ndarray]

    def __str__(self) -> str:
        return self.name


def forward_cases():
    """Read the golden passes."""
    stated = json.loads((FOLDER / "forward.json").read_text(encoding="utf-8"))["cases"]
    tensors = open_safetensors(FOLDER / "forward.safetensors")
    cases = []
    for index, entry in enumerate(stated):
        scaling = entry["config"].pop("rope_scaling")
        config = Config(
            **{**entry["config"], "eos_ids": tuple(entry["config"]["eos_ids"])},
            rope_scaling=scaling and RopeScaling(**scaling),
        )
        prefix = f"{index}/"
        taps = {
            name.removeprefix(prefix): array
            for name, array in tensors.items()
            if name.startswith(prefix)
        }
        run = ("name", "why", "lineage", "dtype", "seed", "ids", "positions", "rows", "bound")
        cases.append(ForwardCase(config=config, taps=taps, **{key: entry[key] for key in run}))
    return cases


def some_rows(tap, array, rows):
    """Return the rows of these tokens; logits, the whole point, are kept for all tokens."""
    if rows is None or tap == "logits":
        return array
    return array.take(rows, axis=1 if tap.endswith(("scores", "probs")) else 0)
