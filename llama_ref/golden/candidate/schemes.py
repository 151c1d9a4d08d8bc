"""What a name stands for: the tables of our names, Hugging Face's and Meta's.

A framework calls an intermediate by the module that returns it. So `o_proj` is what comes *out* of
`o_proj`, and what goes in, our `ctx`, is `o_proj.input`. Names that look like a tap and are none
are refused with the reason, so that nobody compares the wrong thing.

Source of the names: modeling_llama.py in huggingface/transformers; models/llama3/model.py in
meta-llama/llama-models.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from llama_ref.golden.pairing import PAIRED
from llama_ref.golden.taps import kind_of, layer_of, tap_name
from llama_ref.trace import LAYER_TAPS, SUMMED


@dataclass(frozen=True)
class Meaning:
    """What a name stands for.

    Attributes
    ----------
    taps : tuple of str
        The tap; of a fused projection several, side by side along the last axis.
    pairing : str or None
        Which channels RoPE pairs in it; None if it has no pairs, or those of the bundle.
    order : str
        In which order this source has the axes of the tap, where not in ours: `N T H`.
    unscaled : bool
        Scores before they were divided by sqrt(H).
    refused : str
        Why this known name is not compared: then there are no taps.
    remark : str
        What a reader of the report should know about this name.
    """

    taps: tuple[str, ...] = ()
    pairing: str | None = None
    order: str = ""
    unscaled: bool = False
    refused: str = ""
    remark: str = ""


def meaning_of(kinds: str, layer: int | None, n_layers: int, pairing: str | None) -> Meaning:
    """Return the meaning of one or several kinds of tap in a layer.

    Examples
    --------
    >>> meaning_of("q k v", 3, 4, None).taps
    ('L03.q', 'L03.k', 'L03.v')
    """
    if layer is not None and layer >= n_layers:
        return Meaning(refused=f"the model has {n_layers} layers, numbered from 0")
    taps = tuple(tap_name(layer, kind) for kind in kinds.split())
    is_paired = any(kind in PAIRED for kind in kinds.split())
    return Meaning(taps, pairing if is_paired else None)


class Scheme(Protocol):
    """A way to name tensors."""

    @property
    def name(self) -> str:
        """What users call it: `hf`."""
        ...

    def parse(self, name: str, n_layers: int) -> Meaning | None:
        """Return what a name stands for; None if the scheme has no such name."""
        ...


@dataclass(frozen=True)
class ModuleNames:
    """A scheme whose names are paths: something outer, or a layer's number and something inner.

    Attributes
    ----------
    name : str
    layer : pattern
        Of names in a layer; group 1 is its number, group 2 what follows, if anything does.
    inner, outer : mapping of str to str
        To kinds of tap; several kinds are fused, side by side.
    orders : mapping of str to str
        Of inner names whose axes are not in our order.
    refused : mapping of str to str
        Inner names that are no tap, and why.
    pairing : str or None
    prefix : str
        May stand in front of every name.
    endings : tuple of str
        What hooks put behind the name of a module for what it returns.
    """

    name: str
    layer: re.Pattern[str]
    inner: Mapping[str, str]
    outer: Mapping[str, str]
    orders: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    pairing: str | None = None
    prefix: str = ""
    endings: tuple[str, ...] = ()

    def parse(self, name: str, n_layers: int) -> Meaning | None:
        """Return what a name stands for; None if the scheme has no such name."""
        name = name.removeprefix(self.prefix)
        for ending in ("", *self.endings):
            if name.endswith(ending):
                found = self._exact(name[: len(name) - len(ending)], n_layers)
                if found:
                    return found
        return None

    def _exact(self, name: str, n_layers: int) -> Meaning | None:
        if name in self.outer:
            return meaning_of(self.outer[name], None, n_layers, self.pairing)
        match = self.layer.fullmatch(name)
        if not match:
            return None
        rest = match[2] or ""
        if rest in self.refused:
            return Meaning(refused=self.refused[rest])
        if rest not in self.inner:
            return None
        found = meaning_of(self.inner[rest], int(match[1]), n_layers, self.pairing)
        return Meaning(found.taps, found.pairing, self.orders.get(rest, ""), refused=found.refused)


OF_ALL_RANKS = ModuleNames(
    name="llama_ref",
    layer=re.compile(r"L([0-9]{1,4})\.(.+)"),
    inner={kind: kind for kind in LAYER_TAPS} | {"qkv": "q k v", "gate_up": "gate up"},
    outer={"embed": "embed", "final_norm": "final_norm", "logits": "logits"},
)


@dataclass(frozen=True)
class Ours:
    """Our names, and those of what one rank of several has for itself."""

    name: str = "llama_ref"

    def parse(self, name: str, n_layers: int) -> Meaning | None:
        """Return what a name stands for; None if we have no such name."""
        match = re.fullmatch(r"(.+)\.rank([0-9]{1,4})", name, re.DOTALL)
        if not match:
            return OF_ALL_RANKS.parse(name, n_layers)
        found = OF_ALL_RANKS.parse(match[1], n_layers)
        if found is None or found.refused:
            return found
        layer, kind = layer_of(found.taps[0]), kind_of(found.taps[0])
        if kind not in SUMMED:
            return Meaning(refused=f"{SLICE_ALONE} {match[1]}")
        return Meaning((tap_name(layer, kind, int(match[2])),))


SLICE_ALONE = "the heads or channels of one rank are no tap; put those of all side by side, as"
SILU_ALONE = "silu(gate) before it is multiplied by up is no tap; the product is `act`"

HF_MODULES = ModuleNames(
    name="hf",
    pairing="half_split",
    prefix="model.",
    endings=(".output", ".out", ".0"),
    layer=re.compile(r"layers\.([0-9]{1,4})(?:\.(.+))?"),
    inner={
        "input_layernorm": "attn_norm",
        "self_attn.q_proj": "q",
        "self_attn.k_proj": "k",
        "self_attn.v_proj": "v",
        "self_attn.qkv_proj": "q k v",
        "self_attn.q_rope": "q_rope",  # of functions, not modules: whoever dumps them names them so
        "self_attn.k_rope": "k_rope",
        "self_attn.scores": "scores",
        "self_attn.probs": "probs",
        "self_attn.1": "probs",
        "self_attn.o_proj.input": "ctx",
        "self_attn.o_proj": "attn_out",
        "self_attn": "attn_out",
        "post_attention_layernorm.input": "ffn_inp",
        "post_attention_layernorm": "ffn_norm",
        "mlp.gate_proj": "gate",
        "mlp.up_proj": "up",
        "mlp.gate_up_proj": "gate up",
        "mlp.down_proj.input": "act",
        "mlp.down_proj": "ffn_out",
        "mlp": "ffn_out",
        "": "out",
    },
    outer={
        "embed_tokens": "embed",
        "norm": "final_norm",
        "lm_head": "logits",
        "logits": "logits",
    },
    orders={"self_attn.q_rope": "N T H", "self_attn.k_rope": "K T H"},
    refused={
        "mlp.act_fn": SILU_ALONE,
        "self_attn.attn_weights": "scores and probabilities both go by this name; say which",
    },
)

META = ModuleNames(
    name="meta",
    pairing="interleaved",
    endings=(".output", ".out", ".0"),
    layer=re.compile(r"layers\.([0-9]{1,4})(?:\.(.+))?"),
    inner={
        "attention_norm": "attn_norm",
        "attention.wq": "q",
        "attention.wk": "k",
        "attention.wv": "v",
        "attention.wqkv": "q k v",
        "attention.q_rope": "q_rope",
        "attention.k_rope": "k_rope",
        "attention.scores": "scores",
        "attention.probs": "probs",
        "attention.wo.input": "ctx",
        "attention.wo": "attn_out",
        "attention": "attn_out",
        "ffn_norm.input": "ffn_inp",
        "ffn_norm": "ffn_norm",
        "feed_forward.w1": "gate",
        "feed_forward.w3": "up",
        "feed_forward.w2.input": "act",
        "feed_forward.w2": "ffn_out",
        "feed_forward": "ffn_out",
        "": "out",
    },
    outer={"tok_embeddings": "embed", "norm": "final_norm", "output": "logits"},
)


@dataclass(frozen=True)
class HuggingFace:
    """Names of modules of transformers, and of the tuples that its models return."""

    name: str = "hf"

    def parse(self, name: str, n_layers: int) -> Meaning | None:
        """Return what a name stands for; None if transformers has no such name."""
        match = re.fullmatch(r"(hidden_states|attentions)\.([0-9]{1,4})", name)
        if not match:
            return HF_MODULES.parse(name, n_layers)
        index = int(match[2])
        if match[1] == "attentions":
            return meaning_of("probs", index, n_layers, None)
        if index == 0:
            return meaning_of("embed", None, n_layers, None)
        if index != n_layers:
            return meaning_of("out", index - 1, n_layers, None)
        # The trap: all are outputs of layers but the last, which has been through the final norm.
        remark = (
            f"hidden_states.{index}, the last, is read as final_norm: it is handed out normalised"
        )
        return Meaning(("final_norm",), remark=remark)
