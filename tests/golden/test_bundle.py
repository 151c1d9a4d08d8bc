"""Making a bundle and opening it: what is in it, what it says, and that it comes out the same."""

import hashlib
import json

import numpy as np
import pytest

import llama_ref
from llama_ref.checkpoint import synthetic, write_hf
from llama_ref.checkpoint.safetensors import open_safetensors
from llama_ref.config import preset
from llama_ref.config.hf import to_hf_dict
from llama_ref.errors import BadRequest
from llama_ref.golden import Bundle, case_names, check, make
from llama_ref.golden.cases import FAR, cases_for, chosen, shapes
from llama_ref.golden.envelope import SHAPE
from llama_ref.golden.making import FINGERPRINT_KINDS
from llama_ref.golden.manifest_reading import parse_manifest
from llama_ref.golden.measure import band_of
from llama_ref.golden.sketch import sketch
from llama_ref.golden.styles import PRECISIONS
from llama_ref.trace import tap_names
from tests.golden.conftest import TWO_LAYERS
from tests.models import TINY


def manifest_of(bundle):
    return json.loads((bundle.path / "manifest.json").read_text("utf-8"))


def test_a_bundle_has_every_tap_of_every_case(small):
    """Cases and taps are those that were asked for, the truth in float64, with an envelope each."""
    assert [case.name for case in small.cases] == ["two", "five"]
    for case in small.cases:
        assert small.taps(case) == tap_names(2)
        for tap in small.taps(case):
            assert small.truth(case, tap).dtype == np.float64
            assert small.envelope(case, tap).shape == SHAPE
            assert small.sketch(case, tap) is None


def test_the_truth_of_a_bundle_is_the_float64_pass(small):
    """What is on disk is what the model traces in float64, bit for bit."""
    model = llama_ref.load(TWO_LAYERS, dtype="float64")
    for case in small.cases:
        trace = model.trace(case.ids, case.positions)
        assert all(np.array_equal(small.truth(case, tap), array) for tap, array in trace.items())


def test_the_files_are_named_after_their_content(small):
    """Each file has the size and the hash that the manifest states, and the hash in its name."""
    stated = manifest_of(small)["files"]
    on_disk = {path.name for path in small.path.iterdir()}
    assert on_disk == {*stated, "manifest.json"}
    for name, own in stated.items():
        data = (small.path / name).read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        assert own == {"bytes": len(data), "sha256": digest}
        assert name.endswith(f"-{digest[:12]}.safetensors")


def test_the_manifest_says_what_made_it(small):
    """Version, source, NumPy, BLAS and threads stand in it, and no path of this machine."""
    made_by = manifest_of(small)["made_by"]
    assert made_by["llama_ref"] == llama_ref.__version__
    assert len(made_by["source_sha256"]) == 64
    assert made_by["numpy"] == np.__version__
    assert {"python", "blas", "core", "threads", "machine"} <= set(made_by)
    assert str(small.path.parent) not in (small.path / "manifest.json").read_text("utf-8")


def test_the_manifest_describes_every_tap(small):
    """Of each tap it has the shape, the axes, the root mean square and the largest value."""
    (two, five) = manifest_of(small)["cases"]
    assert list(two["taps"]) == tap_names(2)
    for tap, own in five["taps"].items():
        truth = small.truth(small.cases[1], tap)
        assert own["shape"] == list(truth.shape)
        assert len(own["axes"].split()) == truth.ndim
        assert own["rms"] == pytest.approx(np.sqrt(np.mean(truth**2)), rel=1e-5)
        assert own["absmax"] == pytest.approx(np.abs(truth).max(), rel=1e-5)


def test_legal_logits_are_ordered_as_the_classes_are(small):
    """What legal rounding does to logits is more than nothing, and more in bfloat16."""
    for case in manifest_of(small)["cases"]:
        legal = case["legal_logits"]
        assert list(legal) == list(PRECISIONS)
        assert 0 < legal["float32"]["largest"] < legal["float16"]["largest"]
        assert legal["float16"]["largest"] < legal["bfloat16"]["largest"]
        assert 0 < legal["float32"]["kl"] < legal["bfloat16"]["kl"] < 0.01


def test_a_manifest_survives_a_round_trip(small):
    """Parsed and written again it is the same JSON, and describes the same cases and models."""
    data = manifest_of(small)
    again = parse_manifest(data, "manifest.json")
    assert json.loads(json.dumps(again.as_dict())) == data
    assert again.cases == small.cases and again.models == small.manifest.models


def test_made_twice_it_is_the_same(small, tmp_path):
    """A second make agrees to 1e-12 of each tap's deviation, in the envelope to a part in 1e5."""
    again = make(TWO_LAYERS, tmp_path / "again", cases=["five"])
    (case,) = again.cases
    assert case in small.cases
    for tap in again.taps(case):
        truth = small.truth(case, tap)
        assert np.abs(again.truth(case, tap) - truth).max() <= 1e-12 * truth.std()
        ours, theirs = again.envelope(case, tap), small.envelope(case, tap)
        assert np.allclose(ours, theirs, rtol=1e-5, equal_nan=True)


def test_another_seed_has_other_weights_and_tokens(tmp_path, one_layer):
    """The seed goes into weights and ids; the positions stay."""
    model = "synthetic:golden-tiny?n_layers=1&seed=3"
    other = make(model, tmp_path / "b", cases=["five"], seed=3)
    (case,), (before,) = other.cases, one_layer.cases
    assert case.positions == before.positions and case.ids != before.ids
    assert other.spec(case).seed == 3
    assert not np.allclose(other.truth(case, "logits"), one_layer.truth(before, "logits"))


def test_a_shape_brings_its_own_model(tmp_path):
    """A case of another shape has the blueprint of that shape, and its truth the sizes of it."""
    bundle = make("golden-tiny", tmp_path / "b", cases=["gqa-1"])
    (case,) = bundle.cases
    config = bundle.spec(case).config
    assert config == shapes()["gqa-1"].config and set(bundle.manifest.models) == {"gqa-1"}
    assert bundle.truth(case, "L01.k").shape == (len(case.ids), 4, 32)
    assert case.chunks == (15, 4) and case.positions[-1] == 131_071


def test_a_case_of_a_batch_brings_the_others():
    """Asked for one prompt of a ragged batch, all three come, for they are to be run together."""
    found = chosen(["ragged-b", "two"], cases_for(preset("golden-tiny")))
    assert [case.name for case in found] == ["two", "ragged-a", "ragged-b", "ragged-c"]
    assert [case.padding for case in found[1:]] == [0, 6, 3]


def test_the_far_case_reaches_every_band_and_the_last_position():
    """Its 64 positions rise from 0 to 131,071, and lie in all six bands."""
    (far,) = chosen(["far"], cases_for(preset("golden-tiny")))
    assert far.positions == tuple(sorted(FAR)) and len(far.ids) == 64
    assert far.positions[-1] == 131_071
    assert set(band_of(far.positions)) == set(range(6))


def test_a_short_context_leaves_out_what_does_not_fit():
    """A model of 16 positions has no case of 17, and a far one that ends at 15."""
    config = preset("golden-tiny")
    short = {c.name: c for c in cases_for(type(config)(**{**vars(config), "context_length": 16}))}
    assert "chunks" not in short and "prefill" not in short
    assert short["far"].positions == tuple(range(16)) and "decode" in short


def test_names_of_cases_can_be_listed():
    """The listed names are those that make takes, the shapes after those of the model."""
    names = case_names()
    assert names[:3] == ["one", "two", "five"] and names[-6:] == list(shapes())
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", ["", "fiv", "five ", "../x", "\x1b[31m"])
def test_an_unknown_case_is_refused(tmp_path, name):
    """The message names those there are, and nothing is written."""
    with pytest.raises(BadRequest, match="one of one, two, five") as caught:
        make("golden-tiny", tmp_path / "b", cases=["five", name])
    assert "\x1b" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "options", [{"tier": "whole"}, {"tier": ""}, {"cases": []}, {"model": "no-such-preset"}]
)
def test_what_cannot_be_made_is_refused_before_anything_is_written(tmp_path, options):
    """An unknown tier or model, and no case at all, leave nothing behind."""
    model = options.pop("model", TWO_LAYERS)
    with pytest.raises(llama_ref.errors.LlamaRefError):
        make(model, tmp_path / "b", **options)
    assert list(tmp_path.iterdir()) == []


def test_progress_counts_every_token_of_every_piece(tmp_path):
    """What `advance` is told sums to tokens times embedding, layers and head."""
    told = []
    make("synthetic:golden-tiny?n_layers=1", tmp_path / "b", cases=["two"], advance=told.append)
    assert sum(told) == 2 * (1 + 1 + 1)


class TestFingerprint:
    """The fingerprint of the default model: small, and made of what the truth is made of."""

    def test_it_is_small(self, fingerprint):
        """All its files together are no more than 150,000 bytes."""
        assert sum(path.stat().st_size for path in fingerprint.path.iterdir()) <= 150_000

    def test_it_has_the_kinds_that_show_most(self, fingerprint):
        """Of the far case it has seven kinds of each layer, the final norm and the logits."""
        (case,) = fingerprint.cases
        assert case.name == "far"
        kinds = {tap.rpartition(".")[2] for tap in fingerprint.taps(case)}
        assert kinds == {*FINGERPRINT_KINDS, "embed", "final_norm", "logits"}
        assert len(fingerprint.taps(case)) == 4 * len(FINGERPRINT_KINDS) + 3

    def test_its_sketches_are_those_of_the_truth(self, fingerprint):
        """Sketches, norms and the highest logits follow from the float64 trace."""
        (case,) = fingerprint.cases
        trace = llama_ref.load("synthetic:golden-tiny", dtype="float64").trace(
            case.ids, case.positions
        )
        for tap in fingerprint.taps(case):
            assert fingerprint.truth(case, tap) is None
            assert np.allclose(fingerprint.sketch(case, tap), sketch(trace[tap]), rtol=1e-12)
            norms_T = np.linalg.norm(trace[tap].reshape(64, -1), axis=1)
            assert np.allclose(fingerprint.extra(case, tap, "norms"), norms_T, rtol=1e-6)
        top_ids, top = (fingerprint.extra(case, "logits", what) for what in ("top_ids", "top"))
        assert (top_ids[:, 0] == trace["logits"].argmax(axis=1)).all()
        assert np.array_equal(np.take_along_axis(trace["logits"], top_ids, axis=1), top)
        assert (np.diff(top, axis=1) <= 0).all() and top.shape == (64, 8)


def test_a_bundle_can_be_read_without_this_library(small):
    """Its data files are plain safetensors: names, float64, nothing hidden."""
    names = [name for name in manifest_of(small)["files"] if name.startswith("five")]
    arrays = open_safetensors(small.path / names[0])
    assert set(arrays) == {f"five/{tap}" for tap in tap_names(2)}


def test_opening_again_gives_the_same(small):
    """A bundle opened from its folder equals the one that make returned."""
    again = Bundle(small.path)
    assert again.cases == small.cases and again.manifest == small.manifest


@pytest.fixture
def loud_checkpoint(tmp_path):
    """A checkpoint whose first layer leaves numbers of a million, which float16 has not got."""
    tensors = dict(synthetic.checkpoint(TINY, 0))
    name = "model.layers.0.mlp.down_proj.weight"
    tensors[name] = tensors[name] * np.float32(2**20)
    write_hf(tmp_path / "loud", to_hf_dict(TINY), tensors.items())
    return tmp_path / "loud"


def test_a_checkpoint_that_float16_cannot_run_has_a_bundle_all_the_same(loud_checkpoint, tmp_path):
    """Where legal rounding overflows its envelope is infinite: in float16, and nowhere else."""
    bundle = make(loud_checkpoint, tmp_path / "b", cases=["five"])
    (case,) = bundle.cases
    assert np.abs(bundle.truth(case, "L00.out")).max() > 1e5
    legal = bundle.manifest.legal_logits["five"]
    assert legal["float16"]["largest"] == np.inf and legal["bfloat16"]["largest"] < 1
    assert manifest_of(bundle)["cases"][0]["legal_logits"]["float16"]["largest"] is None
    assert Bundle(bundle.path).manifest == bundle.manifest


def test_a_checkpoint_is_known_by_its_hash(loud_checkpoint, tmp_path):
    """A bundle of a checkpoint says which one it was, and names no folder of this machine."""
    bundle = make(loud_checkpoint, tmp_path / "b", cases=["five"])
    weights = manifest_of(bundle)["models"]["main"]["weights"]
    assert weights["recipe"] == "checkpoint" and len(weights["sha256"]) == 64
    assert str(tmp_path) not in (bundle.path / "manifest.json").read_text("utf-8")


def test_a_dump_is_the_truth_alone(tmp_path):
    """The tier for looking at numbers has every tap and no envelope, and no candidate is judged."""
    bundle = make(TWO_LAYERS, tmp_path / "b", cases=["two"], tier="dump")
    (case,) = bundle.cases
    assert bundle.taps(case) == tap_names(2)
    assert bundle.envelope(case, "logits") is None
    assert not [name for name in bundle.manifest.files if name.startswith("envelope")]
    with pytest.raises(llama_ref.errors.LlamaRefError, match="dump"):
        check(bundle, tmp_path / "b" / next(iter(bundle.manifest.files)))
