"""`llama-ref golden answer`: known answers of a model of any size, made or compared with."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from llama_ref import mpi
from llama_ref.checkpoint.staging import write_text
from llama_ref.checkpoint.synthetic import token_ids
from llama_ref.checkpoint.synthetic_model import is_synthetic
from llama_ref.cli.model_options import PassProgress
from llama_ref.cli.terminal import (
    Paint,
    Progress,
    label,
    print_json,
    print_lines,
    seconds,
    size,
    table,
)
from llama_ref.config import PRESETS
from llama_ref.errors import BadRequest
from llama_ref.golden.answer import (
    TOLERANCE,
    answer_text,
    check_question,
    differences,
    make_answer,
    read_answer,
)
from llama_ref.golden.models import name_of
from llama_ref.loading import load


def answer_or_compare(path: Path, options: argparse.Namespace) -> int:
    """Run the model; write the file, or compare with the one that is there."""
    known = read_answer(path) if os.path.lexists(path) else None
    if not 1 <= options.tokens <= 2**16:
        raise BadRequest("--tokens", expected="1 to 65,536", found=options.tokens)
    source = f"synthetic:{options.model}" if options.model in PRESETS else options.model
    name = str(source) if is_synthetic(source) else name_of(source)
    if options.dtype:
        raise BadRequest("--dtype", expected="none: an answer is of float32", found=options.dtype)
    with Progress("opening the checkpoint"):
        model = mpi.shared(load(source, memory=options.memory, tokenizer=False))
    model.watch = PassProgress.of(model)
    if known is not None:  # before the pass, which may take a quarter of an hour
        ids = token_ids(options.tokens, model.config.vocab_size, options.seed)
        check_question(known, name, ids.tolist())
    elif not path.absolute().parent.is_dir():
        raise BadRequest("file to write", expected="in a folder that exists", file=path)
    found = make_answer(model, name, options.tokens, options.seed)
    if mpi.rank():  # the first speaks
        return 0
    if known is not None:
        return _compare(known, found, options)
    write_text(path, answer_text(found))
    if options.json:
        print_json(found)
        return 0
    best, logit = found["logits"]["highest"][0]
    took = f"{seconds(found['seconds'])}, {size(found['peak_bytes'] or 0)} of memory at the peak"
    print(f"{label(str(path))}: {len(found['taps'])} taps; highest logit {logit:.6g}, id {best}")
    print(f"  {took}")
    return 0


def _compare(known: dict, found: dict, options: argparse.Namespace) -> int:
    """Say at which layer the numbers part, if they do."""
    errors = differences(known, found)
    wrong = [tap for tap, error in errors.items() if not error <= TOLERANCE]
    same_bits = known["logits"].get("sha256") == found["logits"]["sha256"]
    if options.json:
        said = {tap: error if error < float("inf") else None for tap, error in errors.items()}
        first = wrong[0] if wrong else None
        print_json({"first": first, "same_bits": same_bits, "differences": said})
        return 1 if wrong else 0
    paint = Paint(sys.stdout)
    if not wrong:
        worst = max(errors.values())
        bits = "the logits bit for bit" if same_bits else f"to {worst:.1e} of their size"
        print(f"{paint('green', 'the same')}: {len(errors)} taps, {bits}")
        return 0
    print(f"{paint('red', 'not the same')} from {wrong[0]} on:")
    names = list(errors)
    around = names[max(0, names.index(wrong[0]) - 2) :][:6]
    print_lines(table([(tap, f"{errors[tap]:.1e}") for tap in around], "<>"), indent="  ")
    return 1
