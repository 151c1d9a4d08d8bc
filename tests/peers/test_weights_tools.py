"""What `weights_tools` writes, read by torch and transformers."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import llama_ref as lr
from llama_ref.checkpoint.synthetic import token_ids
from weights_tools.__main__ import main

WORDS = ["--n-layers", "2", "--dtype"]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("mmap", [False, True])
def test_torch_loads_the_pth_without_trust(tmp_path, dtype, mmap):
    """`torch.load(weights_only=True)` gives the tensors that `lr.load` maps, read or mapped."""
    words = ["synthetic", "golden-tiny", str(tmp_path), "--format", "meta", *WORDS, dtype]
    assert main(words) == 0
    path = tmp_path / "consolidated.00.pth"
    theirs = torch.load(path, weights_only=True, mmap=mmap)
    ours = lr.checkpoint.open_meta(tmp_path)
    assert list(theirs) == list(ours)
    for name, tensor in theirs.items():
        assert str(tensor.dtype) == f"torch.{dtype}"
        assert tensor.is_contiguous()
        wide = ours[name].astype(np.float32)
        assert tensor.float().numpy().tobytes() == wide.tobytes()


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_transformers_runs_the_hf_folder(tmp_path, dtype):
    """Transformers opens the folder, and computes in float32 the logits of the formula's model."""
    words = ["synthetic", "golden-tiny", str(tmp_path), "--format", "hf", *WORDS, dtype]
    assert main(words) == 0
    ids = token_ids(9, 1024)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    with torch.inference_mode():
        theirs = model(torch.tensor(ids[None])).logits[0].numpy()
    ours = lr.load("synthetic:golden-tiny?n_layers=2").logits(ids)
    np.testing.assert_allclose(theirs, ours, rtol=0, atol=2e-4)
