"""A trained model: its fingerprint, and ports of it that are right and wrong."""

import shutil

import numpy as np
import pytest

from llama_ref.checkpoint import open_hf, write_safetensors
from llama_ref.errors import BadRequest
from llama_ref.golden import check, make
from tests.golden import port

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def bundle(stories_folder, tmp_path_factory):
    """The fingerprint of the model that writes stories."""
    folder = tmp_path_factory.mktemp("stories") / "bundle"
    return make(stories_folder, folder, tier="fingerprint")


@pytest.fixture
def judged(bundle, stories_folder, tmp_path):
    """Return what runs the port of the tests on the trained weights, and has it checked."""
    stored = open_hf(stories_folder)
    weights = {name: np.asarray(tensor, np.float32) for name, tensor in stored.items()}

    def of(mistake=None, dtype="float32", **options):
        dump = {}
        for case in bundle.cases:
            taps = port.run(bundle.spec(case).config, weights, case, dtype, mistake)
            dump |= {f"{case.name}/{tap}": array for tap, array in taps.items()}
        write_safetensors(tmp_path / "dump.safetensors", dump)
        return check(bundle, tmp_path / "dump.safetensors", **options)

    return of


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("with_weights", [True, False])
def test_a_right_port_passes(judged, stories_folder, dtype, with_weights):
    """With the checkpoint at hand, and with the fingerprint alone, nothing is wrong."""
    report = judged(dtype=dtype, weights=stories_folder if with_weights else None)
    assert report.verdict == "pass", report.headline
    assert all((row.local is not None) is with_weights for row in report.rows)
    (logits,) = report.logits
    assert logits.n_decided_same == logits.n_decided > 0


@pytest.mark.parametrize(
    "mistake", ["rope-position-plus-one-on-keys", "key-value-heads-tiled", "rope-pairing-swapped"]
)
def test_a_wrong_port_is_named_with_the_checkpoint(judged, stories_folder, mistake):
    """Replayed on the trained weights, the mistake is the one that was made."""
    report = judged(mistake, weights=stories_folder)
    assert report.verdict == "fail"
    assert mistake in (report.cause.id, *(one.id for one in report.also))


def test_a_wrong_port_fails_without_the_checkpoint(judged):
    """Without weights the first tap of the fingerprint that is off is named, and why not more."""
    report = judged("rope-position-plus-one-on-keys")
    assert report.verdict == "fail" and report.first == ("far", "L00.k_rope")
    assert report.cause is None and "Without the weights" in report.explanation


def test_another_checkpoint_is_refused(judged, stories_folder, tmp_path):
    """A checkpoint of other numbers is not the one that the bundle was made from."""
    other = tmp_path / "other"
    shutil.copytree(stories_folder, other, copy_function=shutil.copyfile)
    shard = sorted(other.glob("*.safetensors"))[0]
    data = bytearray(shard.read_bytes())
    data[-3] ^= 1
    shard.write_bytes(data)
    with pytest.raises(BadRequest, match="SHA-256"):
        judged(weights=other)


def test_the_bundle_can_be_published(bundle):
    """It holds no weights, and is far below a megabyte."""
    files = list(bundle.path.iterdir())
    assert sum(file.stat().st_size for file in files) < 300_000
    assert {file.suffix for file in files} == {".json", ".safetensors"}
    assert not any("weight" in name for name in bundle.manifest.taps["far"])
