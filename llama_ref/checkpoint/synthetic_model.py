"""A whole model by formula: real shapes, nothing on disk, next to nothing in memory.

    synthetic:llama-3.1-8b?seed=0&n_layers=4&variant=outliers

names one like a path: a published blueprint, and, each where wanted, the seed, a number of layers
to shorten it to, and the variant. Its checkpoint is in the layout of Hugging Face. Gains are
arrays; a matrix is a `SyntheticMatrix`, which computes the rows that are asked for each time they
are, and keeps none. So 405B opens at once, and a pass through it takes the time of computing its
weights.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from llama_ref.checkpoint.stored import Checkpoint, Tensor
from llama_ref.checkpoint.synthetic import check_variant, tensor
from llama_ref.config import Config, preset
from llama_ref.errors import BadRequest, shown
from llama_ref.names import expected_shapes

SCHEME = "synthetic:"
OPTIONS = ("seed", "n_layers", "variant")


@dataclass(frozen=True)
class SyntheticMatrix:
    """A matrix whose rows are computed when they are asked for; implements `numerics.Matrix`.

    Attributes
    ----------
    name : str
        The Hugging Face name, by which the formula knows it.
    shape : tuple of int
        Rows and columns.
    seed : int
        0 to 2^32 - 1.
    variant : {"plain", "outliers"}

    Examples
    --------
    >>> SyntheticMatrix("lm_head.weight", (128_256, 4), seed=1).rows(0, 1) * 64
    array([[  5., -79.,  90., 105.]], dtype=float32)
    """

    name: str
    shape: tuple[int, ...]
    seed: int = 0
    variant: str = "plain"

    @property
    def dtype(self) -> np.dtype:
        """float32; every element is exact in bfloat16 and float16 too."""
        return np.dtype(np.float32)

    @property
    def ndim(self) -> int:
        """Two."""
        return len(self.shape)

    def rows(self, lo: int, hi: int) -> np.ndarray:
        """Compute rows lo to hi - 1.

        Returns
        -------
        ndarray of shape (hi - lo, columns), float32

        Raises
        ------
        BadRequest
            Unless 0 <= lo <= hi <= the number of rows.
        """
        return tensor(self.name, self.shape, self.seed, lo, hi, variant=self.variant)

    def __array__(
        self, dtype: np.typing.DTypeLike | None = None, copy: bool | None = None
    ) -> np.ndarray:
        """Compute all of it."""
        if copy is False:
            raise BadRequest("a computed matrix as an array", expected="leave to compute it")
        whole = self.rows(0, self.shape[0])
        return whole if dtype is None else whole.astype(dtype, copy=False)


def open_synthetic(config: Config, seed: int = 0, variant: str = "plain") -> Checkpoint:
    """Return the checkpoint of a blueprint by formula; only its gains are computed.

    Parameters
    ----------
    config : Config
        The blueprint.
    seed : int
        0 to 2^32 - 1.
    variant : {"plain", "outliers"}
        As of `synthetic.tensor`.

    Returns
    -------
    Checkpoint
        Of layout "hf", without files; vectors are float32 arrays, matrices `SyntheticMatrix`.

    Raises
    ------
    BadRequest
        If the seed is out of range, or there is no such variant.

    Examples
    --------
    >>> from llama_ref.config import preset
    >>> open_synthetic(preset("llama-3.1-405b"))
    <Checkpoint synthetic:llama-3.1-405b?seed=0: 1137 computed tensors of layout hf>
    """
    check_variant(variant)

    def computed(name: str, shape: tuple[int, ...]) -> Tensor:
        if len(shape) == 1:
            return tensor(name, shape, seed, variant=variant)
        return SyntheticMatrix(name, shape, seed, variant)

    tensors = {name: computed(name, shape) for name, shape in expected_shapes(config, "hf").items()}
    path = f"{SCHEME}{config.name}?seed={seed}"
    if variant != "plain":
        path += f"&variant={variant}"
    return Checkpoint(Path(path), "hf", tensors, dict.fromkeys(tensors, ()))


def is_synthetic(path: str | os.PathLike[str]) -> bool:
    """Tell whether a path begins with `synthetic:`; of a folder so named, give the full path."""
    return os.fspath(path).startswith(SCHEME)


def open_synthetic_path(path: str | os.PathLike[str]) -> tuple[Checkpoint, Config]:
    """Open what `synthetic:NAME?seed=0&n_layers=4` names: a checkpoint, and its blueprint.

    Parameters
    ----------
    path : path-like
        As of `parse_synthetic_path`.

    Raises
    ------
    BadRequest, BadConfig
        If it names nothing that can be computed.
    """
    config, seed, variant = parse_synthetic_path(path)
    return open_synthetic(config, seed, variant), config


def parse_synthetic_path(path: str | os.PathLike[str]) -> tuple[Config, int, str]:
    """Return blueprint, seed and variant that `synthetic:NAME?seed=0&n_layers=4` stands for.

    Parameters
    ----------
    path : path-like
        `synthetic:`, the name of a published blueprint, and options behind a question mark.

    Raises
    ------
    BadRequest
        If there is no such blueprint or variant, or an option is unknown, given twice or no number.
    BadConfig
        If the number of layers is out of range.
    """
    text = os.fspath(path).removeprefix(SCHEME)
    name, _, query = text.partition("?")
    config, options = preset(name), _options(query)
    if "n_layers" in options:
        config = replace(config, n_layers=_whole("n_layers", options))
    seed = _whole("seed", options) if "seed" in options else 0
    return config, seed, check_variant(options.get("variant", "plain"))


def _options(query: str) -> dict[str, str]:
    """Split `key=value&key=value`."""
    options: dict[str, str] = {}
    for pair in query.split("&") if query else ():
        key, _, value = pair.partition("=")
        if key not in OPTIONS or not value:
            wanted = ", ".join(f"{option}=…" for option in OPTIONS)
            raise BadRequest("option of a synthetic model", expected=wanted, found=shown(pair))
        if key in options:
            raise BadRequest(f"option {key} of a synthetic model", expected="once", found="twice")
        options[key] = value
    return options


def _whole(key: str, options: Mapping[str, str]) -> int:
    """Return the value of an option as the whole number it has to be."""
    if not re.fullmatch("[0-9]{1,10}", options[key]):
        raise BadRequest(
            f"option {key} of a synthetic model",
            expected="a whole number",
            found=shown(options[key]),
        )
    return int(options[key])
