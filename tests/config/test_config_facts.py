"""A blueprint in words: the figures people look for, safe to show anywhere."""

import dataclasses
import html.parser

from llama_ref.config.presets import PRESETS, preset

TINY = preset("golden-tiny")


def test_describe_tells_every_size_of_405b():
    """The description holds the figures of the model card, the cache and the arithmetic."""
    text = preset("llama-3.1-405b").describe()
    for figure in [
        *("405,853,388,800 parameters", "811.7 GB", "405.9 GB in FP8", "202.9 GB in INT4"),
        *("516,096 bytes per token", "63.0 GiB", "807.5 GFLOP per token", "8.3 MFLOP"),
    ]:
        assert figure in text


def test_describe_names_the_variant_with_doubled_heads():
    """405B with 16 key/value heads is recognised as the cut for 16 devices, and nothing else is."""
    doubled = dataclasses.replace(preset("llama-3.1-405b"), n_kv_heads=16)
    assert doubled.is_mp16
    assert "MP16" in doubled.describe()
    assert not any(config.is_mp16 for config in PRESETS.values())
    assert "MP16" not in preset("llama-3.1-405b").describe()


def test_describe_says_when_the_output_matrix_is_the_embedding():
    """A tied model says so; an untied one does not."""
    assert "tied" in preset("llama-3.2-1b").describe()
    assert "tied" not in preset("llama-3.1-8b").describe()


class TagLog(html.parser.HTMLParser):
    """Collects tags, and fails on one that closes another."""

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], set()

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.seen.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_a_notebook_shows_a_table_whose_foreign_text_is_escaped():
    """The HTML is one well-nested table, and a folder's name cannot add a tag to it."""
    config = dataclasses.replace(TINY, name='<script>alert(1)</script>&"x')
    page = config._repr_html_()
    log = TagLog()
    log.feed(page)
    assert log.open == []
    assert log.seen == {"table", "caption", "tbody", "tr", "th", "td"}
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&amp;" in page


def test_a_terminal_is_safe_from_a_folder_name():
    """Control characters of a name are shown, not sent to the terminal."""
    config = dataclasses.replace(TINY, name="red\x1b[31m\nline")
    assert config.describe().startswith("red\\x1b[31m\\nline: ")
