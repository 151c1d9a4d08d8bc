"""Single mistakes, each against the wrong code it stands for, written out a second time."""

from dataclasses import replace

import numpy as np
import pytest

from llama_ref.errors import BadRequest
from llama_ref.golden.mistakes import MISTAKES
from llama_ref.golden.passes import Session
from llama_ref.model import Model
from tests.golden.moments import CONFIGS, MAIN, NEAR, change_of, moments, session_of


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
