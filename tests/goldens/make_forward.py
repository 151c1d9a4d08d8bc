"""Compute the goldens of whole passes: transformers in lineage hf, Meta's formulas in meta."""

from dataclasses import asdict

from llama_ref.checkpoint import synthetic
from tests.goldens.stored import some_rows
from tests.models import TINY, meta_name
from tests.peers.hf_peer import hf_model, hf_trace
from tests.peers.torch_meta import MetaPeer
from tests.shapes import SHAPES

FAR = [0, 1, 257, 4095, 8191, 60_000, 60_001, 100_003, 131_071]
FAR_WHY = "sparse positions up to the last: wrong frequencies hide among the first thousand"
IN_16_BITS = [
    "norm gain before the rounding",
    "rotation in the other lineage's precision",
    "positions in bfloat16",
    "scores rounded once",
]
CASES = [
    *(
        {
            "name": f"{name}, float32",
            "why": f"transformers in float32 eager on the shape: {name}",
            "shape": name,
            "taps": "logits" if config.n_layers > 2 else "all, last token",
        }
        for name, config in SHAPES.items()
        if config.d_model < 256
    ),
    {
        "name": "far positions, float32",
        "why": FAR_WHY,
        "catches": ["not stretched", "factor 32", "positions from 1 on keys alone"],
        "shape": "groups of 4, N H beside D, factor 8",
        "positions": FAR,
        "bound": 1e-4,  # float32 angles this large are themselves off by up to 4e-3 radians
        "taps": "all, last token",
    },
    {
        "name": "far positions, Meta, float32",
        "why": "pairs of neighbouring channels, in the layout of Meta's files; " + FAR_WHY,
        "catches": ["half-split pairing"],
        "lineage": "meta",
        "positions": FAR,
        "bound": 1e-4,
        "taps": "all, last token",
    },
    {
        "name": "far positions, bfloat16",
        "why": "every rounding point of transformers, step by step",
        "catches": IN_16_BITS,
        "dtype": "bfloat16",
        "positions": FAR,
        "taps": "all",
    },
    {
        "name": "far positions, Meta, bfloat16",
        "why": "every rounding point of Meta's code, step by step",
        "catches": [*IN_16_BITS, "logits left in bfloat16"],
        "lineage": "meta",
        "dtype": "bfloat16",
        "positions": FAR,
        "taps": "all",
    },
]
USUAL = {
    "lineage": "hf",
    "dtype": "float32",
    "seed": 0,
    "positions": None,
    "bound": 2e-5,
    "catches": [],
}


def forward_goldens():
    """Return what `forward.json` states about each case, and its arrays by `case/tap`."""
    stated, tensors = [], {}
    for index, case in enumerate(CASES):
        entry = USUAL | case
        config = SHAPES[entry.pop("shape")] if "shape" in entry else TINY
        ids = synthetic.token_ids(len(FAR), config.vocab_size, entry["seed"]).tolist()
        peer = peer_trace(config, ids, entry)
        entry["rows"] = [len(ids) - 1] if entry["taps"] == "all, last token" else None
        if entry["taps"] == "logits":
            peer = {"logits": peer["logits"]}
        tensors |= {f"{index}/{tap}": some_rows(tap, a, entry["rows"]) for tap, a in peer.items()}
        stated.append({**entry, "ids": ids, "config": asdict(config)})
    return stated, tensors


def peer_trace(config, ids, entry):
    """Run the peer of this lineage with the synthetic weights of this seed."""
    weights = dict(synthetic.checkpoint(config, entry["seed"]))
    if entry["lineage"] == "hf":
        return hf_trace(hf_model(config, weights, entry["dtype"]), ids, entry["positions"])
    renamed = {meta_name(name, config.n_layers): array for name, array in weights.items()}
    return MetaPeer(config, renamed, entry["dtype"]).trace(ids, entry["positions"])
