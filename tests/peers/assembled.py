"""Models of ours and of the peers, made from the same arrays."""

from pathlib import Path

import numpy as np

from llama_ref.checkpoint import synthetic
from llama_ref.checkpoint.stored import Checkpoint
from llama_ref.lineage import lineage_named
from llama_ref.model import Model
from llama_ref.numerics import dtype_named
from llama_ref.weights import assemble
from tests.models import meta_name


def weights_of(config, seed=0, grain=0.0):
    """Return synthetic weights by HF name.

    They are exact in 16 bits. A `grain` above zero spoils that, so that whoever loads them into 16
    bits has to round.
    """
    rng = np.random.default_rng(seed)
    return {
        name: (array * (1 + grain * rng.standard_normal(array.shape))).astype(np.float32)
        for name, array in synthetic.checkpoint(config, seed)
    }


def under_meta_names(config, tensors):
    """Rename only: queries and keys then count as stored in Meta's interleaved order."""
    return {meta_name(name, config.n_layers): array for name, array in tensors.items()}


def our_model(config, tensors, dtype="float32", lineage="hf"):
    """Return our model of these weights, named and laid out as in files of the lineage."""
    if lineage == "meta":
        tensors = under_meta_names(config, tensors)
    files = dict.fromkeys(tensors, ("memory",))
    weights = assemble(Checkpoint(Path("memory"), lineage, tensors, files), config)
    return Model(config, weights, lineage_named(lineage), dtype_named(dtype))
