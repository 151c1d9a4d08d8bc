"""The port that the checker is tested on: right when it should be, wrong in the way it was asked.

It shares no arithmetic with the package, so each is a witness for the other.
"""

from dataclasses import fields, replace
from functools import cache, partial

import numpy as np
import pytest

from llama_ref.checkpoint import synthetic
from llama_ref.config import preset
from llama_ref.golden.cases import Case
from llama_ref.trace import tap_names
from tests.golden.port import run, run_batch
from tests.golden.port_mistakes import SHOWS_FIRST_AT, UNKNOWN_SHOWS_FIRST_AT
from tests.models import TINY, tiny_ids, tiny_model

# Square projections, and pairs of channels in all three bands of Llama 3.1's scaling.
SQUARE = replace(TINY, d_model=48, n_heads=4, n_kv_heads=2, head_dim=12, n_layers=3)
FACTOR_32 = replace(SQUARE, rope_scaling=replace(SQUARE.rope_scaling, factor=32.0))
UNSCALED = replace(SQUARE, rope_scaling=None)
NEEDED = {"rope-factor-8": FACTOR_32, "rope-scaling-uncalled-for": UNSCALED}
SHAPES = {
    "groups of 2, D != N*H": TINY,
    "groups of 4, square, 3 layers": replace(SQUARE, n_kv_heads=1),
    "groups of 8": replace(TINY, d_model=32, n_heads=8, n_kv_heads=1, head_dim=4),
    "groups of 1, tied": replace(TINY, n_kv_heads=6, tied_embeddings=True),
    "unscaled": replace(TINY, rope_scaling=None, rope_theta=10_000.0),
    "golden-tiny": preset("golden-tiny"),
}
SPARSE = (0, 1, 2, 3, 64, 65, 1000, 4097, 8191, 60_000, 100_000, 131_071)


def a_case(name, n_tokens, positions=None, chunks=None, **more):
    ids = tuple(tiny_ids(n_tokens, seed=n_tokens).tolist())
    return Case(name, "", ids, positions or tuple(range(n_tokens)), chunks or (n_tokens,), **more)


NEAR = a_case("near", 9)
FAR = a_case("far", 12, SPARSE)
CHUNKS = a_case("chunks", 12, chunks=(5, 1, 1, 3, 2))
RAGGED = [a_case("short", 4, batch="ragged", padding=3), a_case("long", 7, batch="ragged")]
CASES = [NEAR, FAR, CHUNKS, *RAGGED]


@cache
def weights_of(config):
    return dict(synthetic.checkpoint(config, 0))


@cache
def truth_of(config, case):
    shape = {one.name: getattr(config, one.name) for one in fields(config)}
    model = tiny_model("float64", **shape)
    return model.trace(case.ids, case.positions)


def error(found, true, tap):
    """Return the relative root mean square error of a tap; of scores, where they may be seen."""
    assert found.shape == true.shape, tap
    found, true = found.astype(np.float64), true.astype(np.float64)
    if tap.endswith("scores"):
        found, true = np.tril(found), np.tril(true)
    return float(np.linalg.norm(found - true) / np.linalg.norm(true))


def largest_error(found, truth):
    assert set(found) == set(truth)
    return max(error(found[tap], truth[tap], tap) for tap in truth)


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
def test_the_port_is_right_in_float32(config):
    """Without a mistake every tap is that of our float64 pass, but for float32 noise."""
    for case in CASES:
        found = run(config, weights_of(config), case)
        # Rounding frequency and product to float32 turns position 131,071 by thousandths.
        noise = 2e-3 if case is FAR else 5e-6
        assert all(array.dtype == np.float32 for array in found.values())
        assert error(found["embed"], truth_of(config, case)["embed"], "embed") == 0
        assert largest_error(found, truth_of(config, case)) < noise, case.name


@pytest.mark.parametrize(("dtype", "noise"), [("bfloat16", 0.05), ("float16", 0.006)])
def test_the_port_rounds_legally_in_sixteen_bits(dtype, noise):
    """In 16 bits it is right to a few percent, on the grid of the format, and not in float32."""
    for config in (TINY, SQUARE):
        for case in CASES:
            found = run(config, weights_of(config), case, dtype)
            assert found["logits"].dtype.name == dtype and found["L00.scores"].dtype == np.float32
            assert 1e-4 < largest_error(found, truth_of(config, case)) < noise, case.name


def test_a_batch_computes_what_its_cases_compute_alone():
    """Padded by 3 beside a longer one, and decoded further, a case has the taps it has alone."""
    short = a_case("short", 6, chunks=(4, 1, 1), padding=3)
    long = a_case("long", 9, chunks=(7, 1, 1))
    weights = weights_of(TINY)
    together = run_batch(TINY, weights, [short, long])
    for case in (short, long):
        alone = run(TINY, weights, replace(case, padding=0))
        assert largest_error(together[case.name], alone) < 1e-6
    with pytest.raises(ValueError, match="same calls"):
        run_batch(TINY, weights, [short, NEAR])


def test_a_mistake_that_does_not_exist_is_refused():
    """A misspelt mistake cannot pass for a right port."""
    with pytest.raises(ValueError, match="knows no mistake"):
        run(TINY, weights_of(TINY), NEAR, mistake="rope-mising")


def taps_of_cases(config, dtype, mistake):
    """Return the taps of all cases by (case, tap), the ragged ones from one batch."""
    weights = weights_of(config)
    found = {case.name: run(config, weights, case, dtype, mistake) for case in CASES[:3]}
    found |= run_batch(config, weights, RAGGED, dtype, mistake)
    return {(name, tap): array for name, taps in found.items() for tap, array in taps.items()}


right_taps = cache(partial(taps_of_cases, mistake=None))


def changes(mistake, dtype):
    """Return what a mistake changes, (place in dataflow order, kind of tap, case, how much)."""
    config = NEEDED.get(mistake, SQUARE)
    right, wrong = right_taps(config, dtype), taps_of_cases(config, dtype, mistake)
    order = {tap: at for at, tap in enumerate(tap_names(config.n_layers))}
    return sorted(
        (order[tap], tap.rpartition(".")[2], case, error(array, right[case, tap], tap))
        for (case, tap), array in wrong.items()
        if not np.array_equal(array, right[case, tap], equal_nan=True)
    )


EVERY = [
    (mistake, kind)
    for places in (SHOWS_FIRST_AT, UNKNOWN_SHOWS_FIRST_AT)
    for kind, group in places.items()
    for mistake in group
]


@pytest.mark.parametrize(("mistake", "kind"), EVERY, ids=[one for one, _ in EVERY])
def test_every_mistake_shows_first_where_it_is_made(mistake, kind):
    """In float32 each changes the tap that it is listed at, and no tap before it."""
    found = changes(mistake, "float32")
    first = [one for one in found if one[0] == found[0][0]]
    assert {one[1] for one in first} == {kind}
    assert any(not size < 1e-4 for *_, size in first)  # not-a-number is a change


@pytest.mark.parametrize(
    ("mistake", "cases"),
    {
        "cache-holds-unrotated-keys": {"chunks"},
        "cache-last-entry-overwritten": {"chunks"},
        "cache-written-too-late": {"chunks"},
        "mask-forgets-cache": {"chunks"},
        "mask-missing-in-later-chunks": {"chunks"},
        "mask-not-offset-by-cache": {"chunks"},
        "padding-attended": {"short"},
        "rope-positions-count-padding": {"short"},
        "rope-position-plus-one-behind-cache": {"chunks"},
        "rope-positions-consecutive": {"far"},
        "rope-positions-in-bfloat16": {"far"},
        "rope-restarts-in-each-chunk": {"far", "chunks"},
    }.items(),
)
def test_some_mistakes_show_only_in_the_cases_made_for_them(mistake, cases):
    """What goes wrong with a cache, with padding or far out leaves the other cases as they are."""
    assert {case for _, _, case, _ in changes(mistake, "float32")} == cases


ROUNDED_ALREADY = {
    "operands-in-bfloat16",
    "operands-in-float16",
    "operands-in-tf32",
    "residual-rounded-to-bfloat16",
}


def test_bfloat16_hides_what_it_does_itself():
    """In bfloat16 every mistake changes something, but for rounding what is rounded already."""
    assert {one for one, _ in EVERY if not changes(one, "bfloat16")} == ROUNDED_ALREADY


def test_the_last_layer_that_is_skipped_has_no_taps():
    """A port that skips a layer dumps nothing of it; with any other mistake all taps are there."""
    expected = set(tap_names(SQUARE.n_layers))
    for mistake, _ in EVERY:
        found = run(SQUARE, weights_of(SQUARE), NEAR, mistake=mistake)
        skipped = {tap for tap in expected if tap.startswith("L02.")}
        assert expected - set(found) == (skipped if mistake == "last-layer-skipped" else set())


def test_a_score_that_is_gone_from_the_cache_is_dumped_as_zero():
    """The keys that later calls overwrote have neither score nor probability after that."""
    found = run(SQUARE, weights_of(SQUARE), CHUNKS, mistake="cache-last-entry-overwritten")
    gone = [4, 5, 6, 9]  # the last token of each call but the last
    starts = [5, 6, 7, 10]
    for tap in ("L00.scores", "L02.probs"):
        for token, start in zip(gone, starts, strict=True):
            assert not found[tap][:, start:, token].any()
            assert found[tap][:, token, token].all()
    assert np.allclose(found["L00.probs"].sum(axis=-1), 1)
