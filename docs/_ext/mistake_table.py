"""The directive `mistakes`: the known porting mistakes of one op, a section for each.

    ```{mistakes} rope
    ```

Everything comes from llama_ref/golden/mistakes/rope.py. The section of a mistake has its id for an
anchor, so that reports can point at it, and pages with {ref}`rope-scaling-missing`.
"""

import re
from functools import cache
from importlib import import_module

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from llama_ref.config import preset
from llama_ref.golden.cases import cases_for, shapes
from llama_ref.golden.taps import INPUTS

PACKAGE = "llama_ref.golden.mistakes"


class Mistakes(SphinxDirective):
    required_arguments = 1

    def run(self):
        module = import_module(f"{PACKAGE}.{self.arguments[0]}")
        self.env.note_dependency(module.__file__)
        return [self.section(mistake) for mistake in module.MISTAKES]

    def section(self, mistake):
        """Return one mistake under its id."""
        domain = self.env.domains.standard_domain
        domain.note_hyperlink_target(mistake.id, self.env.docname, mistake.id, mistake.id)
        title = mistake.title[:1].upper() + mistake.title[1:]
        said = f"`{mistake.id}`. {mistake.what} {mistake.where}"
        return nodes.section(
            "",
            nodes.title(title, title),
            nodes.paragraph("", "", *with_code(said)),
            nodes.paragraph("", "", *with_code(" · ".join(seen(mistake)))),
            ids=[mistake.id],
            names=[mistake.id],
            classes=["mistake"],
        )


def seen(mistake):
    """Yield where a mistake shows, a phrase for each thing."""
    taps = ", ".join(f"`{kind}`" for kind in sorted(mistake.changes, key=list(INPUTS).index))
    yield f"Distorts {taps}"
    if mistake.is_noise:
        yield "a rounding: known by its size, not by its values"
    if made_for := cases_of(mistake.id):
        yield "cases made for it: " + ", ".join(f"`{name}`" for name in made_for)


@cache
def cases_of(mistake_id):
    """Return the names of the cases that are there to catch a mistake."""
    plain = [(case.name, case.catches) for case in cases_for(preset("golden-tiny"))]
    other = [(name, shape.catches) for name, shape in shapes().items()]
    return [name for name, catches in [*plain, *other] if mistake_id in catches]


def with_code(text):
    """Return text as nodes; what stands between backticks is code."""
    parts = re.split("`([^`]+)`", text)
    return [nodes.literal("", p) if i % 2 else nodes.Text(p) for i, p in enumerate(parts)]


def setup(app):
    app.add_directive("mistakes", Mistakes)
    return {"parallel_read_safe": True}
