"""The table of porting mistakes: each shows exactly where it says it can, and is like no other."""

import re
from dataclasses import fields, replace
from functools import cache
from itertools import combinations

import numpy as np
import pytest

from llama_ref.checkpoint import synthetic
from llama_ref.config.presets import FACTOR_32
from llama_ref.errors import BadRequest
from llama_ref.golden.cases import Case
from llama_ref.golden.mistakes import MISTAKES
from llama_ref.golden.passes import INPUTS, Session, visible_parts
from llama_ref.model import Model
from tests.golden import port
from tests.models import TINY, tiny_ids, tiny_model

# All that golden-tiny has at half its width: square projections, whole blocks of 32, a pair of
# channels in every band of the scaling.
MAIN = replace(
    TINY, d_model=128, n_layers=3, n_heads=8, n_kv_heads=2, head_dim=16, d_ff=160, vocab_size=97
)
# Each lacks something that a mistake needs.
CONFIGS = {
    "main": MAIN,
    "factor 32, tied, two layers, H = 10, no whole blocks": replace(
        TINY, rope_scaling=FACTOR_32, tied_embeddings=True
    ),
    "no scaling, no groups, eps 1e-6, one layer": replace(
        TINY, rope_scaling=None, rope_theta=10_000.0, n_kv_heads=6, norm_eps=1e-6, n_layers=1
    ),
    "one key head as wide as the model, a single pair of channels": replace(
        TINY, d_model=8, n_heads=4, n_kv_heads=1, head_dim=2, d_ff=20
    ),
}
CHANGE = 1e-9
"""A relative change that float64 noise, 1e-15, never makes."""


def a_case(name, positions, chunks=None, **more):
    n = len(positions)
    ids = tuple(tiny_ids(n, seed=n).tolist())
    return Case(name, "", ids, tuple(positions), chunks or (n,), **more)


NEAR = a_case("near", range(7))
FAR = a_case("far", (0, 1, 2, 64, 300, 999, 4097, 8191, 60_001))
CHUNKS = a_case("chunks", (0, 1, 2, 3, 4, 5, 6, 900, 901), (4, 1, 1, 3))
RAGGED = a_case("ragged", range(4), padding=3)
ALONE = Case("alone", "", (0,), (0,), (1,))
SINGLES = a_case("singles", range(3), (1, 1, 1))
CASES = {case.name: case for case in (NEAR, FAR, CHUNKS, RAGGED, ALONE, SINGLES)}


@cache
def session_of(config, case_name, layout="hf"):
    shape = {one.name: getattr(config, one.name) for one in fields(config)}
    return Session(tiny_model("float64", layout=layout, **shape), CASES[case_name])


def moments(session):
    """Yield every moment of a right pass, with all taps of its layer so far."""
    found = []

    def keep(moment):
        taps = {kind: array.copy() for kind, array in moment.taps.items()}
        found.append(replace(moment, computed=moment.computed.copy(), taps=taps))

    session.run(keep)
    return found


def change_of(moment, wrong):
    """Return the relative change of a tap, or 1 where it is no number any more."""
    right, wrong = (visible_parts(moment.kind, x) for x in (moment.computed, wrong))
    if not np.isfinite(wrong).all():
        return 1.0
    return np.linalg.norm(wrong - right) / np.linalg.norm(right)


def test_every_entry_is_well_formed():
    """Ids are kebab-case, sentences are one each, and the taps distorted exist; it is read-only."""
    for id_, mistake in MISTAKES.items():
        assert mistake.id == id_
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", id_)
        assert mistake.title and not mistake.title.endswith(".")
        for sentence in (mistake.what, mistake.where):
            assert re.fullmatch(r"[A-Z0-9`].*[^.]\.", sentence), (id_, sentence)
            assert not re.search(r"[.!?] [A-Z]", sentence), (id_, sentence)
        assert mistake.changes and set(mistake.changes) <= set(INPUTS)
    with pytest.raises(TypeError):
        MISTAKES["new-one"] = mistake


def test_the_order_is_that_of_the_data():
    """Mistakes come in the order of the first tap that each distorts."""
    order = list(INPUTS)
    firsts = [min(order.index(kind) for kind in one.changes) for one in MISTAKES.values()]
    assert firsts == sorted(firsts)


# `applies` says no, and yet something is computed that differs: these have a reason of their own.
SPARED = {
    "rope-halves-written-interleaved": "it names what is wrong in one of the two layouts",
    "query-weight-transposed": "a matrix that is not square cannot be transposed unnoticed",
    "output-weight-transposed": "a matrix that is not square cannot be transposed unnoticed",
    "weights-in-q8-0": "ggml refuses rows that are not whole blocks",
    "weights-in-q4-0": "ggml refuses rows that are not whole blocks",
    "key-rows-permuted-by-query-heads": "heads of an odd width have no halves",
}


@pytest.mark.parametrize("layout", ["hf", "meta"])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_mistake_shows_exactly_where_it_applies(config, layout):
    """Where `applies` says yes a tap changes by more than noise; where it says no, none does."""
    for name in CASES if layout == "hf" else ("near", "chunks"):
        session, largest = session_of(config, name, layout), dict.fromkeys(MISTAKES, 0.0)
        for moment in moments(session):
            for id_, mistake in MISTAKES.items():
                if moment.kind not in mistake.changes:
                    continue
                if id_ in SPARED and not mistake.applies(session):
                    continue
                wrong = mistake.changes[moment.kind](moment)
                assert wrong.dtype == np.float64, (id_, moment.name)
                assert wrong.shape == moment.computed.shape, (id_, moment.name)
                largest[id_] = max(largest[id_], change_of(moment, wrong))
        for id_, mistake in MISTAKES.items():
            assert mistake.applies(session) == (largest[id_] > CHANGE), (id_, name, largest[id_])


def test_every_mistake_applies_somewhere():
    """For each mistake one of these models and cases shows it."""
    for id_, mistake in MISTAKES.items():
        sessions = (session_of(config, case) for config in CONFIGS.values() for case in CASES)
        assert any(mistake.applies(session) for session in sessions), id_


def test_a_mistake_leaves_what_it_reads():
    """No mutant writes into the arrays it is given."""
    for moment in moments(session_of(MAIN, "chunks"))[:20]:
        before = {kind: array.copy() for kind, array in moment.taps.items()}
        right = moment.computed.copy()
        for mistake in MISTAKES.values():
            if moment.kind in mistake.changes:
                mistake.changes[moment.kind](moment)
        assert np.array_equal(moment.computed, right)
        assert all(np.array_equal(moment.taps[kind], before[kind]) for kind in before)


def test_a_mistake_survives_infinities():
    """A mutant of numbers that are none raises nothing and warns of nothing."""
    for moment in moments(session_of(MAIN, "chunks"))[:20]:
        ruined = {kind: np.full_like(array, -np.inf) for kind, array in moment.taps.items()}
        ruined = replace(moment, taps=ruined, computed=np.full_like(moment.computed, np.nan))
        for mistake in MISTAKES.values():
            if moment.kind in mistake.changes:
                mistake.changes[moment.kind](ruined)


def sketches(case_name):
    """Return for each mistake that applies a few random sums over each tap of a pass."""
    session, rng = session_of(MAIN, case_name), np.random.default_rng(0)
    applying = {id_: m for id_, m in MISTAKES.items() if m.applies(session)}
    table = {id_: [] for id_ in applying}
    for moment in moments(session):
        weights = rng.normal(size=(moment.computed.size, 3))
        weights /= np.linalg.norm(moment.computed)
        right = visible_parts(moment.kind, moment.computed)
        for id_, mistake in applying.items():
            wrong = right
            if moment.kind in mistake.changes:
                wrong = visible_parts(moment.kind, mistake.changes[moment.kind](moment))
            table[id_].append(wrong.ravel() @ weights)
    return {id_: np.concatenate(rows) for id_, rows in table.items()}


def ties(case_name):
    found = sketches(case_name)
    return {(a, b) for a, b in combinations(found, 2) if np.allclose(found[a], found[b], atol=1e-9)}


# Nothing here stands beyond the 8,192 positions up to which one of them does not scale either.
UNSCALED = ("rope-scaling-missing", "rope-scaling-only-far")
# One call: to count from 0 in each call is to count from 0.
COUNTED = ("rope-restarts-in-each-chunk", "rope-positions-consecutive")
# Both keep 11 bits. They differ where a number lies half way, and below 2^-14.
ROUNDED = ("operands-in-float16", "operands-in-tf32")
TIES = {
    "near": {UNSCALED},
    "far": {COUNTED, ROUNDED},
    "chunks": {UNSCALED},
    "ragged": {UNSCALED, ROUNDED},
}


@pytest.mark.parametrize("case_name", TIES)
def test_mistakes_are_told_apart(case_name):
    """In each case no two mistakes compute the same at all taps, but for those listed with why."""
    assert ties(case_name) == TIES[case_name]


def test_every_two_mistakes_are_told_apart_somewhere():
    """No pair is tied in all cases."""
    assert set.intersection(*TIES.values()) == set()


# The port rounds these otherwise at some ties, or sums in another order: it comes close, not equal.
COARSE = {
    "operands-in-tf32",
    "weights-in-q8-0",
    "weights-in-q4-0",
    "accumulated-in-bfloat16",
    "accumulated-in-float16",
}


@pytest.mark.parametrize("id_", [id_ for id_ in port.MISTAKES if id_ not in COARSE])
def test_a_port_that_makes_the_mistake_is_explained(id_):
    """A port that makes it has, at each tap it distorts, what the mutant computes, to float32."""
    mistake = MISTAKES[id_]
    config = replace(MAIN, rope_scaling=FACTOR_32) if id_ == "rope-factor-8" else MAIN
    before, after, elsewhere = residuals(mistake, config)
    assert after < 5e-5  # what float32 makes of angles at position 999
    assert before > 100 * after or id_ == "last-layer-skipped"  # has no taps where it is wrong
    assert elsewhere < 5e-5 or id_ == "last-layer-skipped"


def residuals(mistake, config):
    """Replay the port's wrong run: the largest error before and after, and at other taps."""
    tensors, before, after, elsewhere = dict(synthetic.checkpoint(config, 0)), 0.0, 0.0, 0.0
    for name in ("chunks", "ragged") if mistake.id != "softmax-over-queries" else ("chunks",):
        session = session_of(config, name)
        if not mistake.applies(session):
            continue
        found = port.run(config, tensors, session.case, mistake=mistake.id)
        dump = {tap: array.astype(np.float64) for tap, array in found.items()}
        session = replace(session, dump_of=dump.get)

        def watch(moment, dump=dump):
            nonlocal before, after, elsewhere
            if moment.name not in dump:
                return
            error = change_of(moment, moment.dumped)
            if moment.kind in mistake.changes:
                before = max(before, error)
                own = mistake.changes[moment.kind](moment)
                after = max(after, change_of(replace(moment, computed=moment.dumped), own))
            else:
                elsewhere = max(elsewhere, error)
            moment.computed[...] = moment.dumped

        session.run(watch)
    return before, after, elsewhere


def wrong_taps(id_, kind, case_name="chunks", config=MAIN, layout="hf"):
    """Yield (moment, wrong array) of one kind of tap."""
    for moment in moments(session_of(config, case_name, layout)):
        if moment.kind == kind:
            yield moment, MISTAKES[id_].changes[kind](moment)


def angle_of(moment, frequencies=None):
    frequencies = moment.model.frequency_P if frequencies is None else frequencies
    return np.array(moment.case.positions)[:, None, None] * frequencies


def test_the_table_of_the_other_pairing_is_repeat_interleave():
    """It is x cos + rotate_half(x) sin with every angle repeated twice in a row."""
    for moment, wrong in wrong_taps("rope-table-in-other-pairing", "q_rope"):
        x, angle = moment.taps["q"], np.repeat(angle_of(moment), 2, axis=-1)
        half = x.shape[-1] // 2
        rotated = np.concatenate([-x[..., half:], x[..., :half]], axis=-1)
        assert np.allclose(wrong, x * np.cos(angle) + rotated * np.sin(angle))
    for moment, wrong in wrong_taps("rope-table-in-other-pairing", "q_rope", layout="meta"):
        x, angle = moment.taps["q"], np.concatenate([angle_of(moment)] * 2, axis=-1)
        rotated = np.stack([-x[..., 1::2], x[..., 0::2]], axis=-1).reshape(x.shape)
        assert np.allclose(wrong, x * np.cos(angle) + rotated * np.sin(angle))


def test_inverted_factors_are_found_pair_by_pair():
    """Slow pairs turn 8 times too fast, fast ones as they should."""
    for moment, wrong in wrong_taps("rope-factors-inverted", "k_rope"):
        frequency = 500_000.0 ** (-np.arange(8) / 8)
        factor = moment.model.frequency_P / frequency
        assert np.isclose(factor[0], 1) and np.isclose(factor[-1], 1 / 8)
        z = moment.taps["k"][..., :8] + 1j * moment.taps["k"][..., 8:]
        z = z * np.exp(1j * angle_of(moment, frequency / factor))
        assert np.allclose(wrong, np.concatenate([z.real, z.imag], axis=-1))


def test_scaling_that_nobody_asked_for_is_that_of_llama_3_1():
    """A model without scaling is turned as its twin with factor 8 would be."""
    config = replace(MAIN, rope_scaling=None)
    twin = session_of(MAIN, "chunks").model.frequency_P
    for moment, wrong in wrong_taps("rope-scaling-uncalled-for", "q_rope", config=config):
        z = moment.taps["q"][..., :8] + 1j * moment.taps["q"][..., 8:]
        z = z * np.exp(1j * angle_of(moment, twin))
        assert np.allclose(wrong, np.concatenate([z.real, z.imag], axis=-1))


def test_keys_permuted_by_query_heads_follow_the_converter():
    """Rows go through llama.cpp's `permute` with 8 heads, and back with the 2 there are."""
    for moment, wrong in wrong_taps("key-rows-permuted-by-query-heads", "k"):
        weight = moment.own.w_key_BD[:]
        there = weight.reshape(8, 2, -1, 128).swapaxes(1, 2).reshape(32, 128)
        back = there.reshape(2, 8, 2, 128).swapaxes(1, 2).reshape(32, 128)
        assert np.allclose(wrong.reshape(-1, 32), moment.input @ back.T.astype(np.float64))


def test_unrotated_keys_are_those_of_the_cache():
    """Scores with keys of earlier calls use them unturned, those of the own call turned."""
    for moment, wrong in wrong_taps("cache-holds-unrotated-keys", "scores"):
        taps, start = moment.taps, moment.case.chunk_start_T
        for n, t, s in [(0, 8, 3), (5, 8, 6), (5, 8, 7), (7, 4, 0), (7, 4, 4)]:
            key = taps["k" if s < start[t] else "k_rope"][s, n // 4]
            assert np.isclose(wrong[n, t, s], taps["q_rope"][t, n] @ key / 4)


def test_float8_keeps_three_bits_behind_the_point():
    """Keys within float8's range are rounded to 4 significant bits before they are read."""
    for moment, wrong in wrong_taps("cache-in-float8", "scores"):
        mantissa, exponent = np.frexp(moment.taps["k_rope"])
        exponent = np.maximum(exponent, -5)  # below 2^-6 steps are 2^-9
        steps = np.rint(np.ldexp(moment.taps["k_rope"], 4 - exponent))
        key = np.repeat(np.ldexp(steps, exponent - 4), 4, axis=1)
        query = moment.taps["q_rope"]
        assert np.allclose(wrong, np.einsum("tnh,snh->nts", query, key) / 4)
        assert mantissa.max() < 1


def test_later_calls_without_a_mask_see_themselves_whole():
    """Token 6 of the last call, of tokens 6 to 8, reads all nine; token 2 of the first reads 3."""
    for _, wrong in wrong_taps("mask-missing-in-later-chunks", "probs"):
        seen = (wrong[0] > 0).sum(axis=-1)
        assert seen.tolist() == [1, 2, 3, 4, 5, 6, 9, 9, 9]
        assert np.allclose(wrong.sum(axis=-1), 1)


def test_the_second_final_norm_sees_the_first():
    """It divides what the first returned by its own root mean square."""
    for moment, wrong in wrong_taps("final-norm-twice", "final_norm"):
        x = moment.computed
        rms = np.sqrt((x**2).mean(axis=1, keepdims=True) + 1e-5)
        assert np.allclose(wrong, x / rms * moment.model.weights.final_gain_D)


def q8_0(row):
    """Quantise 32 numbers as quantize_row_q8_0_ref does, and give back what they became."""
    d = np.float32(max(abs(row))) / np.float32(127)
    scaled = [float(x * (np.float32(1) / d)) for x in row]
    steps = [int(abs(x) + 0.5) * (1 if x >= 0 else -1) for x in scaled]
    return [q * float(np.float16(d)) for q in steps]


def q4_0(row):
    """Quantise 32 numbers as quantize_row_q4_0_ref does, and give back what they became."""
    largest = max(row, key=abs)
    d = largest / np.float32(-8)
    steps = [min(15, int(x * (np.float32(1) / d) + np.float32(8.5))) for x in row]
    return [(q - 8) * float(np.float16(d)) for q in steps]


@pytest.mark.parametrize(
    ("id_", "one_block"), [("weights-in-q8-0", q8_0), ("weights-in-q4-0", q4_0)]
)
def test_quantised_weights_are_those_of_ggml(id_, one_block):
    """Blocks of 32 come back as ggml's reference code, written out as scalars, gives them."""
    for moment, wrong in list(wrong_taps(id_, "k", "ragged"))[:1]:
        weight = moment.own.w_key_BD[:].astype(np.float32)
        blocks = [one_block(block) for block in weight.reshape(-1, 32)]
        stored = np.array(blocks).reshape(weight.shape)
        assert np.allclose(wrong.reshape(4, -1), moment.input @ stored.T, rtol=1e-12)


def test_leaked_probability_is_a_factor_for_each_row():
    """With a dump the padding's share of each row is taken from it; without, its keys are zero."""
    for moment, wrong in wrong_taps("padding-attended", "probs", "ragged"):
        share = np.linspace(0.2, 0.9, wrong[..., :1].size).reshape(wrong[..., :1].shape)
        session = replace(moment.session, dump_of=lambda tap, d=moment.computed * share: d)
        again = MISTAKES["padding-attended"].changes["probs"](replace(moment, session=session))
        assert np.allclose(again, moment.computed * share)
        score = moment.taps["scores"][3, 2, :3]
        whole = np.exp(score) / (np.exp(score).sum() + 3)
        assert np.allclose(wrong[3, 2, :3], whole)


def test_noise_is_as_large_as_16_bits_make_it():
    """Sums in bfloat16 err by some of its steps, sums in float16 by an eighth of that."""
    for moment, wrong in wrong_taps("accumulated-in-bfloat16", "ffn_out", "near"):
        assert 1e-3 < change_of(moment, wrong) < 1e-2
    for moment, wrong in wrong_taps("accumulated-in-float16", "ffn_out", "near"):
        assert 1e-4 < change_of(moment, wrong) < 1.3e-3
    assert [id_ for id_ in MISTAKES if MISTAKES[id_].is_noise] == [
        "accumulated-in-bfloat16",
        "accumulated-in-float16",
    ]


def test_gains_of_one_hide_what_is_done_to_them():
    """In a model whose gains are all 1 a missing gain and swapped gains do not apply."""
    session = session_of(MAIN, "near")
    weights = replace(session.model.weights, final_gain_D=np.ones(128, np.float32))
    model = Model(MAIN, weights, session.model.lineage, np.dtype(np.float64))
    plain = Session(model, NEAR)
    assert not MISTAKES["norm-gain-missing"].applies(plain)
    assert not MISTAKES["norm-gains-swapped"].applies(plain)
    assert MISTAKES["norm-gain-plus-one"].applies(plain)


def test_a_matrix_that_is_not_square_cannot_be_transposed():
    """Where N * H is not D the transposed query weight fits nothing, and the mistake is spared."""
    session = session_of(CONFIGS["factor 32, tied, two layers, H = 10, no whole blocks"], "near")
    moment = next(moment for moment in moments(session) if moment.kind == "q")
    with pytest.raises(BadRequest):
        MISTAKES["query-weight-transposed"].changes["q"](moment)
