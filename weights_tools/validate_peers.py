"""Implementations that had no part in the envelope: transformers on any device, and llama.cpp.

Each runs cases from a checkpoint folder and returns its taps. What it needs is imported when it is
asked for.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from llama_ref.bench.gguf_file import write_gguf
from llama_ref.errors import BadRequest, Unsupported, shown
from llama_ref.golden.capture import ggml_run, hf
from llama_ref.golden.cases import Case

Taps = dict[str, np.ndarray]
DTYPES = ("float32", "bfloat16", "float16")
KERNELS = {
    "sdpa, math": ("MATH",),
    "sdpa, flash": ("FLASH_ATTENTION", "EFFICIENT_ATTENTION", "MATH"),
    "sdpa, efficient": ("EFFICIENT_ATTENTION", "MATH"),
}
"""Fused attention of torch, by the kernels that it may take; it prefers them in this order."""


class Peer(NamedTuple):
    """One implementation in one setting.

    Attributes
    ----------
    name : str
    precision : str
        The class of rounding it is judged by.
    run : function of (Path, sequence of Case) to dict of str to ndarray
        Runs cases of the checkpoint in a folder; returns `case/tap`.
    """

    name: str
    precision: str
    run: Callable[[Path, Sequence[Case]], Taps]


def transformers_peers(device: str) -> list[Peer]:
    """Return transformers in every dtype and kind of attention that the device has.

    Parameters
    ----------
    device : str
        As torch names it: `cpu`, `cuda`, `cuda:1`, `mps`.

    Raises
    ------
    Unsupported
        If torch or transformers is not installed.
    BadRequest
        If there is no such device.
    """
    _check_device(device)
    is_cuda = device.startswith("cuda")
    attentions = ["eager", "sdpa", *KERNELS] if is_cuda else ["eager", "sdpa", "sdpa, math"]
    if is_cuda and importlib.util.find_spec("flash_attn"):
        attentions.append("flash_attention_2")
    peers = []
    for dtype in DTYPES:
        for attention in attentions:
            if dtype == "float32" and attention == "flash_attention_2":
                continue  # it has no float32 kernel
            settings = [(dtype, False)]
            if is_cuda and dtype == "float32":
                settings.append(("tf32", True))
            for precision, tf32 in settings:
                name = f"transformers, {precision}, {attention}"
                peers.append(Peer(name, precision, _transformers(device, dtype, attention, tf32)))
    return peers


def llama_cpp_peers() -> list[Peer]:
    """Return llama.cpp on one core, of matrices in float32 and bfloat16, with either cache.

    Raises
    ------
    Unsupported
        If its Python binding, or the package `gguf`, is not installed.
    """
    for module in ("llama_cpp", "gguf"):
        if importlib.util.find_spec(module) is None:
            raise Unsupported(
                "llama.cpp", expected="its Python binding and gguf", found=f"no {module}"
            )
    return [
        Peer(f"llama.cpp, {dtype} matrices, {cache} cache", precision, _llama_cpp(dtype, cache))
        for dtype, cache, precision in (
            ("float32", "float32", "float32"),
            ("float32", "float16", "float32-kv16"),
            ("bfloat16", "float32", "bfloat16"),
            ("bfloat16", "float16", "bfloat16"),
        )
    ]


def _check_device(device: str) -> None:
    for module in ("torch", "transformers"):
        if importlib.util.find_spec(module) is None:
            raise Unsupported(
                "transformers",
                found=f"no module {module}",
                next_step="install torch and transformers",
            )
    import torch  # noqa: PLC0415  (only here)

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):  # as torch says it, by device
        raise BadRequest(
            "device", expected="one that torch can use here", found=shown(device)
        ) from None


def _transformers(device: str, dtype: str, attention: str, tf32: bool) -> Callable[..., Taps]:
    """Return what runs cases in transformers with these settings."""

    def run(folder: Path, cases: Sequence[Case]) -> Taps:
        import torch  # noqa: PLC0415  (only here)
        from transformers import LlamaForCausalLM  # noqa: PLC0415
        from transformers.utils import logging  # noqa: PLC0415

        logging.disable_progress_bar()
        model: Any = LlamaForCausalLM.from_pretrained(
            folder,
            dtype=getattr(torch, dtype),
            attn_implementation="sdpa" if attention in KERNELS else attention,
        )
        with _products(torch, tf32), _kernels(attention):
            return hf.run_cases(model.to(device).eval(), cases)

    return run


@contextmanager
def _products(torch: Any, tf32: bool) -> Iterator[None]:
    """Let products of float32 matrices be computed in float32, or in TF32, for a while."""
    usual = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(usual)


def _kernels(attention: str) -> Any:
    """Have torch choose among the kernels of an attention alone."""
    if attention not in KERNELS:
        return nullcontext()
    from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: PLC0415  (only here)

    backends = [getattr(SDPBackend, name) for name in KERNELS[attention]]
    return sdpa_kernel(backends)


def _llama_cpp(dtype: str, cache: str) -> Callable[..., Taps]:
    """Return what runs cases in llama.cpp from a GGUF file that is written beside the folder."""

    def run(folder: Path, cases: Sequence[Case]) -> Taps:

        path = folder.with_name(f"{folder.name}-{dtype}.gguf")
        if not path.exists():
            write_gguf(folder, path, dtype)
        with ggml_run.LlamaCpp(path, cache=cache) as model:
            return ggml_run.run_cases(model, cases)

    return run
