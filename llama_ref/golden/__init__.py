"""Golden outputs: make them, check a backend against them, say which operation is wrong and why.

    lr.golden.make("golden-tiny", "golden")            a folder with the truth and what is legal
    report = lr.golden.check("golden", "mine.safetensors")

What a bundle is, in the order in which it comes about:

    cases.py                    the tokens to run, each case for a reason
    taps.py  pairing.py         what is looked at: names, axes, pairs of channels
    passes.py                   one forward pass in which any tap can be replaced
    grids.py  styles.py  summing.py                                 the legal ways to round
    replay.py  measure.py       each step from a candidate's own numbers; how far it is off
    envelope.py  logits.py      how far off legal rounding is
    models.py  sketch.py  manifest.py  manifest_reading.py  bundle.py
    making.py  placing.py       on disk

and what a check does with it:

    candidate/                  a backend's dump, its names and layouts matched to taps
    precision.py  judging.py    errors in units of legal rounding, and the gates
    case_check.py  checking.py  every tap of every case
    mistake.py  mistakes/       the known ways in which ports go wrong
    trying.py  noise.py  explaining.py  diagnosis.py                which of them it is
    report.py  words.py  rendering/                                 what came out

    suite/                      single ops, with the implementation as a parameter
    capture/                    dumps of transformers and llama.cpp
"""

from typing import TYPE_CHECKING

from llama_ref.lazy import names_of

_HOMES = {
    "Bundle": "llama_ref.golden.bundle",
    "Case": "llama_ref.golden.cases",
    "MISTAKES": "llama_ref.golden.mistakes",
    "Report": "llama_ref.golden.report",
    "capture": "llama_ref.golden.capture",
    "case_names": "llama_ref.golden.making",
    "check": "llama_ref.golden.checking",
    "make": "llama_ref.golden.making",
    "suite": "llama_ref.golden.suite",
}
__getattr__ = names_of(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


if TYPE_CHECKING:
    from llama_ref.golden import capture as capture
    from llama_ref.golden import suite as suite
    from llama_ref.golden.bundle import Bundle as Bundle
    from llama_ref.golden.cases import Case as Case
    from llama_ref.golden.checking import check as check
    from llama_ref.golden.making import case_names as case_names
    from llama_ref.golden.making import make as make
    from llama_ref.golden.mistakes import MISTAKES as MISTAKES
    from llama_ref.golden.report import Report as Report
