"""Small models for tests, computed from names: real weights by formula, nothing on disk."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from llama_ref.checkpoint import synthetic
from llama_ref.checkpoint.stored import Checkpoint
from llama_ref.config import Config, RopeScaling
from llama_ref.lineage import lineage_named
from llama_ref.model import Model
from llama_ref.names import LAYER_NAMES, OUTER_NAMES
from llama_ref.numerics import dtype_named
from llama_ref.weights import assemble

# Every size is different from every other, so that no axis can stand in for another.
TINY = Config(
    d_model=24,
    n_layers=2,
    n_heads=6,
    n_kv_heads=3,
    head_dim=10,
    d_ff=44,
    vocab_size=97,
    context_length=131_072,
    norm_eps=1e-5,
    rope_theta=500_000.0,
    rope_scaling=RopeScaling(8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=8192),
    tied_embeddings=False,
)


def tiny_model(dtype="float32", lineage="hf", layout="hf", seed=0, **changes):
    """Return a model of the shape TINY, changed as asked."""
    config = replace(TINY, **changes)
    tensors = dict(synthetic.checkpoint(config, seed))
    if layout == "meta":
        tensors = {meta_name(name, config.n_layers): array for name, array in tensors.items()}
    files = dict.fromkeys(tensors, ("formula",))
    weights = assemble(Checkpoint(Path("synthetic"), layout, tensors, files), config)
    return Model(config, weights, lineage_named(lineage), dtype_named(dtype))


def meta_name(hf_name, n_layers):
    """Translate a stored name from the HF layout to Meta's."""
    pairs = {OUTER_NAMES["hf"][field]: OUTER_NAMES["meta"][field] for field in OUTER_NAMES["hf"]}
    for i in range(n_layers):
        for field, name in LAYER_NAMES["hf"].items():
            pairs[name.format(i)] = LAYER_NAMES["meta"][field].format(i)
    return pairs[hf_name]


def tiny_ids(n, seed=0):
    """Return n token ids for TINY."""
    return synthetic.token_ids(n, TINY.vocab_size, seed)


def largest_difference(a, b):
    """Return max |a - b| in units of the standard deviation of b."""
    return float(np.abs(a.astype(np.float64) - b).max() / np.std(b, dtype=np.float64))
