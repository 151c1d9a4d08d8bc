"""Candidates of which only some taps were dumped: the best verdict that they allow, in words."""

import re
from functools import cache

import pytest

from llama_ref.golden import make
from tests.golden.ported import checked, ported

LAST = 4
HF = {
    "embed": "model.embed_tokens",
    "attn_norm": "input_layernorm",
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "attn_out": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "ffn_out": "mlp.down_proj",
    "final_norm": "model.norm",
    "logits": "lm_head",
}
"""What the hooks of transformers see, and under which names."""


def kept(pattern):
    return lambda taps: {name: a for name, a in taps.items() if re.search(pattern, name)}


def last_rows(taps):
    """Keep the last tokens alone, as a server does that computes no more logits than it needs."""
    return {
        name: a[:, -LAST:] if name.endswith(("scores", "probs")) else a[-LAST:]
        for name, a in taps.items()
    }


def under_names_of_hf(taps):
    """Keep what modules hand out, heads side by side, under the paths of those modules."""
    found = {}
    for name, array in taps.items():
        case, tap = name.split("/")
        layer, _, kind = tap.rpartition(".")
        if kind in HF:
            path = f"model.layers.{int(layer[1:])}.{HF[kind]}" if layer else HF[kind]
            found[f"{case}/{path}"] = array.reshape(len(array), -1)
    return found


SUBSETS = {
    "everything": lambda taps: taps,
    "layers": kept(r"\.out$|logits$"),
    "logits": kept("logits$"),
    "no maps": kept("(?<!scores)(?<!probs)$"),
    "first half": kept("L00|embed"),
    "second half": kept("L01|logits"),
    "last rows": last_rows,
    "hf": under_names_of_hf,
}


@pytest.fixture(scope="module")
def narrow(tmp_path_factory):
    """A narrow model whose eight query heads share a key head: 19 tokens in two calls."""
    return make("golden-tiny", tmp_path_factory.mktemp("narrow") / "b", cases=["gqa-8"])


@pytest.fixture(scope="module")
def dump_of(narrow):
    return cache(lambda mistake, dtype: ported(narrow, mistake, dtype))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("subset", SUBSETS)
def test_a_right_port_passes_whatever_it_dumps(narrow, dump_of, tmp_path, subset, dtype):
    """Every tap that is there is judged and right, and what is absent is listed and said."""
    taps = SUBSETS[subset](dump_of(None, dtype))
    report = checked(narrow, taps, tmp_path)
    assert report.verdict == "pass" and report.first is None and report.cause is None
    assert report.precision == dtype
    assert len(report.rows) == len(taps) and not report.unmatched
    assert all(row.local.rho < 2 and row.cumulative.rho < 2 for row in report.rows)
    n_absent = sum(map(len, report.absent.values()))
    n_there = {(row.case, row.tap) for row in report.rows}
    assert n_absent + len(n_there) == sum(len(narrow.taps(case)) for case in narrow.cases)
    assert (f"{n_absent:,} taps were not dumped" in report.explanation) == (n_absent > 0)


SPANS = {
    "everything": {"op"},
    "layers": {"layer"},
    "logits": {"model"},
    "no maps": {"op", "attention"},
    "first half": {"op"},
    "second half": {"op", "layer", "model"},
}


@pytest.mark.parametrize("subset", SPANS)
def test_steps_are_taken_over_what_is_missing(narrow, dump_of, tmp_path, subset):
    """Over which spans steps are judged follows from what there is."""
    taps = SUBSETS[subset](dump_of(None, "float32"))
    report = checked(narrow, taps, tmp_path)
    assert {row.span for row in report.rows} == SPANS[subset]


# Where each shows first, of the taps that a subset has.
FIRST = {
    "rope-scaling-missing": {
        "everything": "L00.q_rope",
        "layers": "L00.out",
        "logits": "logits",
        "no maps": "L00.q_rope",
        "first half": "L00.q_rope",
        "second half": "L01.attn_norm",
        "last rows": "L00.q_rope",
        "hf": "L00.attn_out",
    },
    "key-value-heads-tiled": {
        "everything": "L00.scores",
        "layers": "L00.out",
        "logits": "logits",
        "no maps": "L00.ctx",
        "first half": "L00.scores",
        "second half": "L01.attn_norm",
        "last rows": "L00.scores",
        "hf": "L00.attn_out",
    },
    "act-gelu": {
        "everything": "L00.act",
        "layers": "L00.out",
        "logits": "logits",
        "no maps": "L00.act",
        "first half": "L00.act",
        "second half": "L01.attn_norm",
        "last rows": "L00.act",
        "hf": "L00.ffn_out",
    },
}


@pytest.mark.parametrize("subset", SUBSETS)
@pytest.mark.parametrize("mistake", FIRST)
def test_a_mistake_is_found_from_what_there_is(narrow, dump_of, tmp_path, mistake, subset):
    """In float32 the first tap of the subset behind the mistake fails, and the cause is named."""
    report = checked(narrow, SUBSETS[subset](dump_of(mistake, "float32")), tmp_path)
    assert report.verdict == "fail"
    assert report.first[1] == FIRST[mistake][subset]
    assert (report.cause.id, report.confidence, report.also) == (mistake, "certain", [])
    assert report.first[1] in report.headline and report.cause.title in report.headline
    assert report.cause.explanation in report.explanation


@pytest.mark.parametrize("subset", ["layers", "logits", "hf"])
def test_a_mistake_that_bfloat16_nearly_hides_is_found_among_its_likes(
    narrow, dump_of, tmp_path, subset
):
    """GELU from layers alone is detected in bfloat16, and is among what the error looks like."""
    report = checked(narrow, SUBSETS[subset](dump_of("act-gelu", "bfloat16")), tmp_path)
    assert report.verdict == "fail" and report.first[1] == FIRST["act-gelu"][subset]
    named = {report.cause.id, *(one.id for one in report.also)}
    assert "act-gelu" in named and all(name.startswith("act-") for name in named)
    assert report.confidence == ("certain" if len(named) == 1 else "likely")


def test_the_words_say_from_where_a_step_was_taken(narrow, dump_of, tmp_path):
    """A reader is told that taps in between were not dumped, and from where the step was taken."""
    said = {}
    for subset in ("everything", "no maps", "layers", "logits"):
        taps = SUBSETS[subset](dump_of("key-value-heads-tiled", "float32"))
        said[subset] = checked(narrow, taps, tmp_path).explanation
    assert "q_rope, k_rope" in said["everything"]
    assert "from the queries, keys and values that were dumped" in said["no maps"]
    assert "from what entered the layer, since taps in between were not dumped" in said["layers"]
    assert "or from the token ids" in said["logits"]


def test_a_step_in_the_middle_that_nobody_dumped_is_judged_over_its_span(narrow, dump_of, tmp_path):
    """Scores without the rotated queries and keys before them are judged, and found wrong."""
    taps = kept("(?<!_rope)$")(dump_of("rope-missing", "float32"))
    report = checked(narrow, taps, tmp_path)
    assert report.first[1] == "L00.scores"
    rows = [row for row in report.rows if row.tap == "L00.scores"]
    assert {row.span for row in rows} == {"attention"}
    assert all(row.local.rho > 3 for row in rows)
    assert report.cause.id == "rope-missing"


def test_of_a_fingerprint_as_much_is_found_as_it_has(fingerprint, tmp_path):
    """From sketches alone a right port passes; a wrong one fails, with its cause."""
    right = checked(fingerprint, ported(fingerprint), tmp_path)
    assert right.verdict == "pass" and len(right.rows) == len(
        fingerprint.taps(fingerprint.cases[0])
    )
    wrong = checked(fingerprint, ported(fingerprint, "rope-scaling-missing"), tmp_path)
    assert wrong.verdict == "fail" and wrong.first[1] == "L00.q_rope"
    assert wrong.cause.id == "rope-scaling-missing"
