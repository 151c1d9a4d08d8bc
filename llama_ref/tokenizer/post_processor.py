"""The post-processor of a tokenizer.json: which special tokens it would put around a text.

`Tokenizer.encode` adds them when asked to, so nothing is taken from here; but a template that
names a token which is not there, or gives it another id, shows a file put together wrongly.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from llama_ref.errors import BadFile, Unsupported, shown


def check_post_processor(
    found: Any, ids: Mapping[str, int], file: str | os.PathLike[str], *, inner: bool = False
) -> None:
    """Refuse a post-processor that contradicts the special tokens.

    Parameters
    ----------
    found : object
        The value of ``post_processor``.
    ids : mapping of str to int
        The special tokens and their ids.
    inner : bool
        Whether this is one of a sequence, which cannot hold another sequence.

    Raises
    ------
    BadFile
        If it names a special token that does not exist or has another id.
    Unsupported
        If it is of a kind that Llama 3's files do not have.
    """
    if found is None:
        return
    kind = found.get("type") if isinstance(found, dict) else None
    if kind == "Sequence" and isinstance(found.get("processors"), list) and not inner:
        for processor in found["processors"]:
            check_post_processor(processor, ids, file, inner=True)
    elif kind == "TemplateProcessing":
        _check_template(found, ids, file)
    elif kind != "ByteLevel":
        raise Unsupported(
            "post_processor",
            expected="ByteLevel, TemplateProcessing or a Sequence of them",
            found=shown(found),
            file=file,
        )


def _check_template(
    template: dict[str, Any], ids: Mapping[str, int], file: str | os.PathLike[str]
) -> None:
    """Compare every special token that a template names with its id."""
    stated = template.get("special_tokens")
    if not isinstance(stated, dict):
        raise BadFile(
            "post_processor.special_tokens", expected="an object", found=shown(stated), file=file
        )
    for name, entry in stated.items():
        good = {"id": name, "ids": [ids.get(name)], "tokens": [name]}
        if name not in ids or entry != good:
            raise BadFile(
                f"post_processor.special_tokens[{shown(name)}]",
                expected=f"id {ids[name]}" if name in ids else "a special token of this file",
                found=shown(entry),
                file=file,
            )
    for part in ("single", "pair"):
        steps = template.get(part)
        for name in map(_special_name, steps if isinstance(steps, list) else [steps]):
            if name is not None and name not in stated:
                raise BadFile(
                    f"post_processor.{part}",
                    expected=f"one of {shown(list(stated))}",
                    found=shown(name),
                    file=file,
                )


def _special_name(step: Any) -> str | None:
    """Return the special token that a step of a template adds; None for a sequence of text."""
    if step is None or (isinstance(step, dict) and "Sequence" in step):
        return None
    special = step.get("SpecialToken") if isinstance(step, dict) else None
    name = special.get("id") if isinstance(special, dict) else None
    return name if isinstance(name, str) else shown(step)
