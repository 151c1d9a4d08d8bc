"""Meta's folder: one shard, several, by rows and by columns; row 93 of bad inputs."""

import tracemalloc

import ml_dtypes
import numpy as np
import pytest

from llama_ref.checkpoint import open_meta
from llama_ref.checkpoint.kv_heads import with_distinct_kv_heads
from llama_ref.checkpoint.sharded import ShardedMatrix
from llama_ref.errors import BadFile, BadRequest, LimitExceeded, Unsupported
from llama_ref.numerics import Matrix
from tests.checkpoint.pth_files import write_pth

D, V, F, N_LAYERS, K, H = 16, 40, 24, 2, 4, 2  # no two matrices have one shape but wk and wv
AXIS = {"wq": 0, "wk": 0, "wv": 0, "wo": 1, "w1": 0, "w2": 1, "w3": 0, "output": 0}


def whole_model(dtype=ml_dtypes.bfloat16):
    """Every tensor of a small model by Meta's names, as no file has ever cut it."""
    generator = np.random.default_rng(7)
    shapes = {"tok_embeddings.weight": (V, D), "norm.weight": (D,), "output.weight": (V, D)}
    for i in range(N_LAYERS):
        shapes |= {
            f"layers.{i}.attention.wq.weight": (D, D),
            f"layers.{i}.attention.wk.weight": (K * H, D),
            f"layers.{i}.attention.wv.weight": (K * H, D),
            f"layers.{i}.attention.wo.weight": (D, D),
            f"layers.{i}.feed_forward.w1.weight": (F, D),
            f"layers.{i}.feed_forward.w2.weight": (D, F),
            f"layers.{i}.feed_forward.w3.weight": (F, D),
            f"layers.{i}.attention_norm.weight": (D,),
            f"layers.{i}.ffn_norm.weight": (D,),
        }
    shapes["rope.freqs"] = (H // 2,)
    return {name: generator.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}


def cut(tensors, n, embedding_axis=0):
    """Cut a model for n GPUs as Meta's training code does; a list of n dicts."""
    shards = [{} for _ in range(n)]
    for name, whole in tensors.items():
        owner = name.removesuffix(".weight").rpartition(".")[2]
        axis = embedding_axis if name == "tok_embeddings.weight" else AXIS.get(owner)
        parts = [whole] * n if axis is None else np.split(whole, n, axis)
        for shard, part in zip(shards, parts, strict=True):
            shard[name] = part
    return shards


def written(folder, shards):
    """Write shards as consolidated.00.pth, 01, …."""
    for i, shard in enumerate(shards):
        write_pth(folder / f"consolidated.{i:02d}.pth", shard)
    return folder


# What is read.


def test_one_shard_is_plain_mapped_arrays(tmp_path):
    """A model in one file comes back as read-only arrays, with the file each lives in."""
    whole = whole_model()
    checkpoint = open_meta(written(tmp_path, [whole]))
    assert checkpoint.layout == "meta"
    assert list(checkpoint) == list(whole)
    for name, array in whole.items():
        assert type(checkpoint[name]) is np.ndarray
        assert not checkpoint[name].flags.writeable
        assert checkpoint[name].tobytes() == array.tobytes()
        assert checkpoint.files[name] == ("consolidated.00.pth",)


@pytest.mark.parametrize("embedding_axis", [0, 1], ids=["Llama 3", "Llama 2"])
@pytest.mark.parametrize("n", [2, 4, 8])
def test_shards_join_to_the_model_they_were_cut_from(tmp_path, n, embedding_axis):
    """B5-93: every tensor of the merged checkpoint equals the uncut one, bit for bit."""
    whole = whole_model()
    checkpoint = open_meta(written(tmp_path, cut(whole, n, embedding_axis)))
    assert list(checkpoint) == list(whole)
    for name, array in whole.items():
        joined = checkpoint[name]
        assert joined.dtype == array.dtype
        assert joined.shape == array.shape
        assert joined.ndim == array.ndim
        assert np.asarray(joined).tobytes() == array.tobytes()
        assert isinstance(joined, Matrix) == (array.ndim == 2)
        assert checkpoint.files[name] == tuple(f"consolidated.{i:02d}.pth" for i in range(n))


def test_other_files_in_the_folder_are_left_alone(tmp_path):
    """params.json, the tokenizer and checksums belong to other readers."""
    for name in ("params.json", "tokenizer.model", "checklist.chk", "consolidated.00.pth.bak"):
        (tmp_path / name).write_bytes(b"?")
    assert len(open_meta(written(tmp_path, [whole_model()]))) == 22


def test_norms_may_hold_nan_and_minus_zero(tmp_path):
    """Copies are compared bit by bit: a NaN is a copy of itself."""
    whole = whole_model(np.float32)
    whole["norm.weight"][:2] = np.nan, -0.0
    checkpoint = open_meta(written(tmp_path, cut(whole, 2)))
    assert checkpoint["norm.weight"].tobytes() == whole["norm.weight"].tobytes()


QUERY, FINAL_NORM = "layers.0.attention.wq.weight", "norm.weight"


@pytest.mark.parametrize(
    ("query", "norm"),
    [
        ((4, 4), None),
        (None, (4,)),
        ((4,), (4,)),
        ((2, 4), (4, 1)),
        ((2, 4), ()),
        ((0, 4), (4,)),
        ((3, 4), (4,)),
    ],
    ids=[
        "no norm",
        "no query",
        "vector",
        "norm a matrix",
        "norm a scalar",
        "no rows",
        "3 of 4 rows",
    ],
)
def test_one_file_is_opened_as_it_is(tmp_path, query, norm):
    """Whether a model is whole and well shaped is judged against its blueprint, not here."""
    shapes = {QUERY: query, FINAL_NORM: norm}
    tensors = {name: np.ones(shape) for name, shape in shapes.items() if shape is not None}
    checkpoint = open_meta(written(tmp_path, [tensors]))
    assert {name: array.shape for name, array in checkpoint.items()} == {
        name: array.shape for name, array in tensors.items()
    }


# What is refused.


def changed(i, name, change, n=2):
    """Cut shards, of which one has one tensor changed; None removes it."""
    shards = cut(whole_model(), n)
    array = change(shards[i][name])
    shards[i] = {k: array if k == name else v for k, v in shards[i].items()}
    if array is None:
        del shards[i][name]
    return shards


WQ, NORM = "layers.1.attention.wq.weight", "layers.1.ffn_norm.weight"

MISFITS = {
    "B5-93 norms that differ": (
        changed(1, NORM, lambda a: a + a.dtype.type(1)),
        f"{NORM}' in shard 01: expected a copy of that in shard 00, found other numbers",
    ),
    "B5-93 norms that differ in the sign of 0": (
        [
            {**shard, NORM: np.full(D, zero, ml_dtypes.bfloat16)}
            for shard, zero in zip(cut(whole_model(), 2), [0.0, -0.0], strict=True)
        ],
        "found other numbers",
    ),
    "B5-93 norms of other width": (changed(1, NORM, lambda a: a[:8]), r"shard 01.*found.*\(8,\)"),
    "B5-93 tensor missing in shard 00": (changed(0, WQ, lambda _: None), "none in .*00.pth"),
    "B5-93 tensor missing in shard 01": (changed(1, WQ, lambda _: None), "none in .*01.pth"),
    "B5-93 other dtype": (changed(1, WQ, lambda a: a.astype("f4")), "found float32"),
    "B5-93 other shape": (changed(1, WQ, lambda a: a[:4]), r"found bfloat16 \(4, 16\)"),
    "B5-93 transposed": (changed(1, WQ, lambda a: a.T), r"found bfloat16 \(16, 8\)"),
    "B5-93 a matrix of no columns": (
        [{**shard, WQ: shard[WQ][:, :0]} for shard in cut(whole_model(), 2)],
        "expected a matrix",
    ),
    "B5-93 three dimensions": (
        [{**shard, WQ: shard[WQ][None]} for shard in cut(whole_model(), 2)],
        "expected a matrix",
    ),
    "B5-93 one of two shards": (cut(whole_model(), 2)[:1], "expected 2, as each has 8 of 16"),
    "B5-93 four of eight shards": (cut(whole_model(), 8)[:4], "expected 8, as each has 2 of 16"),
    "B5-93 two whole models": ([whole_model(), whole_model()], "number of shards: expected 1"),
    "B5-93 no final norm": (
        [{k: v for k, v in s.items() if k != "norm.weight"} for s in cut(whole_model(), 2)],
        "norm.weight, by which the cut",
    ),
    "B5-93 a final norm that is a scalar": (
        [{**shard, "norm.weight": np.ones((), "f4")} for shard in cut(whole_model(), 2)],
        r"norm.weight, by which the cut.*found \(\)",
    ),
    "B5-93 embedding of another width": (
        [
            {**shard, "tok_embeddings.weight": shard["tok_embeddings.weight"][:, :5]}
            for shard in cut(whole_model(), 2)
        ],
        r"expected \(5,\) or \(10,\), found \(16,\)",
    ),
}


@pytest.mark.parametrize(("shards", "words"), MISFITS.values(), ids=MISFITS)
def test_shards_that_do_not_fit_together_are_refused(tmp_path, shards, words):
    """The message names the tensor, or the number of shards, and what was expected."""
    with pytest.raises(BadFile, match=words):
        open_meta(written(tmp_path, shards))


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        pytest.param(["00", "02"], "01", id="B5-93 00 and 02"),
        pytest.param(["01"], "00", id="B5-93 only 01"),
        pytest.param([], "00", id="B5-93 none"),
    ],
)
def test_a_missing_shard_is_named(tmp_path, names, missing):
    """Files are numbered from 00 without a gap."""
    for name in names:
        write_pth(tmp_path / f"consolidated.{name}.pth", cut(whole_model(), 2)[0])
    with pytest.raises(BadFile, match=f"shard consolidated.{missing}.pth: found no such file"):
        open_meta(tmp_path)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    """The error is ours, and names the path."""
    with pytest.raises(BadFile, match="nowhere: not a readable folder"):
        open_meta(tmp_path / "nowhere")


def test_a_matrix_of_unknown_cut_is_refused(tmp_path):
    """Such as the vision model's: read from one file, but from two nothing is guessed."""
    odd = {"vision.proj.weight": np.zeros((4, 4), np.float32)}
    assert "vision.proj.weight" in open_meta(written(tmp_path, [whole_model() | odd]))
    with pytest.raises(Unsupported, match="no rule for how it was cut"):
        open_meta(written(tmp_path, [shard | odd for shard in cut(whole_model(), 2)]))


def test_a_damaged_shard_is_named(tmp_path):
    """The message begins with the path of the file that is wrong."""
    written(tmp_path, cut(whole_model(), 2))
    (tmp_path / "consolidated.01.pth").write_bytes(b"PK\x03\x04")
    with pytest.raises(BadFile, match=r"consolidated\.01\.pth: not a file written"):
        open_meta(tmp_path)


def test_joining_allocates_nothing(tmp_path):
    """Two shards of 8 MB are joined in less than 1 MB; a block of rows costs what it holds."""
    rows = np.zeros((2**11, 2**11), np.float16)
    shards = [{"layers.0.feed_forward.w2.weight": rows}] * 2
    open_meta(written(tmp_path, shards))
    tracemalloc.start()
    try:
        matrix = open_meta(tmp_path)["layers.0.feed_forward.w2.weight"]
        assert matrix.shape == (2**11, 2**12)
        assert tracemalloc.get_traced_memory()[1] < 1e6
        matrix.rows(0, 16)
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()


# The cut of the 405B model for 16 GPUs, in small: 2 key/value heads over 4 shards, each twice.


def head_twice(whole):
    """Store each key/value head twice in a row, as the checkpoint for more GPUs than heads does."""
    tensors = dict(whole)
    for name, array in whole.items():
        if name.endswith(("wk.weight", "wv.weight")):
            heads = array.reshape(2, K * H // 2, D)
            tensors[name] = np.repeat(heads, 2, axis=0).reshape(2 * K * H, D)
    return tensors


def test_heads_stored_twice_are_joined_as_stored(tmp_path):
    """With params.json that counts them all, as the published one does, nothing more is needed."""
    stored = head_twice(whole_model())
    checkpoint = open_meta(written(tmp_path, cut(stored, 4)))
    for name, array in stored.items():
        assert np.asarray(checkpoint[name]).tobytes() == array.tobytes()


@pytest.mark.parametrize("n", [1, 4])
def test_heads_stored_twice_can_be_read_once(tmp_path, n):
    """With params.json that counts 2, the view holds the 2 heads of the model it came from."""
    whole = whole_model()
    checkpoint = open_meta(written(tmp_path, cut(head_twice(whole), n)))
    checkpoint = with_distinct_kv_heads(checkpoint, n_kv_heads=2, head_dim=K * H // 2)
    for name, array in whole.items():
        assert checkpoint[name].dtype == array.dtype
        assert checkpoint[name].shape == array.shape
        assert np.asarray(checkpoint[name]).tobytes() == array.tobytes()
    wk, matrix = whole["layers.0.attention.wk.weight"], checkpoint["layers.0.attention.wk.weight"]
    assert isinstance(matrix, Matrix)
    for lo in range(K * H + 1):
        for hi in range(lo, K * H + 1):
            assert matrix.rows(lo, hi).tobytes() == wk[lo:hi].tobytes()
            assert matrix.rows(lo, hi).shape == (hi - lo, D)


@pytest.mark.parametrize("shape", [(), (8,), (8, 8, 2)], ids=str)
def test_keys_that_are_no_matrix_pass_the_view(tmp_path, shape):
    """A key tensor of another rank is left as it is, for the check of all shapes to refuse."""
    name = "layers.0.attention.wk.weight"
    stored = whole_model() | {name: np.ones(shape, ml_dtypes.bfloat16)}
    checkpoint = open_meta(written(tmp_path, [stored]))
    same = with_distinct_kv_heads(checkpoint, n_kv_heads=K, head_dim=H)
    assert same[name] is checkpoint[name]


def test_copies_that_differ_are_found_when_read(tmp_path):
    """Two heads that are not the same are not one head, whatever the count says."""
    stored = head_twice(whole_model())
    name = "layers.1.attention.wv.weight"
    stored[name][K * H + K * H // 2 + 3, 5] = 100  # in the second copy of the second head
    checkpoint = open_meta(written(tmp_path, cut(stored, 4)))
    matrix = with_distinct_kv_heads(checkpoint, 2, K * H // 2)[name]
    assert matrix.rows(0, K * H // 2).shape == (K * H // 2, D)
    with pytest.raises(BadFile, match="head 1 stored 2 times, found copies that differ"):
        matrix.rows(0, K * H)


def test_messages_about_heads_name_the_folder_and_escape_the_tensor(tmp_path):
    """A name from the file is printed as text, when it is opened and when it is read."""
    name = "\x1b[31m\u202e\n.attention.wk.weight"
    folder = written(tmp_path, [whole_model() | {name: np.ones((K * H + 1, D), np.float32)}])
    with pytest.raises(BadFile, match="a multiple of 4 heads") as error:
        with_distinct_kv_heads(open_meta(folder), n_kv_heads=K, head_dim=H)
    assert str(error.value).isprintable()
    folder = written(tmp_path, [whole_model() | {name: np.eye(K * H, D, dtype=np.float32)}])
    checkpoint = with_distinct_kv_heads(open_meta(folder), n_kv_heads=1, head_dim=H)
    with pytest.raises(BadFile, match="copies that differ") as error:
        checkpoint[name].rows(0, 1)
    assert str(error.value).isprintable()
    assert error.value.file == folder


def test_a_vector_too_long_to_compare_is_refused(tmp_path):
    """Every file repeats a vector, and two of gigabytes would be read when the folder is opened."""
    shards = cut(whole_model() | {"x": np.zeros(2**20, np.float16)}, 2)
    assert "x" in open_meta(written(tmp_path, shards))
    shards = cut(whole_model() | {"x": np.zeros(2**20 + 1, np.float16)}, 2)
    with pytest.raises(LimitExceeded, match=r"'x': expected at most 1,048,576 .* found 1,048,577"):
        open_meta(written(tmp_path, shards))


def test_heads_stored_once_are_left_as_they_are(tmp_path):
    """The view changes nothing in a checkpoint that stores each head once."""
    checkpoint = open_meta(written(tmp_path, cut(whole_model(), 2)))
    same = with_distinct_kv_heads(checkpoint, n_kv_heads=K, head_dim=H)
    assert all(same[name] is checkpoint[name] for name in checkpoint)


@pytest.mark.parametrize(
    ("n_kv_heads", "head_dim", "error"), [(3, 2, BadFile), (16, 2, BadFile), (0, 2, BadRequest)]
)
def test_heads_that_do_not_divide_are_refused(tmp_path, n_kv_heads, head_dim, error):
    """Rows that are no whole number of copies of all heads belong to another model."""
    checkpoint = open_meta(written(tmp_path, [whole_model()]))
    with pytest.raises(error):
        with_distinct_kv_heads(checkpoint, n_kv_heads, head_dim)


def test_shards_are_small_matrices_of_the_protocol():
    """ShardedMatrix is what `ops.linear` calls a Matrix; a plain array is not."""
    assert isinstance(ShardedMatrix([np.eye(2)] * 2, axis=0), Matrix)
    assert not isinstance(np.eye(2), Matrix)
