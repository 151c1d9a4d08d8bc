"""A blueprint in words: the sizes of a `Config` as labelled lines, for terminals and notebooks.

Gigabytes (GB) are powers of ten, as model cards use them; GiB are powers of two, as memory is sold.
"""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from llama_ref.errors import printable

if TYPE_CHECKING:
    from llama_ref.config.blueprint import Config

STORAGE_BITS = {"16 bits": 16, "FP8": 8, "INT4": 4}


def title(config: Config) -> str:
    """Return the name and the parameter count in one line."""
    return f"{printable(config.name) or 'Config'}: {config.n_params:,} parameters"


def facts(config: Config) -> list[tuple[str, str]]:
    """Return what follows from a blueprint as (label, text) rows."""
    rows = [
        ("shape", _shape(config)),
        ("RoPE", _rope(config)),
        ("weights", _weights(config)),
        ("cache", _cache(config)),
        ("compute", _compute(config)),
    ]
    if config.tied_embeddings:
        rows.append(("tied", "the output matrix is the embedding, stored and counted once"))
    if config.is_mp16:
        rows.append(("variant", "MP16: 405B cut for 16 devices, each of its 8 KV heads twice"))
    return rows


def html_table(caption: str, rows: list[tuple[str, str]]) -> str:
    """Return rows as an HTML table without colours of its own, so dark pages stay dark."""
    cell = 'style="text-align: left; padding: 0.1em 1em 0.1em 0"'
    body = "".join(
        f"<tr><th {cell}>{html.escape(label)}</th><td {cell}>{html.escape(text)}</td></tr>"
        for label, text in rows
    )
    head = f'<caption style="text-align: left; color: inherit">{html.escape(caption)}</caption>'
    return f'<table style="border-collapse: collapse">{head}<tbody>{body}</tbody></table>'


def _shape(config: Config) -> str:
    return (
        f"D {config.d_model} · L {config.n_layers} · N {config.n_heads} · K {config.n_kv_heads} · "
        f"G {config.group_size} · H {config.head_dim} · F {config.d_ff} · V {config.vocab_size}"
    )


def _rope(config: Config) -> str:
    theta, scaling = f"theta {config.rope_theta:,}".removesuffix(".0"), config.rope_scaling
    if scaling is None:
        return f"{theta}; not scaled"
    return (
        f"{theta}; slow pairs {scaling.factor:g} times slower, "
        f"first trained on {scaling.original_context:,} positions"
    )


def _weights(config: Config) -> str:
    sizes = [
        f"{_scaled(config.stored_bytes(bits))}B in {name}" for name, bits in STORAGE_BITS.items()
    ]
    return " · ".join(sizes) + ", scales not counted"


def _cache(config: Config) -> str:
    per_token = config.kv_bytes_per_token()
    full = per_token * config.context_length
    return (
        f"{per_token:,} bytes per token in 16 bits · {_scaled(full)}B "
        f"({_scaled(full, step=1024)}iB) for {config.context_length:,} tokens"
    )


def _compute(config: Config) -> str:
    fixed = config.flops_per_token()
    attended = config.flops_per_token(context=1) - fixed
    return (
        f"{_scaled(fixed)}FLOP per token + {_scaled(attended)}FLOP per position attended, "
        "matrices only"
    )


def _scaled(number: float, step: int = 1000) -> str:
    """Write a count with one decimal and the largest prefix, up to giga, that it fills.

    Examples
    --------
    >>> _scaled(811_706_777_600), _scaled(67_645_734_912, step=1024), _scaled(640)
    ('811.7 G', '63.0 G', '0.6 k')
    """
    power = max(p for p in (1, 2, 3) if p == 1 or number >= step**p)
    prefix = (" kMG" if step == 1000 else " KMG")[power]
    return f"{number / step**power:.1f} {prefix}"
