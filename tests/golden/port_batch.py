"""From cases to a left-padded batch that is fed call by call, and back from its taps to cases.

A token is known by its index in its own sequence; the padding in front has negative indices.
"""

from dataclasses import dataclass

import numpy as np

from tests.golden.port_arithmetic import FORMATS

PAD_ID = 0


@dataclass
class Call:
    """What is fed at once: arrays of (batch, tokens), and of each sequence the first new token."""

    ids: np.ndarray
    index: np.ndarray
    position: np.ndarray
    first: np.ndarray


def calls(cases, vocab_size, mistake):
    """Pad cases on the left to one width and cut them into the calls in which they are fed."""
    width = max(len(case.ids) + case.padding for case in cases)
    padding = np.array([width - len(case.ids) for case in cases])
    sizes = {
        (pad + case.chunks[0], *case.chunks[1:]) for pad, case in zip(padding, cases, strict=True)
    }
    if len(sizes) > 1:
        raise ValueError(f"cases of one batch are fed in the same calls, not in {sizes}")
    index = np.arange(width) - padding[:, None]
    ids = np.stack([_padded(_rows_to_look_up(c, vocab_size, mistake), width) for c in cases])
    position = np.stack([_padded(_positions(c, width, mistake), width) for c in cases])
    ends = np.cumsum(sizes.pop())
    starts = [0, *ends[:-1]]
    return [
        Call(ids[:, lo:hi], index[:, lo:hi], position[:, lo:hi], np.maximum(lo - padding, 0))
        for lo, hi in zip(starts, ends, strict=True)
    ]


def _padded(row, width):
    return np.pad(row, (width - len(row), 0), constant_values=PAD_ID)


def _rows_to_look_up(case, vocab_size, mistake):
    ids = np.array(case.ids)
    match mistake:
        case "embedding-next-row":
            return (ids + 1) % vocab_size
        case "embedding-of-previous-token":
            return np.array([0, *ids[:-1]])
    return ids


def _positions(case, width, mistake):
    """Return the position that RoPE turns each token to."""
    position, token = np.array(case.positions), np.arange(len(case.ids))
    match mistake:
        case "rope-position-plus-one":
            return position + 1
        case "rope-position-plus-one-behind-cache":
            return np.where(token < case.chunks[0], position, position + 1)
        case "rope-restarts-in-each-chunk":
            return token - np.repeat(np.cumsum([0, *case.chunks[:-1]]), case.chunks)
        case "rope-positions-consecutive":
            return token
        case "rope-positions-count-padding":
            return position + width - len(case.ids)
    return position


class Taps:
    """The taps of every case, filled call by call: each row, and each column, at its index."""

    def __init__(self, cases, dtype):
        self.cases, self.dtype = cases, dtype
        self.found = {case.name: {} for case in cases}

    def rows(self, name, index, array):
        """Keep (batch, tokens, ...)."""
        for own, case, one in zip(index, self.cases, array, strict=True):
            taps, shape = self.found[case.name], (len(case.ids), *one.shape[1:])
            whole = taps.setdefault(name, np.zeros(shape, FORMATS[self.dtype]))
            whole[own[own >= 0]] = one[own >= 0]

    def heads(self, name, index, array):
        """Keep (batch, heads, tokens, width) as tokens, heads, width."""
        self.rows(name, index, array.transpose(0, 2, 1, 3))

    def maps(self, name, index, key_index, array, dtype):
        """Keep (batch, heads, queries, keys); what a call did not look at is 0."""
        for own, other, case, one in zip(index, key_index, self.cases, array, strict=True):
            taps, n_tokens = self.found[case.name], len(case.ids)
            shape = (len(one), n_tokens, n_tokens)
            whole = taps.setdefault(name, np.zeros(shape, FORMATS[dtype]))
            seen = one[:, own >= 0][:, :, other >= 0]
            whole[:, own[own >= 0][:, None], other[other >= 0]] = seen
