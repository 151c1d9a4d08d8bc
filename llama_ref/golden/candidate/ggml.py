"""What the names of llama.cpp's graph nodes stand for: `Qcur-7 (ROPE)`, `kq-7`, `result_output`.

A node is called after a variable and the number of the layer. Some variables are assigned to again
and again, so one name is several nodes, told apart only by the operation or by counting:

    Qcur-0 (MUL_MAT)   Qcur-0.MUL_MAT   Qcur-0#0      the projection
    Qcur-0 (RESHAPE)                    Qcur-0#1      the same, in heads
    Qcur-0 (ROPE)      Qcur-0.ROPE      Qcur-0#2      rotated

GGUF files hold query and key rows in Meta's interleaved order.

Source: src/models/llama.cpp and src/llama-graph.cpp in ggml-org/llama.cpp.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from llama_ref.golden.candidate.schemes import SILU_ALONE, Meaning, meaning_of

NODE = re.compile(
    r"(?P<base>[A-Za-z_]+)(?:-(?P<layer>[0-9]{1,4}))?"
    r"(?: ?\((?P<op>[A-Za-z_]+)\)|\.(?P<dotted>[A-Z_]+)|\#(?P<count>[0-9]{1,2}))?"
)

# Kind of tap, and the operations of the node that is the tap; any will do where none is named.
LAYER_NODES: dict[str, tuple[str, tuple[str, ...]]] = {
    "attn_norm": ("attn_norm", ("MUL",)),
    "Vcur": ("v", ("MUL_MAT", "ADD", "RESHAPE", "VIEW")),
    "kq": ("scores", ("MUL_MAT",)),
    "kq_soft_max": ("probs", ("SOFT_MAX",)),
    "kq_soft_max_ext": ("probs", ("SOFT_MAX",)),
    "kqv": ("ctx", ("MUL_MAT",)),
    "kqv_out": ("ctx", ()),
    "attn_out": ("attn_out", ("MUL_MAT",)),
    "ffn_inp": ("ffn_inp", ("ADD",)),
    "ffn_norm": ("ffn_norm", ("MUL",)),
    "ffn_gate": ("gate", ("MUL_MAT",)),
    "ffn_up": ("up", ("MUL_MAT",)),
    "ffn_swiglu": ("act", ("GLU", "SWIGLU")),
    "ffn_gate_par": ("act", ("MUL",)),
    "ffn_out": ("ffn_out", ("MUL_MAT",)),
    "l_out": ("out", ("ADD",)),
}
OUTER_NODES = {
    "embd": ("embed", ("GET_ROWS",)),
    "inp_embd": ("embed", ("GET_ROWS",)),
    "result_norm": ("final_norm", ("MUL",)),
    "result_output": ("logits", ("MUL_MAT",)),
}
REPEATED = {"Qcur": "q", "Kcur": "k"}
PROJECTIONS = ("MUL_MAT", "ADD", "RESHAPE", "VIEW")
REFUSED = {
    "norm": "a norm before its gain, and of two norms of a layer: name attn_norm or ffn_norm",
    "ffn_silu": SILU_ALONE,
}


@dataclass(frozen=True)
class Ggml:
    """Names of graph nodes.

    Attributes
    ----------
    from_zero : bool
        Whether occurrences of a name are counted from 0; if not, numbers are not believed.
    """

    from_zero: bool = True
    name: str = "ggml"

    def parse(self, name: str, n_layers: int) -> Meaning | None:
        """Return what a name stands for; None if llama.cpp has no such name."""
        match = NODE.fullmatch(name)
        if not match:
            return None
        base, layer = match["base"], None if match["layer"] is None else int(match["layer"])
        op = (match["op"] or match["dotted"] or "").upper().replace("RESHAPED", "RESHAPE")
        if base in REFUSED:
            return Meaning(refused=REFUSED[base])
        if base in REPEATED and layer is not None:
            return self._repeated(base, layer, op, match["count"], n_layers)
        table = OUTER_NODES if layer is None else LAYER_NODES
        if base not in table:
            return None
        kind, ops = table[base]
        if op and ops and op not in ops:
            return Meaning(refused=f"{base} is taken from {' or '.join(ops)}, not from {op}")
        found = meaning_of(kind, layer, n_layers, None)
        order = "N T H" if base == "kqv" else ""
        return replace(found, order=order, unscaled=base == "kq")

    def _repeated(
        self, base: str, layer: int, op: str, count: str | None, n_layers: int
    ) -> Meaning:
        """Tell the projection from the rotated one."""
        kind = REPEATED[base]
        if count is not None and (not self.from_zero or int(count) > 2):
            return Meaning(refused=f"the three nodes {base}-{layer} are numbered from 0")
        if op in PROJECTIONS or count in ("0", "1"):
            return meaning_of(kind, layer, n_layers, "interleaved")
        if op == "ROPE" or count == "2":
            return meaning_of(f"{kind}_rope", layer, n_layers, "interleaved")
        each = f"{base}-{layer} (MUL_MAT) or {base}-{layer} (ROPE)"
        return Meaning(refused=f"three nodes go by this name; say which: {each}")


def counted_from_zero(names: Iterable[str]) -> bool:
    """Tell whether occurrences are counted from 0: there is no fourth Qcur or Kcur of a layer."""
    return not any(re.search(r"(?:^|/)[QK]cur-[0-9]+#3$", name) for name in names)
