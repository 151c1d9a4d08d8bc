"""The port cut over ranks: each multiplies the channels it has with its columns of a matrix."""

import numpy as np

MISTAKES = ("all-reduce-missing", "all-reduce-twice", "output-columns-of-other-rank")


def ranks_of(cases, mistake):
    """Return over how many ranks cases are cut: two, if a mistake is to be made in their sum."""
    stated = max(case.n_ranks for case in cases)
    return 2 if stated == 1 and mistake in MISTAKES else stated


def parts_of(x, weight, n_ranks, mistake):
    """Yield what each rank computes."""
    width = x.shape[-1] // n_ranks
    for rank in range(n_ranks):
        own = slice(rank * width, (rank + 1) * width)
        of = (rank + 1) % n_ranks if mistake == "output-columns-of-other-rank" else rank
        yield x[..., own], weight[:, of * width : (of + 1) * width]


def reduced(parts, rounded, mistake):
    """Add up the parts, as each rank is to have them."""
    if mistake == "all-reduce-missing":
        return parts[-1]
    total = parts[0]
    for part in parts[1:]:
        total = rounded(total + part)
    times = len(parts) if mistake == "all-reduce-twice" else 1
    return rounded(total * np.float32(times))
