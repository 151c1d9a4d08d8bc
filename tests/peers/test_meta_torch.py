"""Files that the installed torch really writes, read without it and compared with `torch.load`."""

import time
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from llama_ref.checkpoint import open_meta
from llama_ref.checkpoint.pth import check_storages, open_pth
from llama_ref.checkpoint.torch_zip import read_members
from llama_ref.errors import BadFile, LlamaRefError, Unsupported
from llama_ref.mapped import map_bytes

FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
OTHER_DTYPES = [
    *(torch.int64, torch.int32, torch.int16, torch.uint8, torch.bool),
    *(torch.complex64, torch.complex128, torch.float8_e5m2, torch.uint16),
]


def saved(path, state, **how):
    """Save with torch; return what torch loads back and what is read here."""
    torch.save(state, path, **how)
    return torch.load(path, weights_only=True), open_pth(path)


def check_same(found, peer):
    """An array equals a tensor: dtype, shape, strides, bits."""
    assert str(peer.dtype) == f"torch.{found.dtype.name}"
    assert found.shape == tuple(peer.shape)
    if found.size:
        assert [step // found.itemsize for step in found.strides] == list(peer.stride())
    bits = peer.detach().contiguous().view(torch.uint8) if peer.dim() else peer.detach()[None]
    assert found.tobytes() == bits.view(torch.uint8).numpy().tobytes()


def test_int8_comes_back(tmp_path):
    """The numbers of quantised checkpoints, of every value."""
    state = {"w": torch.arange(-128, 128, dtype=torch.int8).reshape(16, 16)}
    peer, found = saved(tmp_path / "x.pth", state)
    check_same(found["w"], peer["w"])


def test_float8_comes_back(tmp_path):
    """All 256 numbers, plain and transposed, and of a module's parameter."""
    numbers = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).reshape(16, 16)
    module = nn.Linear(2, 2, bias=False)
    module.weight = nn.Parameter(numbers[2:4, 2:4], requires_grad=False)
    state = {"w": numbers, "turned": numbers.t(), **module.state_dict()}
    peer, found = saved(tmp_path / "x.pth", state)
    for name, tensor in peer.items():
        check_same(found[name], tensor)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_tensors_of_every_kind_come_back(tmp_path, dtype):
    """Contiguous, transposed, strided, sliced, empty, scalar, shared, parameters: bit for bit."""
    torch.manual_seed(0)
    base = torch.randn(6, 10, dtype=torch.float64).to(dtype)
    vector = torch.tensor([float("nan"), float("inf"), -0.0, 0.0, 1e-7], dtype=dtype)
    state = {
        "contiguous": base.clone(),
        "transposed": base.clone().t(),
        "permuted": torch.randn(2, 3, 4).to(dtype).permute(2, 0, 1),
        "every third column": base.clone()[:, 1::3],
        "window": base[2:4, 3:7],
        "same storage": base,
        "same again": base.t(),
        "special": vector,
        "empty": torch.empty(0, 7, dtype=dtype),
        "scalar": torch.tensor(3.5, dtype=dtype),
        "parameter": nn.Parameter(base.clone()),
        "parameter without gradient": nn.Parameter(vector.clone(), requires_grad=False),
        "one row": base[3:4],
        "one column": base[:, 2:3],
        "ünïcode\n\x00 name": base.clone(),
    }
    peer, found = saved(tmp_path / "all.pth", state)
    assert list(found) == list(state)
    for name in state:
        check_same(found[name], peer[name])
        assert not found[name].flags.writeable
    assert np.shares_memory(found["window"], found["same again"])
    check_storages(tmp_path / "all.pth")


def test_the_state_dict_of_a_module_comes_back(tmp_path):
    """An OrderedDict with the _metadata that Module.state_dict leaves on it is read."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(5, 3), nn.LayerNorm(3), nn.Linear(3, 2, bias=False))
    peer, found = saved(tmp_path / "module.pth", module.state_dict())
    assert hasattr(module.state_dict(), "_metadata")
    assert list(found) == list(peer)
    for name, tensor in peer.items():
        check_same(found[name], tensor)


def test_two_thousand_tensors_come_back(tmp_path):
    """More than a thousand entries, and more than 256 memo numbers, take the long instructions."""
    state = {f"layers.{i}.weight": torch.full((3,), float(i)) for i in range(2000)}
    _, found = saved(tmp_path / "many.pth", state)
    assert [array.tolist() for array in found.values()] == [[i] * 3 for i in range(2000)]


@pytest.mark.parametrize("alignment", [1, 64, 4096])
def test_any_alignment_is_read(tmp_path, alignment):
    """Torch can be told to align storages otherwise, even not at all."""
    from torch.utils.serialization import config

    before = config.save.storage_alignment
    config.save.storage_alignment = alignment
    try:
        peer, found = saved(tmp_path / "aligned.pth", {"a": torch.ones(3), "b": torch.arange(5.0)})
    finally:
        config.save.storage_alignment = before
    for name, tensor in peer.items():
        check_same(found[name], tensor)


def test_members_lie_where_torch_puts_them(tmp_path):
    """The members, and where their bytes begin, are those that torch's own reader reports."""
    path = tmp_path / "members.pth"
    torch.save({"a": torch.ones(300), "b": torch.empty(0)}, path)
    reader = torch._C.PyTorchFileReader(str(path))
    members = read_members(map_bytes(path), file=path)
    root = next(iter(members)).split("/")[0]
    assert {name.removeprefix(f"{root}/") for name in members} == set(reader.get_all_records())
    for name, member in members.items():
        assert member.start == reader.get_record_offset(name.removeprefix(f"{root}/"))


def test_an_archive_beyond_4_gib_is_read(tmp_path):
    """Sizes and offsets of 64 bits as torch writes them; the storages are holes, not bytes."""
    path = tmp_path / "large.pth"
    state = {
        "before": torch.empty(2**20, dtype=torch.bfloat16),
        "large": torch.empty(9 * 2**19, 2**9, dtype=torch.bfloat16),
        "after": torch.empty(2**20, dtype=torch.bfloat16),
        "none": torch.empty(0),
    }
    with torch.serialization.skip_data():
        torch.save(state, path)
    assert path.stat().st_size > 2**32
    start = time.perf_counter()
    found = open_pth(path)
    assert time.perf_counter() - start < 10
    assert {name: array.shape for name, array in found.items()} == {
        name: tuple(tensor.shape) for name, tensor in state.items()
    }
    assert found["after"].view(np.uint16).sum() == 0


@pytest.mark.parametrize("dtype", OTHER_DTYPES, ids=str)
def test_other_dtypes_are_named(tmp_path, dtype):
    """Integers, booleans, complex numbers, other float8 are well formed, and not read here."""
    torch.save({"w": torch.zeros(3).to(dtype)}, tmp_path / "other.pth")
    with pytest.raises(Unsupported, match="expected tensors of bfloat16"):
        open_pth(tmp_path / "other.pth")


def negative_view():
    """A tensor that is the negative of its storage."""
    return torch._neg_view(torch.ones(3))


REFUSED = {
    "whole module": (lambda: nn.Linear(2, 2), {}),
    "training checkpoint": (lambda: {"model": {"w": torch.ones(2)}, "epoch": 3}, {}),
    "list of tensors": (lambda: [torch.ones(2)], {}),
    "one tensor": (lambda: torch.ones(2), {}),
    "number beside a tensor": (lambda: {"w": torch.ones(2), "step": 3}, {}),
    "sparse": (lambda: {"w": torch.eye(3).to_sparse()}, {}),
    "quantised": (
        lambda: {"w": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)},
        {},
    ),
    "negative view": (lambda: {"w": negative_view()}, {}),
    "expanded": (lambda: {"w": torch.ones(1).expand(4)}, {}),
    "pickle protocol 4": (lambda: {"w": torch.ones(2)}, {"pickle_protocol": 4}),
    "before 1.6": (lambda: {"w": torch.ones(2)}, {"_use_new_zipfile_serialization": False}),
}


@pytest.mark.filterwarnings("ignore:.*quantize:UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("row", REFUSED)
def test_other_things_that_torch_saves_are_refused(tmp_path, row):
    """What is no state dict of plain tensors is refused, not guessed at."""
    make, how = REFUSED[row]
    torch.save(make(), tmp_path / "other.pth", **how)
    with pytest.raises(LlamaRefError, match=r"other\.pth"):
        open_pth(tmp_path / "other.pth")


def test_a_scripted_module_is_refused(tmp_path):
    """TorchScript archives hold code; they are named, and nothing in them runs."""
    with zipfile.ZipFile(tmp_path / "script.pth", "w") as archive:  # torch.jit writes these members
        archive.writestr("script/code/__torch__.py", "class Module(Module): ...")
        archive.writestr("script/data.pkl", b"\x80\x02c__torch__\nModule\n)\x81.")
    with pytest.raises(Unsupported, match="TorchScript"):
        open_pth(tmp_path / "script.pth")


def test_a_file_without_crcs_is_refused(tmp_path):
    """Without CRCs damage cannot be told from data; the message says how to write them."""
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"w": torch.ones(3)}, tmp_path / "x.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    with pytest.raises(BadFile, match="set_crc32_options"):
        open_pth(tmp_path / "x.pth")


# A model cut over files.


def model(width=16, n_words=40, hidden=24):
    """One layer of a model by Meta's names."""
    torch.manual_seed(0)
    shapes = {
        "tok_embeddings.weight": (n_words, width),
        "norm.weight": (width,),
        "output.weight": (n_words, width),
        "layers.0.attention.wq.weight": (width, width),
        "layers.0.attention.wk.weight": (width // 2, width),
        "layers.0.attention.wv.weight": (width // 2, width),
        "layers.0.attention.wo.weight": (width, width),
        "layers.0.feed_forward.w1.weight": (hidden, width),
        "layers.0.feed_forward.w2.weight": (width, hidden),
        "layers.0.feed_forward.w3.weight": (hidden, width),
        "layers.0.attention_norm.weight": (width,),
        "layers.0.ffn_norm.weight": (width,),
    }
    return {name: torch.randn(shape).bfloat16() for name, shape in shapes.items()}


@pytest.mark.parametrize("keep_storage", [False, True], ids=["cloned", "views of one storage"])
@pytest.mark.parametrize("n", [1, 2, 4])
def test_shards_written_by_torch_join_as_torch_concatenates(tmp_path, n, keep_storage):
    """The axes are those by which torch.cat restores the model that torch.chunk cut."""
    whole = model()
    for i in range(n):
        shard = {}
        for name, tensor in whole.items():
            by_columns = name.endswith(("wo.weight", "w2.weight"))
            part = tensor if tensor.dim() == 1 else tensor.chunk(n, dim=int(by_columns))[i]
            shard[name] = part if keep_storage else part.clone()
        torch.save(shard, tmp_path / f"consolidated.{i:02d}.pth")
    checkpoint = open_meta(tmp_path)
    assert list(checkpoint) == list(whole)
    for name, tensor in whole.items():
        joined = np.asarray(checkpoint[name])
        assert joined.dtype.name == "bfloat16"
        assert joined.shape == tuple(tensor.shape)
        assert joined.tobytes() == tensor.view(torch.uint16).numpy().tobytes()
