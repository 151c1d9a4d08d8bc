"""Dumps for tests: the taps of a tiny model, written as some backend would."""

import json

import numpy as np

from llama_ref.checkpoint import write_safetensors
from llama_ref.golden.candidate import open_candidate
from llama_ref.golden.cases import Case
from tests.models import TINY, tiny_ids, tiny_model

T, N, K, G, H = 7, TINY.n_heads, TINY.n_kv_heads, 2, TINY.head_dim
RAW_NAMES = {"float64": "f64", "float32": "f32", "float16": "f16", "bfloat16": "bf16"}


def case(name="far", chunks=(T,)):
    """Return a case of T tokens at positions 0 to 6."""
    return Case(name, "a test", tuple(tiny_ids(T).tolist()), tuple(range(T)), chunks)


def taps(dtype="float32"):
    """Return every tap of the tiny model, by name."""
    return dict(tiny_model(dtype).trace(tiny_ids(T)))


def opened(path, *cases, **options):
    """Open a dump of the tiny model; by default of one case, far."""
    return open_candidate(path, cases or [case()], {"main": TINY}, **options)


def written(folder, tensors, kind="safetensors"):
    """Write tensors to a file of some kind; return its path."""
    path = folder / f"dump.{kind}"
    if kind == "safetensors":
        write_safetensors(path, tensors)
    elif kind == "npz":
        np.savez(path, **tensors)
    else:
        write_raw(path, tensors)
    return path


def write_raw(path, tensors):
    """Write tensors end to end into one file beside their description."""
    described, begin = {}, 0
    with path.with_suffix(".bin").open("wb") as file:
        for name, array in tensors.items():
            entry = {"file": f"{path.stem}.bin", "dtype": RAW_NAMES[str(array.dtype)]}
            described[name] = {**entry, "shape": list(array.shape), "offset": begin}
            begin += file.write(np.ascontiguousarray(array).tobytes())
    path.write_text(json.dumps(described))


def candidate(folder, tensors, *cases, **options):
    """Write tensors, and open them."""
    return opened(written(folder, tensors), *cases, **options)


def interleaved(x):
    """Reorder channels (…, H) from half-split to interleaved, as golden tables state it."""
    *outer, width = x.shape
    return x.reshape(*outer, 2, width // 2).swapaxes(-1, -2).reshape(x.shape)


def assert_is(dump, expected, rows=range(T)):
    """Check dtype, shape, bits and rows of what was read."""
    assert dump.array.dtype == expected.dtype
    assert dump.array.shape == expected.shape
    assert np.array_equal(dump.array, expected)
    assert dump.rows == rows
    assert dump.array.flags.c_contiguous


def reasons(found):
    """Return the unmatched tensors: name -> reason."""
    return {one.name: one.reason for one in found.unmatched}
