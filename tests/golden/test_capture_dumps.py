"""What llama.cpp's debugging tools print and save is read back as excerpts of taps."""

import numpy as np
import pytest

from llama_ref.errors import BadFile, LimitExceeded
from llama_ref.golden.capture.ggml_dump import (
    read_eval_callback,
    read_saved_logits,
    read_saved_tokens,
    taps_of,
)
from llama_ref.golden.capture.ggml_nodes import Heads
from tests.models import tiny_ids, tiny_model

# The beginning of what its README of 2024 shows: three entries of each axis, no sums.
EARLY = """\
llm_load_tensors: offloaded 33/33 layers to GPU
llama_new_context_with_model: graph splits = 2
ggml_debug:                 inp_embd = (f32)   GET_ROWS(token_embd.weight{2560, 51200, 1, 1}, \
inp_tokens{1, 1, 1, 1}}) = {2560, 1, 1, 1}
                                     [
                                      [
                                       [ -0.0181,   0.0272,   0.0272, ...],
                                      ],
                                     ]
ggml_debug:        Qcur-0 (reshaped) = (f32)    RESHAPE(Qcur-0{2560, 1, 1, 1}, }) = {80, 32, 1, 1}
                                     [
                                      [
                                       [ -1.1135,   1.4604,  -1.9226, ...],
                                       [ -0.3608,   0.5076,  -1.8866, ...],
                                       [  1.7643,   0.0273,  -2.1065, ...],
                                       ...
                                      ],
                                     ]
"""


def printed(name, op, node):
    """Print a node as common_debug_print_tensor of 2026 does, line by line."""
    sizes = ", ".join(map(str, node.shape[::-1]))
    yield f"common_debug_cb_eval: {name:>24} = (f32) {op:>10}(embd{{4, 1, 1, 1}}, }}) = {{{sizes}}}"
    for cube in node:
        yield "    ["
        for plane in ends(cube, "        ..., "):
            yield from [plane] if isinstance(plane, str) else printed_plane(plane)
        yield "    ]"
        yield f"    sum = {node.sum():f}"


def printed_plane(plane):
    yield "        ["
    for row in ends(plane, "            ..., "):
        if isinstance(row, str):
            yield row
        else:
            words = [w if isinstance(w, str) else f"{w:12.4f}, " for w in ends(row, "   ..., ")]
            yield "            [" + "".join(words).removesuffix(", ") + "  ],"
    yield "        ],"


def ends(entries, between):
    """Return three entries of either end with a mark between them, or all if they are few."""
    return list(entries) if len(entries) <= 6 else [*entries[:3], between, *entries[-3:]]


def nodes_of(trace, seen):
    """Return a few taps in the axes of llama.cpp's nodes: interleaved, unscaled, S padded."""
    T, N, H = trace["L01.q_rope"].shape
    interleaved = trace["L01.q_rope"].reshape(T, N, 2, H // 2).swapaxes(2, 3)
    scores_NTS = trace["L01.scores"] * H**0.5
    return [
        ("embd", "GET_ROWS", trace["embed"][None, None]),
        ("norm-0", "RMS_NORM", trace["embed"][None, None]),
        ("Qcur-1", "ROPE", interleaved.reshape(1, T, N, H)),
        ("kq-1", "MUL_MAT", np.pad(scores_NTS, ((0, 0), (0, 0), (0, 9 - seen)))[None]),
        ("result_output", "MUL_MAT", trace["logits"][None, None]),
    ]


def test_a_dump_becomes_taps_with_gaps(tmp_path):
    """Every printed entry is the tap's, to the four decimals; what was not printed is NaN."""
    trace = tiny_model("float64").trace(tiny_ids(8))
    lines = [line for node in nodes_of(trace, 8) for line in printed(*node)]
    (tmp_path / "out.txt").write_text("\n".join(["load: [1] x", *lines, "[done]"]))
    excerpts = read_eval_callback(tmp_path / "out.txt")
    assert list(excerpts) == [
        *("embd (GET_ROWS)", "norm-0 (RMS_NORM)", "Qcur-1 (ROPE)"),
        *("kq-1 (MUL_MAT)", "result_output (MUL_MAT)"),
    ]
    taps = taps_of(excerpts, 2, Heads(10))
    assert list(taps) == ["embed", "L01.q_rope", "L01.scores", "logits"]
    known = {"embed": 36, "L01.q_rope": 6 * 6 * 6, "L01.scores": 6 * 6 * 5, "logits": 36}
    for name, array in taps.items():
        assert array.dtype == np.float64
        assert array.shape == trace[name].shape
        assert np.isfinite(array).sum() == known[name], name
        assert np.nanmax(np.abs(array - trace[name])) <= 5.001e-5, name
    assert "L00.q … L01.q: not printed" in taps.notes


def test_calls_follow_each_other(tmp_path):
    """A node printed for a prompt and for the token after it becomes one tap of both."""
    prompt, token = np.arange(8.0).reshape(1, 1, 2, 4), np.arange(4.0).reshape(1, 1, 1, 4)
    lines = [*printed("l_out-0", "ADD", prompt), *printed("l_out-0", "ADD", token)]
    (tmp_path / "out.txt").write_text("\n".join(lines))
    taps = taps_of(read_eval_callback(tmp_path / "out.txt"), 1, Heads(4))
    assert taps["L00.out"].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [0, 1, 2, 3]]


def test_the_form_of_2024_is_read(tmp_path):
    """Three entries of each axis, as its README shows them, are the first three."""
    (tmp_path / "out.txt").write_text(EARLY)
    excerpts = read_eval_callback(tmp_path / "out.txt")
    embed = taps_of(excerpts, 1, Heads(80))["embed"]
    assert embed.shape == (1, 2560)
    assert embed[0, :3].tolist() == [-0.0181, 0.0272, 0.0272]
    assert np.isnan(embed[0, 3:]).all()
    heads = excerpts["Qcur-0 (reshaped) (RESHAPE)"][0]
    assert heads.shape == (1, 1, 32, 80)
    assert heads.values[0, 0].tolist()[2] == [1.7643, 0.0273, -2.1065]


def test_not_a_number_is_kept(tmp_path):
    """Where a node prints nan or -inf, so does the excerpt have it."""
    node = np.array([1.0, -np.inf, np.nan]).reshape(1, 1, 1, 3)
    (tmp_path / "out.txt").write_text("\n".join(printed("kq-0", "MUL_MAT", node)))
    values = read_eval_callback(tmp_path / "out.txt")["kq-0 (MUL_MAT)"][0].values
    assert values[..., 1] == -np.inf
    assert np.isnan(values[..., 2])


def test_a_cut_dump_is_refused(tmp_path):
    """A file that ends within a node is refused by the name and the sizes of the node."""
    lines = list(printed("l_out-0", "ADD", np.ones((1, 1, 9, 9))))
    (tmp_path / "out.txt").write_text("\n".join(lines[:7]))
    with pytest.raises(BadFile, match=r"out.txt: node 'l_out-0' of sizes \[9, 9, 1, 1\]"):
        read_eval_callback(tmp_path / "out.txt")


@pytest.mark.parametrize("text", ["", "hello\n[1.0]\n", "x: embd = (f32) GET_ROWS(a}) = {4, 1}\n"])
def test_no_node_is_an_error(text, tmp_path):
    """A file without a single node is refused with what such a line looks like."""
    (tmp_path / "out.txt").write_text(text)
    with pytest.raises(BadFile, match="common_debug_cb_eval: embd"):
        read_eval_callback(tmp_path / "out.txt")


def test_a_node_of_absurd_size_is_not_made(tmp_path):
    """Sizes from a hostile file do not fill the memory."""
    text = "x: embd = (f32) GET_ROWS(a}) = {999999999999, 1, 1, 1}\n[ 1.0, 2.0, 3.0, ...],\n"
    (tmp_path / "out.txt").write_text(text)
    excerpts = read_eval_callback(tmp_path / "out.txt")
    with pytest.raises(LimitExceeded, match="at most 2\\^28 entries"):
        taps_of(excerpts, 1, Heads(4))


def test_saved_logits_and_tokens(tmp_path):
    """Bare float32 are one row of logits, bare int32 the tokens; half a number is refused."""
    logits, tokens = np.float32([1.5, -2.0, 3.25]), np.int32([1, 5, 9])
    (tmp_path / "m.bin").write_bytes(logits.astype("<f4").tobytes())
    (tmp_path / "m-tokens.bin").write_bytes(tokens.astype("<i4").tobytes())
    assert read_saved_logits(tmp_path / "m.bin").dtype == np.float32
    assert read_saved_logits(tmp_path / "m.bin").tolist() == [[1.5, -2.0, 3.25]]
    assert read_saved_tokens(tmp_path / "m-tokens.bin").tolist() == [1, 5, 9]
    (tmp_path / "m.bin").write_bytes(b"12345")
    with pytest.raises(BadFile, match="4 bytes each, found 5"):
        read_saved_logits(tmp_path / "m.bin")
