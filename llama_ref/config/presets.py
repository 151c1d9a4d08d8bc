"""The published blueprints, by name.

Each says what the model's own `config.json` says, which for Llama Guard 3 1B is neither the factor
32 nor the tied embedding of the Llama 3.2 1B it was tuned from. `golden-tiny` is ours: a model
small enough for exhaustive checks that still has every feature (groups of heads, scaled RoPE).

Source: models/sku_list.py in meta-llama/llama-models; config.json of the meta-llama repositories on
Hugging Face.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from llama_ref.config.blueprint import Config, RopeScaling
from llama_ref.errors import BadRequest, shown

LLAMA3_VOCAB_SIZE = 128_256
LLAMA3_BOS = 128_000  # <|begin_of_text|>
LLAMA3_EOS = (128_001, 128_008, 128_009)  # <|end_of_text|>, <|eom_id|>, <|eot_id|>

FACTOR_8 = RopeScaling(8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=8192)
FACTOR_32 = replace(FACTOR_8, factor=32.0)


def _llama3(
    d_model: int,
    n_layers: int,
    n_heads: int,
    d_ff: int,
    rope_scaling: RopeScaling | None = None,
    *,
    tied_embeddings: bool = False,
) -> Config:
    """Return a Llama 3 of that shape; what all of them share is written here."""
    return Config(
        d_model=d_model,
        n_layers=n_layers,
        n_heads=n_heads,
        n_kv_heads=8,
        head_dim=d_model // n_heads,
        d_ff=d_ff,
        vocab_size=LLAMA3_VOCAB_SIZE,
        context_length=8192 if rope_scaling is None else 131_072,
        norm_eps=1e-5,
        rope_theta=500_000.0,
        rope_scaling=rope_scaling,
        tied_embeddings=tied_embeddings,
        bos_id=LLAMA3_BOS,
        eos_ids=LLAMA3_EOS,
    )


_8B = _llama3(4096, 32, 32, 14336)
_70B = _llama3(8192, 80, 64, 28672)
_8B_LONG = _llama3(4096, 32, 32, 14336, FACTOR_8)
_70B_LONG = _llama3(8192, 80, 64, 28672, FACTOR_8)
_TINY = Config(
    d_model=256,
    n_layers=4,
    n_heads=8,
    n_kv_heads=2,
    head_dim=32,
    d_ff=896,
    vocab_size=1024,
    context_length=131_072,
    norm_eps=1e-5,
    rope_theta=500_000.0,
    rope_scaling=FACTOR_8,
    tied_embeddings=False,
)

_SHAPES = {
    # 3.0 has no <|eom_id|>: id 128008 is a reserved token there.
    "llama-3-8b": replace(_8B, eos_ids=(128_001, 128_009)),
    "llama-3-70b": replace(_70B, eos_ids=(128_001, 128_009)),
    "llama-3.1-8b": _8B_LONG,
    "llama-3.1-70b": _70B_LONG,
    "llama-3.1-405b": _llama3(16384, 126, 128, 53248, FACTOR_8),
    "llama-3.2-1b": _llama3(2048, 16, 32, 8192, FACTOR_32, tied_embeddings=True),
    "llama-3.2-3b": _llama3(3072, 28, 24, 8192, FACTOR_32, tied_embeddings=True),
    "llama-3.3-70b": _70B_LONG,
    "llama-guard-3-8b": _8B_LONG,
    "llama-guard-3-1b": _llama3(2048, 16, 32, 8192, FACTOR_8),
    "golden-tiny": _TINY,
}

PRESETS: Mapping[str, Config] = MappingProxyType(
    {name: replace(config, name=name) for name, config in _SHAPES.items()}
)
"""Every published blueprint by name, and `golden-tiny`."""


def preset(name: str) -> Config:
    """Return the published blueprint of that name.

    Raises
    ------
    BadRequest
        No such preset; the message lists those there are.

    Examples
    --------
    >>> preset("llama-3.2-1b").n_params
    1235814400
    """
    if not isinstance(name, str) or name not in PRESETS:
        raise BadRequest("preset", expected="one of " + ", ".join(PRESETS), found=shown(name))
    return PRESETS[name]


def presets_shaped_like(config: Config) -> list[Config]:
    """Return the presets whose weights have the same shapes and RoPE the same base.

    The 16-device cut of 405B counts as 405B. An untied blueprint also matches tied presets, since a
    file may store one matrix twice; a tied one matches tied presets only.
    """
    found = [known for known in PRESETS.values() if _shape(known) == _shape(config)]
    return [known for known in found if known.tied_embeddings or not config.tied_embeddings]


def _shape(config: Config) -> tuple[float, ...]:
    return (
        config.d_model,
        config.n_layers,
        config.n_heads,
        8 if config.is_mp16 else config.n_kv_heads,
        config.head_dim,
        config.d_ff,
        config.vocab_size,
        config.rope_theta,
    )
