"""A GGUF file of the same weights, so that llama.cpp can run what the others run.

Needs the package `gguf`. Only weights and the numbers of the blueprint are written, no vocabulary:
the race feeds token ids. GGUF stores query and key rows interleaved, HF half-split.
"""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np

from llama_ref.config import Config
from llama_ref.loading import open_checkpoint
from llama_ref.names import LAYER_NAMES, OUTER_NAMES
from llama_ref.ops.rope_frequencies import rope_frequencies, stretched_frequencies
from llama_ref.weights import Weights, assemble


def write_gguf(folder: Path, path: Path, dtype: str = "float32") -> None:
    """Write the weights of an HF folder as one GGUF file: matrices in `dtype`, norms in float32.

    Parameters
    ----------
    folder : Path
    path : Path
        The file to write.
    dtype : {"float32", "bfloat16"}
        Of the matrices, which are rounded to it.
    """
    import gguf  # noqa: PLC0415  (a peer's package, needed here alone)

    checkpoint, config = open_checkpoint(folder)
    weights = assemble(checkpoint, config)
    writer = gguf.GGUFWriter(path, "llama", use_temp_file=False)
    _write_blueprint(writer, config)
    _write_tensors(writer, weights, config, dtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_blueprint(writer, config: Config) -> None:
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.context_length)
    writer.add_embedding_length(config.d_model)
    writer.add_block_count(config.n_layers)
    writer.add_feed_forward_length(config.d_ff)
    writer.add_head_count(config.n_heads)
    writer.add_head_count_kv(config.n_kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_tokenizer_model("no_vocab")


def _write_tensors(writer, weights: Weights, config: Config, dtype: str) -> None:
    from gguf import GGMLQuantizationType  # noqa: PLC0415

    def add(name: str, tensor) -> None:
        array, kind = np.ascontiguousarray(tensor, dtype=np.float32), None
        if dtype == "bfloat16" and array.ndim == 2:  # gguf takes what NumPy lacks as bytes
            array, kind = array.astype(ml_dtypes.bfloat16).view(np.uint8), GGMLQuantizationType.BF16
        writer.add_tensor(name, array, raw_dtype=kind)

    outer = OUTER_NAMES["gguf"]
    add(outer["embedding_VD"], weights.embedding_VD)
    if config.rope_scaling:
        frequency_P = rope_frequencies(
            config.head_dim, theta=config.rope_theta, dtype=np.dtype(np.float32)
        )
        slow_P = stretched_frequencies(frequency_P, **vars(config.rope_scaling))
        add("rope_freqs.weight", frequency_P / slow_P)
    for i, layer in enumerate(weights.layers):
        for field, name in LAYER_NAMES["gguf"].items():
            tensor = getattr(layer, field)
            if field in ("w_query_AD", "w_key_BD"):
                tensor = interleaved_rows(np.asarray(tensor), config.head_dim)
            add(name.format(i), tensor)
    add(outer["final_gain_D"], weights.final_gain_D)
    if not config.tied_embeddings:
        add(outer["w_head_VD"], weights.w_head_VD)


def interleaved_rows(weight_AD: np.ndarray, head_dim: int) -> np.ndarray:
    """Reorder the rows of a query or key matrix from half-split pairs to interleaved ones."""
    heads = weight_AD.reshape(-1, 2, head_dim // 2, weight_AD.shape[1])
    return heads.swapaxes(1, 2).reshape(weight_AD.shape)
