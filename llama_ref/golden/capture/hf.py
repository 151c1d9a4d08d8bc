"""transformers: every tap of a `LlamaForCausalLM`, recorded while you run it.

    model = AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager")
    with capture_transformers(model, case="short") as taps:
        model(torch.tensor([ids]), attention_mask=torch.ones((1, len(ids)), dtype=torch.long))
    write_safetensors("candidate.safetensors", taps)

Modules are listened to with hooks. What happens between modules (rotation, scores, probabilities)
is recorded by a wrapper around the function of transformers that does it, which calls that function
and returns its result untouched. With `attn_implementation="sdpa"` scores and probabilities exist
only inside a kernel; everything else is recorded. Tried with transformers 4.46 (whose eager
attention is no function yet, so that scores and probabilities are missing), 4.57 and 5.24.

Give an attention mask whenever you give positions: without one, transformers takes each gap in the
positions for the start of another packed sequence, and hides from it what came before.

By hand, in any PyTorch code, it is ten lines; adapt the paths of the modules to your port:

    taps = {}
    def record(module, tap):
        def hook(module, args, out):
            taps[f"short/{tap}"] = out[0].detach().cpu().contiguous()    # without the batch axis
        module.register_forward_hook(hook)
    for i, layer in enumerate(model.layers):
        record(layer.attention.wq, f"L{i:02d}.q")                        # T N*H is as good as T N H
        record(layer, f"L{i:02d}.out")
    model(torch.tensor([ids]))
    safetensors.torch.save_file(taps, "candidate.safetensors")
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from llama_ref.errors import Unsupported, shown
from llama_ref.golden.capture.hf_hooks import listen
from llama_ref.golden.capture.taps import Taps

if TYPE_CHECKING:
    from llama_ref.golden.cases import Case

UNSEEN = "not seen; this version of transformers computes it in another way"
IN_A_KERNEL = 'computed inside a kernel; load the model with attn_implementation="eager" to see it'


@contextmanager
def capture_transformers(model: Any, case: str | None = None) -> Iterator[Taps]:
    """Record every tap of the passes that a model runs in the `with` block.

    Parameters
    ----------
    model : transformers.LlamaForCausalLM
        On any device, of any dtype. It computes what it would without this.
    case : str, optional
        Comes in front of every name: `short/L00.q`.

    Yields
    ------
    Taps
        Empty in the block, filled at its end: arrays of the model's dtype under our names, in the
        axes of `trace.LAYER_TAPS`, RoPE pairs half-split. Several calls in the block, chunks that
        go through one cache, count as one case. A tap that could not be seen is left out, and
        `notes` says why. If the block raises, it stays empty, and nothing stays hooked or wrapped.

    Raises
    ------
    Unsupported
        If the model is of another class.
    BadRequest
        If a pass has more than one sequence.
    """
    _refuse_other_models(model)
    taps, prefix = Taps(), "" if case is None else f"{case}/"
    calls: list[dict[str, np.ndarray]] = []
    with ExitStack() as stack:
        listen(model, calls, stack)
        yield taps
    n_layers = model.config.num_hidden_layers
    taps.join(calls, n_layers, prefix)
    kernel = model.config._attn_implementation != "eager"
    within = dict.fromkeys(("scores", "probs"), IN_A_KERNEL) if kernel else {}
    taps.note_missing(n_layers, {"": UNSEEN} | within, prefix)


def run_case(model: Any, case: Case) -> Taps:
    """Feed a case to a model, chunk by chunk through a cache, and return its taps.

    Parameters
    ----------
    model : transformers.LlamaForCausalLM
    case : Case

    Returns
    -------
    Taps
        Of all tokens of the case, named without it: `L00.q`.
    """
    from transformers import DynamicCache  # noqa: PLC0415  (this module loads without)

    past, start = DynamicCache(), 0
    with capture_transformers(model) as taps:
        for n in case.chunks:
            chunk = slice(start, start + n)
            feed(model, case.ids[chunk], case.positions[chunk], past)
            start += n
    return taps


def run_cases(model: Any, cases: Iterable[Case]) -> dict[str, np.ndarray]:
    """Feed cases to a model; return their taps as `case/tap`, ready for `write_safetensors`."""
    return {
        f"{case.name}/{tap}": array
        for case in cases
        for tap, array in run_case(model, case).items()
    }


def feed(
    model: Any, ids: Iterable[int], positions: Iterable[int] | None = None, past: Any = None
) -> Any:
    """Run one sequence; return what the model returns.

    Parameters
    ----------
    model : transformers.LlamaForCausalLM
    ids, positions : iterable of int
        Of the tokens that are new; without positions the model counts them itself.
    past : transformers.Cache, optional
        What came before; the new tokens are added to it.
    """
    import torch  # noqa: PLC0415  (this module loads without)

    ids, seen = list(ids), 0 if past is None else past.get_seq_length()
    # Named anew in transformers 5; the old name warns.
    name = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"

    def row(numbers: Iterable[int]) -> Any:
        return torch.tensor([list(numbers)], device=model.device)

    with torch.inference_mode():
        return model(
            row(ids),
            position_ids=None if positions is None else row(positions),
            attention_mask=row([1] * (seen + len(ids))),
            use_cache=past is not None,
            **{name: past},
        )


def _refuse_other_models(model: Any) -> None:
    """Raise unless it is the model whose modules and functions are known here."""
    from transformers import LlamaForCausalLM  # noqa: PLC0415  (this module loads without)

    if not isinstance(model, LlamaForCausalLM):
        raise Unsupported(
            "model to capture",
            expected="a transformers LlamaForCausalLM",
            found=shown(type(model).__name__),
            next_step="pass a compiled model's original, or record by hand as the module shows",
        )
