r"""llama.cpp: every tap of a GGUF file, through the evaluation callback of its Python binding.

    with LlamaCpp("model-f32.gguf") as model:
        write_safetensors("candidate.safetensors", run_cases(model, cases))

Its graph announces each node before and after computing it, and whoever asks for a node may read it
then. Attention runs unfused, so that scores and probabilities exist; all logits are asked for; keys
and values are kept in float32 or, as llama.cpp does by default, in float16. Queries and keys come
out half-split, as in HF files, unless asked otherwise.

llama.cpp refuses positions with gaps. A case that has some is fed consecutive positions, for the
mask, and the true ones are written into the tensor that rotation reads: every number is computed by
llama.cpp's own kernels.

In C it is ten lines. The names in the file say all that is needed to read them as a candidate:

    static FILE * bin, * json;                                   // far.bin; far.json, begun with {
    static bool record(struct ggml_tensor * t, bool ask, void * user_data) {
        if (ask) return t->op != GGML_OP_RESHAPE && !strchr(t->name, ' ');              // no views
        size_t n = ggml_nbytes(t); long at = ftell(bin); char * data = malloc(n);
        ggml_backend_tensor_get(t, data, 0, n); fwrite(data, 1, n, bin); free(data);
        fprintf(json, "%s\"far/%s (%s)\": {\"file\": \"far.bin\", \"dtype\": \"f32\", "
                "\"offset\": %ld, \"shape\": [%ld, %ld, %ld]}", at ? ",\n" : "", t->name,
                ggml_op_desc(t), at, (long) t->ne[2], (long) t->ne[1], (long) t->ne[0]);
        return true; }
    params.cb_eval = record; params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
"""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from llama_ref.errors import BadFile, BadRequest, Unsupported, shown
from llama_ref.golden.capture.ggml_listener import Listener
from llama_ref.golden.capture.ggml_nodes import Heads
from llama_ref.golden.capture.taps import Taps
from llama_ref.golden.pairing import PAIRINGS

if TYPE_CHECKING:
    from llama_ref.golden.cases import Case

CACHE_TYPES = {"float32": 0, "float16": 1}
UNSEEN = "not seen; this version of llama.cpp has no node of that name, or fuses it"


class LlamaCpp:
    """A GGUF file of a Llama, opened by llama.cpp; leaving the `with` block closes it.

    Parameters
    ----------
    path : path-like
    cache : {"float32", "float16"}
        What keys and values are rounded to; with float16, llama.cpp rounds queries and
        probabilities as well wherever they multiply them.
    pairing : {"half_split", "interleaved"}
        In which order the channels of query and key taps are wanted.
    threads : int
    gpu_layers : int
        How many layers run on a GPU, if the binding was built for one.

    Raises
    ------
    Unsupported
        If the binding is not installed, or the file holds no Llama.
    BadFile
        If llama.cpp cannot read it. Its reason is on standard error.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        cache: str = "float32",
        pairing: str = "half_split",
        threads: int = 1,
        gpu_layers: int = 0,
    ):
        for thing, value, known in (("cache", cache, CACHE_TYPES), ("pairing", pairing, PAIRINGS)):
            if value not in known:
                raise BadRequest(thing, expected=" or ".join(known), found=shown(value))
        self.lib, self.threads, self.cache = _binding(), threads, CACHE_TYPES[cache]
        self._logger = logging.getLogger("llama-cpp-python")
        self._usual_level = self._logger.level
        self._logger.setLevel(logging.ERROR)  # the binding prints every line of its log otherwise
        params = self.lib.llama_model_default_params()
        params.n_gpu_layers = gpu_layers
        self.lib.llama_backend_init()
        self.model = self.lib.llama_model_load_from_file(os.fsencode(path), params)
        try:
            self._check(Path(path))
        except BaseException:
            self.__exit__()
            raise
        self.n_layers = self.lib.llama_model_n_layer(self.model)
        self.heads = Heads(self._head_dim(), pairing)

    def __enter__(self) -> LlamaCpp:
        return self

    def __exit__(self, *_: object) -> None:
        if self.model:
            self.lib.llama_model_free(self.model)
        self.model = None
        self._logger.setLevel(self._usual_level)

    def run(self, case: Case) -> Taps:
        """Feed a case, chunk by chunk through a cache, and return its taps.

        Raises
        ------
        BadRequest
            If llama.cpp refuses to run it. Its reason is on standard error.
        """
        gaps = np.any(np.diff(case.positions) != 1)
        fed = range(len(case.ids)) if gaps else case.positions
        listener = Listener(self.n_layers, self.heads)
        callback = self.lib.ggml_backend_sched_eval_callback(listener)  # named: C points to it
        start = 0
        with self._context(case, callback) as context:
            for n in case.chunks:
                chunk = slice(start, start + n)
                start += n
                listener.begin_call(case.positions[chunk] if gaps else None, start)
                code = self._decode(context, case.ids[chunk], fed[chunk])
                if listener.error:
                    raise listener.error
                if code:
                    raise BadRequest(f"case {shown(case.name)}", found=f"llama_decode gave {code}")
        taps = Taps()
        taps.join(listener.calls, self.n_layers)
        taps.note_missing(self.n_layers, {"": UNSEEN})
        return taps

    def _check(self, path: Path) -> None:
        """Raise unless the file was loaded and holds a Llama."""
        if not self.model:
            raise BadFile(
                "GGUF file",
                expected="a model that llama.cpp loads",
                next_step="its reason is on standard error",
                file=path,
            )
        if self._metadata("general.architecture") != "llama":
            raise Unsupported(
                "architecture",
                expected="llama",
                found=shown(self._metadata("general.architecture")),
                file=path,
            )

    def _metadata(self, key: str) -> str:
        """Return a value of the file's header, or nothing."""
        buffer = ctypes.create_string_buffer(256)
        self.lib.llama_model_meta_val_str(self.model, key.encode(), buffer, len(buffer))
        return buffer.value.decode(errors="replace")

    def _head_dim(self) -> int:
        stated = self._metadata("llama.attention.key_length")
        width, n_heads = (
            f(self.model) for f in (self.lib.llama_model_n_embd, self.lib.llama_model_n_head)
        )
        return int(stated) if stated.isdecimal() else width // n_heads

    @contextmanager
    def _context(self, case: Case, callback: Any) -> Iterator[Any]:
        """Make a context with an empty cache for all of a case's tokens."""
        params = self.lib.llama_context_default_params()
        params.n_ctx = len(case.ids)
        params.n_batch = params.n_ubatch = max(case.chunks)  # a chunk is one graph
        params.n_threads = params.n_threads_batch = self.threads
        params.type_k = params.type_v = self.cache
        params.flash_attn_type = self.lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.cb_eval = callback
        context = self.lib.llama_init_from_model(self.model, params)
        if not context:
            raise BadRequest(
                f"case {shown(case.name)}", found="no context; the reason is on standard error"
            )
        try:
            yield context
        finally:
            self.lib.llama_free(context)

    def _decode(self, context: Any, ids: Iterable[int], positions: Iterable[int]) -> int:
        """Run some tokens after those in the cache, and ask for the logits of each."""
        tokens = list(zip(ids, positions, strict=True))
        batch = self.lib.llama_batch_init(len(tokens), 0, 1)
        try:
            batch.n_tokens = len(tokens)
            for i, (token, position) in enumerate(tokens):
                batch.token[i], batch.pos[i], batch.logits[i] = token, position, 1
                batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
            return self.lib.llama_decode(context, batch)
        finally:
            self.lib.llama_batch_free(batch)


def run_cases(model: LlamaCpp, cases: Iterable[Case]) -> dict[str, np.ndarray]:
    """Feed cases to a model; return their taps as `case/tap`, ready for `write_safetensors`."""
    return {f"{c.name}/{tap}": array for c in cases for tap, array in model.run(c).items()}


def _binding() -> ModuleType:
    """Import the binding."""
    try:
        import llama_cpp  # noqa: PLC0415  (this module loads without)
    except ImportError:
        raise Unsupported(
            "llama.cpp",
            expected="its Python binding",
            found="no module llama_cpp",
            next_step="python -m pip install llama-cpp-python",
        ) from None
    return llama_cpp
