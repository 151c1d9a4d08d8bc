"""One .pth file, as `torch.save` writes a state dict: name -> mapped, strided view.

    <root>/data.pkl       the tensors: storage, offset, shape, strides      (see `symbolic_pickle`)
    <root>/data/0, 1, …   the storages: plain little-endian numbers         (see `torch_zip`)
    <root>/version        "3"
    <root>/byteorder      "little"; older versions of torch write none
    <root>/.…             torch's own notes, which change no number

Opening reads the headers and `data.pkl`, and checks the CRC of all members but the storages.
Those can only be checked by reading all of them: `check_storages` does that when asked.
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter

import numpy as np

from llama_ref.checkpoint.readahead import scattered_reads
from llama_ref.checkpoint.strided import storage_dtype, strided_view
from llama_ref.checkpoint.symbolic_pickle import MAX_BYTES, read_state_dict
from llama_ref.checkpoint.torch_objects import Storage, StridedTensor
from llama_ref.checkpoint.torch_zip import Member, check_crc, read_members
from llama_ref.errors import BadFile, LimitExceeded, Unsupported, shown
from llama_ref.mapped import map_bytes

PathLike = str | os.PathLike[str]

MAX_NOTE = 4096
MAX_SHARING = 8
NOTES = {"version": b"3\n", "byteorder": b"little"}

KNOWN_MEMBER = re.compile(r"data\.pkl|data/[0-9]{1,20}|byteorder|version|\.(data/)?[a-z_]{1,40}")
TORCHSCRIPT_MEMBER = re.compile(r"constants\.pkl|code/.*", re.DOTALL)


def open_pth(path: PathLike) -> dict[str, np.ndarray]:
    """Map the tensors of one .pth file; nothing is read but the headers and `data.pkl`.

    Parameters
    ----------
    path : path-like
        A file that `torch.save` (1.6 or newer) wrote from a state dict: one dict of names and
        tensors or parameters, of float64, float32, float16, bfloat16, int8 or float8_e4m3fn.

    Returns
    -------
    dict of str to ndarray
        By name, in stored order: read-only views of the mapped file.

    Raises
    ------
    BadFile
        If anything in the file cannot be explained, or a tensor reaches outside its storage.
    Unsupported
        Other integers; quantised, sparse or complex tensors; TorchScript; compression; big-endian.
    LimitExceeded
        More than 16 MiB of description, a dimension of more than 2^31, or a storage shared by
        tensors of more than twice its size.
    """
    raw = map_bytes(path)
    with scattered_reads(raw):
        members = _open_archive(raw, path)
        program = _read(raw, members["data.pkl"], path, MAX_BYTES)
    tensors = read_state_dict(program, file=path)
    for name, tensor in tensors.items():
        _check_storage(members, tensor.storage, f"tensor {shown(name)}", path)
    _check_usage(members, tensors, path)
    views = {}
    for name, tensor in tensors.items():
        member = members[f"data/{tensor.storage.key}"]
        views[name] = strided_view(raw[member.start : member.end], tensor, name=name, file=path)
    _check_sharing(tensors, path)
    return views


def check_storages(path: PathLike) -> None:
    """Read a whole .pth file and compare the CRC-32 of every member with the stored one.

    Raises
    ------
    BadFile
        Naming the first member that is damaged; or as `open_pth`.
    """
    raw = map_bytes(path)
    for member in _open_archive(raw, path).values():
        check_crc(raw, member, file=path)


def _open_archive(raw: np.ndarray, path: PathLike) -> dict[str, Member]:
    """Return the members by their name under the root folder, after checking which there are."""
    members: dict[str, Member] = {}
    roots = set()
    for full_name, member in read_members(raw, file=path).items():
        root, _, name = full_name.partition("/")
        if TORCHSCRIPT_MEMBER.fullmatch(name):
            raise Unsupported("TorchScript archive", expected="a saved state dict", file=path)
        if not KNOWN_MEMBER.fullmatch(name):
            raise BadFile(f"member {shown(full_name)}", found="none of torch.save's", file=path)
        roots.add(root)
        members[name] = member
    if len(roots) > 1:
        raise BadFile("folders", expected="one", found=shown(sorted(roots)[:3]), file=path)
    for name in ("data.pkl", "version"):
        if name not in members:
            raise BadFile(f"member {name}", found="no such member", file=path)
    for name, member in members.items():
        if name != "data.pkl" and not name.startswith("data/"):
            _check_note(name, _read(raw, member, path, MAX_NOTE), path)
    return members


def _check_note(name: str, text: bytes, path: PathLike) -> None:
    """Check that a note says what all files read here say, if it is one that matters."""
    expected = NOTES.get(name, text)
    if text != expected:
        raise Unsupported(f"member {name}", expected=shown(expected), found=shown(text), file=path)


def _read(raw: np.ndarray, member: Member, path: PathLike, limit: int) -> bytes:
    """Read a small member whole, and check its CRC."""
    if member.size > limit:
        raise LimitExceeded(
            f"member {shown(member.name)}",
            expected=f"at most {limit:,} bytes",
            found=f"{member.size:,}",
            file=path,
        )
    check_crc(raw, member, file=path)
    return raw[member.start : member.end].tobytes()


def _check_storage(
    members: dict[str, Member], storage: Storage, where: str, path: PathLike
) -> None:
    """Check that the bytes behind a tensor are there, and as many as it claims."""
    member = members.get(f"data/{storage.key}")
    if member is None:
        raise BadFile(f"{where}: storage {shown(storage.key)}", found="no such member", file=path)
    n_bytes = storage.n_elements * storage_dtype(storage.dtype).itemsize
    if member.size != n_bytes:
        raise BadFile(
            f"{where}: storage {storage.key}",
            expected=f"{n_bytes} bytes",
            found=f"{member.size}",
            file=path,
        )


def _check_usage(
    members: dict[str, Member], tensors: dict[str, StridedTensor], path: PathLike
) -> None:
    """Check that every storage is used, and that all its users agree on its dtype."""
    used: dict[str, Storage] = {}
    for name, tensor in tensors.items():
        storage = used.setdefault(f"data/{tensor.storage.key}", tensor.storage)
        if storage != tensor.storage:
            where = f"tensor {shown(name)}: storage {storage.key}"
            raise BadFile(where, expected=storage.dtype, found=tensor.storage.dtype, file=path)
    for member in members:
        if member.startswith("data/") and member not in used:
            raise BadFile(f"member {member}", found="no tensor that uses it", file=path)


def _check_sharing(tensors: dict[str, StridedTensor], path: PathLike) -> None:
    """Check that no storage is shared by more than a few.

    Tied embeddings are two names for one storage. Were a thousand allowed, a small file could hold
    a model that takes hours to run and all memory to widen.
    """
    n_elements: Counter[str] = Counter()
    for name, tensor in tensors.items():
        storage = tensor.storage
        n_elements[storage.key] += math.prod(tensor.shape)
        if n_elements[storage.key] > MAX_SHARING * storage.n_elements:
            raise LimitExceeded(
                f"tensor {shown(name)}: storage {storage.key}",
                expected=f"tensors of at most {MAX_SHARING} times its {storage.n_elements} numbers",
                found=f"{n_elements[storage.key]}",
                file=path,
            )
