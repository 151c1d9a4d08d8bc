"""Every recorded row in all four profiles: what vLLM, transformers, llama.cpp and Meta did."""

import json
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from llama_ref.errors import BadRequest, NonFiniteError
from llama_ref.ops.softmax import softmax
from llama_ref.sampling import SamplingParams, processed_logits, sample, token_logprobs

ROWS = Path(__file__).parents[1] / "data" / "sampling" / "peers.jsonl"
PEERS = {"vllm": "vllm", "hf": "hf", "llama_cpp": "llama.cpp", "meta": "meta"}
MASKS = {"allowed_token_ids", "min_tokens", "stop_token_ids"}
pytestmark = pytest.mark.filterwarnings("ignore::llama_ref.sampling.LowTemperatureWarning")
EVERY_PEER = pytest.mark.parametrize("peer", PEERS)


@cache
def rows():
    return [json.loads(line) for line in ROWS.read_text().splitlines()]


def numbers(values):
    return np.array([float(value) for value in values])


def params_of(row, peer):
    # A tiny temperature is raised with a warning; test_sampling_params.py asserts it.
    fields = {k: float(v) if v == "nan" else v for k, v in row["params"].items()}
    return SamplingParams(profile=PEERS[peer], **fields)


def processed(row, peer):
    return processed_logits(
        numbers(row["logits"]), params_of(row, peer), row["prompt_ids"], row["output_ids"]
    )


def chosen(row, peer):
    history = {"prompt_ids": row["prompt_ids"], "output_ids": row["output_ids"]}
    return sample(numbers(row["logits"]), params_of(row, peer), step=0, seed=0, **history)


def usable(peer):
    """Return the rows that a peer has an answer to, and that answer."""
    for row in rows():
        expected = row["expected"][peer]
        answered = not {"error", "unsupported"} & set(expected)
        if answered and row["cat"] != "neginf-all" and row["params"]["temperature"] != "nan":
            yield row, expected


def is_tied(row, peer):
    """Tell whether the peer's choice among equal logits is arbitrary."""
    return row.get("tie_at_boundary") or peer in row.get("peer_tie_arbitrary", ())


def assert_close(found, wanted):
    np.testing.assert_array_equal(np.isneginf(found), np.isneginf(wanted))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_the_table_is_whole():
    """There are 271 rows, and none that a peer answered is left out."""
    counts = {peer: len(list(usable(peer))) for peer in PEERS}
    assert len(rows()) == 271
    assert counts == {"vllm": 246, "hf": 205, "llama_cpp": 261, "meta": 47}


@EVERY_PEER
def test_logits_after_all_steps(peer):
    """Logits agree to 1e-5 and the same ones are left; of equal ones, as many."""
    for row, expected in usable(peer):
        if "processed" in expected:
            found, wanted = processed(row, peer), numbers(expected["processed"])
            if is_tied(row, peer):
                found, wanted = np.sort(found), np.sort(wanted)
            assert_close(found, wanted)


@EVERY_PEER
def test_probabilities(peer):
    """Probabilities agree to 1e-5; where a sum is at the boundary, up to one token."""
    for row, expected in usable(peer):
        if "probs" in expected:
            found, wanted = softmax(processed(row, peer)), numbers(expected["probs"])
            if is_tied(row, peer):
                found, wanted = np.sort(found), np.sort(wanted)
            n_found, n_wanted = np.count_nonzero(found), np.count_nonzero(wanted > 1e-30)
            if row.get("boundary_sensitive") and n_found != n_wanted:
                assert abs(n_found - n_wanted) == 1
            else:
                np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5, err_msg=row["id"])


def test_what_llama_cpp_keeps():
    """Exactly the candidates that llama.cpp keeps are left, whatever their probability."""
    for row, expected in usable("llama_cpp"):
        if "kept_in_order" in expected:
            logits_V = numbers(row["logits"])
            kept = [i for i in expected["kept_in_order"] if np.isfinite(logits_V[i])]
            found = np.flatnonzero(np.isfinite(processed(row, "llama_cpp"))).tolist()
            if is_tied(row, "llama_cpp"):
                assert len(found) == len(kept), row["id"]
            else:
                assert found == sorted(kept), row["id"]


@EVERY_PEER
def test_greedy_tokens(peer):
    """At temperature 0 the same token is chosen."""
    answers = [(row, e["token"]) for row, e in usable(peer) if "token" in e]
    assert answers
    for row, token in answers:
        assert chosen(row, peer) == token, row["id"]


@EVERY_PEER
def test_refusals(peer):
    """What a peer refuses is refused; vLLM's own sentence is the message."""
    for row in rows():
        expected = row["expected"][peer]
        if "error" in expected:
            with pytest.raises(BadRequest) as caught:
                params_of(row, peer)
            assert caught.value.thing in row["params"]
            if peer == "vllm":
                sentence, _, _ = expected["error_message"].partition(" (parameter=")
                assert str(caught.value) == sentence


@pytest.mark.parametrize("peer", ["hf", "meta"])
def test_what_a_peer_has_not_is_refused(peer):
    """A parameter that the peer does not know is refused unless it is off, or only a mask."""
    off = SamplingParams()
    outcomes = Counter()
    for row in rows():
        missing = row["expected"][peer].get("unsupported", [])
        if not missing or row["cat"].endswith("-invalid"):
            continue
        foreign = {f for f in set(missing) - MASKS if row["params"][f] != getattr(off, f)}
        outcomes[bool(foreign)] += 1
        if foreign:
            with pytest.raises(BadRequest) as caught:
                params_of(row, peer)
            assert caught.value.thing in missing, row["id"]
        else:
            processed(row, peer)
    assert outcomes[True] >= 45


@EVERY_PEER
def test_nothing_possible(peer):
    """Where a peer answers token 0, NaN or an arbitrary token, there is an error."""
    impossible = [row for row in rows() if row["cat"] == "neginf-all"]
    assert len(impossible) == 5
    for row in impossible:
        if "unsupported" not in row["expected"][peer]:
            with pytest.raises(NonFiniteError, match="logits"):
                chosen(row, peer)


def test_raw_logprobs():
    """Logprobs are those of the logits before any step, whatever the parameters."""
    for row in rows():
        if "raw_logprobs" in row and row["cat"] != "neginf-all":
            logits_V = numbers(row["logits"])
            every = [token_logprobs(logits_V, i).logprob for i in range(len(logits_V))]
            np.testing.assert_allclose(every, numbers(row["raw_logprobs"]), rtol=1e-5, atol=1e-5)
