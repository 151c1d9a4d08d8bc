"""Docstrings as pages: what is written to be read in the source, made to read well here too.

- A formula or a picture stands indented below a sentence. To reStructuredText that is a quotation,
  whose lines it would join.
- One line may describe two attributes, `bos_id, eos_id : int`, which napoleon takes for one.
- The text below a constant may have a colon in it, before which napoleon sees a type.
- Words such as "shape" in "ndarray of shape (T, D)" are no links.
"""

import re

from sphinx.addnodes import pending_xref

WORDS = {"shape", "dtype"}
RULER = re.compile(r"-{3,}\s*$")
SEVERAL_NAMES = re.compile(r"(\w+(?:, \w+)+) : (.*)")
BEFORE_NAPOLEON, AFTER_NAPOLEON = 400, 600


def prepare(app, what, name, obj, options, lines):
    """Rewrite a docstring before napoleon reads its sections; keep that of a constant as it is."""
    if what == "data":
        app.env.temp_data["constant"] = list(lines)
        return
    first_section = next((i - 1 for i, line in enumerate(lines) if RULER.match(line)), len(lines))
    lines[:first_section] = with_diagrams(lines[:first_section])
    if "Attributes" in lines:
        start = lines.index("Attributes") + 2
        lines[start:] = with_single_names(lines[start:])


def restore(app, what, name, obj, options, lines):
    """Undo what napoleon made of the text of a constant."""
    if what == "data":
        lines[:] = app.env.temp_data.pop("constant")


def with_diagrams(lines):
    """Mark every indented block as literal."""
    marked, in_block = [], False
    for i, line in enumerate(lines):
        starts = line.startswith("    ") and (i == 0 or not lines[i - 1].strip())
        if starts and not in_block:
            marked += [".. code-block:: text", ""]
        in_block = line.startswith("    ") or (in_block and not line.strip())
        marked.append(line)
    return marked


def with_single_names(lines):
    """Describe each of several attributes on its own: their text is repeated."""
    single, rest = [], list(lines)
    while rest:
        line = rest.pop(0)
        several = SEVERAL_NAMES.fullmatch(line)
        if not several:
            single.append(line)
            continue
        text = []
        while rest and rest[0].startswith(" "):
            text.append(rest.pop(0))
        for name in several[1].split(", "):
            single += [f"{name} : {several[2]}", *text]
    return single


def skip_field_aliases(app, what, name, obj, skip, options):
    """Leave out what Python says of a named tuple's fields; the class has said it better."""
    return True if (getattr(obj, "__doc__", None) or "").startswith("Alias for field") else None


def keep_words(app, doctree):
    """Do not link the words in which a shape is described to somebody's attribute."""
    for reference in list(doctree.findall(pending_xref)):
        if reference["reftarget"] in WORDS:
            reference.replace_self(reference.children)


def setup(app):
    app.connect("autodoc-process-docstring", prepare, priority=BEFORE_NAPOLEON)
    app.connect("autodoc-process-docstring", restore, priority=AFTER_NAPOLEON)
    app.connect("autodoc-skip-member", skip_field_aliases)
    app.connect("doctree-read", keep_words)
    return {"parallel_read_safe": True}
