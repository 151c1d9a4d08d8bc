"""The shapes of Llama that matter, each as small as it can be: what the peers are compared on."""

from dataclasses import replace

from llama_ref.config.presets import FACTOR_8, FACTOR_32
from tests.models import TINY

# Synthetic weights spread the scores over several units, so a bug in any of these shows.
SHAPES = {
    "every size different, H = 10, factor 8": TINY,
    "one query head per key head, no scaling, theta 10,000": replace(
        TINY,
        d_model=32,
        n_heads=4,
        n_kv_heads=4,
        head_dim=8,
        d_ff=88,
        rope_theta=10_000.0,
        rope_scaling=None,
        norm_eps=1e-6,
        context_length=131_072,
    ),
    "groups of 4, N H beside D, factor 8": replace(
        TINY, d_model=48, n_heads=8, n_kv_heads=2, head_dim=16, d_ff=128, rope_scaling=FACTOR_8
    ),
    "groups of 8, tied, factor 32": replace(
        TINY,
        d_model=64,
        n_heads=16,
        n_kv_heads=2,
        head_dim=4,
        d_ff=172,
        tied_embeddings=True,
        rope_scaling=FACTOR_32,
    ),
    "a single key head": replace(TINY, d_model=40, n_heads=5, n_kv_heads=1, head_dim=8, d_ff=104),
    "odd vocabulary and odd F": replace(TINY, vocab_size=331, d_ff=107),
    "heads as wide as those of 8B": replace(
        TINY, d_model=256, n_heads=4, n_kv_heads=1, head_dim=128, d_ff=896
    ),
    "24 layers": replace(
        TINY, d_model=128, n_layers=24, n_heads=8, n_kv_heads=2, head_dim=16, d_ff=352
    ),
}
