"""The profile of transformers against its own processors, built by its own `generate`, live."""

from collections import Counter
from functools import cache

import numpy as np
import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from llama_ref.sampling import SamplingParams, processed_logits

COMBINATIONS = 1_500
TEMPERATURES = (1.0, 0.3, 0.7, 1.5, 4.0, 1e-3)
FILTERS = {
    "top_k": (1, 2, 5, 20, 10_000),
    "top_p": (0.0, 1e-9, 0.1, 0.5, 0.75, 0.9, 0.99, 0.999999),
    "min_p": (1e-9, 0.01, 0.05, 0.3, 0.9, 1.0),
    "typical_p": (0.05, 0.2, 0.5, 0.9, 0.99),
    "repetition_penalty": (0.5, 0.9, 1.05, 1.3, 2.0),
}


@cache
def tiny_llama():
    """Return the smallest model: only its assembly of processors is used."""
    shape = {"hidden_size": 8, "num_attention_heads": 1, "num_key_value_heads": 1}
    return LlamaForCausalLM(
        LlamaConfig(**shape, intermediate_size=8, num_hidden_layers=1, vocab_size=8)
    )


def theirs(logits_V, params, prompt_ids, output_ids):
    """Return what the processors of transformers make of the logits, in its own order."""
    options = {
        "do_sample": True,
        "top_k": params.top_k,
        **{name: getattr(params, name) for name in ("temperature", "top_p", "typical_p")},
        "repetition_penalty": params.repetition_penalty,
    }
    if params.min_p:
        options["min_p"] = params.min_p
    if params.logit_bias:
        options["sequence_bias"] = [[[i], b] for i, b in params.logit_bias.items()]
    if params.bad_words:
        options["bad_words_ids"] = [list(word) for word in params.bad_words]
    if params.min_tokens:
        options |= {"min_new_tokens": params.min_tokens, "eos_token_id": [0, 1]}
    config = GenerationConfig(**options)
    config._eos_token_tensor = torch.tensor([0, 1]) if params.min_tokens else None
    processors = tiny_llama()._get_logits_processor(
        config, input_ids_seq_length=len(prompt_ids), device="cpu"
    )
    ids = torch.tensor([[*prompt_ids, *output_ids]], dtype=torch.long)
    return processors(ids, torch.tensor(logits_V)[None]).numpy()[0]


def generated(seed):
    """Return logits, parameters and histories: a third each of smooth, tied and masked logits."""
    rng = np.random.default_rng(seed)
    V = int(rng.choice([2, 8, 50, 300]))
    logits_V = rng.standard_normal(V) * rng.choice([0.5, 3, 10])
    if seed % 3 == 1:  # as in bfloat16, whose logits are often equal
        logits_V = np.round(logits_V * 2) / 2
    if seed % 3 == 2:
        logits_V[rng.random(V) < 0.5] = -np.inf
        logits_V[rng.integers(V)] = 1.0
    fields = {"temperature": float(rng.choice(TEMPERATURES))}
    for name, values in FILTERS.items():
        if rng.random() < 0.4:
            fields[name] = float(rng.choice(values))
    if rng.random() < 0.3:
        ids = rng.integers(V, size=3).tolist()
        fields["logit_bias"] = dict(zip(ids, [5.0, -5.0, 250.0], strict=True))
    if rng.random() < 0.2 and V > 2:
        fields["min_tokens"] = 4
    histories = [rng.integers(V, size=n).tolist() for n in rng.integers(1, 8, size=2)]
    if rng.random() < 0.2 and V > 8:
        fields["bad_words"] = [[int(rng.integers(V))], [histories[1][-1], int(rng.integers(V))]]
    params = SamplingParams(profile="hf", stop_token_ids=[0, 1], **fields)
    return logits_V, params, *histories


def survivors(logits_V):
    return np.flatnonzero(np.isfinite(logits_V))


def test_generated_combinations():
    """All of 1,500 combinations agree to 1e-9, in what is left and in its logits.

    Of equal logits at the boundary of top_p or typical_p transformers keeps arbitrary ones; there
    the kept logits agree after sorting.
    """
    outcomes = Counter()
    for seed in range(COMBINATIONS):
        logits_V, params, prompt_ids, output_ids = generated(seed)
        wanted = theirs(logits_V, params, prompt_ids, output_ids)
        found = processed_logits(logits_V, params, prompt_ids, output_ids)
        if np.array_equal(survivors(found), survivors(wanted)):
            outcomes["equal"] += 1
        else:
            outcomes["arbitrary among equal logits"] += 1
            found, wanted = np.sort(found), np.sort(wanted)
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9, err_msg=f"{seed} {params}")
        outcomes["fewer left"] += len(survivors(wanted)) < np.isfinite(logits_V).sum()
    assert outcomes["equal"] >= 1_400
    assert outcomes["equal"] + outcomes["arbitrary among equal logits"] == COMBINATIONS
    assert outcomes["fewer left"] >= 1_000
