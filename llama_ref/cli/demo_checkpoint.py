"""A checkpoint small enough to write in a moment, with everything in it that Llama 3.1 has.

Grouped queries, stretched RoPE, bfloat16 weights in several shards behind an index, and a rank file
for a tokenizer. Only the sizes are small, and the weights untrained: they come from a formula
(`checkpoint.synthetic`), so that every machine writes the same bytes.
"""

from __future__ import annotations

import os
from base64 import b64encode
from pathlib import Path

from llama_ref.checkpoint.staging import writing
from llama_ref.checkpoint.synthetic import checkpoint
from llama_ref.checkpoint.write import write_hf
from llama_ref.config.hf import parse_hf_config
from llama_ref.numerics import BFLOAT16, round_to
from llama_ref.tokenizer.special_tokens import N_SPECIAL

N_RANKS = 256
SHARD_BYTES = 120_000
SEED = 5

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 176,
    "vocab_size": N_RANKS + N_SPECIAL,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-05,
    "rope_theta": 500000.0,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": False,
    "bos_token_id": N_RANKS,
    "eos_token_id": [N_RANKS + 1, N_RANKS + 8, N_RANKS + 9],
    "torch_dtype": "bfloat16",
}


def write_demo(folder: str | os.PathLike[str]) -> None:
    """Write the small checkpoint and its tokenizer into a folder.

    Raises
    ------
    BadRequest
        If the folder holds a checkpoint already.
    BadFile
        If it cannot be written.
    """
    config = parse_hf_config(CONFIG, file="config.json")
    tensors = ((name, round_to(array, BFLOAT16)) for name, array in checkpoint(config, SEED))
    write_hf(folder, CONFIG, tensors, shard_bytes=SHARD_BYTES)
    path = Path(folder) / "tokenizer.model"
    with writing(path):
        path.write_bytes(_ranks_of_single_bytes())


def _ranks_of_single_bytes() -> bytes:
    """Return a rank file in which each byte is a token and nothing ever merges."""
    lines = (b64encode(bytes([byte])) + b" %d\n" % byte for byte in range(N_RANKS))
    return b"".join(lines)
