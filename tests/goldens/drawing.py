"""What every generated op case is made of: drawn numbers, and an entry of the file."""

import numpy as np

from llama_ref.numerics import dtype_named


def numbers(shape, dtype, scale=1.0, mean=0.0, seed=0):
    """Draw normal numbers of few decimals, so that the files stay small and readable."""
    drawn = mean + scale * np.random.default_rng(seed).standard_normal(shape)
    return np.round(drawn, 3).astype(dtype_named(dtype))


def case(name, why, function, arguments, results, catches=()):
    """Return an entry of `<op>.json`, arrays still arrays."""
    return {
        "name": name,
        "why": why,
        "function": function,
        "catches": list(catches),
        "arguments": arguments,
        "results": results,
    }
