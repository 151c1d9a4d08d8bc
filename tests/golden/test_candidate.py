"""A dump under any known names, in any provable layout, is read as our taps, bit for bit."""

import json

import numpy as np
import pytest

from llama_ref.golden.pairing import swap_pairing
from llama_ref.trace import tap_names
from tests.golden.dumps import (
    G,
    H,
    K,
    T,
    assert_is,
    candidate,
    case,
    interleaved,
    opened,
    reasons,
    taps,
    written,
)
from tests.models import TINY


@pytest.fixture(scope="module")
def truth():
    return taps()


def hf_dump(truth):
    """Return the taps as hooks on transformers give them, with a batch axis."""
    dump = {"model.embed_tokens": truth["embed"], "model.norm": truth["final_norm"]}
    dump["lm_head"] = truth["logits"]
    for i in range(TINY.n_layers):
        own = {kind: truth[f"L{i:02d}.{kind}"] for kind in ("q", "k", "v", "ctx")}
        names = {
            "input_layernorm": "attn_norm",
            "self_attn.o_proj": "attn_out",
            "post_attention_layernorm.input": "ffn_inp",
            "post_attention_layernorm": "ffn_norm",
            "mlp.gate_proj": "gate",
            "mlp.up_proj": "up",
            "mlp.down_proj.input": "act",
            "mlp.down_proj": "ffn_out",
            "self_attn.scores": "scores",
            "self_attn.probs": "probs",
        }
        layer = {inner: truth[f"L{i:02d}.{kind}"] for inner, kind in names.items()}
        for kind in ("q", "k", "v"):
            layer[f"self_attn.{kind}_proj.output"] = own[kind].reshape(T, -1)
        layer["self_attn.o_proj.input"] = own["ctx"].reshape(T, -1)
        for kind in ("q_rope", "k_rope"):
            layer[f"self_attn.{kind}"] = truth[f"L{i:02d}.{kind}"].transpose(1, 0, 2)
        dump |= {f"model.layers.{i}.{inner}": array for inner, array in layer.items()}
        dump[f"model.layers.{i}.0"] = truth[f"L{i:02d}.out"]
    return {name: array[None] for name, array in dump.items()}


def meta_dump(truth):
    """Return the taps as Meta's code has them: heads apart, pairs interleaved."""
    dump = {
        "tok_embeddings": truth["embed"],
        "norm": truth["final_norm"],
        "output": truth["logits"],
    }
    names = {
        "attention_norm": "attn_norm",
        "attention.wv": "v",
        "attention.wo.input": "ctx",
        "attention.wo": "attn_out",
        "ffn_norm.input": "ffn_inp",
        "ffn_norm": "ffn_norm",
        "feed_forward.w1": "gate",
        "feed_forward.w3": "up",
        "feed_forward.w2.input": "act",
        "feed_forward.w2": "ffn_out",
    }
    paired = {"wq": "q", "wk": "k", "q_rope": "q_rope", "k_rope": "k_rope"}
    for i in range(TINY.n_layers):
        for inner, kind in names.items():
            dump[f"layers.{i}.{inner}"] = truth[f"L{i:02d}.{kind}"]
        for inner, kind in paired.items():
            dump[f"layers.{i}.attention.{inner}"] = interleaved(truth[f"L{i:02d}.{kind}"])
        for kind in ("scores", "probs"):
            grouped = truth[f"L{i:02d}.{kind}"].reshape(K, G, T, T)
            dump[f"layers.{i}.attention.{kind}"] = grouped[None]
        dump[f"layers.{i}"] = truth[f"L{i:02d}.out"]
    return dump


def ggml_dump(truth, query="Qcur-{} ({})", rope="ROPE", project="MUL_MAT"):
    """Return the taps as nodes of llama.cpp's graph: scores unscaled, padded to 32 columns."""
    dump = {"embd": truth["embed"], "result_norm": truth["final_norm"]}
    dump["result_output"] = truth["logits"]
    names = {
        "attn_norm": "attn_norm",
        "Vcur": "v",
        "kqv_out": "ctx",
        "attn_out": "attn_out",
        "ffn_inp": "ffn_inp",
        "ffn_norm": "ffn_norm",
        "ffn_gate": "gate",
        "ffn_up": "up",
        "ffn_swiglu": "act",
        "ffn_out": "ffn_out",
        "l_out": "out",
    }
    padding = ((0, 0), (0, 0), (0, 32 - T))
    for i in range(TINY.n_layers):
        for node, kind in names.items():
            dump[f"{node}-{i}"] = truth[f"L{i:02d}.{kind}"]
        for letter in ("Q", "K"):
            own = {
                op: truth[f"L{i:02d}.{letter.lower()}{tap}"]
                for op, tap in ((project, ""), (rope, "_rope"))
            }
            for op, array in own.items():
                dump[query.format(i, op).replace("Q", letter)] = interleaved(array)
        dump[f"kq-{i}"] = np.pad(truth[f"L{i:02d}.scores"] * np.float32(H**0.5), padding)
        dump[f"kq_soft_max-{i}"] = np.pad(truth[f"L{i:02d}.probs"], padding)
    return dump


@pytest.mark.parametrize("kind", ["safetensors", "npz", "json"])
def test_our_own_names_are_read_from_every_format(kind, truth, tmp_path):
    """Every tap comes back bit for bit, in dataflow order, from each file format."""
    shuffled = dict(reversed(truth.items()))
    found = opened(written(tmp_path, shuffled, kind))
    assert found.taps("far") == tap_names(TINY.n_layers)
    assert (found.scheme, found.unmatched, found.notes) == ("llama_ref", [], [])
    for tap, expected in truth.items():
        assert_is(found.read("far", tap), expected)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("kind", ["safetensors", "json"])
def test_dtypes_are_kept(dtype, kind, tmp_path):
    """A tap comes back in the dtype it was stored in, and its dtype is known unread."""
    own = taps(dtype)
    found = opened(written(tmp_path, own, kind))
    for tap, expected in own.items():
        assert found.dtype("far", tap) == expected.dtype
        assert_is(found.read("far", tap), expected)


def test_npz_may_be_packed_column_major_and_big_endian(truth, tmp_path):
    """What NumPy writes in any of its ways is the same array."""
    dump = {
        "embed": np.asfortranarray(truth["embed"]),
        "logits": truth["logits"].astype(">f4"),
        "final_norm": truth["final_norm"].astype(np.float16),
    }
    np.savez_compressed(tmp_path / "dump.npz", **dump)
    found = opened(tmp_path / "dump.npz")
    assert_is(found.read("far", "embed"), truth["embed"])
    assert_is(found.read("far", "logits"), truth["logits"])
    assert_is(found.read("far", "final_norm"), dump["final_norm"])


def test_names_of_transformers_are_read(truth, tmp_path):
    """Modules, hooks' inputs, a batch axis, heads side by side or first: every tap is there."""
    found = candidate(tmp_path, hf_dump(truth))
    assert (found.scheme, found.unmatched, found.notes) == ("hf", [], [])
    assert found.taps("far") == tap_names(TINY.n_layers)
    for tap, expected in truth.items():
        assert_is(found.read("far", tap), expected)


def test_the_base_model_of_transformers_has_names_without_prefix(truth, tmp_path):
    """Names that begin at `layers` are Hugging Face's if any of them is theirs alone."""
    dump = {name.removeprefix("model."): array for name, array in hf_dump(truth).items()}
    found = candidate(tmp_path, dump)
    assert (found.scheme, found.taps("far")) == ("hf", tap_names(TINY.n_layers))


def test_the_last_hidden_state_of_transformers_is_normalised(truth, tmp_path):
    """hidden_states.N is the output of layer N - 1, but the last is final_norm; a note says so."""
    outputs = [truth["embed"], truth["L00.out"], truth["final_norm"]]
    dump = {f"hidden_states.{i}": array[None] for i, array in enumerate(outputs)}
    dump["attentions.1"] = truth["L01.probs"][None]
    found = candidate(tmp_path, dump)
    assert found.taps("far") == ["embed", "L00.out", "L01.probs", "final_norm"]
    assert_is(found.read("far", "final_norm"), truth["final_norm"])
    assert any("hidden_states.2" in note for note in found.notes)


def test_names_of_meta_are_read_and_their_pairs_reordered(truth, tmp_path):
    """Interleaved queries and keys become half-split, grouped scores ours, and a note says so."""
    found = candidate(tmp_path, meta_dump(truth))
    assert (found.scheme, found.unmatched) == ("meta", [])
    assert found.taps("far") == tap_names(TINY.n_layers)
    for tap, expected in truth.items():
        assert_is(found.read("far", tap), expected)
    assert len(found.notes) == 1
    assert "8 tensors" in found.notes[0]
    assert "from interleaved to half_split" in found.notes[0]


@pytest.mark.parametrize(
    "spelling",
    [
        {},
        {"query": "Qcur-{}.{}"},
        {"query": "Qcur-{}#{}", "rope": "2", "project": "0"},
        {"project": "reshaped"},
    ],
)
def test_names_of_llama_cpp_are_read(spelling, truth, tmp_path):
    """Nodes told apart by operation or count are read; scores are scaled and padding is cut."""
    found = candidate(tmp_path, ggml_dump(truth, **spelling))
    assert (found.scheme, found.unmatched) == ("ggml", [])
    assert found.taps("far") == tap_names(TINY.n_layers)
    for tap, expected in truth.items():
        dump = found.read("far", tap)
        if tap.endswith(".scores"):
            np.testing.assert_allclose(dump.array, expected, rtol=2e-7)
            dump.array[...] = expected
        assert_is(dump, expected)
    said = " ".join(found.notes)
    assert all(word in said for word in ("interleaved", "H^-0.5", "padding"))


def test_a_bundle_of_the_other_pairing_gets_its_own(truth, tmp_path):
    """Half-split queries are interleaved for a bundle that is, and our names never reordered."""
    found = candidate(tmp_path, hf_dump(truth), pairing="interleaved")
    assert_is(found.read("far", "L01.q_rope"), interleaved(truth["L01.q_rope"]))
    assert_is(found.read("far", "L01.v"), truth["L01.v"])
    ours = candidate(tmp_path, truth, pairing="interleaved")
    assert_is(ours.read("far", "L01.q_rope"), truth["L01.q_rope"])


def test_reordering_pairs_there_and_back_changes_nothing():
    """The two permutations are inverse, and put channel p + H/2 beside channel p."""
    x = np.arange(2 * 3 * 8).reshape(2, 3, 8)
    assert swap_pairing(x, "interleaved")[0, 0].tolist() == [0, 4, 1, 5, 2, 6, 3, 7]
    assert np.array_equal(swap_pairing(swap_pairing(x, "interleaved"), "half_split"), x)


def test_a_folder_holds_a_file_or_a_folder_for_each_case(truth, tmp_path):
    """File and folder names say the case and the call; what is not read is named."""
    cases = [case("far"), case("near"), case("decode", (4, 3))]
    folder = tmp_path / "dump"
    (folder / "decode").mkdir(parents=True)
    np.savez(folder / "far.npz", logits=truth["logits"])
    written(folder, {"near/logits": truth["logits"], "near/L00.q": truth["L00.q"]}, "json")
    for call, rows in enumerate((slice(0, 4), slice(4, T))):
        written(tmp_path, {"embed": truth["embed"][rows]})
        (tmp_path / "dump.safetensors").rename(folder / "decode" / f"{call}.safetensors")
    (folder / "notes.txt").write_text("mine")
    (folder / "elsewhere").mkdir()
    written(folder / "elsewhere", {"far/embed": truth["embed"]})
    found = opened(folder, *cases)
    assert [found.taps(one.name) for one in cases] == [["logits"], ["L00.q", "logits"], ["embed"]]
    assert_is(found.read("decode", "embed"), truth["embed"])
    assert_is(found.read("near", "L00.q"), truth["L00.q"])
    assert found.notes[-1] == "not read: elsewhere, notes.txt."
    assert found.unmatched == []


def test_a_case_is_asked_for_only_where_there_are_several(truth, tmp_path):
    """Names without a case are of the only case, or of the one that the caller names."""
    dump = {"logits": truth["logits"], "near/embed": truth["embed"]}
    cases = case("far"), case("near")
    found = candidate(tmp_path, dump, *cases, case="far")
    assert (found.taps("far"), found.taps("near")) == (["logits"], ["embed"])
    unsaid = candidate(tmp_path, dump, *cases)
    assert (unsaid.taps("far"), unsaid.taps("near")) == ([], ["embed"])
    assert "which case" in reasons(unsaid)["logits"]


def test_foreign_names_may_stand_behind_case_and_call(truth, tmp_path):
    """`far/0/model.layers.0` is Hugging Face's name in a case and a call."""
    found = candidate(tmp_path, {"far/0/model.layers.0": truth["L00.out"]}, case("far"), case("b"))
    assert_is(found.read("far", "L00.out"), truth["L00.out"])


def test_a_map_of_the_users_own_names_is_obeyed(truth, tmp_path):
    """Expressions with numbered and named groups give tap, case and pairing."""
    rules = {
        r"blk_(\d+)_query": {"tap": "L{0:02d}.q", "pairing": "interleaved"},
        r"run=(?P<run>\w+)/head": "{run}/logits",
        r"x(\d+)": "L{0}.out",
    }
    (tmp_path / "map.json").write_text(json.dumps(rules))
    dump = {"far/blk_1_query": interleaved(truth["L01.q"]), "run=near/head": truth["logits"]}
    dump |= {"far/x0": truth["L00.out"], "far/x1.out": truth["L01.out"]}
    found = candidate(tmp_path, dump, case("far"), case("near"), names=tmp_path / "map.json")
    assert_is(found.read("far", "L01.q"), truth["L01.q"])
    assert_is(found.read("far", "L00.out"), truth["L00.out"])
    assert_is(found.read("near", "logits"), truth["logits"])
    assert list(reasons(found)) == ["far/x1.out"]
    assert found.scheme.endswith("map.json")


def test_names_of_several_schemes_may_be_mixed(truth, tmp_path):
    """Each name is read by the one scheme that knows it, and the report says which were met."""
    dump = {"L00.q": truth["L00.q"], "model.embed_tokens": truth["embed"]}
    dump |= {"result_output": truth["logits"], "Kcur-0.ROPE": interleaved(truth["L00.k_rope"])}
    found = candidate(tmp_path, dump)
    assert found.scheme == "llama_ref and hf and ggml"
    assert found.taps("far") == ["embed", "L00.q", "L00.k_rope", "logits"]
    assert_is(found.read("far", "L00.k_rope"), truth["L00.k_rope"])


def test_a_scheme_that_is_asked_for_is_the_only_one(truth, tmp_path):
    """With names="meta", names of others are not known."""
    dump = {"output": truth["logits"], "L00.q": truth["L00.q"]}
    found = candidate(tmp_path, dump, names="meta")
    assert (found.scheme, found.taps("far")) == ("meta", ["logits"])
    assert "no naming scheme" in reasons(found)["L00.q"]


def test_a_tap_stored_twice_is_read_once_if_equal_to_the_bit(truth, tmp_path):
    """A module and its last part return the same array, NaN included; the tap is there."""
    out = truth["L00.ffn_out"].copy()
    out[2, 3] = np.nan
    dump = {"model.layers.0.mlp": out, "model.layers.0.mlp.down_proj": out.copy()}
    found = candidate(tmp_path, dump)
    assert (found.taps("far"), found.unmatched) == (["L00.ffn_out"], [])
    assert np.isnan(found.read("far", "L00.ffn_out").array[2, 3])


def test_a_candidate_shows_itself(truth, tmp_path):
    """Its representation counts taps and cases."""
    found = candidate(tmp_path, truth)
    assert repr(found) == "<Candidate dump.safetensors: 37 taps of 1 cases, llama_ref names>"
