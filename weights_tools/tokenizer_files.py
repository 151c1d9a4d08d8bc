"""The tokenizer of a checkpoint, on its way into another layout.

    folder -> folder    its files, byte for byte; beside them the form that the new layout reads
    folder -> GGUF      the vocabulary and the chat template, as entries
    GGUF   -> folder    tokenizer.model, or tokenizer.json; chat_template.jinja

A tokenizer that the new form cannot state is left out, and that is said. One that is damaged, or of
another size than the embedding, is refused, as on loading.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from llama_ref.checkpoint import Checkpoint
from llama_ref.checkpoint.gguf_header import is_gguf, read_gguf_header
from llama_ref.config import Config
from llama_ref.errors import Unsupported, printable
from llama_ref.files import list_folder, read_bytes
from llama_ref.loading import has_tokenizer
from llama_ref.strict_json import parse_json
from llama_ref.tokenizer import TOKENIZER_FILES, Llama3Tokenizer, Tokenizer, load_tokenizer
from llama_ref.tokenizer.tokenizer_json import MAX_FILE_BYTES
from weights_tools.tokenizer_forms import (
    CHAT_TEMPLATE,
    NO_VOCABULARY,
    gguf_entries,
    tokenizer_config,
    tokenizer_json,
    tokenizer_model,
)

MODEL, JSON = TOKENIZER_FILES
CONFIG, TEMPLATE = "tokenizer_config.json", "chat_template.jinja"
COPIED = (
    *(MODEL, JSON, CONFIG, TEMPLATE, "chat_template.json"),
    *("special_tokens_map.json", "added_tokens.json", "generation_config.json"),
)
"""What lies beside weights and says how text goes in and out."""


class Text(NamedTuple):
    """What goes with the weights.

    Attributes
    ----------
    copied : dict of str to bytes
        Files as they are, by name.
    made : dict of str to bytes
        Files of the new layout that the old one had in another form.
    entries : dict of str to value
        What a GGUF file says of text.
    left_out : str or None
        Why there is no tokenizer, or not in the form of the new layout.
    """

    copied: dict[str, bytes]
    made: dict[str, bytes]
    entries: dict[str, Any]
    left_out: str | None

    @property
    def files(self) -> dict[str, bytes]:
        """All files."""
        return self.copied | self.made

    def report(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        entries = [] if self.entries == NO_VOCABULARY else sorted(self.entries)
        made = [*self.made, *entries]
        return {"copied": list(self.copied), "made": made, "left_out": self.left_out}

    def line(self) -> str:
        """Return what was done, for people."""
        done = [f"copied {', '.join(self.copied)}"] if self.copied else []
        if self.made:
            done.append(f"made {', '.join(self.made)}")
        if self.entries != NO_VOCABULARY:
            template = " and chat template" if CHAT_TEMPLATE in self.entries else ""
            done.append(f"vocabulary{template} written into the file")
        if self.left_out:
            done.append(f"no tokenizer written: {printable(self.left_out)}")
        return f"text: {'; '.join(done)}"


def text_of(checkpoint: Checkpoint, config: Config, form: str) -> Text:
    """Return what of a checkpoint's text goes into another layout.

    Parameters
    ----------
    checkpoint : Checkpoint
    config : Config
    form : {"hf", "meta", "raw", "gguf"}

    Raises
    ------
    BadFile, LimitExceeded
        If a file of its tokenizer is damaged, too large, or no regular file.
    """
    path = checkpoint.path
    if not checkpoint.has_files:
        return Text({}, {}, NO_VOCABULARY, "these weights are a formula")
    copied: dict[str, bytes] = {}
    if not is_gguf(path):
        there = list_folder(path)
        found = [name for name in COPIED if name in there]
        copied = {name: read_bytes(path / name, limit=MAX_FILE_BYTES) for name in found}
    kept = {} if form == "gguf" else copied
    if not has_tokenizer(path):
        return Text(kept, {}, NO_VOCABULARY, "the source has none")
    if (MODEL if form == "meta" else JSON) in kept:
        return Text(kept, {}, NO_VOCABULARY, None)
    try:
        tokenizer = load_tokenizer(path, vocab_size=config.vocab_size, naming="hf")
        template = _template(path, copied)
        if form == "gguf":
            stated = {CHAT_TEMPLATE: template} if template else {}
            return Text({}, {}, gguf_entries(tokenizer) | stated, None)
        made = _files(tokenizer, config, form)
    except Unsupported as error:
        return Text(kept, {}, NO_VOCABULARY, str(error))
    if is_gguf(path) and template:
        made[TEMPLATE] = template.encode()
    missing = {name: data for name, data in made.items() if name not in kept}
    return Text(kept, missing, NO_VOCABULARY, None)


def _files(tokenizer: Tokenizer, config: Config, form: str) -> dict[str, bytes]:
    """Return the files by which programs of a layout read a tokenizer."""
    if form != "meta" and isinstance(tokenizer, Llama3Tokenizer):
        stated = tokenizer_config(tokenizer, config)
        return {JSON: tokenizer_json(tokenizer), CONFIG: stated}
    return {MODEL: tokenizer_model(tokenizer)}


def _template(path: Path, files: dict[str, bytes]) -> str | None:
    """Return the chat template: of a GGUF file, of a file of its own, or of the config."""
    if is_gguf(path):
        stated: Any = read_gguf_header(path).entries.get(CHAT_TEMPLATE)
    elif TEMPLATE in files:
        stated = files[TEMPLATE].decode("utf-8", "replace")
    else:
        config = parse_json(files.get(CONFIG, b"{}"), file=path / CONFIG)
        stated = config.get("chat_template") if isinstance(config, dict) else None
    if isinstance(stated, list):  # several, by name
        named = {one.get("name"): one.get("template") for one in stated if isinstance(one, dict)}
        stated = named.get("default")
    return stated if isinstance(stated, str) else None
