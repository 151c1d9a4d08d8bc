"""Checkpoints on disk: name -> mapped tensor; what is malformed is refused."""

from llama_ref.checkpoint.hf import open_hf
from llama_ref.checkpoint.meta import open_meta
from llama_ref.checkpoint.safetensors import open_safetensors
from llama_ref.checkpoint.stored import Checkpoint
from llama_ref.checkpoint.write import write_hf, write_safetensors

__all__ = [
    "Checkpoint",
    "open_hf",
    "open_meta",
    "open_safetensors",
    "write_hf",
    "write_safetensors",
]
