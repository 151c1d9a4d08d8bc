"""The blueprint against transformers: one file, one number of parameters, in both directions."""

import dataclasses

import pytest
import torch
import transformers

from llama_ref.config import Config, RopeScaling, read_hf_config, to_hf_dict
from llama_ref.config.presets import PRESETS

STRETCHED = RopeScaling(32.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=128)
SMALL = Config(
    d_model=24,
    n_layers=2,
    n_heads=6,
    n_kv_heads=2,
    head_dim=8,
    d_ff=40,
    vocab_size=50,
    context_length=256,
    norm_eps=1e-6,
    rope_theta=10_000.0,
    rope_scaling=None,
    tied_embeddings=False,
    bos_id=1,
    eos_ids=(2, 3),
)


@pytest.mark.parametrize("name", PRESETS)
def test_transformers_builds_as_many_parameters(name):
    """A model built from what a preset writes has the preset's number of unique parameters."""
    config = PRESETS[name]
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**to_hf_dict(config)))
    assert sum(parameter.numel() for parameter in model.parameters()) == config.n_params


@pytest.mark.parametrize(
    "change",
    [{}, {"rope_scaling": STRETCHED}, {"tied_embeddings": True}, {"eos_ids": ()}],
    ids=["plain", "stretched", "tied", "no stop token"],
)
def test_what_transformers_saves_is_read_back(tmp_path, change):
    """A checkpoint that transformers writes from our words states the same blueprint in its own."""
    config = dataclasses.replace(SMALL, **change)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**to_hf_dict(config)))
    model.save_pretrained(tmp_path)
    assert read_hf_config(tmp_path) == config
