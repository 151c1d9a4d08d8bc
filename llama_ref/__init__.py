"""Llama 3.1 in NumPy: a readable specification that runs.

    import llama_ref as lr

    model = lr.load("path/to/checkpoint")            # mapped, not read
    for token in lr.generate(model, "Once upon a time", max_tokens=100):
        print(token.text, end="")
    trace = model.trace(model.tokenizer.encode("Hello"))     # every intermediate, by name

Reading order, from text to text:

    tokenizer/  bpe.py          text -> ids
    config/                     the blueprint
    checkpoint/  weights.py     files -> matrices
    numerics.py  ops/           embed, rms_norm, linear, rope, attention, swiglu: one op, one file
    cache.py layer.py model.py  ids -> hidden -> logits
    sampling/ stopping.py       logits -> id; where a text ends
    continuation.py generation.py  one text, from its prompt to its end
    chat/ tools/ constrain/     conversations, tool calls, JSON: as ids, and from text
    engine/ turn.py llm.py      many requests at once, each as if alone
    serve/                      the same over HTTP, as OpenAI's clients know it
    golden/                     golden outputs: to make, and to check a backend against

Every array of known rank ends in its axes, `hidden_TD`. The key:

    T  tokens fed in this call, packed over sequences      N  query heads
    S  positions attended: the cached ones and the new     K  key/value heads
    D  model width                                         G  query heads per key/value head, N/K
    V  vocabulary                                          H  width of one head
    F  feed-forward width                                  P  rotated pairs of a head, H/2
    L  layers                                              1  an axis kept for broadcasting
    A  all query heads side by side, N*H                   R  some rows of a longer axis
    B  all key/value heads side by side, K*H               C  capacity of a cache
    M  rows that share one key head, G*T

Names arrive when they are first used, so that `from llama_ref.ops.rope import rope_interleaved`
loads NumPy and that file alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_ref.lazy import names_of

__version__ = "0.1.0"

_HOMES = {
    "load": "llama_ref.loading",
    "Model": "llama_ref.model",
    "Config": "llama_ref.config",
    "preset": "llama_ref.config",
    "KVCache": "llama_ref.cache",
    "Trace": "llama_ref.trace",
    "load_tokenizer": "llama_ref.tokenizer",
    "generate": "llama_ref.generation",
    "LlamaRefError": "llama_ref.errors",
    "bpe": "llama_ref.bpe",
    "checkpoint": "llama_ref.checkpoint",
    "errors": "llama_ref.errors",
    "golden": "llama_ref.golden",
    "numerics": "llama_ref.numerics",
    "ops": "llama_ref.ops",
    "LLM": "llama_ref.llm",
    "SamplingParams": "llama_ref.sampling",
    "chat": "llama_ref.chat",
    "constrain": "llama_ref.constrain",
    "engine": "llama_ref.engine",
    "sampling": "llama_ref.sampling",
    "tools": "llama_ref.tools",
    "synthetic": "llama_ref.checkpoint",
    "tokenizer": "llama_ref.tokenizer",
}
__getattr__ = names_of(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


if TYPE_CHECKING:
    from llama_ref.cache import KVCache as KVCache
    from llama_ref.config import Config as Config
    from llama_ref.config import preset as preset
    from llama_ref.errors import LlamaRefError as LlamaRefError
    from llama_ref.generation import generate as generate
    from llama_ref.llm import LLM as LLM
    from llama_ref.loading import load as load
    from llama_ref.model import Model as Model
    from llama_ref.sampling import SamplingParams as SamplingParams
    from llama_ref.tokenizer import load_tokenizer as load_tokenizer
    from llama_ref.trace import Trace as Trace
