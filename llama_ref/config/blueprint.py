"""The blueprint: the dozen numbers that make one Llama different from another.

A `Config` says how large everything is and nothing about where the weights are. It validates itself
when it is made, so no invalid blueprint exists; everything downstream may rely on it. From its
numbers follow the sizes people ask about first: parameters, bytes, cache, arithmetic per token.

    parameters = V*D * (1 if tied else 2) + L * (2*D*N*H + 2*D*K*H + 3*D*F + 2*D) + D

Published blueprints are in `presets`; `read` takes those of a checkpoint folder.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import UnionType

from llama_ref.config.facts import facts, html_table, title
from llama_ref.errors import BadConfig, shown

MAX_LAYERS = 4096
MAX_SIZE = 2**31
MAX_HEAD_DIM = 2**16
"""A table of frequencies is computed from it when a model is made; Llama's heads have 128."""
MIN_EPS = 1e-30
MAX_REAL = 1e30
"""Every limit on real numbers keeps what is computed from them inside the range of float32."""


@dataclass(frozen=True)
class RopeScaling:
    """How Llama 3.1 stretches RoPE to longer contexts ("llama3" scaling, by wavelength).

    A pair of channels that turns fewer than `low_freq_factor` times within `original_context`
    positions is slowed down by `factor`; one that turns more than `high_freq_factor` times is
    kept; between the two, the frequencies are blended. It holds at every position.

    Attributes
    ----------
    factor : float
        8 in Llama 3.1 and 3.3, 32 in Llama 3.2; at least 1.
    low_freq_factor, high_freq_factor : float
        1 and 4 in every release; low is smaller than high.
    original_context : int
        Positions the model was first trained on: 8,192.

    Raises
    ------
    BadConfig
        A value of another type or out of range.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_context: int

    def __post_init__(self) -> None:
        _check_real(self, "factor", 1, MAX_REAL)
        _check_real(self, "low_freq_factor", MIN_EPS, MAX_REAL)
        _check_real(self, "high_freq_factor", MIN_EPS, MAX_REAL)
        _check_whole("original_context", self.original_context, 1, MAX_SIZE)
        if self.low_freq_factor >= self.high_freq_factor:
            raise BadConfig(
                "low_freq_factor",
                expected=f"less than high_freq_factor = {self.high_freq_factor}",
                found=self.low_freq_factor,
            )


@dataclass(frozen=True)
class Config:
    """Every number that fixes the shape and the arithmetic of a Llama.

    The letter is the one that array names end in (`hidden_TD` has T rows of D channels).

    Attributes
    ----------
    d_model : int
        D: channels of the hidden state, the stream that every layer reads and adds to.
    n_layers : int
        L: how many times attention and feed-forward alternate.
    n_heads : int
        N: query heads. Each looks at the past with its own question.
    n_kv_heads : int
        K: key/value heads, a divisor of N. G = N/K query heads share one, which makes the cache G
        times smaller (grouped-query attention); K = N is ordinary attention, K = 1 multi-query.
    head_dim : int
        H: channels of one head, even because RoPE turns them in pairs (P = H/2). Usually D/N.
    d_ff : int
        F: channels between the two halves of the feed-forward network.
    vocab_size : int
        V: token ids, which are the rows of the embedding and of the output matrix.
    context_length : int
        Positions the model was made for. It bounds prompts; no table is computed from it.
    norm_eps : float
        Added to the mean square inside RMSNorm's root.
    rope_theta : float
        RoPE's base: pair p turns by theta^(-2p/H) radians per position.
    rope_scaling : RopeScaling or None
        The stretching of Llama 3.1 and later; None in Llama 2 and 3.0.
    tied_embeddings : bool
        Whether the output matrix is the embedding matrix itself, stored once.
    bos_id : int or None
        Token that begins every text.
    eos_ids : tuple of int
        Tokens that end generation.
    name : str
        Preset or folder name, for people; two configs that differ only in it are equal.

    Raises
    ------
    BadConfig
        A value of another type (True is not 1, 4.0 is not 4), out of range, or at odds with
        another. The error's `thing` is the attribute's name.
    """

    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    d_ff: int
    vocab_size: int
    context_length: int
    norm_eps: float
    rope_theta: float
    rope_scaling: RopeScaling | None
    tied_embeddings: bool
    bos_id: int | None = None
    eos_ids: tuple[int, ...] = ()
    name: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        _check_whole("n_layers", self.n_layers, 1, MAX_LAYERS)
        for size in ("d_model", "n_heads", "n_kv_heads", "d_ff", "vocab_size", "context_length"):
            _check_whole(size, getattr(self, size), 1, MAX_SIZE)
        _check_whole("head_dim", self.head_dim, 2, MAX_HEAD_DIM)
        _check_real(self, "norm_eps", MIN_EPS, 1)
        _check_real(self, "rope_theta", MIN_EPS, MAX_REAL)
        _check_type(self, "rope_scaling", RopeScaling | None)
        _check_type(self, "tied_embeddings", bool)
        _check_type(self, "eos_ids", tuple)
        _check_type(self, "name", str)
        self._check_heads()
        if self.bos_id is not None:
            _check_whole("bos_id", self.bos_id, 0, self.vocab_size - 1)
        for token in self.eos_ids:
            _check_whole("eos_ids", token, 0, self.vocab_size - 1)

    def _check_heads(self) -> None:
        n_heads, width = self.n_heads, self.n_heads * self.head_dim
        rules = [
            ("d_model", self.d_model % n_heads == 0, f"a multiple of n_heads = {n_heads}"),
            ("n_kv_heads", n_heads % self.n_kv_heads == 0, f"a divisor of n_heads = {n_heads}"),
            ("head_dim", self.head_dim % 2 == 0, "an even number, for RoPE turns pairs"),
            ("head_dim", width <= MAX_SIZE, f"at most {MAX_SIZE} / n_heads"),
        ]
        for name, holds, expected in rules:
            if not holds:
                raise BadConfig(name, expected=expected, found=getattr(self, name))

    @property
    def group_size(self) -> int:
        """G: query heads that share one key/value head."""
        return self.n_heads // self.n_kv_heads

    @property
    def is_mp16(self) -> bool:
        """Whether this is Llama 3.1 405B as cut for 16 devices: each of its 8 KV heads twice."""
        shape = (self.d_model, self.n_layers, self.n_heads, self.n_kv_heads)
        return shape == (16384, 126, 128, 16)

    @property
    def n_matrix_params(self) -> int:
        """Weights that every token is multiplied with: all matrices but the embedding."""
        attention = 2 * self.d_model * (self.n_heads + self.n_kv_heads) * self.head_dim
        feed_forward = 3 * self.d_model * self.d_ff
        return self.n_layers * (attention + feed_forward) + self.vocab_size * self.d_model

    @property
    def n_params(self) -> int:
        """Unique parameters: a tied matrix counts once."""
        embedding = 0 if self.tied_embeddings else self.vocab_size * self.d_model
        gains = (2 * self.n_layers + 1) * self.d_model
        return self.n_matrix_params + embedding + gains

    def stored_bytes(self, bits: int) -> int:
        """Return the bytes of all parameters at `bits` each, without scales or headers."""
        return -(-self.n_params * bits // 8)

    def kv_bytes_per_token(self, dtype_itemsize: int = 2) -> int:
        """Return the bytes one position takes in the cache: a key and a value, L*K*H numbers each.

        Parameters
        ----------
        dtype_itemsize : int
            Bytes of one number; 2 for bfloat16.
        """
        return 2 * self.n_layers * self.n_kv_heads * self.head_dim * dtype_itemsize

    def flops_per_token(self, context: int = 0) -> int:
        """Return the floating-point operations of one token that attends to `context` positions.

        Two for every matrix weight (a multiplication and an addition), and 4*L*N*H for every
        position attended (its score, its share of the mix). The embedding is a look-up and costs
        none; norms, RoPE and softmax, well under 1 %, are not counted.
        """
        attended = 4 * self.n_layers * self.n_heads * self.head_dim * context
        return 2 * self.n_matrix_params + attended

    def describe(self) -> str:
        """Return the sizes that follow from this blueprint, as lines of text.

        Examples
        --------
        >>> from llama_ref.config.presets import preset
        >>> print(preset("llama-3.1-405b").describe())
        llama-3.1-405b: 405,853,388,800 parameters
          shape    D 16384 · L 126 · N 128 · K 8 · G 16 · H 128 · F 53248 · V 128256
          RoPE     theta 500,000; slow pairs 8 times slower, first trained on 8,192 positions
          weights  811.7 GB in 16 bits · 405.9 GB in FP8 · 202.9 GB in INT4, scales not counted
          cache    516,096 bytes per token in 16 bits · 67.6 GB (63.0 GiB) for 131,072 tokens
          compute  807.5 GFLOP per token + 8.3 MFLOP per position attended, matrices only
        """
        rows = "".join(f"\n  {label:8} {text}" for label, text in facts(self))
        return f"{title(self)}{rows}"

    def _repr_html_(self) -> str:
        return html_table(title(self), facts(self))


def _check_whole(name: str, value: object, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:  # type(), because True is an int
        raise BadConfig(name, expected=f"a whole number from {low} to {high}", found=shown(value))


def _check_real(owner: object, name: str, low: float, high: float) -> None:
    """Require a real number in range (NaN is in none) and keep it as a float."""
    value = getattr(owner, name)
    if type(value) not in (int, float) or not low <= value <= high:
        raise BadConfig(name, expected=f"a number from {low:g} to {high:g}", found=shown(value))
    object.__setattr__(owner, name, float(value))


def _check_type(owner: object, name: str, kind: type | UnionType) -> None:
    value = getattr(owner, name)
    if not isinstance(value, kind):
        expected = getattr(kind, "__name__", str(kind))
        raise BadConfig(name, expected=f"a value of type {expected}", found=shown(value))
