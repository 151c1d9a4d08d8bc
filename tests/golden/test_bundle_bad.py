"""Bundles that are damaged, foreign or hostile, by the rows of the catalogue of bad inputs."""

import hashlib

import numpy as np
import pytest

from llama_ref.checkpoint import write_safetensors
from llama_ref.checkpoint.safetensors import open_safetensors
from llama_ref.errors import BadFile, LlamaRefError, Unsupported
from llama_ref.golden import Bundle, check
from tests.golden.spoiling import data_file, read_manifest, replaced, write_manifest


def rewrite(folder, change, stem="five"):
    """Change the arrays of a file, and state the size and hash that it has then."""
    path, data = data_file(folder, stem), read_manifest(folder)
    arrays = {name: array.copy() for name, array in open_safetensors(path).items()}
    change(arrays)
    write_safetensors(path, arrays)
    raw = path.read_bytes()
    data["files"][path.name] = {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
    write_manifest(folder, data)


def test_the_copy_is_good(bundle, candidate):
    """Unspoilt, the bundle opens and the candidate passes, so that what follows shows something."""
    assert check(bundle, candidate).verdict == "pass"
    rewrite(bundle, lambda arrays: None)
    assert check(bundle, candidate).verdict == "pass"


def put(tap, value):
    def change(arrays):
        arrays[tap].reshape(-1)[3] = value

    return change


@pytest.mark.parametrize("tap", ["five/L00.q", "five/logits", "five/L00.scores"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=["nan", "inf", "-inf"])
def test_220_221_a_truth_that_is_no_number_is_an_error(bundle, candidate, tap, value):
    """NaN or infinity in the truth, under a valid hash, is refused and named."""
    rewrite(bundle, put(tap, value))
    with pytest.raises(BadFile, match=f"truth {tap}") as caught:
        check(bundle, candidate)
    assert "make the bundle anew" in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0], ids=["nan", "inf", "negative"])
def test_220_an_envelope_that_excuses_everything_is_an_error(bundle, candidate, value):
    """No envelope, an endless one or a negative one would let any candidate pass, or none."""

    def change(arrays):
        arrays["five/L00.q"][...] = value

    rewrite(bundle, change, "envelope")
    with pytest.raises(BadFile, match=r"five/L00\.q"):
        check(bundle, candidate)


def pop(tap):
    return lambda arrays: arrays.pop(tap)


def rename(tap):
    def change(arrays):
        arrays[tap + "x"] = arrays.pop(tap)

    return change


@pytest.mark.parametrize("change", [pop, rename], ids=["missing", "renamed"])
@pytest.mark.parametrize("stem", ["five", "envelope"])
def test_222_a_tensor_that_is_not_there_is_named(bundle, change, stem):
    """A tap of the manifest that has no truth, or no envelope, is refused by name."""
    rewrite(bundle, change("five/L00.act"), stem)
    with pytest.raises(BadFile, match=r"five/L00\.act"):
        Bundle(bundle)


def shaped(function):
    def change(arrays):
        arrays["five/L00.q"] = np.ascontiguousarray(function(arrays["five/L00.q"]))

    return change


@pytest.mark.parametrize(
    "function",
    [
        lambda a: a[:1],
        lambda a: a[:, :1],
        lambda a: a.reshape(-1),
        lambda a: a.transpose(1, 0, 2),
        lambda a: a[..., None],
        lambda a: a[:0],
        lambda a: a[0, 0, 0],
    ],
    ids=["broadcastable", "one head", "flat", "transposed", "one more axis", "empty", "scalar"],
)
def test_223_225_another_shape_is_an_error(bundle, function):
    """A truth that would broadcast, is flat, turned, empty or a scalar is refused."""
    rewrite(bundle, shaped(function))
    with pytest.raises(BadFile, match=r"five/L00\.q.*expected float64 of shape \(5, 8, 32\)"):
        Bundle(bundle)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "uint8", "bool"])
def test_224_226_another_dtype_is_an_error(bundle, dtype):
    """The truth is float64; nothing else is cast to it."""
    rewrite(bundle, shaped(lambda a: a.astype(dtype)))
    with pytest.raises(BadFile, match=rf"five/L00\.q.*found {dtype}"):
        Bundle(bundle)


@pytest.mark.parametrize("part", ["cases", "taps", "files"])
def test_225_a_bundle_of_nothing_is_an_error(bundle, candidate, part):
    """Without cases, taps or files nothing would be compared, and that is no pass."""
    data = read_manifest(bundle)
    if part == "taps":
        data["cases"][0]["taps"] = {}
    else:
        data[part] = type(data[part])()
    write_manifest(bundle, data)
    with pytest.raises(LlamaRefError):
        check(bundle, candidate)


CONTRADICTIONS = {
    "rope_pairing": (("models", "main", "rope_pairing"), "interleaved"),
    "recipe": (("models", "main", "weights", "recipe"), "synth-2"),
    "shape": (("cases", 0, "taps", "L00.q", "shape"), [5, 32, 8]),
    "axes": (("cases", 0, "taps", "L00.q", "axes"), "T H N"),
    "model": (("cases", 0, "model"), "other"),
    "ids": (("cases", 0, "ids"), [1, 2, 3, 4, 1024]),
    "positions": (("cases", 0, "positions"), [0, 1, 2, 2, 4]),
    "chunks": (("cases", 0, "chunks"), [4]),
    "seed of the sketch": (("sketch", "seed"), 1),
    "buckets": (("sketch", "buckets"), 128),
    "spans": (("envelope", "spans"), ["op", "attention", "model", "layer"]),
    "band_starts": (("envelope", "band_starts"), [0]),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_231_what_contradicts_the_rest_is_refused(bundle, name):
    """A manifest whose words do not fit its arrays, its model or this reader is an error."""
    path, value = CONTRADICTIONS[name]
    write_manifest(bundle, replaced(read_manifest(bundle), path, value))
    with pytest.raises(BadFile) as caught:
        Bundle(bundle)
    named = {"shape": "L00.q", "axes": "L00.q", "recipe": "weights", "spans": "envelope: spans"}
    expected = named.get(name, "case" if path[0] == "cases" else path[0].rstrip("s"))
    assert expected in str(caught.value)


@pytest.mark.parametrize("version", [0, 2, 10**6])
def test_232_another_version_is_refused(bundle, version):
    """A version this reader does not know is named, with what to do."""
    write_manifest(bundle, read_manifest(bundle) | {"version": version})
    with pytest.raises(Unsupported, match=f"version of the bundle: expected 1, found {version}"):
        Bundle(bundle)


@pytest.mark.parametrize("key", ["made_by", "llama_ref", "source_sha256", "numpy"])
def test_233_without_provenance_it_is_refused(bundle, key):
    """A bundle has to say which code made it."""
    data = read_manifest(bundle)
    (data if key == "made_by" else data["made_by"]).pop(key)
    write_manifest(bundle, data)
    with pytest.raises(BadFile, match=key):
        Bundle(bundle)


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def grow(path):
    path.write_bytes(path.read_bytes() + b"\0")


def flip(path):
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


def empty(path):
    path.write_bytes(b"")


def make_folder(path):
    path.unlink()
    path.mkdir()


FAULTS = [cut, grow, flip, empty, make_folder, lambda path: path.unlink()]


@pytest.mark.parametrize("stem", ["five", "envelope"])
@pytest.mark.parametrize("fault", FAULTS, ids=[*(f.__name__ for f in FAULTS[:-1]), "missing"])
def test_a_damaged_file_is_named(bundle, fault, stem):
    """A file that was cut, grew, changed a bit, or is not there, is refused by its name."""
    path = data_file(bundle, stem)
    fault(path)
    with pytest.raises(BadFile, match=path.name):
        Bundle(bundle)


TEXTS = {
    "empty": b"",
    "no JSON": b"golden",
    "cut": b'{"format": "llama_ref golden bundle", "ver',
    "a list": b"[]",
    "a number": b"1",
    "twice the same key": b'{"format": 1, "format": 2}',
    "NaN": b'{"format": NaN}',
    "a byte-order mark": b"\xef\xbb\xbf{}",
    "UTF-16": "{}".encode("utf-16"),
    "Latin-1": b'{"format": "\xe9"}',
    "a lone surrogate": b'{"format": "\\ud800"}',
    "a million brackets": b"[" * 10**6,
    "5000 digits": b'{"version": ' + b"9" * 5000 + b"}",
    "endless": b" " * 17_000_000,
    "another format": b'{"format": "something else"}',
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_manifest_that_is_none_is_refused(bundle, name):
    """What is not a strict JSON object of ours ends in an error that names the file."""
    (bundle / "manifest.json").write_bytes(TEXTS[name])
    with pytest.raises(LlamaRefError, match=r"manifest\.json"):
        Bundle(bundle)


@pytest.mark.parametrize("where", ["nothing", "a file", "an empty folder"])
def test_what_is_no_bundle_is_refused(tmp_path, where):
    """A path that leads to nothing, to a file or to an empty folder is an error."""
    if where == "a file":
        (tmp_path / "x").write_text("{}")
    elif where == "an empty folder":
        (tmp_path / "x").mkdir()
    with pytest.raises(BadFile, match="x"):
        Bundle(tmp_path / "x")
