"""The stored goldens: what other implementations computed, and how closely it must be met.

`<op>.json` holds the cases of one op, `forward.json` and `forward.safetensors` whole passes.
`generate.py` wrote them, from torch and transformers. Each case says why it exists and which
classic mistakes it catches, and a test of that op commits every one of them to show that it does.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llama_ref.checkpoint.safetensors import open_safetensors
from llama_ref.config import Config, RopeScaling
from llama_ref.numerics import dtype_named, ulp_distance

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class OpCase:
    """One golden case of an op.

    Attributes
    ----------
    name, why : str
    function : str
        Which function of the op's file it is for.
    arguments : dict
        Keyword arguments: arrays and numbers.
    results : dict of str to ndarray
        What the peer returned.
    catches : list of str
        Mistakes after which the results would be others.
    """

    name: str
    why: str
    function: str
    arguments: dict[str, Any]
    results: dict[str, np.ndarray]
    catches: list[str]

    def __str__(self) -> str:
        return self.name


def op_cases(op, function=None):
    """Read the golden cases of an op, or those of one function."""
    stored = json.loads((FOLDER / f"{op}.json").read_text(encoding="utf-8"))
    cases = [
        OpCase(
            entry["name"],
            entry["why"],
            entry["function"],
            {name: decoded(value) for name, value in entry["arguments"].items()},
            {name: decoded(value) for name, value in entry["results"].items()},
            entry["catches"],
        )
        for entry in stored["cases"]
    ]
    return [case for case in cases if function in (None, case.function)]


def caught(cases):
    """Pair every case with every mistake that it catches."""
    return [(case, mistake) for case in cases for mistake in case.catches]


def decoded(value):
    """Return the array that an entry {"dtype": ..., "values": nested lists} stands for."""
    if not isinstance(value, dict) or "values" not in value:
        return value
    values = np.array(value["values"], dtype=np.float64)  # "-inf" comes as text
    if value["dtype"] == "int64":
        return values.astype(np.int64)
    return values.astype(dtype_named(value["dtype"]))


def disagreement(found, expected):
    """Say how `found` fails to meet a golden array; an empty text if it meets it.

    16-bit results: one element in a hundred (or a single one) may round the other way, and where
    a result is rounded twice that is up to two steps. 32 and 64 bits: 8 units of the last place of
    the largest result, since the order of sums is free.
    """
    if found.dtype != expected.dtype or found.shape != expected.shape:
        return f"{found.dtype} {found.shape}, not {expected.dtype} {expected.shape}"
    if not np.isfinite(found).all():
        return "not finite"
    if found.dtype.itemsize == 2:
        steps = ulp_distance(found, expected)
        unequal = np.count_nonzero(steps)
        good = unequal <= max(1, found.size // 100) and steps.max() <= 2
        return "" if good else f"{unequal} of {found.size} differ, by {steps.max()} steps at most"
    error = np.abs(found - expected).max()
    good = error <= 8 * np.finfo(found.dtype).eps * np.abs(expected).max()
    return "" if good else f"off by {error:.3g}"


def assert_golden(found, expected):
    """Fail unless `found` has the dtype, the shape and the values of a golden array."""
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert not disagreement(found, expected), disagreement(found, expected)


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
