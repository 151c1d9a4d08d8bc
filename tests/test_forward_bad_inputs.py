"""Ids, positions, caches and weights that no correct call contains (bad-inputs B11)."""

import contextlib
import threading
import warnings

import numpy as np
import pytest

from llama_ref.cache import KVCache
from llama_ref.config import RopeScaling
from llama_ref.errors import BadRequest, LimitExceeded, NonFiniteError
from llama_ref.model import Model
from llama_ref.numerics import BFLOAT16
from llama_ref.ops.attention import attention, over_root_width
from llama_ref.ops.linear import linear
from llama_ref.ops.softmax import softmax
from llama_ref.ops.swiglu import swiglu
from llama_ref.trace import tap_names
from tests.models import TINY, largest_difference, tiny_ids, tiny_model

MODEL = tiny_model()
V = TINY.vocab_size


@pytest.mark.parametrize(
    ("ids", "says"),
    [
        pytest.param([], "at least one", id="B11-164 empty"),
        pytest.param([1, V], f"position 1: expected 0 to {V - 1}", id="B11-165 vocab_size"),
        pytest.param([1, 2, -1], "position 2", id="B11-165 -1 is not the last row"),
        pytest.param([True], r"ids\[0\]: expected a 64-bit integer", id="B11-165 bool"),
        pytest.param([2**70], "64-bit", id="B11-165 huge"),
        pytest.param(np.array([1.0]), "float64", id="B11-165 float array"),
        pytest.param(np.array([1, None]), "object", id="B11-165 object array"),
        pytest.param(np.array([[1, 2]]), "2 dimensions", id="B11-165 two-dimensional"),
        pytest.param("12", "sequence of integers", id="B11-165 text"),
        pytest.param(np.array([True]), "bool", id="B11-165 bool array"),
    ],
)
def test_bad_ids_are_refused_with_their_position(ids, says):
    """An id outside the vocabulary, or that is no integer, is named; NumPy never sees it."""
    with pytest.raises(BadRequest, match=says):
        MODEL.forward(ids, MODEL.new_cache())


@pytest.mark.parametrize("last", [-1, 1.0, True, "all"])
def test_last_counts_rows(last):
    """The number of last rows is an integer of 0 or more; True is none."""
    with pytest.raises(BadRequest, match="last"):
        MODEL.forward([1], MODEL.new_cache(), last=last)


def test_a_ragged_list_is_a_batch():
    """A list of sequences of different lengths is several sequences, not an array of objects."""
    logits = MODEL.logits([[1, 2, 3], [4]])
    assert [array.shape for array in logits] == [(3, V), (1, V)]


def test_context_is_filled_to_the_last_position_and_no_further():
    """B11-166: a prompt as long as the context runs; one token more names both lengths."""
    model = tiny_model(context_length=8)
    cache = model.new_cache()
    assert model.forward(tiny_ids(8), cache).shape == (8, V)
    with pytest.raises(LimitExceeded, match="8 filled and 1 more"):
        model.forward([1], cache)
    with pytest.raises(LimitExceeded, match="at most 8 positions"):
        model.forward(tiny_ids(9), model.new_cache())


def test_full_cache_overwrites_nothing():
    """B11-167: a step beyond a stated capacity is an error, and the cache still holds its past."""
    cache = MODEL.new_cache(capacity=3)
    MODEL.forward([1, 2, 3], cache)
    before = cache.key_LCKH.copy()
    with pytest.raises(LimitExceeded, match="reserve"):
        MODEL.forward([4], cache)
    np.testing.assert_array_equal(cache.key_LCKH, before)
    for wrong in ("5", 4.0, True, -1):
        with pytest.raises(BadRequest, match="reserve"):
            cache.reserve(wrong)
    cache.reserve(4)
    after = MODEL.forward([4], cache)
    assert largest_difference(after, MODEL.logits([1, 2, 3, 4])[-1:]) < 1e-5


def test_cache_of_another_model_is_refused():
    """B11-168: a cache belongs to the model it was made for, even where all sizes agree."""
    other = tiny_model(seed=1)
    with pytest.raises(BadRequest, match="another model"):
        MODEL.forward([1], other.new_cache())
    in_16_bits = Model(MODEL.config, MODEL.weights, MODEL.lineage, BFLOAT16)
    with pytest.raises(BadRequest, match="another model"):
        MODEL.forward([1], in_16_bits.new_cache())
    with pytest.raises(BadRequest, match="found None"):
        MODEL.forward([1], None)
    with pytest.raises(BadRequest, match="2 sequences"):
        MODEL.forward_packed([[1], [2]], [MODEL.new_cache()])
    twice = MODEL.new_cache()
    with pytest.raises(BadRequest, match="one of its own for each of 2 sequences, found 1"):
        MODEL.forward_packed([[1], [2]], [twice, twice])
    with pytest.raises(BadRequest, match="sequences: expected one or more"):
        MODEL.forward_packed([], [])


@pytest.mark.parametrize("length", [-1, 4, 1.0, True])
def test_a_cache_forgets_a_whole_number_of_positions(length):
    """A length to truncate to is an integer, no longer than what is filled."""
    cache = MODEL.new_cache()
    MODEL.forward([1, 2, 3], cache)
    with pytest.raises(BadRequest, match="truncate: expected 0 to 3"):
        cache.truncate(length)
    assert cache.length == 3


@pytest.mark.parametrize(
    "positions",
    [
        pytest.param([5, 7], id="overlap the cache"),
        pytest.param([-1, 9], id="negative"),
        pytest.param([9, 9], id="duplicated"),
        pytest.param([10, 9], id="falling"),
        pytest.param([8], id="one for two tokens"),
        pytest.param([8.0, 9.0], id="floats"),
    ],
)
def test_positions_have_to_continue_the_cache(positions):
    """B11-169: positions that repeat, fall, or reach back before the cache are refused."""
    cache = MODEL.new_cache()
    MODEL.forward([1, 2], cache, positions=[3, 7])
    with pytest.raises(BadRequest, match="positions"):
        MODEL.forward([3, 4], cache, positions=positions)
    assert cache.length == 2
    assert MODEL.forward([3, 4], cache).shape == (2, V)
    assert cache.position_C[:4].tolist() == [3, 7, 8, 9]


def test_position_at_the_end_of_the_context_runs_and_beyond_it_does_not():
    """B11-184: position 131,071 gives finite logits, 131,072 is refused."""
    assert np.isfinite(MODEL.forward([1], MODEL.new_cache(), positions=[131_071])).all()
    with pytest.raises(LimitExceeded, match="131072"):
        MODEL.forward([1], MODEL.new_cache(), positions=[131_072])


def test_cache_larger_than_memory_is_refused_before_it_is_allocated():
    """B11-170: the message names the bytes; a capacity beyond the context is refused as well."""
    model = tiny_model()
    huge = type(TINY)(**{**vars(TINY), "n_layers": 4096, "head_dim": 2**16})
    with pytest.raises(LimitExceeded, match="bytes of this machine"):
        KVCache(huge, np.dtype(np.float32), capacity=131_072)
    with pytest.raises(LimitExceeded, match="context length"):
        model.new_cache(capacity=131_073)
    with pytest.raises(LimitExceeded, match="KVCache capacity"):
        model.new_cache(capacity=0)


def test_trace_larger_than_memory_is_refused_before_it_is_run(monkeypatch):
    """B11-170: the scores of 10,000 tokens are gigabytes; the message says so at once."""
    monkeypatch.setattr("llama_ref.model.physical_memory", lambda: 10**9)
    with pytest.raises(LimitExceeded, match=r"trace: .* 9,600,000,000 for the scores of 10,000"):
        tiny_model().trace([1] * 10_000)


def test_row_without_a_visible_position_is_an_error():
    """B11-173: minus infinity alone has no softmax."""
    with pytest.raises(BadRequest, match="row of minus infinities"):
        softmax(np.array([[0.0, 1.0], [-np.inf, -np.inf]]))


@pytest.mark.parametrize("scores", [[1e4, -1e4, 1e4], [3e38, 0.0, -3e38], [7.0, 7.0, 7.0]])
def test_softmax_of_extremes_is_finite(scores):
    """B11-174: the largest float32 scores give probabilities that sum to one."""
    probs = softmax(np.array(scores, np.float32))
    assert probs.dtype == np.float32
    assert probs.shape == (3,)
    assert probs.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("where", "tap", "tensor"),
    [
        (("layers", 1, "w_gate_FD"), "L01.gate", "model.layers.1.mlp.gate_proj.weight"),
        (("layers", 0, "w_value_BD"), "L00.v", "model.layers.0.self_attn.v_proj.weight"),
        (("layers", 1, "ffn_gain_D"), "L01.ffn_norm", "post_attention_layernorm.weight"),
        (("final_gain_D",), "final_norm", "model.norm.weight"),
        (("w_head_VD",), "logits", "lm_head.weight"),
    ],
)
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_non_finite_weight_is_traced_to_its_tensor(where, tap, tensor, poison):
    """B3-51, B11-175: the first broken tap and the weight behind it are both in the message."""
    model = tiny_model()
    holder = model.weights
    for step in where[:-1]:
        holder = holder[step] if isinstance(step, int) else getattr(holder, step)
    array = getattr(holder, where[-1])
    array[(3,) * array.ndim] = poison
    at = str((3,) * array.ndim).replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(NonFiniteError, match=rf"activation {tap}: .*{tensor} holds .* at {at}"):
        model.logits(tiny_ids(5))


@pytest.mark.parametrize(
    ("dtype", "large"), [("float32", 1e30), ("bfloat16", 1e30), ("float16", 300.0)]
)
@pytest.mark.parametrize("sign", [1, -1])
def test_scores_that_overflow_are_traced_to_their_tap(dtype, large, sign):
    """B11-175: infinite scores are named, those too that leave a row of minus infinities."""
    model = tiny_model(dtype)
    layer = model.weights.layers[1]
    layer.w_query_AD[:], layer.w_key_BD[:] = large, sign * large
    with pytest.raises(NonFiniteError, match=r"activation L01\.scores: .* found -?inf"):
        model.logits(tiny_ids(5))


def test_scaling_beyond_all_releases_loads_without_a_word():
    """Factors at the edge of what a file may state overflow in silence; a pass tells."""
    rope = RopeScaling(1.0, low_freq_factor=1e-30, high_freq_factor=1.1e-30, original_context=2**31)
    model = tiny_model(rope_theta=1e-30, rope_scaling=rope)
    with contextlib.suppress(NonFiniteError):
        assert np.isfinite(model.logits(tiny_ids(5))).all()


def test_non_finite_embedding_is_found_when_its_token_comes():
    """B3-51: a broken embedding row stops the pass that uses it, and no other."""
    model = tiny_model()
    model.weights.embedding_VD[17, 4] = np.nan
    assert np.isfinite(model.logits([1, 2])).all()
    with pytest.raises(NonFiniteError, match=r"activation embed.*embed_tokens.*\(17, 4\)"):
        model.logits([1, 17])


def test_overflow_without_a_broken_weight_says_so():
    """B11-175: float16 activations that outgrow their range are told apart from bad weights."""
    model = tiny_model("float16")
    model.weights.layers[0].w_down_DF[:] *= 60_000
    model.weights.layers[0].w_down_DF[:] *= 60_000
    with pytest.raises(NonFiniteError, match=r"L00\.(ffn_out|out)"):
        model.logits(tiny_ids(5))


def test_silu_of_float16_extremes_is_computed_in_float32():
    """B11-176: exp(60000) overflows float16 and float32 alike, and silu is right all the same."""
    gate = np.array([[-60_000, -20, 0, 20, 60_000]], np.float16)
    act = swiglu(gate, np.ones_like(gate))
    assert act.dtype == np.float16
    assert act.shape == (1, 5)
    np.testing.assert_array_equal(act[0, [0, 2, 3, 4]], np.float16([-0.0, 0, 20, 60_000]))


def test_callers_error_state_and_warnings_change_nothing():
    """B11-177: np.seterr(all='raise') and warnings as errors leave results as they are."""
    expected = MODEL.logits(tiny_ids(6))
    with np.errstate(all="raise"), warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(MODEL.logits(tiny_ids(6)), expected)
        swiglu(np.float32([[-1e9]]), np.float32([[1]]))
        softmax(np.float32([0, -1e4]))


@pytest.mark.parametrize(
    "store",
    [
        pytest.param(lambda w: w.astype(">f4"), id="big-endian"),
        pytest.param(np.asfortranarray, id="F order"),
        pytest.param(lambda w: np.repeat(w, 2, axis=1)[:, ::2], id="strided"),
        pytest.param(lambda w: np.lib.stride_tricks.as_strided(w, writeable=False), id="read-only"),
        pytest.param(
            lambda w: (
                np.frombuffer(b"x" + w.tobytes(), np.uint8)[1:].view(w.dtype).reshape(w.shape)
            ),
            id="unaligned",
        ),
    ],
)
@pytest.mark.parametrize("n_tokens", [1, 3, 40])
def test_weights_of_any_memory_layout_give_the_same_values(store, n_tokens):
    """B11-178: byte order, strides, alignment and read-only flags of a weight do not matter."""
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((n_tokens, 24)), rng.standard_normal((44, 24))
    x, weight = x.astype(np.float32), weight.astype(np.float32)
    np.testing.assert_allclose(linear(x, store(weight)), linear(x, weight), rtol=0, atol=1e-5)


def test_returned_logits_are_the_callers_own():
    """B11-179: overwriting returned logits changes nothing in the model."""
    first = MODEL.logits(tiny_ids(4))
    expected = first.copy()
    first[:] = np.nan
    np.testing.assert_array_equal(MODEL.logits(tiny_ids(4)), expected)


def test_two_threads_share_a_model():
    """B11-180: two threads, each with its own cache, get what each gets alone."""
    prompts = [tiny_ids(30, seed) for seed in range(4)]
    expected = [MODEL.logits(ids) for ids in prompts]
    found = [None] * 4

    def work(i):
        for _ in range(5):
            found[i] = MODEL.logits(prompts[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for alone, together in zip(expected, found, strict=True):
        assert largest_difference(together, alone) < 1e-5


@pytest.mark.parametrize("stop", [KeyboardInterrupt, MemoryError])
def test_interrupted_pass_leaves_the_cache_as_it_was(stop):
    """B11-182, B11-183: a pass that stops half-way is as if it had not begun."""
    cache = MODEL.new_cache()
    MODEL.forward([1, 2], cache)

    def tap(name, array):
        if name == "L01.gate":
            raise stop

    with pytest.raises(stop):
        MODEL.forward([3, 4, 5], cache, tap=tap)
    assert cache.length == 2
    again = MODEL.forward([6], cache)
    assert largest_difference(again, MODEL.logits([1, 2, 6])[-1:]) < 1e-5


def test_attention_refuses_shapes_that_do_not_fit():
    """More queries than positions, or heads that no key head divides, are errors."""
    query, key = np.zeros((3, 4, 2)), np.zeros((2, 2, 2))
    with pytest.raises(BadRequest, match="attention shapes"):
        attention(query, key, key, scaling=over_root_width)
    with pytest.raises(BadRequest, match="attention shapes"):
        attention(query, np.zeros((3, 3, 2)), np.zeros((3, 3, 2)), scaling=over_root_width)


def test_trace_holds_every_tap_in_dataflow_order():
    """A trace has exactly the names of the published list, each of the shape its axes say."""
    trace = MODEL.trace(tiny_ids(5))
    assert list(trace) == tap_names(TINY.n_layers)
    sizes = {"T": 5, "S": 5, "D": 24, "N": 6, "K": 3, "H": 10, "F": 44, "V": 97}
    for name, array in trace.items():
        axes = trace.layout(name).split(";")[0].split()
        assert array.shape == tuple(sizes[axis] for axis in axes), name
    assert "L01.probs" in trace._repr_html_()


def test_traced_pass_computes_what_an_untraced_one_does():
    """Listening to the taps changes no bit of the logits."""
    np.testing.assert_array_equal(MODEL.trace(tiny_ids(7))["logits"], MODEL.logits(tiny_ids(7)))


@pytest.mark.parametrize("op", [softmax, lambda x: swiglu(x, x), lambda x: linear(x, x)])
def test_ops_refuse_integers(op):
    """An op rounds its result to the dtype that came in, so integers would lose it all: refused."""
    with pytest.raises(BadRequest, match="floating"):
        op(np.ones((2, 2), np.int64))


def test_swiglu_refuses_halves_that_differ():
    """An `up` that NumPy would broadcast, or of another dtype, is refused."""
    gate = np.ones((3, 4), np.float32)
    for up in (np.ones((1, 4), np.float32), np.ones((3, 4))):
        with pytest.raises(BadRequest, match="swiglu up"):
            swiglu(gate, up)
