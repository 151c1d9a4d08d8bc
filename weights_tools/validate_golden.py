"""`python -m weights_tools validate`: whether envelopes and gates are right, on any device.

Implementations that had no part in making the envelope run the cases of golden bundles of several
shapes and seeds. Every tap of theirs has to pass. How near the nearest came to the gate is the
margin; the styles that did make the envelope show theirs by being left out of it in turn.

    transformers   float32 (with TF32 and without, on CUDA), bfloat16, float16;
                   eager attention, and fused by each kernel that torch has
    llama.cpp      with --llama-cpp: float32 and bfloat16 matrices, float32 and float16 cache
"""

from __future__ import annotations

import argparse
import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from llama_ref.checkpoint import open_synthetic
from llama_ref.checkpoint.write import write_safetensors
from llama_ref.cli.terminal import Progress, print_json, print_lines, table
from llama_ref.golden import Bundle, check, make
from llama_ref.numerics import BFLOAT16
from weights_tools.hf_folder import write_hf_folder
from weights_tools.streams import streams
from weights_tools.validate_peers import Peer, llama_cpp_peers, transformers_peers
from weights_tools.validate_styles import left_out
from weights_tools.validate_tally import Tally

MODEL = "golden-tiny"
QUICK = "five,decode,gqa-8,unscaled"
SEEDS = 3
VERSIONED = ("llama_ref", "numpy", "torch", "transformers", "llama_cpp_python")
HEADER = ("implementation", "class", "taps", "failed", "warned", "local", "", "cumulative", "")
ALIGN = "<<>>>><><"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument("--device", default="cpu", help="as torch names it: cpu, cuda, mps (cpu)")
    parser.add_argument("--seeds", type=int, default=SEEDS, metavar="N", help=f"how many ({SEEDS})")
    parser.add_argument("--cases", default="all", help="names with commas, or shapes, or all (all)")
    parser.add_argument("--quick", action="store_true", help="one seed, four cases: half a minute")
    parser.add_argument("--llama-cpp", action="store_true", help="run llama.cpp as well")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> int:
    """Run all peers, print the tables; return 0 if everything passed, and 1 if not.

    Raises
    ------
    Unsupported
        If a peer is not installed.
    BadRequest
        If torch has no such device here.
    """
    peers = transformers_peers(options.device)
    peers += llama_cpp_peers() if options.llama_cpp else []
    seeds = range(1 if options.quick else max(1, options.seeds))
    cases = (QUICK if options.quick else options.cases).split(",")
    tallies = {peer.name: Tally(peer.name, peer.precision) for peer in peers}
    with TemporaryDirectory() as root, Progress("validating") as progress:
        bundles = []
        for seed in seeds:
            bundles.append(make(MODEL, Path(root) / f"bundle-{seed}", cases=cases, seed=seed))
            run_peers(peers, bundles[-1], Path(root), seed, tallies)
            progress.advance(sum(len(case.ids) for case in bundles[-1].cases))
        jobs = [(b.manifest.models[case.model], case) for b in bundles for case in b.cases]
        styles = left_out(jobs, progress.advance)
    found = list(tallies.values())
    _print(found, styles, options)
    return int(any(tally.n_failed for tally in found))


def run_peers(
    peers: Sequence[Peer], bundle: Bundle, root: Path, seed: int, tallies: dict[str, Tally]
) -> None:
    """Run every peer on the cases of one bundle, check what it gives, and add it up."""
    folders = write_models(bundle, root / f"models-{seed}")
    candidate = root / "candidate.safetensors"
    for peer in peers:
        write_safetensors(candidate, run_bundle(peer, bundle, folders))
        report = check(bundle, candidate, dtype=peer.precision)
        tallies[peer.name].add_report(report, seed)


def write_models(bundle: Bundle, root: Path) -> dict[str, Path]:
    """Write the models of a bundle as checkpoint folders, which any peer opens; return where."""
    folders = {}
    for name, spec in bundle.manifest.models.items():
        folders[name] = root / name
        checkpoint = open_synthetic(spec.config, spec.seed, spec.variant)
        tensors = streams(checkpoint, spec.config, "hf", BFLOAT16)  # exact: so are the weights
        write_hf_folder(folders[name], spec.config, tensors, lambda n: None)
    return folders


def run_bundle(peer: Peer, bundle: Bundle, folders: dict[str, Path]) -> dict[str, np.ndarray]:
    """Run all cases of a bundle; return the taps as `case/tap`."""
    taps: dict[str, np.ndarray] = {}
    for name, folder in folders.items():
        taps |= peer.run(folder, [case for case in bundle.cases if case.model == name])
    return taps


def versions(device: str) -> dict[str, str]:
    """Return the versions of what ran, and the name of the device."""
    import torch  # noqa: PLC0415  (only here)

    found = {}
    for name in VERSIONED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    is_cuda = device.startswith("cuda")
    return found | {"device": torch.cuda.get_device_name(device) if is_cuda else device}


def _print(peers: list[Tally], styles: list[Tally], options: argparse.Namespace) -> None:
    used = versions(options.device)
    if options.json:
        parts: dict[str, Any] = {"versions": used}
        parts["peers"] = [tally.as_dict() for tally in peers]
        parts["left_out"] = [tally.as_dict() for tally in styles]
        print_json(parts)
        return
    print(", ".join(f"{name} {version}" for name, version in used.items()))
    print("\nImplementations that had no part in the envelope; 2 is warned about, 3 fails")
    print_lines(table([HEADER, *map(_row, peers)], ALIGN), "  ")
    print("\nLegal styles, each judged by the others of its class alone")
    short = [(*row[:2], *row[5:]) for row in [HEADER, *map(_row, styles)]]
    print_lines(table(short, "<<><><"), "  ")


def _row(tally: Tally) -> tuple[str, ...]:
    """Return the cells of a tally."""
    worst = [
        part for rho, where in (tally.local, tally.cumulative) for part in (f"{rho:.2f}", where)
    ]
    counts = (f"{n:,}" for n in (tally.n_taps, tally.n_failed, tally.n_warned))
    return (tally.name, tally.precision, *counts, *worst)
