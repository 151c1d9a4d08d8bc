"""The tensors of a checkpoint as rows of a table, with the layers that are alike written once.

A model of 32 layers has 291 tensors and says nothing new after the first eleven. Layers whose
tensors agree in name, dtype and shape are folded into one block:

    model.layers.0 … 31, each                              436 MB
      self_attn.q_proj.weight   bfloat16  4096 × 4096   33.6 MB  [1–4]
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from llama_ref.checkpoint.stored import Checkpoint
from llama_ref.cli.checks import n_bytes
from llama_ref.cli.terminal import label, size
from llama_ref.config import Config
from llama_ref.names import expected_shapes

LAYER = re.compile(r"((?:model\.)?layers|blk)\.(0|[1-9][0-9]{0,3})\.(.+)", re.DOTALL)
Kind = tuple[str, str, tuple[int, ...]]


@dataclass(frozen=True)
class Stored:
    """One tensor as its file describes it.

    Attributes
    ----------
    name : str
        As stored: not escaped.
    files : tuple of str
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    n_bytes: int
    files: tuple[str, ...]

    @cached_property
    def layer(self) -> tuple[str, int, str] | None:
        """The prefix, the number and the rest of the name of a tensor in a layer."""
        match = LAYER.fullmatch(self.name)
        return (match[1], int(match[2]), match[3]) if match else None


def stored_tensors(checkpoint: Checkpoint, config: Config) -> list[Stored]:
    """Return every tensor, in the order of the forward pass, then what has no place in it."""
    in_order = dict.fromkeys(expected_shapes(config, checkpoint.layout))
    names = [name for name in in_order if name in checkpoint]
    names += [name for name in checkpoint if name not in in_order]
    return [
        Stored(
            name,
            str(getattr(checkpoint[name], "stored_as", checkpoint[name].dtype)),
            tuple(checkpoint[name].shape),
            n_bytes(checkpoint[name]),
            checkpoint.files[name],
        )
        for name in names
    ]


def totals(tensors: Iterable[Stored]) -> dict[str, tuple[int, int]]:
    """Return for each dtype how many tensors and how many bytes are of it."""
    sums: dict[str, tuple[int, int]] = {}
    for tensor in tensors:
        count, n = sums.get(tensor.dtype, (0, 0))
        sums[tensor.dtype] = (count + 1, n + tensor.n_bytes)
    return sums


def rows(tensors: list[Stored], files: list[str], *, fold: bool) -> list[tuple[str, ...]]:
    """Return a row of (name, dtype, shape, bytes, files) for each tensor or block of layers."""
    result: list[tuple[str, ...]] = []
    for block in _blocks(tensors) if fold else [[tensor] for tensor in tensors]:
        first = block[0].layer if fold else None
        if first is None:
            result += [_row(label(tensor.name), [tensor], files) for tensor in block]
            continue
        prefix, numbers = first[0], sorted({tensor.layer[1] for tensor in block if tensor.layer})
        many = numbers[-1] > numbers[0]
        which = f"{numbers[0]} … {numbers[-1]}, each" if many else f"{numbers[0]}"
        one_layer = sum(tensor.n_bytes for tensor in block) // len(numbers)
        result.append((f"{prefix}.{which}", "", "", size(one_layer), ""))
        alike: dict[str, list[Stored]] = {}
        for tensor in block:
            if tensor.layer:
                alike.setdefault(tensor.layer[2], []).append(tensor)
        result += [_row(f"  {label(rest)}", same, files) for rest, same in alike.items()]
    return result


def _row(name: str, same: list[Stored], files: list[str]) -> tuple[str, ...]:
    """Describe tensors that differ only in the number of their layer."""
    first = same[0]
    shape = " × ".join(map(str, first.shape)) or "scalar"
    places = sorted({files.index(file) + 1 for tensor in same for file in tensor.files})
    where = f"[{_ranges(places)}]" if places else "computed"
    return (name, first.dtype, shape, size(first.n_bytes), where)


def _blocks(tensors: list[Stored]) -> Iterator[list[Stored]]:
    """Yield tensors outside the layers one by one, and layers that are alike together."""
    held: dict[int, list[Kind]] = {}
    for tensor in tensors:
        if tensor.layer:
            _, number, rest = tensor.layer
            held.setdefault(number, []).append((rest, tensor.dtype, tensor.shape))
    # One number for all layers that are alike, since they are compared at every tensor.
    numbers: dict[tuple[Kind, ...], int] = {}
    kinds = {layer: numbers.setdefault(tuple(kind), layer) for layer, kind in held.items()}
    block: list[Stored] = []
    for tensor in tensors:
        if block and not _belongs(tensor, block[-1], kinds):
            yield block
            block = []
        block.append(tensor)
    if block:
        yield block


def _belongs(tensor: Stored, last: Stored, kinds: dict[int, int]) -> bool:
    """Return whether a tensor continues a block: of its layer, or of the next and alike."""
    if tensor.layer is None or last.layer is None or tensor.layer[0] != last.layer[0]:
        return False
    number, before = tensor.layer[1], last.layer[1]
    return number == before or (number == before + 1 and kinds[number] == kinds[before])


def _ranges(numbers: list[int]) -> str:
    """Write sorted whole numbers with their runs joined.

    Examples
    --------
    >>> _ranges([1, 2, 3, 7])
    '1–3, 7'
    """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs)
