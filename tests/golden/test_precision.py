"""Which class a candidate is judged by: what its author says, or what its numbers are."""

import numpy as np
import pytest

from llama_ref.errors import BadRequest
from llama_ref.golden.grids import to_bfloat16, to_float16
from llama_ref.golden.precision import precision_of
from llama_ref.golden.replay import Dump
from llama_ref.golden.styles import PRECISIONS
from llama_ref.numerics import BFLOAT16

NUMBERS = np.random.default_rng(0).standard_normal((8, 16)).astype(np.float32)


class Taps(dict):
    """Taps by name, as a source."""

    def get(self, tap):
        return Dump(self[tap], range(len(self[tap]))) if tap in self else None


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_the_author_says_counts(precision):
    """Asked for by name, a class is the one, whatever the numbers look like."""
    found, why = precision_of(Taps({"logits": NUMBERS.astype(np.float16)}), ["logits"], precision)
    assert found == precision
    assert "as asked" in why


@pytest.mark.parametrize("name", ["fp8", "", "float64", "Float32", "\x1b[31m"])
def test_an_unknown_class_is_refused(name):
    """The message lists the classes there are, and shows the wrong name escaped."""
    with pytest.raises(BadRequest, match="float32 or float32-kv16 or tf32") as caught:
        precision_of(Taps(), [], name)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (NUMBERS.astype(BFLOAT16), "bfloat16"),
        (NUMBERS.astype(np.float16), "float16"),
        (to_bfloat16(NUMBERS), "bfloat16"),
        (to_float16(NUMBERS), "float16"),
        (to_bfloat16(NUMBERS).astype(np.float64), "bfloat16"),
        (NUMBERS, "float32"),
        (NUMBERS.astype(np.float64), "float32"),
    ],
    ids=["bf16", "f16", "bf16 in f32", "f16 in f32", "bf16 in f64", "f32", "f32 in f64"],
)
def test_numbers_tell_their_class(array, expected):
    """A dump of 16 bits is one; so is a wider one whose matrix outputs lie on a coarser grid."""
    found, why = precision_of(Taps({"L00.q": array}), ["L00.q"], None)
    assert found == expected
    assert expected in why


def test_an_embedding_on_a_grid_says_nothing():
    """Table rows are bfloat16 numbers in any port: only what a matrix computed is evidence."""
    taps = Taps({"embed": to_bfloat16(NUMBERS), "L00.q": NUMBERS})
    assert precision_of(taps, list(taps), None)[0] == "float32"
    alone = Taps({"embed": to_bfloat16(NUMBERS)})
    assert precision_of(alone, ["embed"], None)[0] == "float32"


def test_one_number_off_the_grid_is_enough():
    """A single number that bfloat16 has not got makes a wide dump float32."""
    array = to_bfloat16(NUMBERS)
    array[3, 3] = np.float32(1 / 3)
    assert precision_of(Taps({"logits": array}), ["logits"], None)[0] == "float32"


def test_few_numbers_on_a_grid_are_no_evidence():
    """Zeros, and fewer than 64 numbers, may lie on a grid by chance."""
    few = np.zeros((8, 16), np.float32)
    few[0] = to_bfloat16(NUMBERS[0])
    assert precision_of(Taps({"logits": few}), ["logits"], None)[0] == "float32"


def test_numbers_that_are_none_do_not_decide():
    """NaN and infinity lie on every grid, and hide none."""
    spoilt = NUMBERS.copy()
    spoilt[:4] = np.nan
    assert precision_of(Taps({"logits": spoilt}), ["logits"], None)[0] == "float32"
    spoilt = to_bfloat16(NUMBERS)
    spoilt[0] = np.inf
    assert precision_of(Taps({"logits": spoilt}), ["logits"], None)[0] == "bfloat16"


def test_without_taps_it_is_float32():
    """Nothing to read off is the strictest class."""
    assert precision_of(Taps(), [], None)[0] == "float32"
