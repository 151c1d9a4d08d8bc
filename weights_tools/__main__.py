"""`python -m weights_tools`: write a checkpoint folder, from the formula or from another folder.

Or validate the envelopes of golden bundles against other implementations.

Exit codes: 0 written, or passed · 1 an implementation fails · 2 cannot be done, and one line on
standard error says why · 130 interrupted.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from llama_ref.checkpoint import Checkpoint, open_synthetic
from llama_ref.checkpoint.pth import check_storages
from llama_ref.checkpoint.synthetic import VARIANTS
from llama_ref.cli.terminal import Progress, print_json, size
from llama_ref.config import Config, preset
from llama_ref.config.quantisation import Int4, as_released
from llama_ref.errors import BadRequest, LlamaRefError, printable
from llama_ref.golden.manifest import source_hash
from llama_ref.loading import open_checkpoint
from llama_ref.mapped import Identity
from llama_ref.numerics import BFLOAT16, dtype_named
from weights_tools import validate_golden
from weights_tools.gguf_file import write_gguf_file
from weights_tools.hf_folder import SHARD_BYTES, write_hf_folder
from weights_tools.meta_folder import write_meta_folder
from weights_tools.quantising import in_fp8, in_int4, in_meta_fp8
from weights_tools.raw_folder import write_raw_folder
from weights_tools.streams import Stream, streams
from weights_tools.tokenizer_files import COPIED, text_of

FORMATS: dict[str, tuple[Callable[..., None], str]] = {
    "hf": (write_hf_folder, "hf"),
    "meta": (write_meta_folder, "meta"),
    "gguf": (write_gguf_file, "gguf"),
    "raw": (write_raw_folder, "hf"),
}
"""By name: how it is written, and whose names and order of rows it has."""

QUANTISED = ("fp8", "fp8-meta", "int4", "int4-spinquant")
DTYPES = ("bfloat16", "float16", "float32")
CANNOT_RUN, INTERRUPTED = 2, 130
EXAMPLE = """\
formats:
  hf      config.json and *.safetensors
  meta    params.json and consolidated.00.pth, query and key rows in Meta's order
  gguf    one file for llama.cpp; OUT ends in .gguf
  raw     a file of bare numbers for each tensor, and index.json
The tokenizer goes along: its files as they are, and in the form that the new layout reads.

example:
  python -m weights_tools synthetic golden-tiny OUT --format raw --dtype float32
  python -m weights_tools synthetic llama-3.1-8b OUT --n-layers 4 --seed 7
  python -m weights_tools convert path/to/checkpoint OUT --format meta --shards 8
  python -m weights_tools convert path/to/checkpoint OUT.gguf --format gguf
  python -m weights_tools quantise path/to/checkpoint OUT --to fp8
  python -m weights_tools quantise path/to/checkpoint OUT --to fp8-meta --shards 8
  python -m weights_tools validate --device cuda"""


def main(argv: Sequence[str] | None = None) -> int:
    """Write one checkpoint, or validate; return the exit code. No error of ours is a traceback.

    Parameters
    ----------
    argv : sequence of str, optional
        The words after the program's name; by default those of this process.
    """
    try:
        options = _parser().parse_args(argv)
    except SystemExit as stop:  # how argparse leaves, after --help and after an error
        return int(stop.code or 0)
    try:
        if options.verb == "validate":
            return validate_golden.run(options)
        _write(options)
    except LlamaRefError as error:
        reason = str(error)
    except MemoryError:
        reason = "this needs more memory than there is"
    except OSError as error:  # nobody reads what is printed, or the disk behind it is full
        reason = f"cannot write: {error.strerror or error}"
    except KeyboardInterrupt:
        return INTERRUPTED
    else:
        return 0
    print(f"weights_tools: {printable(reason)}", file=sys.stderr)
    return CANNOT_RUN


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m weights_tools",
        description="Write a checkpoint folder, or validate golden bundles.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    formula = verbs.add_parser("synthetic", help="weights by a formula, of any published shape")
    formula.add_argument("source", metavar="NAME", help="a published blueprint: golden-tiny, …")
    formula.add_argument("--seed", type=int, default=0, help="0 to 2^32 - 1 (0)")
    formula.add_argument("--n-layers", type=int, metavar="N", help="shorten the model")
    formula.add_argument("--variant", choices=VARIANTS, default="plain")
    other = verbs.add_parser("convert", help="another checkpoint, with its tokenizer")
    other.add_argument(
        "source", metavar="PATH", help="folder in the HF or the Meta layout, or GGUF"
    )
    smaller = verbs.add_parser("quantise", help="another checkpoint with its matrices in 8 bits")
    smaller.add_argument("source", metavar="PATH", help="HF or Meta folder, GGUF, synthetic:NAME")
    kinds = "as released: 405B in fp8, HF or Meta layout; 1B and 3B in int4, rotated or not"
    smaller.add_argument("--to", choices=QUANTISED, default="fp8", help=f"{kinds} (fp8)")
    for verb in (formula, other, smaller):
        verb.add_argument("out", type=Path, metavar="OUT", help="folder, or file in .gguf")
        if verb is not smaller:
            verb.add_argument("--format", choices=FORMATS, default="hf", help="of the files (hf)")
        default = "bfloat16" if verb is formula else "as stored"
        verb.add_argument("--dtype", choices=DTYPES, help=f"of the numbers ({default})")
        verb.add_argument(
            "--shards", type=int, default=1, metavar="N", help="files of the Meta layout (1)"
        )
        verb.add_argument(
            "--shard-bytes", type=int, default=SHARD_BYTES, metavar="N", help="of the HF layout"
        )
        verb.add_argument(
            "--resume", action="store_true", help="go on after an interrupt, file by file"
        )
        verb.add_argument("--json", action="store_true", help="print one JSON object")
    validation = verbs.add_parser("validate", help="run other implementations on golden bundles")
    validate_golden.add_arguments(validation)
    return parser


def _write(options: argparse.Namespace) -> None:
    """Open the source, stream it into the folder, and say what was written."""
    checkpoint, config = _open(options)
    dtype = dtype_named(options.dtype) if options.dtype else None
    if dtype is None and not checkpoint.has_files:
        dtype = BFLOAT16
    if options.verb == "quantise":
        options.format = "hf" if options.to == "fp8" else "meta"
    _check_format(options)
    write, layout = FORMATS[options.format]
    stored = tensors = streams(checkpoint, config, layout, dtype)
    if options.verb == "quantise":
        tensors, stored, write = _quantised(tensors, config, options.to)
    text = text_of(checkpoint, config, options.format)
    how: dict[str, Any] = {"resume": _key(options, checkpoint, config) if options.resume else None}
    if options.format == "meta":
        how["shards"] = _at_least_1("--shards", options.shards)
    if options.format == "hf":
        how["shard_bytes"] = _at_least_1("--shard-bytes", options.shard_bytes)
    how |= {"vocabulary": text.entries} if options.format == "gguf" else {"beside": text.files}
    n_bytes = sum(stream.n_bytes for stream in stored)
    with Progress(f"writing {size(n_bytes)}", n_bytes) as progress:
        write(options.out, config, tensors, progress.advance, **how)
    written = {
        "path": str(options.out),
        "format": options.format,
        "model": config.name,
        "tensors": len(stored),
        "bytes": n_bytes,
        "dtypes": sorted({stream.dtype.name for stream in stored}),
        "text": text.report(),
    }
    if options.json:
        print_json(written)
    else:
        kinds = ", ".join(written["dtypes"])
        print(f"{printable(str(options.out))}: {len(stored)} tensors, {size(n_bytes)}, {kinds}")
        print(text.line())


def _quantised(
    tensors: list[Stream], config: Config, to: str
) -> tuple[list[Stream], list[Stream], Callable[..., None]]:
    """Return what is to be written, what then is stored, and by what it is written."""
    if to == "fp8":
        fp8 = as_released(config)
        stored = in_fp8(tensors, fp8)
        return stored, stored, partial(write_hf_folder, fp8=fp8)
    if to == "fp8-meta":  # each file quantises what it holds; what is stored is as of one
        matrices, scales = in_meta_fp8(tensors, config.n_layers, rank=0)
        return tensors, matrices + scales, partial(write_meta_folder, fp8=True)
    int4 = Int4(spinquant=to == "int4-spinquant")
    stored = in_int4(tensors, int4)
    return stored, stored, partial(write_meta_folder, int4=int4)


def _check_format(options: argparse.Namespace) -> None:
    """Refuse options that belong to another format than the one that is written."""
    for name, value, default, own in (
        ("--shards", options.shards, 1, "meta"),
        ("--shard-bytes", options.shard_bytes, SHARD_BYTES, "hf"),
        ("OUT", options.out.suffix == ".gguf", False, "gguf"),
    ):
        if value != default and options.format != own:
            raise BadRequest(name, expected=f"--format {own}", found=options.format)


def _at_least_1(name: str, value: int) -> int:
    if value < 1:
        raise BadRequest(name, expected="1 or more", found=value)
    return value


def _key(options: argparse.Namespace, checkpoint: Checkpoint, config: Config) -> str:
    """Return a name for this very conversion: of these files and this blueprint to this format."""
    asked = {key: str(value) for key, value in vars(options).items() if key not in ("json", "out")}
    folder = checkpoint.path if checkpoint.path.is_dir() else checkpoint.path.parent
    names = {name for files in checkpoint.files.values() for name in files}
    names |= {name for name in COPIED if (folder / name).exists()}
    states = [tuple(Identity.of((folder / name).stat())) for name in sorted(names)]
    return hashlib.sha256(
        json.dumps([asked, states, repr(config), source_hash()]).encode()
    ).hexdigest()[:16]


def _open(options: argparse.Namespace) -> tuple[Checkpoint, Config]:
    if options.verb in ("convert", "quantise"):
        checkpoint, config = open_checkpoint(options.source)
        if checkpoint.layout == "meta":
            for name in sorted({name for names in checkpoint.files.values() for name in names}):
                check_storages(checkpoint.path / name)
        return checkpoint, config
    config = preset(options.source)
    if options.n_layers is not None:
        config = replace(config, n_layers=options.n_layers)
    return open_synthetic(config, options.seed, options.variant), config


if __name__ == "__main__":
    sys.exit(main())
