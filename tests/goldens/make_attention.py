"""Compute the goldens of softmax and attention: torch, transformers, Meta's formulas, mpmath."""

from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from transformers.models.llama import modeling_llama

from llama_ref.golden.capture.hf_hooks import scaled_scores
from tests.goldens import witness
from tests.goldens.drawing import case, numbers
from tests.peers import torch_float64, torch_meta
from tests.peers.arrays import to_numpy, to_torch


def softmax_cases():
    cases = []

    def add(name, why, x, catches, flags=()):
        wide = torch.float64 if x.dtype == np.float64 else torch.float32
        y = to_numpy(F.softmax(to_torch(x), dim=-1, dtype=wide).to(to_torch(x).dtype))
        witness.confirm(y, witness.softmax(x), 1, name)
        cases.append(case(name, why, "softmax", {"x": x}, {"y": y}, catches, flags))

    wrong = ["first axis", "not normalised", "base 2"]
    add(
        "float32, square",
        "the last axis is the one that sums to 1",
        numbers((4, 4), "float32", 2),
        wrong,
    )
    hidden = numbers((3, 5), "float32", 2)
    hidden[0, 1:], hidden[1, 3:] = -np.inf, -np.inf
    why = "minus infinity is exactly 0, and a single entry left is 1"
    add("float32, hidden entries", why, hidden, wrong[1:])
    large = np.float32([[1e4, -1e4, 9999], [-1e4, -1e4, -1e4], [3e38, 0, -3e38]])
    why = "exp(10,000) overflows, so the largest score is subtracted first; equals share alike"
    add(
        "float32, scores of ten thousand and more",
        why,
        large,
        ["largest not subtracted"],
        ["range"],
    )
    for dtype in ("bfloat16", "float16"):
        why = "widened throughout, rounded once"
        add(dtype, why, numbers((4, 48), dtype, 2), ["computed in 16 bits", "first axis"])
    why = "float64 stays float64"
    add("float64", why, numbers((3, 6), "float64", 2), ["through float32"])
    rising = np.sort(numbers((2, 70), "float32", 2), axis=-1)
    add(
        "seventy rising entries, float32",
        "a row that needs several blocks, each with a larger maximum than the one before",
        rising,
        ["entries beyond a multiple of 64 left out", "blocks summed without rescaling"],
        ["odd-sizes"],
    )
    return cases


def peer(lineage, query, key, value):
    """Return scores, probabilities and mixture as the released code of a lineage computes them."""
    T, S = query.shape[0], key.shape[0]
    if query.dtype == np.float64:  # both released codes go through float32 for the softmax
        return [x[None] for x in torch_float64.attend(*map(to_torch, (query, key, value)))]
    heads = SimpleNamespace(num_key_value_groups=query.shape[1] // key.shape[1], training=False)
    query, key, value = (to_torch(x)[None] for x in (query, key, value))
    mask = torch_meta.causal_mask(T, S - T, query.dtype)
    if lineage == "meta":
        return torch_meta.attend(query, key, value, mask)
    by_head = (x.transpose(1, 2) for x in (query, key, value))
    with scaled_scores() as listener:
        ctx, probs = modeling_llama.eager_attention_forward(
            heads, *by_head, mask[None, None], query.shape[-1] ** -0.5
        )
    return listener.scores, probs, ctx


def attention_case(name, why, scaling, query, key, value, catches, flags=()):
    """Return a case whose arguments are given."""
    found = [to_numpy(x[0]) for x in peer(scaling, query, key, value)]
    for tap, one, true in zip("spc", found, witness.attention(query, key, value), strict=True):
        if tap == "s" or found[1].dtype.itemsize > 2:
            witness.confirm(one, true, 2, f"{name} {tap}")
    arguments = {"query_TNH": query, "key_SKH": key, "value_SKH": value, "scaling": scaling}
    results = dict(zip(("scores_NTS", "probs_NTS", "ctx_TNH"), found, strict=True))
    return case(name, why, "attention", arguments, results, catches, flags)


def attention_cases():
    cases = []

    def add(name, why, lineage, T, S, dtype, catches, scale=1.0, heads=(6, 2), H=6, flags=()):
        N, K = heads
        query = numbers((T, N, H), dtype, scale)
        key, value = numbers((S, K, H), dtype, seed=1), numbers((S, K, H), dtype, seed=2)
        cases.append(attention_case(name, why, lineage, query, key, value, catches, flags))

    scale = ["not scaled", "divided by H", "scaled by sqrt(N H)"]
    mask = ["sees everything", "sees the next", "does not see itself"]
    groups = ["key heads tiled", "heads and groups exchanged"]
    add(
        "six query heads on two key heads, float32",
        "query head n reads key head n // 3; scores are divided by sqrt(6); no look-ahead",
        "hf",
        4,
        4,
        "float32",
        [*scale, *mask, *groups],
    )
    add(
        "the last two of four positions, float32",
        "a chunk after a filled cache: query t sees positions 0 ... 2 + t",
        "meta",
        2,
        4,
        "float32",
        ["mask not moved by the cache", "sees the next", *groups],
    )
    add(
        "one query on a filled cache, float32",
        "generation: the single new query sees all",
        "hf",
        1,
        4,
        "float32",
        ["mask not moved by the cache", "does not see itself"],
    )
    for lineage in ("hf", "meta"):
        add(
            f"bfloat16, {lineage}",
            "scores are rounded after the product and again after the scaling, probabilities once "
            "after a float32 softmax, the mixture once",
            lineage,
            6,
            6,
            "bfloat16",
            ["rounded once at the end", "scaled before rounding", "softmax in 16 bits", *groups],
            2.0,
        )
    add(
        "float16, hf",
        "as in bfloat16",
        "hf",
        6,
        6,
        "float16",
        ["rounded once at the end", "scaled before rounding", "softmax in 16 bits"],
        2.0,
    )
    add("float64", "float64 stays float64", "meta", 3, 3, "float64", ["through float32"])
    add(
        "sixteen query heads on two key heads, after one in the cache, float32",
        "groups of eight, as in the large models",
        "hf",
        2,
        3,
        "float32",
        [*groups, "mask not moved by the cache", "scaled by sqrt(N H)"],
        heads=(16, 2),
        H=4,
    )
    add(
        "a key head for every query head, float32",
        "groups of one, as in Llama 2: nothing is shared",
        "meta",
        3,
        3,
        "float32",
        [*mask, "every head reads the first key head"],
        heads=(3, 3),
        H=4,
    )
    add(
        "one query on seventy positions, float32",
        "a kernel takes positions in blocks, of which the last is not full",
        "hf",
        1,
        70,
        "float32",
        ["positions beyond a multiple of 64 left out", "blocks summed without rescaling"],
        heads=(2, 1),
        H=4,
        flags=["odd-sizes"],
    )
    add(
        "scores of some hundreds, float32",
        "exp(100) is no float32, so the largest score is subtracted first",
        "meta",
        3,
        3,
        "float32",
        ["largest not subtracted"],
        scale=300.0,
        flags=["range"],
    )
    cases.append(
        attention_case(
            "a hidden score of 20,000, float32",
            "a mask hides, whatever the score; -10,000 added to it does not",
            "hf",
            np.float32([[[200, 0]], [[200, 0]]]),
            np.float32([[[-1, 1]], [[200, 1]]]),
            np.float32([[[1, 2]], [[3, 5]]]),
            ["mask of -10,000 added", "sees everything"],
            ["range"],
        )
    )
    return cases
