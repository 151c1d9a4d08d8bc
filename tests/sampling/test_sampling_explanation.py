"""Explanations: the steps that ran, what they removed, and the token that sample draws."""

import subprocess
import sys

import numpy as np
import pytest

from llama_ref.cli.demo_checkpoint import write_demo
from llama_ref.loading import load
from llama_ref.ops.softmax import softmax
from llama_ref.sampling import PROFILES, SamplingParams, explain, processed_logits, sample

LOGITS_V = np.sin(np.arange(300.0)) * 4
HISTORY = {"prompt_ids": [1, 2, 3], "output_ids": [8, 8, 14]}


def of(profile="vllm", **fields):
    return SamplingParams(**({"temperature": 0.7, "top_p": 0.9} | fields), profile=profile)


@pytest.mark.parametrize("profile", PROFILES)
def test_an_explanation_is_what_the_sampler_does(profile):
    """Its last probabilities are those of the processed logits, its token the sampler's."""
    params = of(profile)
    for step in range(20):
        found = explain(LOGITS_V, params, step=step, seed=5, **HISTORY)
        assert found.token_id == sample(LOGITS_V, params, step=step, seed=5, **HISTORY)
    logits_V = processed_logits(LOGITS_V, params, **HISTORY)
    np.testing.assert_array_equal(found.probs_V, softmax(logits_V))


def test_steps_follow_one_another():
    """Each step begins with the probabilities that the one before it left."""
    params = of(repetition_penalty=1.2, top_k=20, min_p=0.01, typical_p=0.9)
    found = explain(LOGITS_V, params, **HISTORY)
    assert [step.name for step in found.steps] == [
        *("repetition_penalty", "temperature", "min_p", "top_k", "top_p", "typical_p")
    ]
    probs_V = found.model_probs_V
    for step in found.steps:
        assert step.probs_before_V is probs_V
        gone = (step.probs_before_V > 0) & (step.probs_after_V == 0)
        assert set(np.flatnonzero(gone)) <= set(step.removed_ids.tolist())
        assert (np.diff(step.probs_before_V[step.removed_ids]) <= 0).all()
        probs_V = step.probs_after_V
    assert found.probs_V is probs_V
    assert found.token_id is None


def test_words():
    """The text names profile, steps, values, removed ids and the token drawn."""
    text = str(explain(np.log([0.5, 0.25, 0.125, 0.125]), of(top_k=2, top_p=1), seed=7))
    for words in ("profile vllm, 4 possible", "temperature 0.7", "top_k 2", "removes 2", ": 2, 3"):
        assert words in text
    assert "drawn with u = 0.8721: 1" in text
    assert "greedy: 0" in str(explain(np.array([2.0, 1.0]), SamplingParams(temperature=0)))
    assert "2 tokens to draw from" in str(explain(np.zeros(2), SamplingParams()))


def test_many_removed_ids_are_counted():
    """Of many removed ids the most probable are listed and the rest is counted."""
    text = str(explain(LOGITS_V, of(top_k=3, top_p=1)))
    assert "removes 297" in text
    assert "and 289 more" in text
    assert len(text) < 1000


def test_a_grammar_is_a_step():
    """What a grammar forbids is the first step, with the number of ids that it allows."""
    (step,) = explain(np.zeros(4), SamplingParams(), allowed_V=np.arange(4) > 1).steps
    assert (step.name, step.value, step.removed_ids.tolist()) == ("allowed_V", "2 ids", [0, 1])


def test_text_of_tokens(tmp_path):
    """With a tokenizer ids carry their text, escaped for HTML; ids beyond it stay numbers."""
    write_demo(tmp_path)
    tokenizer = load(tmp_path).tokenizer
    logits_V = np.zeros(tokenizer.vocab_size + 5)
    logits_V[[ord("<"), ord("a"), len(logits_V) - 1]] = [9, 8, 7]
    found = explain(logits_V, of(), tokenizer=tokenizer)
    assert "60 '<'" in str(found)
    page = found._repr_html_()
    assert "60 &#x27;&lt;&#x27;" in page
    assert f"<th>{len(logits_V) - 1}</th>" in page


def test_html_marks_the_removed_and_the_chosen():
    """The table has a column for each step, "–" where a token is gone, and the token underlined."""
    page = explain(np.array([1.0, 3.0, 2.0]), of(temperature=1, top_k=1), seed=1)._repr_html_()
    assert "<th>top_k 1</th>" in page
    assert "<th><u>1</u></th>" in page
    assert page.count("–") == 2 * 2  # two tokens, gone in top_k and in top_p after it


def test_the_chosen_token_is_always_shown():
    """A token that was not among the most probable is shown all the same."""
    params = SamplingParams(logit_bias={250: 100})
    found = explain(LOGITS_V, params, seed=0)
    assert found.token_id == 250
    assert found.shown_ids(5)[-1] == 250
    assert len(found.shown_ids(5)) == 5


def test_a_picture_for_each_step():
    """The figure has an axes for each step, and token text is not read as mathematics."""
    pytest.importorskip("matplotlib")
    found = explain(LOGITS_V, of(top_k=20, min_p=0.01, repetition_penalty=1.1), seed=1, **HISTORY)
    figure = found.plot(n=6)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == [
        *("repetition_penalty 1.1", "temperature 0.7", "min_p 0.01", "top_k 20", "top_p 0.9")
    ]
    heights = [bar.get_height() for bar in figure.axes[0].patches][:6]
    np.testing.assert_allclose(heights, found.model_probs_V[found.shown_ids(6)])


def test_an_explanation_of_nothing_can_be_shown():
    """Without any step there is still a text, a table and a figure."""
    found = explain(np.zeros(2), SamplingParams())
    assert found.steps == ()
    assert "<table>" in found._repr_html_()
    pytest.importorskip("matplotlib")
    assert found.plot() is not None


def test_matplotlib_is_loaded_by_plot_alone():
    """Explaining in words loads no matplotlib; where it is missing, plot says what to install."""
    code = (
        "import sys, numpy as np\n"
        "sys.modules['matplotlib'] = None\n"
        "from llama_ref.errors import Unsupported\n"
        "from llama_ref.sampling import SamplingParams, explain\n"
        "found = explain(np.zeros(3), SamplingParams(top_k=2))\n"
        "str(found), found._repr_html_()\n"
        "try: found.plot()\n"
        "except Unsupported as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "llama_ref[notebook]" in done.stdout
