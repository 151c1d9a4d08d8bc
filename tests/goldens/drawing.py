"""What every generated op case is made of: drawn numbers, and an entry of the file."""

import numpy as np

from llama_ref.numerics import dtype_named

ROUNDS_ELSEWHERE = {  # legal in a fused kernel, though not what the released codes do
    "rounded once",
    "rounded once at the end",
    "scaled before rounding",
    "gain before rounding",
    "gain not rounded",
    "weight not rounded",
    "table rounded",
}


def numbers(shape, dtype, scale=1.0, mean=0.0, seed=0):
    """Draw normal numbers of few decimals, so that the files stay small and readable."""
    drawn = mean + scale * np.random.default_rng(seed).standard_normal(shape)
    return np.round(drawn, 3).astype(dtype_named(dtype))


def case(name, why, function, arguments, results, catches=(), flags=(), tolerance="largest"):
    """Return an entry of `<op>.json`, arrays still arrays; what flags can be told are added."""
    derived = flags_of(function, arguments, list(results.values())[-1], catches)
    return {
        "name": name,
        "why": why,
        "function": function,
        "catches": list(catches),
        "flags": list(dict.fromkeys([*derived, *flags])),
        "tolerance": tolerance,
        "arguments": arguments,
        "results": results,
    }


def flags_of(function, arguments, result, catches):
    """Yield the flags that follow from what a case is made of."""
    is_16_bits = result.dtype.itemsize == 2
    yield result.dtype.name
    if is_16_bits:
        yield "16-bit"
    if is_16_bits and ROUNDS_ELSEWHERE & set(catches):
        yield "rounding-points"
    stored = arguments.get("weight_FD", arguments.get("gain_D", arguments.get("table_VD", result)))
    if stored.dtype != result.dtype:
        yield "mixed-dtypes"
    if "scaling" in arguments:
        yield "lineage-" + arguments["scaling"]
    if is_16_bits and function in ("rope_half_split", "rope_interleaved"):
        yield "lineage-hf" if function == "rope_half_split" else "lineage-meta"
    if "position_T" in arguments and arguments["position_T"].max() >= 8192:
        yield "long-position"
    yield from sizes_of(arguments)


def sizes_of(arguments):
    """Yield the flags that follow from shapes."""
    arrays = [value for value in arguments.values() if isinstance(value, np.ndarray)]
    if arrays and not arrays[0].size:
        yield "no-token"
    if arrays and len(arrays) > 1 and len(arrays[0]) == 1:
        yield "one-token"
    if "key_SKH" in arguments:
        (T, N, _), (S, K, _) = arguments["query_TNH"].shape, arguments["key_SKH"].shape
        if S > T:
            yield "cache"
        if N > K:
            yield "grouped-heads"
