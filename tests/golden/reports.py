"""Reports as a check would give them, made up: for the tests of the page and for looking at it.

Run as a program it writes a page for each: `python -m tests.golden.reports FOLDER`.
"""

import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from llama_ref.golden.rendering import html_page
from llama_ref.golden.report import (
    FAIL,
    FAIL_AT,
    INHERITS,
    PASS,
    WARN,
    WARN_AT,
    LogitsSummary,
    Profile,
    Ratios,
    Report,
    Row,
    Suspect,
    Unmatched,
)
from llama_ref.golden.taps import kind_of
from llama_ref.trace import LAYER_TAPS, tap_names

WHY = {
    "prompt": "64 tokens in one call: the plain case",
    "far": "positions up to 131,071: frequencies of RoPE, their scaling, their precision",
    "decode": "a prompt, then eight tokens one by one through the cache",
    "chunks": "a prompt in three calls: the mask is offset by the cache",
    "one": "a single token: nothing to attend to but itself",
    "grouped": "another shape: one key head for eight query heads",
}
POSITIONS = [*range(24), *(2**k + i for k in range(5, 17) for i in (0, 1)), *(
    8191, 60000, 60001, 60002, 60003, 60004, 60005, 60006, 60007, 60008, 60009, 60010,
    60011, 60012, 100000, 131071)]  # fmt: skip
POSITIONS = sorted(set(POSITIONS))[:64]
SCALING_MISSING = Suspect(
    "rope-scaling-missing",
    "the frequencies of RoPE are not scaled",
    "The slow frequencies of RoPE are used as they are, where Llama 3.1 divides them by a factor. "
    "Such code often ignores rope_scaling in config.json, or knows only the types of other models.",
    0.93,
)
FACTOR_32 = Suspect(
    "rope-factor-32",
    "a scaling factor of 32 in place of the configured one",
    "The factor of Llama 3.2 is used for a model that has another. Look for a constant.",
    212.0,
)


def _ratios(rng, size=0.8, heads=True):
    around = size * (1 + 0.15 * rng.standard_normal(5))
    whole, token, head, channel, largest = np.abs(around).tolist()
    return Ratios(whole, token, head if heads else math.nan, channel, largest)


def _status(local, summed=None):
    if local.rho >= FAIL_AT:
        return FAIL
    if summed and summed.rho >= FAIL_AT:
        return INHERITS
    return WARN if local.rho >= WARN_AT else PASS


def rows(n_layers=4, cases=tuple(WHY), taps=None, seed=0, errors=None):
    """Return rows of clean noise, but for `errors`: (case, tap) -> (local rho, what follows)."""
    rng, errors, found = np.random.default_rng(seed), errors or {}, []
    for case in cases:
        inherited = 0.8
        for tap in tap_names(n_layers):
            if taps is not None and not taps(tap):
                continue
            own, follows = errors.get((case, tap), (0.75, 0.0))
            inherited = max(inherited, follows)
            axes = LAYER_TAPS.get(kind_of(tap), "T V" if tap == "logits" else "T D")
            local = _ratios(rng, own)
            summed = _ratios(rng, inherited * (1 + 0.1 * rng.standard_normal()))
            found.append(
                Row(case, tap, _status(local, summed), local, summed, "op", 2e-7 * own,
                    3e-7 * inherited, 2.4e-7, 4.1e-7, tuple(range(3, 3 + len(axes.split()))), axes)
            )  # fmt: skip
    return found


def logits(kl=2e-13, same=64):
    return [LogitsSummary(case, kl / 3, kl, 3e-13, 64, same, 61, min(same, 61)) for case in WHY]


def profile(case="far", tap="L00.q_rope", n_heads=8, n_channels=32):
    """Return an error that begins at far positions and sits in the slow channels."""
    rng = np.random.default_rng(3)
    growth = np.minimum(np.maximum(np.array(POSITIONS) / 160.0, 0.6), 800.0)
    noise = np.exp(0.3 * rng.standard_normal((len(POSITIONS), n_heads)))
    map_TN = growth[:, None] * noise
    slow = np.where(np.arange(n_channels) % (n_channels // 2) > n_channels // 4, 640.0, 0.7)
    by_channel = slow * np.exp(0.2 * rng.standard_normal(n_channels))
    return Profile(
        case, tap, map_TN.max(1).tolist(), POSITIONS, map_TN.max(0).tolist() if n_heads > 1 else [],
        by_channel.tolist(), map_TN.tolist(),
    )  # fmt: skip


def passing():
    return Report(
        PASS, "All that was dumped is right: every difference is what legal rounding gives.",
        "golden-tiny", "port/dump.safetensors", "float32", rows=rows(), logits=logits(), why=WHY,
        explanation="444 taps of 6 cases were compared; the largest error is 1.2 times the worst "
        "that legal rounding does.", seconds=6.21,
    )  # fmt: skip


def warned():
    odd = rows(errors={("prompt", "L02.act"): (2.4, 0.0)})
    return replace(
        passing(), verdict=WARN, rows=odd, headline="Nothing is wrong, one tap is near the gate.",
        notes=["L02.act of prompt is at 2.4: the gate for a failure is 3."],
    )  # fmt: skip


def certain():
    wrong = {("far", f"L{i:02d}.{kind}"): (812 - 40 * i, 95.0 + 20 * i) for i in range(4)
             for kind in ("q_rope", "k_rope")}  # fmt: skip
    small = {("decode", "L00.q_rope"): (4.1, 3.4)}
    return replace(
        passing(), verdict=FAIL, headline="L00.q_rope is the first tap that is wrong by itself.",
        first=("far", "L00.q_rope"), cause=SCALING_MISSING, confidence="certain",
        runner_up=FACTOR_32, rows=rows(errors={**wrong, **small}), profile=profile(),
        explanation="Everything up to L00.k is right; the queries are wrong once RoPE has turned "
        f"them, more so the farther they stand. {SCALING_MISSING.explanation}",
        logits=logits(4.2e-3, 57), unmatched=[
            Unmatched("rotary_emb.inv_freq", (16,), "no tap is called so"),
            Unmatched("far/L03.attn_weights_raw", (8, 64, 256), "padded to 256 keys, the case has "
                      "64, and two ways to cut it fit"),
        ],
        notes=["embed is bit for bit what it should be, so the dump itself can be trusted.",
               "The precision was taken to be float32, from the dtype of the dump."],
    )  # fmt: skip


def likely():
    other = replace(FACTOR_32, id="rope-scaling-linear", title="linear scaling", residual=1.1)
    return replace(certain(), confidence="likely", also=[other])


def without_cause():
    errors = {("prompt", "L02.ffn_norm"): (37.0, 21.0)}
    return replace(
        passing(), verdict=FAIL, headline="L02.ffn_norm is the first tap that is wrong by itself.",
        first=("prompt", "L02.ffn_norm"), rows=rows(errors=errors), runner_up=replace(
            SCALING_MISSING, id="norm-gains-swapped", title="gains swapped", residual=28.0),
        profile=profile("prompt", "L02.ffn_norm", n_heads=1, n_channels=256),
        explanation="None of 12 known mistakes of a norm brings the error back to noise.",
        precision="bfloat16", logits=logits(0.02, 60),
    )  # fmt: skip


def logits_only():
    errors = {(case, "logits"): (240.0, 240.0) for case in WHY}
    found = [replace(row, span="model", local=row.cumulative)
             for row in rows(taps=lambda tap: tap == "logits", errors=errors)]  # fmt: skip
    absent = [tap for tap in tap_names(4) if tap != "logits"]
    return replace(
        passing(), verdict=FAIL, headline="The logits are wrong; nothing else was dumped.",
        first=("prompt", "logits"), rows=found, logits=logits(0.9, 31),
        explanation="With the logits alone, a mistake can be seen and not located.",
        absent=dict.fromkeys(WHY, absent), runner_up=replace(FACTOR_32, residual=230.0),
        profile=replace(profile("prompt", "logits", 1, 1024)),
    )  # fmt: skip


def deep(n_layers=32):
    wrong = {("prompt", f"L{i:02d}.{kind}"): (64.0 + i, 6.0 + 3.0 * i) for i in range(7, n_layers)
             for kind in ("scores",)}  # fmt: skip
    return replace(
        certain(), headline="L07.scores is the first tap that is wrong by itself.",
        first=("prompt", "L07.scores"), rows=rows(n_layers, errors=wrong),
        profile=replace(profile("prompt", "L07.scores", 32, 128)),
        bundle="synthetic:llama-3.1-8b?seed=0",
    )  # fmt: skip


def fingerprint():
    def coarse(row):
        whole = Ratios(row.cumulative.whole)
        return replace(row, local=None, cumulative=whole, status=_status(whole), worst_index=())

    wrong = {("prompt", "L05.attn_out"): (1.0, 40.0)}
    found = [coarse(row) for row in rows(16, ("prompt", "far"), errors=wrong)]
    return replace(
        passing(), verdict=FAIL, headline="The first tap that departs from the truth is "
        "L05.attn_out.", first=("prompt", "L05.attn_out"), rows=found, logits=[],
        explanation="A fingerprint shows where an error enters; to name its cause, check against "
        "a full bundle.", bundle="stories260k.fingerprint",
    )  # fmt: skip


HOSTILE = "\"'><script>alert(1)</script>\x1b[31m\x00\u202e</title>\ud800&amp;\r\n"


def hostile():
    """Return a report in which everything foreign attacks, and numbers are not numbers."""
    bad = Ratios(math.nan, math.inf, -math.inf, math.nan, math.inf)
    first = Row(HOSTILE, "L00.q", FAIL, Ratios(math.inf), bad, HOSTILE, math.nan, math.inf,
                worst_index=(1, 2, 3), axes="T N H")  # fmt: skip
    second = Row(HOSTILE, "L00.k", FAIL, Ratios(math.nan), Ratios(math.nan))
    suspect = Suspect(HOSTILE, HOSTILE, HOSTILE, math.nan)
    return Report(
        verdict=FAIL, headline=HOSTILE, bundle=HOSTILE, candidate=HOSTILE, precision=HOSTILE,
        first=(HOSTILE, "L00.q"), cause=suspect, confidence=HOSTILE, runner_up=suspect,
        also=[suspect], explanation=HOSTILE, rows=[first, second],
        unmatched=[Unmatched(HOSTILE, (1, 2), HOSTILE)], absent={HOSTILE: [HOSTILE]},
        notes=[HOSTILE], profile=Profile(HOSTILE, "L00.q", [math.nan, math.inf], [0, 1],
        [math.inf, math.nan], [math.nan], [[math.nan, math.inf], [1.0, -math.inf]]),
        logits=[LogitsSummary(HOSTILE, math.nan, math.inf, 0.0, 2, 1, 0, 0)],
        why={HOSTILE: HOSTILE},
    )  # fmt: skip


ALL = {
    "passing": passing,
    "warned": warned,
    "certain": certain,
    "likely": likely,
    "without-cause": without_cause,
    "logits-only": logits_only,
    "deep": deep,
    "deep-126": lambda: deep(126),
    "fingerprint": fingerprint,
    "hostile": hostile,
}

if __name__ == "__main__":
    for name, make in ALL.items():
        page = Path(sys.argv[1]) / f"{name}.html"
        page.write_text(html_page(make()), encoding="utf-8")
