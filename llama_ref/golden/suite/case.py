"""One golden case of an op: arguments, what other implementations computed from them, and why.

The cases lie beside this file, `cases/<op>.json`, as text that any language reads: arrays are
`{"dtype": ..., "values": nested lists}`, empty ones have their `shape` as well, and minus infinity
is the text "-inf". torch and transformers computed the results, forty decimal digits of mpmath
confirmed them; nothing was computed by the ops of this library.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llama_ref.errors import BadRequest, CompareError, shown
from llama_ref.golden.suite.compare import disagreement
from llama_ref.golden.suite.implementation import Implementation, Problem
from llama_ref.numerics import dtype_named

FOLDER = Path(__file__).parent / "cases"

FUNCTIONS: dict[str, tuple[str, ...]] = {
    "embed": ("embed",),
    "rms_norm": ("rms_norm",),
    "linear": ("linear",),
    "rope_frequencies": ("rope_frequencies", "stretched_frequencies"),
    "rope": ("rope_table", "rope_interleaved", "rope_half_split"),
    "softmax": ("softmax",),
    "attention": ("attention",),
    "swiglu": ("swiglu",),
}
"""The functions of each op, in the order of a layer."""

FLAGS: dict[str, str] = {
    "float64": "the result is float64",
    "float32": "the result is float32",
    "bfloat16": "the result is bfloat16",
    "float16": "the result is float16",
    "16-bit": "the result is bfloat16 or float16",
    "mixed-dtypes": "a weight is stored in another dtype than the activations",
    "rounding-points": "rounded where the released codes round; a fused kernel may round elsewhere",
    "float32-angles": "RoPE angles are float32 products; more exact ones differ at far positions",
    "lineage-hf": "rounded as transformers does",
    "lineage-meta": "rounded as Meta's code does",
    "long-position": "a position of 8,192 or more",
    "one-token": "a single token, as in generation",
    "no-token": "an empty call",
    "cache": "more positions than new tokens",
    "grouped-heads": "several query heads share a key head",
    "odd-sizes": "sizes that no block or vector width divides",
    "range": "numbers so large or small that careless arithmetic overflows or divides by zero",
}
"""What a backend may leave out, with `flags_off`."""


@dataclass(frozen=True)
class OpCase:
    """One golden case.

    Attributes
    ----------
    op, name, why : str
        The op it belongs to, what it is called there, and what it is for.
    function : str
        Which function of the op it calls.
    arguments : dict
        Arrays, numbers and words, in the order of the signature.
    results : dict of str to ndarray
        What other implementations return. Those of `attention` include the steps before the last.
    catches : list of str
        Classic mistakes after which the results would be others.
    flags : list of str
        Of `FLAGS`.
    tolerance : {"largest", "each", "exact"}
        See `compare.py`.
    """

    op: str
    name: str
    why: str
    function: str
    arguments: dict[str, Any]
    results: dict[str, np.ndarray]
    catches: list[str]
    flags: list[str]
    tolerance: str

    def __str__(self) -> str:
        return f"{self.op}/{self.name}"

    @property
    def reason(self) -> str:
        """Why it exists and which classic mistakes it catches, for the end of a message."""
        said = f"this case exists because: {self.why}"
        if self.catches:
            said += f"; classic mistakes that it catches: {', '.join(self.catches)}"
        return said

    def find_problem(self, implementation: Implementation) -> Problem | None:
        """Run the case; return what is wrong, or None."""
        arguments = {
            key: dtype_named(value) if key == "dtype" else value
            for key, value in self.arguments.items()
        }
        # The scores and probabilities that attention computes on the way are not asked for.
        names = list(self.results)[-1:] if self.op == "attention" else list(self.results)
        try:
            found = implementation.call(self.function, arguments, names)
        except Problem as problem:
            return problem
        for name, array in zip(names, found, strict=True):
            text = disagreement(array, self.results[name], self.tolerance)
            if text:
                return Problem(f"{name} is wrong: {text}")
        return None

    def check(self, implementation: object) -> None:
        """Raise unless an implementation meets the case.

        Parameters
        ----------
        implementation : module, object or mapping of str to function
            What `llama_ref.golden.suite` describes.

        Raises
        ------
        CompareError
            With what is wrong, why the case exists, and the classic mistakes that it catches.
        """
        problem = self.find_problem(Implementation(implementation))
        if problem is not None:
            error = CompareError(f"{self}: {problem}", next_step=self.reason)
            raise error from problem.__cause__


def cases(ops: Collection[str] | None = None, flags_off: Collection[str] = ()) -> list[OpCase]:
    """Return the golden cases, in the order of a layer.

    Parameters
    ----------
    ops : collection of str, optional
        Ops (`rope`) or single functions (`rope_table`); all by default.
    flags_off : collection of str
        Cases with one of these flags are left out; `FLAGS` says what each means.

    Returns
    -------
    list of OpCase

    Raises
    ------
    BadRequest
        If there is no such op or flag.
    """
    known = {*FUNCTIONS, *(name for names in FUNCTIONS.values() for name in names)}
    _require_known("op", () if ops is None else ops, known)
    _require_known("flag", flags_off, FLAGS)
    return [
        case
        for op in FUNCTIONS
        for case in op_cases(op)
        if (ops is None or op in ops or case.function in ops) and not {*flags_off} & {*case.flags}
    ]


def op_cases(op: str) -> list[OpCase]:
    """Read the golden cases of one op."""
    stored = json.loads((FOLDER / f"{op}.json").read_text(encoding="utf-8"))
    return [
        OpCase(
            op=op,
            name=entry["name"],
            why=entry["why"],
            function=entry["function"],
            arguments={name: decoded(value) for name, value in entry["arguments"].items()},
            results={name: decoded(value) for name, value in entry["results"].items()},
            catches=entry["catches"],
            flags=entry["flags"],
            tolerance=entry["tolerance"],
        )
        for entry in stored["cases"]
    ]


def decoded(value: Any) -> Any:
    """Return the array that an entry stands for; anything else as it is."""
    if not isinstance(value, dict) or "values" not in value:
        return value
    values = np.array(value["values"], dtype=np.float64)  # "-inf" comes as text
    if "shape" in value:
        values = values.reshape(value["shape"])
    if value["dtype"] == "int64":
        return values.astype(np.int64)
    return values.astype(dtype_named(value["dtype"]))


def _require_known(what: str, asked: Collection[str], known: Collection[str]) -> None:
    if isinstance(asked, str):
        raise BadRequest(f"{what}s of the suite", expected="a list of names", found=shown(asked))
    for name in asked:
        if name not in known:
            raise BadRequest(
                f"{what} of the suite", expected=" or ".join(sorted(known)), found=shown(name)
            )
