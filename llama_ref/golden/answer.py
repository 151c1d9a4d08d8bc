"""Known answers: one pass of a model of any size, in numbers few enough to publish.

For every layer the size and the first numbers of what leaves it at the last token; for the head the
highest logits, and a sketch of all. Weights by formula need no download, so anybody can run the
same model, 405B too, and see at which layer the numbers part.

A pass in float32 is not the truth but near it: numbers are the same that differ by no more than
`TOLERANCE` of the root of the mean of their squares.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llama_ref.checkpoint.synthetic import token_ids
from llama_ref.errors import BadFile, BadRequest, shown
from llama_ref.golden.manifest import provenance
from llama_ref.golden.sketch import sketch, sketched_error
from llama_ref.model import Model
from llama_ref.strict_json import read_json

FORMAT = 1
FIRST, HIGHEST = 8, 16
TOLERANCE = 1e-3
LIMIT = 4_000_000
"""Bytes of a file of answers that is read."""


def make_answer(model: Model, name: str, n_tokens: int, seed: int = 0) -> dict[str, Any]:
    """Run a prompt by formula through a model; return what is published of it.

    Parameters
    ----------
    model : Model
    name : str
        What to call it: `synthetic:llama-3.1-405b?seed=0`.
    n_tokens : int
        Of the prompt; its ids are those of `synthetic.token_ids`.
    seed : int
        Of the ids.

    Returns
    -------
    dict
        JSON values.
    """
    ids = token_ids(n_tokens, model.config.vocab_size, seed)
    layers: dict[str, Any] = {}

    def tap(tap_name: str, array: np.ndarray) -> None:
        if tap_name == "embed" or tap_name.endswith(".out"):
            layers[tap_name] = _summary(array[-1])

    start = time.perf_counter()
    logits_V = model.forward(ids, model.new_cache(n_tokens), last=1, tap=tap)[-1]
    seconds = time.perf_counter() - start
    best = np.argsort(-logits_V, kind="stable")[:HIGHEST]
    return {
        "format": FORMAT,
        "model": name,
        "dtype": str(model.dtype),
        "lineage": model.lineage.name,
        "ids": ids.tolist(),
        "taps": layers,
        "logits": {
            **_summary(logits_V),
            "highest": [[int(i), float(logits_V[i])] for i in best],
            "sketch": [float(f"{bucket:.7g}") for bucket in sketch(logits_V)],
            "sha256": hashlib.sha256(np.ascontiguousarray(logits_V).tobytes()).hexdigest(),
        },
        "made_by": provenance(),
        "seconds": round(seconds, 1),
        "peak_bytes": peak_bytes(),
    }


def _summary(x_D: np.ndarray) -> dict[str, Any]:
    wide_D = x_D.astype(np.float64)
    return {
        "rms": float(f"{np.sqrt(np.mean(wide_D**2)):.9g}"),
        "first": [float(f"{number:.9g}") for number in wide_D[:FIRST]],
    }


def peak_bytes() -> int | None:
    """Return the peak of this process's resident memory; None where the system does not say."""
    try:
        import resource  # noqa: PLC0415 - not everywhere
    except ModuleNotFoundError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def answer_text(answer: dict[str, Any]) -> str:
    """Return the text of a file of answers: a line for each tap."""
    text = json.dumps(answer, allow_nan=False)
    for mark in ('"taps": {', '"logits": {', '"made_by": {', '"highest":', '"sketch":'):
        text = text.replace(mark, f"\n{mark}")
    return text.replace('}, "L', '},\n "L') + "\n"


def read_answer(path: Path) -> dict[str, Any]:
    """Read a file of answers.

    Raises
    ------
    BadFile
        If it is none.
    """
    answer = read_json(path, limit=LIMIT)
    is_one = isinstance(answer, dict) and answer.get("format") == FORMAT
    if not is_one or not all(isinstance(answer.get(key), dict) for key in ("taps", "logits")):
        raise BadFile("known answers", expected=f"format {FORMAT}", found="none", file=path)
    numbers = answer["logits"].get("sketch")
    if not isinstance(numbers, list) or not all(type(n) in (int, float) for n in numbers):
        raise BadFile(
            "logits: sketch", expected="a list of numbers", found=shown(numbers), file=path
        )
    return answer


def check_question(known: dict[str, Any], name: str, ids: Sequence[int]) -> None:
    """Raise `BadRequest` if known answers are of another model or of other tokens."""
    for key, asked in (("model", name), ("ids", list(ids))):
        if known.get(key) != asked:
            raise BadRequest(key, expected=shown(known.get(key)), found=shown(asked))


def differences(known: dict[str, Any], found: dict[str, Any]) -> dict[str, float]:
    """Return the relative difference of each tap, in the order of the pass, and of the logits.

    Raises
    ------
    BadRequest
        If the two are not of the same model and tokens.
    """
    check_question(known, found["model"], found["ids"])
    errors = {}
    for tap, ours in found["taps"].items():
        errors[tap] = _difference(known["taps"].get(tap), ours)
    theirs, ours = (np.array(answer["logits"]["sketch"]) for answer in (known, found))
    sketched = sketched_error(ours, theirs) if ours.shape == theirs.shape else math.inf
    errors["logits"] = max(sketched, _difference(known["logits"], found["logits"]))
    return errors


def _difference(known: Any, found: dict[str, Any]) -> float:
    """Return by how much size or first numbers differ, in units of the size; inf if not known."""
    try:
        pairs = zip(known["first"], found["first"], strict=True)
        largest = max(abs(a - b) for a, b in pairs)
        error = max(abs(found["rms"] - known["rms"]), largest) / known["rms"]
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return math.inf
    return math.inf if math.isnan(error) else error
