"""The capture helpers need their frameworks when they are used, and not before."""

import subprocess
import sys

import numpy as np
import pytest

from llama_ref.golden.capture.taps import Taps, joined

MODULES = ("hf", "hf_hooks", "ggml_run", "ggml_dump", "ggml_nodes", "taps")
FRAMEWORKS = {"torch", "transformers", "llama_cpp", "gguf"}


@pytest.mark.parametrize("module", MODULES)
def test_importing_loads_no_framework(module):
    """A process that imports a capture module has loaded none of the frameworks."""
    code = f"import llama_ref.golden.capture.{module}, sys; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert f"llama_ref.golden.capture.{module}" in loaded
    assert not FRAMEWORKS & set(loaded)


def test_calls_are_joined_along_the_tokens():
    """Chunks of two and one tokens make a tap of three; scores are padded to the widest call."""
    calls = [
        {"L00.q": np.ones((2, 4, 8)), "L00.scores": np.ones((4, 2, 2)), "logits": np.ones((2, 9))},
        {"L00.q": np.ones((1, 4, 8)), "L00.scores": np.ones((4, 1, 3))},
    ]
    taps = Taps()
    taps.join(calls, n_layers=1)
    assert {name: array.shape for name, array in taps.items()} == {
        "L00.q": (3, 4, 8),
        "L00.scores": (4, 3, 3),
    }
    assert taps["L00.scores"][0].tolist() == [[1, 1, 0], [1, 1, 0], [1, 1, 1]]


def test_what_one_call_lacks_is_left_out_with_a_note():
    """A tap that one of two calls lacks is left out, and a note gives the reason of its kind."""
    taps = Taps()
    taps.join([{"L00.q": np.ones((2, 4, 8))}, {}], n_layers=1)
    taps.note_missing(1, {"": "not seen", "q": "lost in the second call"})
    assert taps == {}
    assert len(taps.notes) == 20
    assert "L00.q: lost in the second call" in taps.notes
    assert "logits: not seen" in taps.notes


def test_joining_keeps_the_dtype():
    """Taps of half precision stay what they are."""
    assert joined("embed", [np.ones((1, 2), np.float16)] * 2).dtype == np.float16
