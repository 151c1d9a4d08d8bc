"""Weights larger than memory: the same bits, bounded memory, and no number of a changed file."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

import llama_ref as lr
from llama_ref.checkpoint import synthetic, write_hf
from llama_ref.checkpoint.ranges import MappedRange, ReadRange
from llama_ref.checkpoint.streaming import STEP, Stream
from llama_ref.config import to_hf_dict
from llama_ref.errors import BadFile, BadRequest
from llama_ref.holding import streamed
from llama_ref.mapped import map_bytes
from llama_ref.ranks import trace_ranks
from tests.checkpoint.pth_files import write_pth
from tests.models import TINY, meta_name, tiny_ids

WAYS = {"mapped": {"memory": "100MB"}, "read": {"mmap": False}}


@pytest.fixture
def folder(tmp_path):
    write_hf(tmp_path / "tiny", to_hf_dict(TINY), synthetic.checkpoint(TINY), shard_bytes=20_000)
    return tmp_path / "tiny"


def cut_in_two(tmp_path):
    """Write TINY as Meta cut it for two GPUs."""
    from weights_tools.meta_folder import to_meta_params

    config = replace(TINY, n_heads=2, n_kv_heads=2, head_dim=12, vocab_size=98)
    tensors = {
        meta_name(name, config.n_layers): array for name, array in synthetic.checkpoint(config)
    }
    folder = tmp_path / "meta"
    folder.mkdir()

    (folder / "params.json").write_text(json.dumps(to_meta_params(config)))
    for rank in range(2):
        parts = {}
        for name, array in tensors.items():
            axis = 1 if name.endswith(("wo.weight", "w2.weight", "tok_embeddings.weight")) else 0
            whole = array.ndim == 1
            parts[name] = array if whole else np.ascontiguousarray(np.split(array, 2, axis)[rank])
        write_pth(folder / f"consolidated.{rank:02d}.pth", parts)
    return folder


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("way", WAYS)
def test_a_streamed_model_computes_the_same_bits(folder, way, dtype):
    """Mapped or read, the logits of several passes are those of the whole files mapped."""
    whole, parts = lr.load(folder, dtype=dtype), lr.load(folder, dtype=dtype)
    is_mapped = way == "mapped"
    stream = Stream(0, MappedRange if is_mapped else ReadRange)  # nothing is kept
    parts.weights = streamed(parts.weights, stream, mapped=is_mapped)
    by_option = lr.load(folder, dtype=dtype, **WAYS[way])
    assert np.array_equal(by_option.logits(tiny_ids(9)), whole.logits(tiny_ids(9)))
    caches = whole.new_cache(), parts.new_cache()
    for ids in (tiny_ids(9), [3], [4, 5]):
        assert np.array_equal(whole.forward(ids, caches[0]), parts.forward(ids, caches[1]))
    itemsize = whole.weights.w_head_VD.dtype.itemsize
    assert stream.n_read == 3 * whole.config.n_matrix_params * itemsize


def test_ranks_do_not_stream(tmp_path):
    """What is let go of is decided for a whole pass over the file: a share of it is refused."""
    folder = cut_in_two(tmp_path)
    for way in WAYS.values():
        with pytest.raises(BadRequest, match="memory over ranks"):
            trace_ranks(lr.load(folder, **way), [1, 2], 2)


@pytest.mark.parametrize("source", [MappedRange, ReadRange])
def test_matrices_that_do_not_fit_are_streamed(folder, source):
    """With room for a few, the first stay as they are and the rest come from the stream."""
    model = lr.load(folder)
    expected = model.logits(tiny_ids(5))
    stream = Stream(12_000, source)
    model.weights = streamed(model.weights, stream, mapped=source is MappedRange)
    for _ in range(2):
        np.testing.assert_allclose(model.logits(tiny_ids(5)), expected, rtol=0, atol=1e-5)
    matrices = [w for i in range(2) for _, w in model.weights.named(i) if len(w.shape) == 2]
    kept = [w for w in matrices if isinstance(w, np.ndarray)]
    assert 0 < sum(w.nbytes for w in kept) <= 6_000
    inside = [w for w in matrices if not isinstance(w, np.ndarray)]
    once = sum(w.source.n_bytes for w in [*inside, model.weights.w_head_VD])
    assert stream.n_read == 2 * once
    assert np.array_equal(np.asarray(matrices[-1]), lr.load(folder).weights.layers[1].w_down_DF)


@pytest.mark.parametrize("source", [MappedRange, ReadRange])
def test_a_matrix_that_was_cut_is_streamed_part_by_part(tmp_path, source):
    """Meta's shards give the same bits streamed."""
    folder = cut_in_two(tmp_path)
    whole, parts = lr.load(folder), lr.load(folder)
    parts.weights = streamed(parts.weights, Stream(2_000, source), mapped=source is MappedRange)
    assert np.array_equal(whole.logits(tiny_ids(9)), parts.logits(tiny_ids(9)))


MEASURE = """
import sys
from llama_ref.checkpoint.ranges import MappedRange, ReadRange
from llama_ref.checkpoint.streaming import Stream
from llama_ref.holding import streamed
import llama_ref as lr
def resident():
    words = open("/proc/self/status").read().split()
    return [1024 * int(words[words.index(kind) + 1]) for kind in ("RssFile:", "RssAnon:")]
model = lr.load(sys.argv[1])
stream = Stream(60_000_000, {"m": MappedRange, "r": ReadRange}[sys.argv[2]])
model.weights = streamed(model.weights, stream, mapped=True)
largest = [0, 0]
before = resident()
def tap(name, array):
    for i, (now, then) in enumerate(zip(resident(), before)):
        largest[i] = max(largest[i], now - then)
for ids in ([1, 2, 3], [4]):
    model.forward(ids, model.new_cache(8), tap=tap)
print(*largest)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what is resident")
@pytest.mark.parametrize("way", ["m", "r"])
def test_memory_is_bounded_whatever_the_size_of_the_file(tmp_path, way):
    """A file of 240 MB runs within 60 MB of mapped pages, and some buffers."""
    config = replace(TINY, d_model=1200, d_ff=4096, n_layers=6, vocab_size=4096)
    write_hf(tmp_path / "big", to_hf_dict(config), synthetic.checkpoint(config))
    assert (tmp_path / "big" / "model.safetensors").stat().st_size > 3.5e8
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "big"), way]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    in_files, own = map(int, ran.stdout.split())
    assert in_files < 65e6
    assert own < (150e6 if way == "r" else 100e6)


@pytest.mark.parametrize("way", [{}, *WAYS.values()], ids=["plain", *WAYS])
@pytest.mark.parametrize("how", ["shortened", "overwritten"])
def test_a_file_that_changed_is_an_error_before_its_numbers_are_used(folder, way, how):
    """Written to in place, or made shorter, a file is refused at the next pass, and named."""
    model = lr.load(folder, **way)
    if "mmap" in way:  # nothing kept: all is read again in every pass
        model.weights = streamed(lr.load(folder).weights, Stream(0, ReadRange), mapped=False)
    model.logits([1, 2])
    path = sorted(folder.glob("*.safetensors"))[1]
    if how == "shortened":
        os.truncate(path, path.stat().st_size - 8)
    else:
        with path.open("r+b") as file:
            file.seek(-8, 2)
            file.write(bytes(8))
        os.utime(path, ns=(1, 1))
    with pytest.raises(BadFile, match=rf"{path.name}.*changed since it was opened"):
        model.logits([1, 2])


@pytest.mark.parametrize("way", [{}, {"memory": "100MB"}], ids=["plain", "streamed"])
@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_a_mapped_file_that_was_deleted_or_replaced_stays_what_it_was(folder, way, how):
    """The map holds the file that was opened, whatever bears its name now."""
    model = lr.load(folder, **way)
    expected = model.logits([1, 2])
    for path in folder.glob("*.safetensors"):
        if how == "replaced":
            other = path.with_suffix(".new")
            other.write_bytes(b"other")
            other.replace(path)
        else:
            path.unlink()
    assert np.array_equal(model.logits([1, 2]), expected)


def test_a_range_reads_what_its_rows_are(tmp_path):
    """Rows of any part of a file, transposed ones too, are those of the map."""
    path = tmp_path / "x.bin"
    path.write_bytes(np.arange(600, dtype=np.float32).tobytes())
    whole = np.ndarray((20, 25), np.float32, map_bytes(path), offset=400)
    for array in (whole, whole[3:], whole.T, whole[:, 5:9]):
        for lo, hi in [(0, 1), (2, 5), (0, array.shape[0]), (3, 3)]:
            assert np.array_equal(ReadRange(array).rows(lo, hi), array[lo:hi])
            assert np.array_equal(MappedRange(array).rows(lo, hi), array[lo:hi])


def test_what_comes_next_is_read_ahead_once():
    """Each byte is asked for once in a pass, in order, and no further ahead than allowed."""

    class Fake(MappedRange):
        def __init__(self, array_FD):
            self.array_FD, self.shape, self.dtype = array_FD, array_FD.shape, array_FD.dtype
            self.n_bytes = array_FD.nbytes

        def rows(self, lo, hi):
            return self.array_FD[lo:hi]

        def read_ahead(self, start, end):
            asked.append((matrices.index(self.array_FD.shape[1]), start, end))

        def give_back(self, start, end):
            gone.append((matrices.index(self.array_FD.shape[1]), start, end))

    rows, matrices, asked, gone = 4 * STEP // 2**20, [2**18, 2**18 + 1], [], []
    stream = Stream(2**24 * 8, Fake)
    stream._room = 0
    first, second = (stream.add(np.zeros((rows, n), np.float32)) for n in matrices)
    for _ in range(2):
        for matrix in (first, second):
            for lo in range(rows):
                matrix.rows(lo, lo + 1)
        stream._reader.submit(lambda: None).result()
        for at, n in enumerate(matrices):
            mine = [(a, b) for i, a, b in asked if i == at]
            assert mine[0][1] > 0
            assert all(b == c for (_, b), (c, _) in pairwise(mine))
            assert mine[-1][1] == rows * n * 4
        asked.clear()
    assert {i for i, *_ in gone} == {0, 1}


@pytest.mark.parametrize("by_turns", [True, False], ids=["columns", "rows"])
def test_parts_of_cut_matrices_are_let_go_of(by_turns):
    """Of matrices cut over eight files no more than the last two are in memory, all ends seen."""
    held = {}

    class Fake(MappedRange):
        def __init__(self, array_FD):
            self.array_FD, self.shape, self.dtype = array_FD, array_FD.shape, array_FD.dtype
            self.n_bytes = array_FD.nbytes
            held[id(self)] = np.zeros(array_FD.shape[0], bool)

        def rows(self, lo, hi):
            held[id(self)][lo:hi] = True
            return self.array_FD[lo:hi]

        def read_ahead(self, start, end):
            pass

        def give_back(self, start, end):
            per_row = self.n_bytes // self.shape[0]
            held[id(self)][-(-start // per_row) : end // per_row] = False

    stream, n_rows = Stream(0, Fake), 64
    part = np.broadcast_to(np.float32(0), (n_rows, 2**17))  # 32 MiB that take none
    matrices = []
    for _ in range(6):
        stream.begin()
        matrices.append([stream.add(part) for _ in range(8)])
    most = 0
    for _ in range(2):
        for parts in matrices:
            order = [(p, lo) for p in parts for lo in range(0, n_rows, 4)]
            if by_turns:
                order = [(p, lo) for lo in range(0, n_rows, 4) for p in parts]
            for p, lo in order:
                p.rows(lo, lo + 4)
                most = max(most, sum(rows.sum() for rows in held.values()))
    assert most * 2**19 <= 4.5 * STEP


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"memory": "2 XB"}, "2GB"),
        ({"memory": 5}, "at least 100,000,000"),
        ({"memory": -1}, "memory"),
        ({"memory": 2.5e9}, "memory"),
        ({"memory": "1e9B"}, "memory"),
        ({"memory": "99MB"}, "memory"),
        ({"memory": True}, "memory"),
        ({"memory": "1GB", "widen": True}, "widen"),
        ({"mmap": False, "widen": True}, "widen"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(folder, options, says):
    """What is no size, or contradicts another option, is an error that shows one that works."""
    with pytest.raises(BadRequest, match=says):
        lr.load(folder, **options)


def test_a_synthetic_model_has_nothing_to_stream():
    """A limit of memory changes nothing where nothing is in files."""
    name = "synthetic:golden-tiny"
    model = lr.load(name, memory="1.5 GiB")
    assert np.array_equal(model.logits([1, 2]), lr.load(name).logits([1, 2]))
