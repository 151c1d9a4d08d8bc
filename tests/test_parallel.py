"""Layers cut over ranks: each part what the formula says, sums in order, nothing lost."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import llama_ref as lr
from llama_ref.checkpoint import synthetic, write_hf
from llama_ref.config import to_hf_dict
from llama_ref.errors import BadRequest
from llama_ref.numerics import BFLOAT16
from llama_ref.parallel import share
from llama_ref.ranks import Meeting, ThreadGroup, run_ranks, trace_ranks
from tests.checkpoint.pth_files import write_pth
from tests.models import TINY, largest_difference, meta_name, tiny_ids
from weights_tools.meta_folder import to_meta_params

CONFIG = replace(TINY, d_model=48, n_heads=8, n_kv_heads=4, head_dim=6, vocab_size=96)


@pytest.fixture
def folder(tmp_path):
    write_hf(tmp_path / "hf", to_hf_dict(CONFIG), synthetic.checkpoint(CONFIG))
    return tmp_path / "hf"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_parts_are_what_the_formula_says(folder, size, dtype):
    """A rank's part is its heads times its columns; the parts add up, in order, to the tap."""
    model = lr.load(folder, dtype=dtype)
    taps, whole = trace_ranks(model, tiny_ids(7), size), model.trace(tiny_ids(7))
    layer = model.weights.layers[0]
    for name, source, weight in (
        ("L00.attn_out", "L00.ctx", layer.w_out_DA),
        ("L00.ffn_out", "L00.act", layer.w_down_DF),
    ):
        parts = [taps[f"{name}.rank{r}"] for r in range(size)]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        assert total.dtype == taps[name].dtype
        assert np.array_equal(total, taps[name])
        for r, columns in enumerate(np.split(np.asarray(weight, np.float64), size, axis=1)):
            own = taps[f"{source}.rank{r}"].reshape(7, -1).astype(np.float64)
            expected = own @ columns.T
            bound = {"float64": 1e-13, "float32": 2e-6, "bfloat16": 8e-3}[dtype]
            assert np.abs(parts[r] - expected).max() <= bound * np.abs(expected).max()
    heads = np.concatenate([taps[f"L00.q.rank{r}"] for r in range(size)], axis=1)
    assert heads.shape == whole["L00.q"].shape
    bound = {"float64": 1e-13, "float32": 1e-5, "bfloat16": 0.1}[dtype]
    assert largest_difference(taps["logits"], whole["logits"].astype(np.float64)) <= bound
    columns = np.concatenate([taps[f"logits.rank{r}"] for r in range(size)], axis=1)
    assert np.array_equal(columns.astype(taps["logits"].dtype), taps["logits"])
    if size == 1:
        assert np.array_equal(taps["logits"], whole["logits"])


def test_ranks_hold_their_share_alone(folder):
    """Weights and caches of four ranks are a quarter each, but for the embedding and the gains."""
    model = lr.load(folder)

    def held(own, rank):
        cache = own.new_cache(16)
        layer = own.weights.layers[1]
        matrices = [w for _, w in own.weights.named(1) if len(w.shape) == 2]
        return sum(w.nbytes for w in matrices), cache.nbytes, layer.w_out_DA.shape

    whole = held(model, 0)
    for n_bytes, cache_bytes, shape in run_ranks(model, 4, held):
        assert n_bytes * 4 == whole[0]
        assert cache_bytes * 4 == whole[1]
        assert shape == (48, 12)


def test_files_that_meta_cut_are_taken_as_they_are(tmp_path):
    """With as many ranks as files each rank maps its own file; the numbers are those of all."""
    tensors = {meta_name(n, CONFIG.n_layers): a for n, a in synthetic.checkpoint(CONFIG)}
    (tmp_path / "params.json").write_text(json.dumps(to_meta_params(CONFIG)))
    for rank in range(2):
        parts = {}
        for name, array in tensors.items():
            axis = 1 if name.endswith(("wo.weight", "w2.weight", "tok_embeddings.weight")) else 0
            split = [array] * 2 if array.ndim == 1 else np.split(array, 2, axis)
            parts[name] = np.ascontiguousarray(split[rank])
        write_pth(tmp_path / f"consolidated.{rank:02d}.pth", parts)
    model = lr.load(tmp_path)
    own = share(model, ThreadGroup(1, Meeting(2)))
    for name in ("w_query_AD", "w_out_DA", "w_down_DF"):
        assert (
            getattr(own.weights.layers[0], name) is getattr(model.weights.layers[0], name).parts[1]
        )
    taps = trace_ranks(model, tiny_ids(5), 2)
    assert largest_difference(taps["logits"], model.logits(tiny_ids(5))) <= 1e-5
    assert largest_difference(trace_ranks(model, tiny_ids(5), 4)["logits"], taps["logits"]) <= 1e-5


def test_computed_weights_are_cut_too():
    """Of a formula a rank computes its rows; the numbers are those of all."""
    model = lr.load("synthetic:golden-tiny")
    taps = trace_ranks(model, [1, 2, 3], 2)
    assert largest_difference(taps["logits"], model.logits([1, 2, 3])) <= 1e-5


def test_a_text_goes_on_over_ranks_as_over_one(folder):
    """Prompt and tokens one at a time, each rank with its own cache: the same greedy ids."""
    model = lr.load(folder)

    def ids_of(own, rank):
        return [t.id for t in lr.generate(own, tiny_ids(6), max_tokens=12, temperature=0)]

    alone = ids_of(model, 0)
    assert run_ranks(model, 2, ids_of) == [alone, alone]


def test_bits_are_those_of_every_rank_and_run(folder):
    """All ranks have the same hidden state, and a second run has the bits of the first."""
    model = lr.load(folder, dtype="bfloat16")

    def hidden(own, rank):
        seen = []
        own.forward(tiny_ids(9), own.new_cache(), tap=lambda n, a: seen.append((n, a.tobytes())))
        return [pair for pair in seen if pair[0].endswith(".out")]

    first, second = run_ranks(model, 2, hidden), run_ranks(model, 2, hidden)
    assert first[0] == first[1] == second[0] == second[1]
    assert lr.load(folder, dtype="bfloat16").logits([1]).dtype == BFLOAT16


@pytest.mark.parametrize("size", [0, 3, 8])
def test_a_model_that_cannot_be_cut_says_why(folder, size):
    """Heads, channels and vocabulary have to come out even."""
    with pytest.raises(BadRequest, match="number of ranks"):
        trace_ranks(lr.load(folder), [1, 2], size)


def test_a_rank_that_fails_ends_all(folder):
    """What went wrong in one rank is raised, and nobody waits for it."""

    def work(own, rank):
        if rank == 1:
            raise ZeroDivisionError
        return own.logits([1, 2])

    with pytest.raises(ZeroDivisionError):
        run_ranks(lr.load(folder), 2, work)


def test_ranks_have_the_same_bits_after_a_pass_in_the_main_thread(folder):
    """Threads of the process that ran a pass before compute what those of a new one would."""
    program = """
import sys, numpy as np, llama_ref as lr
from llama_ref.ranks import trace_ranks
model = lr.load(sys.argv[1])
ids = list(range(1, 70))
first = trace_ranks(model, ids, 2)["logits"].tobytes()
whole = model.logits(ids).tobytes()
again = trace_ranks(model, ids, 2)["logits"].tobytes()
print(first == again, whole == model.logits(ids).tobytes())
"""
    ran = subprocess.run(
        [sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True
    )
    assert ran.stdout.split() == ["True", "True"]
