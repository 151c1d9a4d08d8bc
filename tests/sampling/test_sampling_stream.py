"""The random stream against a second Philox, its published answers, and the draw at its edges."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_ref.errors import BadRequest
from llama_ref.ops.softmax import softmax
from llama_ref.sampling import SamplingParams, draw, sample, uniform

quick = settings(max_examples=100, deadline=None)
MASK = 2**64 - 1

VECTORS = [
    (0, 0, 0x02F4BA6408E4D89B),
    (0, 1, 0x809BF322883987C3),
    (1, 0, 0x4DB6A27B756282DF),
    (42, 0, 0xD1F8817D4D62880E),
    (42, 1, 0x5E3DAA8961C3E3D3),
    (42, 1000, 0x6C0BB45518FE0BA2),
    (2**63 - 1, 0, 0xED01AB40F6E3C032),
    (2**64 - 1, 7, 0xAFC2CB25C1370495),
]


def philox4x64_10(counter, key):
    """Salmon et al. 2011, figure 2: ten rounds on four words, in plain integers."""
    for _ in range(10):
        high_0, low_0 = divmod(0xD2E7470EE14C6C93 * counter[0], 2**64)
        high_2, low_2 = divmod(0xCA5A826395121157 * counter[2], 2**64)
        counter = (
            high_2 ^ counter[1] ^ key[0],
            low_2,
            high_0 ^ counter[3] ^ key[1],
            low_0,
        )
        key = (key[0] + 0x9E3779B97F4A7C15 & MASK, key[1] + 0xBB67AE8584CAA73B & MASK)
    return counter


@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [
        (
            (0, 0, 0, 0),
            (0, 0),
            "16554d9eca36314c db20fe9d672d0fdc d7e772cee186176b 7e68b68aec7ba23b",
        ),
        (
            (MASK,) * 4,
            (MASK,) * 2,
            "87b092c3013fe90b 438c3c67be8d0224 9cc7d7c69cd777b6 a09caebf594f0ba0",
        ),
        (
            (0x243F6A8885A308D3, 0x13198A2E03707344, 0xA4093822299F31D0, 0x082EFA98EC4E6C89),
            (0x452821E638D01377, 0xBE5466CF34E90C6C),
            "a528f45403e61d95 38c72dbd566e9788 a5a1610e72fd18b5 57bd43b5e52b7fe6",
        ),
    ],
    ids=["zeros", "ones", "digits of pi"],
)
def test_the_second_philox_gives_the_published_answers(counter, key, answer):
    """The Philox of this file is right: Random123 publishes these three answers."""
    assert " ".join(f"{word:016x}" for word in philox4x64_10(counter, key)) == answer


@quick
@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 2))
def test_uniform_is_the_stream_as_specified(seed, step):
    """U is the top 53 bits of the first word of Philox(key (seed, 0), counter step + 1)."""
    word = philox4x64_10((step + 1, 0, 0, 0), (seed, 0))[0]
    assert uniform(seed, step) == (word >> 11) * 2.0**-53


@pytest.mark.parametrize(("seed", "step", "word"), VECTORS)
def test_vectors(seed, step, word):
    """The test vectors of the page on sampling."""
    assert philox4x64_10((step + 1, 0, 0, 0), (seed, 0))[0] == word
    assert uniform(seed, step) == (word >> 11) * 2.0**-53


def test_seeds_are_taken_modulo_2_to_the_64():
    """A negative seed, and seed + i beyond the end, are seeds of 64 bits."""
    assert uniform(-2, 3) == uniform(2**64 - 2, 3)
    assert uniform(2**64 + 1, 3) == uniform(1, 3)


@pytest.mark.parametrize("step", [-1, 1.0, True, 2**64])
def test_a_step_is_a_count(step):
    """A step that counts nothing is refused."""
    with pytest.raises(BadRequest, match="step"):
        uniform(0, step)


def test_the_global_generator_is_neither_read_nor_moved():
    """Seeding NumPy's global generator changes no draw, and no draw moves it."""
    np.random.seed(1)
    first = [uniform(5, step) for step in range(3)]
    following = np.random.random()
    np.random.seed(1)
    assert np.random.random() == following
    assert [uniform(5, step) for step in range(3)] == first


@pytest.mark.parametrize(
    ("u", "token"),
    [(0.0, 1), (0.25, 1), (math.nextafter(0.5, 0), 1), (0.5, 3), (math.nextafter(1, 0), 3)],
)
def test_a_draw_at_its_edges(u, token):
    """A token is drawn from its own left end on, up to but not with its right end."""
    assert draw(np.array([0.0, 0.5, 0.0, 0.5, 0.0]), u) == token


def test_a_sum_below_one_leaves_the_last_token_reachable():
    """Probabilities that add up to less than one lose nothing: u is scaled by their sum."""
    probs_V = np.array([0.3, 0.3, 0.3999])
    assert draw(probs_V, math.nextafter(1, 0)) == 2
    assert draw(np.full(3, 5e-324), math.nextafter(1, 0)) == 2  # u * sum is rounded up to the sum


@quick
@given(
    st.lists(st.floats(-20, 20), min_size=1, max_size=30).map(np.array),
    st.floats(0, 1, exclude_max=True),
)
def test_a_draw_never_falls_on_the_impossible(logits_V, u):
    """Whatever the uniform number, the token drawn has a positive probability."""
    probs_V = softmax(np.where(logits_V < np.median(logits_V), -np.inf, logits_V))
    assert probs_V[draw(probs_V, u)] > 0


def chi_square_at(z, freedom):
    """Return a quantile of chi-square by Wilson and Hilferty, good to 2 % from 3 on."""
    spread = 2 / (9 * freedom)
    return freedom * (1 - spread + z * math.sqrt(spread)) ** 3


def test_the_quantile_is_the_one_in_the_tables():
    """For 3, 9 and 50 degrees of freedom, 0.1 % lie beyond 16.27, 27.88 and 86.66."""
    for freedom, tabled in ((3, 16.27), (9, 27.88), (50, 86.66)):
        assert chi_square_at(3.0902, freedom) == pytest.approx(tabled, rel=0.02)


@pytest.mark.parametrize(
    ("params", "probs_V"),
    [
        (SamplingParams(), [0.1, 0.2, 0.3, 0.4]),
        (SamplingParams(temperature=0.5), np.square([0.1, 0.2, 0.3, 0.4]) / 0.3),
        (SamplingParams(top_k=3), [0, 2 / 9, 3 / 9, 4 / 9]),
        (SamplingParams(top_p=0.69), [0, 0, 3 / 7, 4 / 7]),
        (SamplingParams(logit_bias={0: math.log(2)}), np.array([0.2, 0.2, 0.3, 0.4]) / 1.1),
    ],
    ids=["plain", "temperature", "top_k", "top_p", "bias"],
)
@pytest.mark.parametrize("way", ["steps of a seed", "first steps of seeds"])
def test_frequencies_follow_the_probabilities(params, probs_V, way):
    """1,500 draws pass a chi-square test, along one stream and across the seeds."""
    logits_V, n, probs_V = np.log([0.1, 0.2, 0.3, 0.4]), 1_500, np.asarray(probs_V)
    pairs = ((1, k) if way == "steps of a seed" else (k, 0) for k in range(n))
    drawn = [sample(logits_V, params, seed=seed, step=step) for seed, step in pairs]
    counts, possible = np.bincount(drawn, minlength=4), probs_V > 0
    assert not counts[~possible].any()
    expected = n * probs_V[possible]
    chi_square = ((counts[possible] - expected) ** 2 / expected).sum()
    assert chi_square < max(chi_square_at(3.0902, len(expected) - 1), 10.83)


def test_fixed_seeds_give_fixed_tokens():
    """These tokens are part of what is promised: they change with no version and no machine."""
    logits_V = np.sin(np.arange(1000.0)) * 3
    params = SamplingParams(temperature=0.8, top_k=50, top_p=0.9)
    assert [
        [sample(logits_V, params, seed=s, step=t) for t in range(6)] for s in (0, 1, 2**63)
    ] == [
        [14, 498, 253, 567, 278, 165],
        [297, 900, 410, 743, 297, 963],
        [944, 278, 278, 77, 523, 743],
    ]
