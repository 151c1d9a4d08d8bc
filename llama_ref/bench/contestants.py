"""Who can run a checkpoint: this library and two peers, behind one small interface.

A contestant runs in a process of its own, so that no thread pool of one spins while another is
timed: `python -m llama_ref.bench.contestants NAME PATH THREADS`. It loads the checkpoint, says
`ready`, and answers each line `N_PROMPT N_DECODE` with two times in seconds: for the prompt with
the logits of its last token, and for that many greedy tokens after it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from llama_ref.bench.limits import machine
from llama_ref.checkpoint.synthetic import token_ids

LONGEST = 2**13
"""Tokens of a prompt and what follows it."""

Step = Callable[[list[int]], int]
"""Run these new tokens; return the greedy next one."""


def llama_ref(path: Path, threads: int) -> tuple[int, Callable[[], Step]]:
    """Return the vocabulary size and a maker of fresh sequences: this library, in float32."""
    from llama_ref.loading import load  # noqa: PLC0415  (each process loads its own contestant)

    model = load(path, dtype="float32")

    def start() -> Step:
        cache = model.new_cache(min(model.config.context_length, LONGEST))
        return lambda ids: int(model.forward(ids, cache, last=1)[-1].argmax())

    return model.config.vocab_size, start


def transformers(path: Path, threads: int) -> tuple[int, Callable[[], Step]]:
    """Return the same for transformers on the CPU, in the dtype of the checkpoint."""
    import torch  # noqa: PLC0415
    from transformers import AutoModelForCausalLM, DynamicCache  # noqa: PLC0415

    torch.set_num_threads(threads)
    model = AutoModelForCausalLM.from_pretrained(path, dtype="auto").eval()

    def start() -> Step:
        cache = DynamicCache(config=model.config)

        @torch.inference_mode()
        def step(ids: list[int]) -> int:
            out = model(
                torch.tensor([ids]), past_key_values=cache, use_cache=True, logits_to_keep=1
            )
            return int(out.logits[0, -1].argmax())

        return step

    return model.config.vocab_size, start


def llama_cpp(path: Path, threads: int) -> tuple[int, Callable[[], Step]]:
    """Return the same for llama.cpp, on a GGUF file of float32 tensors."""
    import llama_cpp as lib  # noqa: PLC0415

    lib.llama_backend_init()
    model = lib.llama_model_load_from_file(str(path).encode(), lib.llama_model_default_params())
    n_vocab = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model))
    params = lib.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch = 1024, 512, 512
    params.n_threads = params.n_threads_batch = threads
    context = lib.llama_init_from_model(model, params)

    def start() -> Step:
        lib.llama_memory_clear(lib.llama_get_memory(context), True)

        def step(ids: list[int]) -> int:
            tokens = (lib.llama_token * len(ids))(*ids)  # named, for the batch only points to it
            if lib.llama_decode(context, lib.llama_batch_get_one(tokens, len(ids))):
                raise RuntimeError("llama_decode failed")
            logits = lib.llama_get_logits_ith(context, -1)
            return int(np.ctypeslib.as_array(logits, shape=(n_vocab,)).argmax())

        return step

    return n_vocab, start


CONTESTANTS = {
    "llama_ref": llama_ref,
    "machine": machine,
    "transformers": transformers,
    "llama.cpp": llama_cpp,
}


def main(name: str, path: str, threads: str) -> None:
    """Load one contestant and time it as often as asked, until the input ends."""
    n_vocab, start = CONTESTANTS[name](Path(path), int(threads))
    print("ready", flush=True)
    for line in sys.stdin:
        n_prompt, n_decode = map(int, line.split())
        ids, step = token_ids(n_prompt, n_vocab).tolist(), start()
        begin = time.perf_counter()
        token = step(ids)
        prompt_done = time.perf_counter()
        for _ in range(n_decode):
            token = step([token])
        print("seconds", prompt_done - begin, time.perf_counter() - prompt_done, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
