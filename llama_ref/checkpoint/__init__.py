"""Checkpoints on disk: name -> mapped tensor; what is malformed is refused.

stored.py         what an opened checkpoint is
safetensors.py    one file of the HF layout       hf.py        a folder of them
pth.py            one file of Meta's layout       meta.py      a folder of them
                  torch_zip.py and zip_directory.py its archive, symbolic_pickle.py,
                  pickle_stack.py and torch_objects.py its pickle, strided.py its tensors
gguf.py           a file of llama.cpp's      gguf_header.py what it says, strictly
                  gguf_blueprint.py the model that it says it is
fp8.py            405B in 8 bits             meta_fp8.py   the same, as Meta's files have it
int4.py           1B and 3B in 4
sharded.py        a matrix cut over files         kv_heads.py  heads that are stored twice
write.py          an HF folder from tensors       staging.py   whole or not at all
readahead.py      what of a mapped file is in memory
streaming.py      weights larger than memory   ranges.py     a matrix in a file, mapped or read
synthetic.py      any tensor by formula           synthetic_model.py  all of a blueprint
                  counter_hash.py what it is made of
"""

from typing import TYPE_CHECKING

from llama_ref.lazy import names_of

_HOMES = {
    "Checkpoint": "llama_ref.checkpoint.stored",
    "open_gguf": "llama_ref.checkpoint.gguf",
    "open_hf": "llama_ref.checkpoint.hf",
    "open_meta": "llama_ref.checkpoint.meta",
    "open_safetensors": "llama_ref.checkpoint.safetensors",
    "open_synthetic": "llama_ref.checkpoint.synthetic_model",
    "synthetic": "llama_ref.checkpoint.synthetic",
    "write_hf": "llama_ref.checkpoint.write",
    "write_safetensors": "llama_ref.checkpoint.write",
}
__getattr__ = names_of(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


if TYPE_CHECKING:
    from llama_ref.checkpoint import synthetic as synthetic
    from llama_ref.checkpoint.gguf import open_gguf as open_gguf
    from llama_ref.checkpoint.hf import open_hf as open_hf
    from llama_ref.checkpoint.meta import open_meta as open_meta
    from llama_ref.checkpoint.safetensors import open_safetensors as open_safetensors
    from llama_ref.checkpoint.stored import Checkpoint as Checkpoint
    from llama_ref.checkpoint.synthetic_model import open_synthetic as open_synthetic
    from llama_ref.checkpoint.write import write_hf as write_hf
    from llama_ref.checkpoint.write import write_safetensors as write_safetensors
