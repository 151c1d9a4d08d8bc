"""Capturing transformers: every tap, as the model computed it, and nothing left behind."""

import numpy as np
import pytest
import torch
from transformers import LlamaModel
from transformers.models.llama import modeling_llama

from llama_ref.checkpoint.safetensors import open_safetensors
from llama_ref.checkpoint.write import write_safetensors
from llama_ref.errors import BadRequest, Unsupported
from llama_ref.golden.capture.hf import capture_transformers, feed, run_case, run_cases
from llama_ref.golden.cases import Case
from llama_ref.golden.taps import kind_of, visible_parts
from llama_ref.numerics import widen
from llama_ref.trace import tap_names
from tests.peers.assembled import our_model, weights_of
from tests.peers.hf_peer import hf_model, hf_trace
from tests.replay import assert_near, assert_same_steps, replayed
from tests.shapes import SHAPES

CONFIG = SHAPES["groups of 4, N H beside D, factor 8"]
FAR = (0, 1, 2, 257, 4095, 8191, 8192, 60_000, 60_001, 99_999, 131_070, 131_071)
IDS = tuple(range(5, 17))
WHOLE = Case("far", "sparse positions", IDS, FAR, (12,))
CHUNKED = Case("chunked", "sparse positions through a cache", IDS, FAR, (5, 1, 1, 5))


def peer(dtype="float32", attention="eager"):
    return hf_model(CONFIG, weights_of(CONFIG), dtype, attention)


def assert_near_ours(taps, bound):
    """Compare with our float32: its angles at these positions are transformers', float64's not."""
    for name, ours in our_model(CONFIG, weights_of(CONFIG)).trace(IDS, FAR).items():
        if name in taps:
            shown = [visible_parts(kind_of(name), x) for x in (widen(taps[name]), ours)]
            assert_near(*shown, bound, name)


@pytest.mark.parametrize("case", [WHOLE, CHUNKED], ids=lambda case: case.name)
def test_float32_taps_are_ours(case):
    """In float32 each tap is within 1e-4 of a deviation of ours, whole or in chunks.

    The trap of packed sequences is in it: half of these positions follow a gap.
    """
    taps = run_case(peer(), case)
    assert list(taps) == tap_names(CONFIG.n_layers)
    assert taps.notes == []
    assert taps["L01.probs"].shape == (8, 12, 12)
    assert not np.triu(taps["L01.probs"], 1).any()
    assert_near_ours(taps, 1e-4)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("case", [WHOLE, CHUNKED], ids=lambda case: case.name)
def test_16_bit_taps_take_our_steps(dtype, case):
    """In 16 bits each step, replayed from the taps before it, is the tap: 99 % to the bit."""
    taps = run_case(peer(dtype), case)
    computed = replayed(our_model(CONFIG, weights_of(CONFIG), dtype), taps, IDS, FAR)
    for name in ("L00.scores", "L01.scores"):  # what no query sees is not there in every chunk
        taps[name], computed[name] = np.tril(taps[name]), np.tril(computed[name])
    assert_same_steps(computed, taps, dtype)


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-4), ("bfloat16", 0.3)])
def test_sdpa_hides_scores_and_probs_alone(dtype, bound):
    """With sdpa all taps are there but scores and probabilities, and a note says why."""
    taps = run_case(peer(dtype, "sdpa"), CHUNKED)
    expected = [n for n in tap_names(CONFIG.n_layers) if not n.endswith(("scores", "probs"))]
    assert list(taps) == expected
    assert len(taps.notes) == 2
    assert taps.notes[0].startswith("L00.scores … L01.scores: computed inside a kernel")
    assert_near_ours(taps, bound)


def test_a_call_on_a_filled_cache_is_recorded_as_it_is():
    """Of a call behind a cache filled before the block, the new tokens are recorded, S wide."""
    from transformers import DynamicCache

    model, past = peer(), DynamicCache()
    feed(model, IDS[:7], FAR[:7], past)
    taps = hf_trace(model, IDS[7:], FAR[7:], past)
    assert taps["L00.q_rope"].shape == (5, 8, 16)
    assert taps["L00.probs"].shape == (8, 5, 12)
    assert np.array_equal(taps["L00.q"], run_case(model, WHOLE)["L00.q"][7:])


def test_logits_of_the_last_token_alone():
    """Where the model is asked for one row of logits, the tap is that row."""
    model = peer()
    with capture_transformers(model) as taps:
        model(torch.tensor([IDS]), logits_to_keep=1)
    assert taps["logits"].shape == (1, CONFIG.vocab_size)
    assert taps["final_norm"].shape == (12, CONFIG.d_model)


def left_behind(model):
    """Return how many hooks and wrappers there are."""
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
    functions = (modeling_llama.apply_rotary_pos_emb, modeling_llama.eager_attention_forward)
    return hooks + sum(f.__module__ != modeling_llama.__name__ for f in functions)


def test_nothing_stays_behind():
    """After the block there is no hook and no wrapper; in it there are."""
    model = peer()
    with capture_transformers(model):
        assert left_behind(model) > 2
    assert left_behind(model) == 0


def test_nothing_stays_behind_after_an_error():
    """After an error in the block nothing is left, and the taps are empty rather than half."""
    model = peer()
    with pytest.raises(ZeroDivisionError), capture_transformers(model) as taps:
        feed(model, IDS)
        raise ZeroDivisionError
    assert left_behind(model) == 0
    assert taps == {}


def test_another_model_in_the_block_is_not_recorded():
    """A second Llama that runs in the block leaves no trace in the taps of the first."""
    first, second = peer(), hf_model(CONFIG, weights_of(CONFIG, seed=1))
    with capture_transformers(first) as taps:
        feed(first, IDS, FAR)
        feed(second, IDS)
    alone = hf_trace(first, IDS, FAR)
    assert list(taps) == list(alone)
    assert all(np.array_equal(taps[name], alone[name]) for name in alone)


def test_other_models_are_refused():
    """A model without the head, or a compiled one, is refused by the name of its class."""
    with pytest.raises(Unsupported, match="LlamaForCausalLM, found 'LlamaModel'"):
        run_case(LlamaModel(peer().config), WHOLE)


def test_more_than_one_sequence_is_refused():
    """A batch of two is refused, and nothing stays behind."""
    model = peer()
    with pytest.raises(BadRequest, match="one sequence, found 2"), capture_transformers(model):
        model(torch.tensor([IDS, IDS]))
    assert left_behind(model) == 0


def test_cases_become_a_candidate_file(tmp_path):
    """Taps of several cases go into one safetensors file as case/tap, bfloat16 to the bit."""
    taps = run_cases(peer("bfloat16"), [WHOLE, CHUNKED])
    write_safetensors(tmp_path / "candidate.safetensors", taps)
    stored = open_safetensors(tmp_path / "candidate.safetensors")
    assert len(stored) == 2 * len(tap_names(CONFIG.n_layers))
    for name in ("far/L01.q_rope", "chunked/logits"):
        assert stored[name].dtype == taps[name].dtype
        assert np.array_equal(stored[name], taps[name])


def test_a_case_name_comes_in_front():
    """Given a case, the context manager names taps as a candidate file does."""
    model = peer(attention="sdpa")
    with capture_transformers(model, case="mine") as taps:
        feed(model, IDS)
    assert taps["mine/L00.q"].shape == (12, 8, 16)
    assert taps.notes[1].startswith("L00.probs … L01.probs:")
