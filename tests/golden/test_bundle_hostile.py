"""Manifests of a stranger: paths that lead elsewhere, and any value in the place of any other."""

import shutil
from collections.abc import Iterator

import pytest

from llama_ref.errors import LlamaRefError
from llama_ref.golden import Bundle, check
from tests.golden.spoiling import DELETED, data_file, read_manifest, replaced, write_manifest

NAMES = [
    "../outside.safetensors",
    "/etc/passwd",
    "/etc/passwd.safetensors",
    "sub/x.safetensors",
    "..",
    "",
    ".safetensors/..",
    "x\0.safetensors",
    "x.pkl",
    "a\x1b[31m.safetensors",
    "x" * 300 + ".safetensors",
]


@pytest.mark.parametrize("name", NAMES, ids=map(repr, NAMES))
def test_a_file_name_does_not_lead_out_of_the_folder(bundle, tmp_path, name):
    """Names with a path in them, or that are none, are refused, and shown escaped."""
    data = read_manifest(bundle)
    own = data_file(bundle)
    shutil.copy(own, tmp_path / "outside.safetensors")
    data["files"][name] = data["files"].pop(own.name)
    write_manifest(bundle, data)
    with pytest.raises(LlamaRefError) as caught:
        Bundle(bundle)
    assert str(caught.value).isprintable()


def test_names_of_cases_are_shown_escaped(bundle):
    """A case whose name would colour a terminal is refused or printed harmlessly."""
    data = read_manifest(bundle)
    data["cases"][0]["name"] = "\x1b[31mfive"
    write_manifest(bundle, data)
    with pytest.raises(LlamaRefError) as caught:
        Bundle(bundle)
    assert str(caught.value).isprintable()


HOSTILE = [None, True, -1, 2**70, 10**9, 1e308, 0.5, "x", [], {}]


def places(value, path=()) -> Iterator[tuple]:
    """Yield the path of every value of a JSON tree; of lists and of taps, one."""
    yield path
    if isinstance(value, dict):
        keys = list(value)
        if path and path[-1] in ("taps", "styles", "legal_logits"):
            keys = keys[:1]
        for key in keys:
            yield from places(value[key], (*path, key))
    elif isinstance(value, list) and value:
        yield from places(value[-1], (*path, len(value) - 1))


def test_any_value_of_the_manifest_may_be_anything(bundle, candidate):
    """With each value in turn of another type, sign or size, or gone, only our errors come out."""
    data = read_manifest(bundle)
    n_refused, accepted, faults = 0, [], []
    for path in places(data):
        for value in [*HOSTILE, DELETED] if path else HOSTILE:
            write_manifest(bundle, replaced(data, path, value))
            try:
                check(bundle, candidate)
                accepted.append(path)
            except LlamaRefError as error:
                assert str(error).isprintable()
                n_refused += 1
            except Exception as error:
                faults.append((path, value, error))
    assert faults == []
    assert n_refused > 3 * len(accepted) > 0
