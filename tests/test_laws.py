"""Laws of the whole model: what must hold for any weights, tokens and cuts, in float64.

Laws find broken caches and masks. They do not find a wrong convention (half-split rotation in place
of interleaved keeps every one of them); the goldens are for that.
"""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_ref.errors import BadRequest
from llama_ref.ops.attention import attention, over_root_width, times_inverse_root_width
from llama_ref.ops.rms_norm import rms_norm
from llama_ref.ops.rope import rope_half_split, rope_interleaved, rope_table
from llama_ref.ops.rope_frequencies import rope_frequencies
from llama_ref.ops.softmax import softmax
from tests.models import TINY, largest_difference, tiny_ids, tiny_model

MODEL = tiny_model("float64")
SINGLE = tiny_model("float32")
NOISE = 1e-11  # float64, through two layers, in units of the logits' deviation
ids = st.lists(st.integers(0, TINY.vocab_size - 1), min_size=1, max_size=24)
quick = settings(max_examples=40, deadline=None)


@quick
@given(ids)
def test_cache_equals_full_pass(ids):
    """Feeding tokens one at a time through the cache gives the logits of one full pass."""
    cache = MODEL.new_cache()
    stepwise = np.concatenate([MODEL.forward([i], cache) for i in ids])
    assert largest_difference(stepwise, MODEL.logits(ids)) < NOISE


@quick
@given(ids, st.data())
def test_any_chunking_equals_the_whole(ids, data):
    """However a prompt is cut into chunks, the logits are those of the whole."""
    cuts = data.draw(st.lists(st.integers(1, len(ids)), max_size=4))
    bounds = sorted({0, len(ids), *cuts})
    cache = MODEL.new_cache()
    chunks = [MODEL.forward(ids[lo:hi], cache) for lo, hi in itertools.pairwise(bounds)]
    assert largest_difference(np.concatenate(chunks), MODEL.logits(ids)) < NOISE


@quick
@given(st.lists(ids, min_size=2, max_size=4))
def test_packed_equals_alone(sequences):
    """A sequence packed with others gives the logits it gives alone, also one step later."""
    caches = [MODEL.new_cache() for _ in sequences]
    packed = MODEL.forward_packed(sequences, caches)
    after = MODEL.forward_packed([[1]] * len(sequences), caches)
    for alone, logits, next_logits in zip(sequences, packed, after, strict=True):
        whole = MODEL.logits([*alone, 1])
        assert largest_difference(logits, whole[:-1]) < NOISE
        assert np.abs(next_logits[-1] - whole[-1]).max() < NOISE * whole.std()


@quick
@given(ids, st.data())
def test_no_look_ahead(ids, data):
    """Changing a token changes no logits before it."""
    at = data.draw(st.integers(0, len(ids) - 1))
    changed = [*ids[:at], (ids[at] + 1) % TINY.vocab_size, *ids[at + 1 :]]
    before, after = MODEL.logits(ids), MODEL.logits(changed)
    assert np.abs(before[:at] - after[:at]).max(initial=0) < NOISE
    assert np.abs(before[at] - after[at]).max() > 1e-6


@quick
@given(st.integers(1, 24), st.integers(0, 100_000))
def test_only_position_differences_matter(n, shift):
    """Shifting all positions alike leaves float64 logits as they were."""
    ids = tiny_ids(n)
    shifted = MODEL.forward(ids, MODEL.new_cache(), positions=np.arange(shift, shift + n))
    assert largest_difference(shifted, MODEL.logits(ids)) < 1e-9  # angles up to 1e5 lose 5 digits


@quick
@given(st.integers(0, 24), st.integers(1, 24))
def test_last_rows_are_rows_of_all(last, n):
    """Asking for the last logits gives the last rows of all logits, and 0 gives none."""
    ids = tiny_ids(n)
    some = MODEL.forward(ids, MODEL.new_cache(), last=last)
    assert some.shape == (min(last, n), TINY.vocab_size)
    np.testing.assert_allclose(some, MODEL.logits(ids)[n - min(last, n) :], rtol=0, atol=1e-12)


def test_truncated_cache_continues_as_if_never_longer():
    """A cache cut back to a prefix continues as one that only ever held the prefix."""
    cache = MODEL.new_cache()
    MODEL.forward(tiny_ids(9), cache)
    cache.truncate(4)
    whole = MODEL.logits([*tiny_ids(9)[:4], 5, 6])
    assert largest_difference(MODEL.forward([5, 6], cache), whole[4:]) < NOISE


@pytest.mark.parametrize("length", [1, 4, 9])
def test_prefix_of_a_cache_goes_its_own_way(length):
    """A copy of a cache's beginning continues as its own text; the cache it came from as before."""
    cache = MODEL.new_cache()
    MODEL.forward(tiny_ids(9), cache)
    copy = cache.prefix(length)
    whole = MODEL.logits([*tiny_ids(9)[:length], 5, 6])
    assert largest_difference(MODEL.forward([5, 6], copy), whole[length:]) < NOISE
    rest = MODEL.logits([*tiny_ids(9), 7])
    assert largest_difference(MODEL.forward([7], cache), rest[9:]) < NOISE
    for wrong in (0, 11, 1.5):
        with pytest.raises(BadRequest, match="prefix"):
            cache.prefix(wrong)


def test_cache_grows_without_changing_anything():
    """A cache that had to grow holds what one of ample capacity holds."""
    ids = tiny_ids(300)
    small, ample = SINGLE.new_cache(), SINGLE.new_cache(capacity=400)
    for chunk in (ids[:200], ids[200:]):
        grown, roomy = SINGLE.forward(chunk, small), SINGLE.forward(chunk, ample)
        np.testing.assert_array_equal(grown, roomy)
    assert small.capacity >= 300


def random_heads(seed, T, S, *, n_heads, n_kv_heads, head_dim):
    rng = np.random.default_rng(seed)
    shapes = (T, n_heads, head_dim), (S, n_kv_heads, head_dim), (S, n_kv_heads, head_dim)
    return [rng.standard_normal(shape) for shape in shapes]


@quick
@given(st.integers(0, 2**32), st.integers(1, 5), st.integers(0, 6), st.sampled_from([1, 2, 4]))
def test_grouped_heads_equal_repeated_heads(seed, T, cached, group):
    """GQA is ordinary attention over keys and values repeated for each head of a group."""
    query, key, value = random_heads(
        seed, T, T + cached, n_heads=2 * group, n_kv_heads=2, head_dim=6
    )
    grouped = attention(query, key, value, scaling=over_root_width)
    repeated = attention(
        query, np.repeat(key, group, 1), np.repeat(value, group, 1), scaling=over_root_width
    )
    np.testing.assert_allclose(grouped, repeated, rtol=0, atol=1e-13)


def test_blocks_of_queries_equal_one_block(monkeypatch):
    """Attention over blocks of queries gives, to the bit of bfloat16, what one block gives."""
    query, key, value = random_heads(1, 37, 41, n_heads=6, n_kv_heads=3, head_dim=10)
    whole = attention(query, key, value, scaling=over_root_width)
    monkeypatch.setattr("llama_ref.ops.attention.SCORES_PER_PIECE", 41 * 2 * 5)
    monkeypatch.setattr("llama_ref.ops.attention.FEW_SCORES", 0)
    blocks = attention(query, key, value, scaling=over_root_width)
    np.testing.assert_allclose(blocks, whole, rtol=0, atol=1e-14)


def test_the_two_scalings_are_one_in_float64():
    """Dividing by sqrt(H) and multiplying by H^-0.5 differ by rounding only."""
    query, key, value = random_heads(2, 7, 7, n_heads=6, n_kv_heads=3, head_dim=10)
    divided = attention(query, key, value, scaling=over_root_width)
    multiplied = attention(query, key, value, scaling=times_inverse_root_width)
    np.testing.assert_allclose(divided, multiplied, rtol=0, atol=1e-14)


@pytest.mark.parametrize("rotate", [rope_interleaved, rope_half_split])
@given(m=st.integers(0, 5000), n=st.integers(0, 5000), shift=st.integers(0, 5000))
@quick
def test_rotated_products_depend_on_the_distance(rotate, m, n, shift):
    """The product of a query at m and a key at n is that of m + shift and n + shift."""
    rng = np.random.default_rng(3)
    query, key = rng.standard_normal((2, 1, 1, 8))
    frequencies = rope_frequencies(8, theta=10_000.0, dtype=np.float64)

    def product(query_at, key_at):
        rotated = [
            rotate(x, *rope_table(np.array([at]), frequencies, dtype=np.float64))
            for x, at in ((query, query_at), (key, key_at))
        ]
        return float((rotated[0] * rotated[1]).sum())

    assert abs(product(m, n) - product(m + shift, n + shift)) < 1e-10


@pytest.mark.parametrize("rotate", [rope_interleaved, rope_half_split])
def test_rotation_keeps_lengths(rotate):
    """RoPE turns vectors and never stretches them; position 0 leaves them as they are."""
    x = np.random.default_rng(4).standard_normal((3, 2, 8))
    frequencies = rope_frequencies(8, theta=10_000.0, dtype=np.float64)
    rotated = rotate(x, *rope_table(np.array([0, 7, 90_000]), frequencies, dtype=np.float64))
    np.testing.assert_allclose(
        np.linalg.norm(rotated, axis=-1), np.linalg.norm(x, axis=-1), rtol=1e-14
    )
    np.testing.assert_array_equal(rotated[0], x[0])


@quick
@given(st.integers(0, 2**32), st.floats(0.01, 100))
def test_norm_is_scale_free(seed, c):
    """With eps = 0, RMSNorm of a multiple is the RMSNorm, and its root mean square is one."""
    x = np.random.default_rng(seed).standard_normal((3, 12))
    gain = np.ones(12)
    normed = rms_norm(x, gain, eps=0.0)
    np.testing.assert_allclose(rms_norm(c * x, gain, eps=0.0), normed, rtol=1e-12)
    np.testing.assert_allclose(np.mean(normed**2, axis=-1), 1, rtol=1e-12)


@quick
@given(st.integers(0, 2**32), st.floats(-1000, 1000))
def test_softmax_ignores_a_common_shift(seed, c):
    """Adding a constant to all scores changes no probability; they are positive and sum to one."""
    x = np.random.default_rng(seed).standard_normal((4, 9))
    np.testing.assert_allclose(softmax(x + c), softmax(x), rtol=1e-11)
    np.testing.assert_allclose(softmax(x).sum(axis=-1), 1, rtol=1e-14)
