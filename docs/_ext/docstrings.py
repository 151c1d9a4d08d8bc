"""Docstrings as pages: indented diagrams stay diagrams, fields of named tuples are said once.

The docstrings of the package are written to be read in the source: a formula or a picture stands
indented below a sentence. To reStructuredText that is a quotation, whose lines it would join.
"""

import re

from sphinx.addnodes import pending_xref

WORDS = {"shape", "dtype"}  # of "ndarray of shape (T, D)": words there, attributes elsewhere
RULER = re.compile(r"-{3,}\s*$")


def show_diagrams(app, what, name, obj, options, lines):
    """Mark every indented block before the first section as literal."""
    end = next((i - 1 for i, line in enumerate(lines) if RULER.match(line)), len(lines))
    marked, in_block = [], False
    for i, line in enumerate(lines[:end]):
        starts = line.startswith("    ") and (i == 0 or not lines[i - 1].strip())
        if starts and not in_block:
            marked += [".. code-block:: text", ""]
        in_block = line.startswith("    ") or (in_block and not line.strip())
        marked.append(line)
    lines[:end] = marked


def skip_field_aliases(app, what, name, obj, skip, options):
    """Leave out what Python says of a named tuple's fields; the class has said it better."""
    return True if (getattr(obj, "__doc__", None) or "").startswith("Alias for field") else None


def keep_words(app, doctree):
    """Do not link the words in which a shape is described to somebody's attribute."""
    for reference in list(doctree.findall(pending_xref)):
        if reference["reftarget"] in WORDS:
            reference.replace_self(reference.children)


def setup(app):
    app.connect("autodoc-process-docstring", show_diagrams, priority=400)  # napoleon comes at 500
    app.connect("autodoc-skip-member", skip_field_aliases)
    app.connect("doctree-read", keep_words)
    return {"parallel_read_safe": True}
