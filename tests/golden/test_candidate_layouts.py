"""Whatever the layout, an array that can be one tap in one way is that tap, bit for bit."""

from dataclasses import replace

import numpy as np
import pytest

from llama_ref.golden.candidate import open_candidate
from llama_ref.trace import tap_names
from tests.golden.dumps import G, K, T, assert_is, candidate, case, interleaved, taps, written
from tests.models import TINY, tiny_model


@pytest.fixture(scope="module")
def truth():
    return taps()


LAYOUTS = {
    "batch axes of one": ("L00.q", lambda x: x[None, None]),
    "heads side by side": ("L00.k", lambda x: x.reshape(T, -1)),
    "heads first": ("L00.ctx", lambda x: x.transpose(1, 0, 2)),
    "channels first": ("L00.k_rope", lambda x: x.transpose(2, 1, 0)[None]),
    "heads side by side, transposed": ("L00.v", lambda x: x.reshape(T, -1).T),
    "transposed": ("L00.gate", lambda x: x.T),
    "vocabulary first": ("logits", lambda x: x.T[None]),
    "groups of heads": ("L00.scores", lambda x: x.reshape(K, G, T, T)),
    "padded columns": ("L00.probs", lambda x: np.pad(x, ((0, 0), (0, 0), (0, 9)))[None]),
    "repeated heads": ("L00.k_rope", lambda x: x.repeat(G, axis=1)),
    "repeated heads first": ("L00.v", lambda x: x.repeat(G, axis=1).transpose(1, 0, 2)[None]),
    "repeated heads side by side": ("L00.k", lambda x: x.repeat(G, axis=1).reshape(T, -1)),
}


@pytest.mark.parametrize("tap, layout", LAYOUTS.values(), ids=LAYOUTS)
def test_layouts_that_can_be_proven_are_read(tap, layout, truth, tmp_path):
    """An array whose axes fit in one way only is brought into ours."""
    found = candidate(tmp_path, {tap: layout(truth[tap])})
    assert found.taps("far") == [tap]
    assert_is(found.read("far", tap), truth[tap])


ROWS = {
    "the last logits": ("logits", lambda x: x[-1:], 1),
    "the last logits as a vector": ("logits", lambda x: x[-1], 1),
    "some rows in a batch": ("L01.out", lambda x: x[None, -3:], 3),
    "some rows of heads": ("L01.q", lambda x: x[-2:].reshape(2, -1), 2),
    "some rows of probabilities": ("L01.probs", lambda x: x[:, -2:], 2),
}


@pytest.mark.parametrize("tap, cut, n_rows", ROWS.values(), ids=ROWS)
def test_fewer_rows_are_the_last_ones(tap, cut, n_rows, truth, tmp_path):
    """An array with fewer rows than tokens is read as the last ones, which a note says."""
    found = candidate(tmp_path, {tap: cut(truth[tap])})
    whole = truth[tap]
    expected = whole[:, -n_rows:] if tap.endswith("probs") else whole[-n_rows:]
    assert_is(found.read("far", tap), expected, range(T - n_rows, T))
    assert "last tokens" in found.notes[0]


FUSED = [
    ("L01.qkv", "L01.gate_up"),
    ("model.layers.1.self_attn.qkv_proj", "model.layers.1.mlp.gate_up_proj.output"),
]


@pytest.mark.parametrize("qkv, gate_up", FUSED)
def test_fused_projections_are_cut_apart(qkv, gate_up, truth, tmp_path):
    """Queries, keys and values side by side, gate and up side by side, are five taps."""
    heads = [truth[f"L01.{kind}"].reshape(T, -1) for kind in ("q", "k", "v")]
    wide = [truth["L01.gate"], truth["L01.up"]]
    dump = {qkv: np.concatenate(heads, -1)[None], gate_up: np.concatenate(wide, -1)}
    found = candidate(tmp_path, dump)
    assert found.taps("far") == [f"L01.{kind}" for kind in ("q", "k", "v", "gate", "up")]
    for tap in found.taps("far"):
        assert_is(found.read("far", tap), truth[tap])


def by_calls(truth, chunks):
    """Return the taps as calls of these lengths give them, each under its number."""
    dump, lo = {}, 0
    for call, size in enumerate(chunks):
        hi = lo + size
        for tap, x in truth.items():
            inner = tap.endswith((".scores", ".probs"))
            dump[f"{call}/{tap}"] = x[:, lo:hi, :hi] if inner else x[lo:hi]
        lo = hi
    return dump


def test_calls_are_joined(truth, tmp_path):
    """A case fed in three calls and dumped call by call is the whole case; unseen columns are 0."""
    dump = by_calls(truth, (4, 1, 2))
    found = candidate(tmp_path, dump, case("decode", (4, 1, 2)))
    assert found.taps("decode") == tap_names(TINY.n_layers)
    for tap, expected in truth.items():
        whole = np.tril(expected) if tap.endswith(".scores") else expected
        dump = found.read("decode", tap)
        if tap.endswith(".scores"):
            dump.array[...] = np.tril(dump.array)
        assert_is(dump, whole)


def test_the_first_call_may_give_only_its_last_row(truth, tmp_path):
    """Logits of the last token of the prompt, then of each token: the last rows of the case."""
    dump = {"0/logits": truth["logits"][3:4], "1/logits": truth["logits"][4:5]}
    dump["2/logits"] = truth["logits"][5:]
    found = candidate(tmp_path, dump, case("decode", (4, 1, 2)))
    assert_is(found.read("decode", "logits"), truth["logits"][3:], range(3, T))


def test_axes_of_one_may_stand_anywhere(tmp_path):
    """One token and one key head: (H, 1, 1) is the same numbers whichever axis is which."""
    small = tiny_model(n_kv_heads=1)
    one = replace(case(), ids=(5,), positions=(0,), chunks=(1,))
    key = small.trace(np.array([5]))["L00.k"]
    path = written(tmp_path, {"L00.k": key.transpose(2, 1, 0)})
    found = open_candidate(path, [one], {"main": small.config})
    assert_is(found.read("far", "L00.k"), key, range(1))


def test_padding_ends_at_the_context(truth, tmp_path):
    """Scores may be as wide as the cache of the model, and not wider."""
    short = replace(TINY, context_length=16, rope_scaling=None)
    for width, taps_found in ((16, ["L00.probs", "logits"]), (17, ["logits"])):
        wide = np.pad(truth["L00.probs"], ((0, 0), (0, 0), (0, width - T)))
        path = written(tmp_path, {"L00.probs": wide, "logits": truth["logits"]})
        found = open_candidate(path, [case()], {"main": short})
        assert found.taps("far") == taps_found


def test_of_a_fused_projection_only_queries_and_keys_are_reordered(truth, tmp_path):
    """Meta's wqkv holds interleaved queries and keys, and values as they are."""
    heads = [interleaved(truth["L00.q"]), interleaved(truth["L00.k"]), truth["L00.v"]]
    fused = np.concatenate([x.reshape(T, -1) for x in heads], axis=-1)
    found = candidate(tmp_path, {"layers.0.attention.wqkv": fused})
    for tap in ("L00.q", "L00.k", "L00.v"):
        assert_is(found.read("far", tap), truth[tap])


def test_scores_are_scaled_in_float32_and_rounded_once(truth, tmp_path):
    """Half-precision products are multiplied by H^-0.5 itself, not by its nearest float16."""
    product = (truth["L00.scores"] * np.float32(3)).astype(np.float16)
    found = candidate(tmp_path, {"kq-0": product})
    scaled = product.astype(np.float32) * np.float32(TINY.head_dim**-0.5)
    assert_is(found.read("far", "L00.scores"), scaled.astype(np.float16))
